"""Reads configuration files: TOML, pyproject.toml and YAML, each with the lines of its keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Final

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError, InvalidConfig

from .document import Document
from .mistakes import Path, shown_path
from .toml_lines import toml_lines

NAMES: Final = ("fairactor.toml", "fairactor.yaml", "fairactor.yml", "pyproject.toml")
"""The files that are looked for in the current folder, in this order."""
VARIABLE: Final = "FAIRACTOR_CONFIG"
"""The environment variable that names the file."""
_YAML: Final = (".yaml", ".yml")
_LARGEST: Final = 16 << 20  # bytes


def find_file(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> FilePath | None:
    """Returns the configuration file: the given one, that of ``FAIRACTOR_CONFIG``, or one in the current folder.

    Raises:
        ConfigurationError: the path is none, or there is no such file.
    """
    if path is not None and not isinstance(path, str | os.PathLike):
        raise ConfigurationError(f"{shown(path)}: give the path of a configuration file, or None")
    given = path if path is not None else environ.get(VARIABLE) or None
    if given is not None:
        found = FilePath(given)
        if not found.is_file():
            source = "" if path is not None else f"{VARIABLE}: "
            raise ConfigurationError(f"{source}there is no file {shown(str(given))}")
        return found
    for name in NAMES:
        candidate = FilePath(name)
        if candidate.is_file() and (name != "pyproject.toml" or _has_section(candidate)):
            return candidate
    return None


def read_file(path: FilePath) -> Document:
    """Reads a configuration file. A pyproject.toml has it in the table ``tool.fairactor``.

    Raises:
        ConfigurationError: it cannot be read, is not valid TOML or YAML, or YAML is not installed.
    """
    text = _text(path)
    if path.suffix.lower() in _YAML:
        from .yaml_file import read_yaml

        return read_yaml(str(path), text)
    if path.suffix.lower() != ".toml":
        raise ConfigurationError(f"{shown(str(path))}: give a file that ends with .toml, .yaml or .yml")
    data = _parsed(str(path), text)
    if path.name != "pyproject.toml":
        return Document(str(path), data, toml_lines(text))
    found = data.get("tool", {}).get("fairactor", {}) if isinstance(data.get("tool", {}), Mapping) else {}
    prefix: Path = ("tool", "fairactor")
    if not isinstance(found, Mapping):
        raise InvalidConfig([f"{path}: {shown_path(prefix)} is {shown(found)}: make it a table"])
    return Document(str(path), found, toml_lines(text), prefix)


def _has_section(path: FilePath) -> bool:
    tool = _parsed(str(path), _text(path)).get("tool")
    return isinstance(tool, Mapping) and "fairactor" in tool


def _text(path: FilePath) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigurationError(
                f"{shown(str(path))} is larger than {_LARGEST >> 20} MiB, so it is no configuration"
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{shown(str(path))} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"{shown(str(path))} is not encoded as UTF-8") from None


def _parsed(name: str, text: str) -> Mapping[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidConfig([f"{name}: this is not TOML: {error}"]) from None
