"""Finds the tenants of the demo and the files that are their tasks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

import attrs

_SNIFFED: Final = 1024  # bytes to read to tell text files from others


class NoSources(Exception):
    """No files were found. The message says where it looked."""


@attrs.frozen
class Source:
    """A tenant and its files."""

    tenant: str
    files: tuple[str, ...]
    left_out: int = 0
    """How many more files it has, which are not read."""


def find_sources(folder: Path | None = None, *, limit: int = 0) -> list[Source]:
    """Returns the tenants, sorted by their number of files, the largest first.

    Args:
        folder: the folder whose subfolders are the tenants. None makes the installed distributions the tenants.
        limit: the most files per tenant; 0 for all.

    Raises:
        NoSources: the folder cannot be read, or no files were found.
    """
    found = _installed() if folder is None else _in_folder(folder)
    sources = [_source(tenant, files, limit) for tenant, files in found]
    sources = [source for source in sources if source.files]
    if not sources:
        where = "the installed distributions have" if folder is None else f"the subfolders of {folder} have"
        raise NoSources(f"{where} no source files")
    return sorted(sources, key=lambda source: (-len(source.files), source.tenant))


def _source(tenant: str, files: Iterable[str], limit: int) -> Source:
    """Makes a tenant. Its name is escaped to be valid UTF-8, and files whose names are not are left out."""
    everything = list(files)
    named = sorted(file for file in everything if _is_text(file))
    kept = named[: limit or None]
    name = tenant.encode(errors="backslashreplace").decode()
    return Source(name, tuple(kept), len(everything) - len(kept))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _installed() -> Iterator[tuple[str, list[str]]]:
    """Yields the installed distributions with their source files. Of duplicates it takes the one that Python finds."""
    seen: set[str] = set()
    taken: set[str] = set()
    for distribution in distributions():
        name = distribution.metadata["Name"]
        if name and name.lower() not in seen:
            seen.add(name.lower())
            files = [file for file in _files_of(distribution) if file not in taken]
            taken.update(files)
            yield name, files


def _files_of(distribution: Distribution) -> list[str]:
    listed = {str(distribution.locate_file(file)) for file in distribution.files or () if file.suffix == ".py"}
    return [file for file in listed if Path(file).is_file()]


def _in_folder(folder: Path) -> list[tuple[str, list[str]]]:
    """Returns the subfolders with their Python files, or with their text files if no subfolder has Python files."""
    try:
        tenants = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise NoSources(f"--path {folder}: {error.strerror or error}") from error
    found = [(tenant.name, [str(file) for file in _walk(tenant)]) for tenant in tenants]
    python = [(name, [file for file in files if file.endswith(".py")]) for name, files in found]
    if any(files for _, files in python):
        return python
    return [(name, [file for file in files if _holds_text(file)]) for name, files in found]


def _walk(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            file = Path(path, name)
            if not name.startswith(".") and file.is_file():
                yield file


def _holds_text(file: str) -> bool:
    try:
        with Path(file).open("rb") as opened:
            return b"\0" not in opened.read(_SNIFFED)
    except OSError:
        return False
