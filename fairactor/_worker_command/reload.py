"""Watches the code of a module, for ``--reload``."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from .application import place, split


def is_installed() -> bool:
    """Whether files can be watched."""
    try:
        return importlib.util.find_spec("watchfiles") is not None
    except ValueError:  # it is there as None
        return False


def folders(targets: Iterable[str]) -> list[Path]:
    """Returns the folders of the packages or files that the targets name."""
    return list(dict.fromkeys(_folder(*place(split(target)[0])) for target in targets))


def _folder(folder: Path, dotted: str) -> Path:
    top = dotted.partition(".")[0]
    if (folder / top).is_dir():
        return folder / top
    if (folder / f"{top}.py").is_file():
        return folder
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.find_spec(top)  # imports nothing, because it has no parent
    except (ImportError, ValueError):
        spec = None
    finally:
        sys.path.remove(str(folder))
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else folder


async def changes(targets: Iterable[str]) -> AsyncIterator[list[Path]]:
    """Yields the Python files that have changed, as they change."""
    import watchfiles

    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # the supervisor says what has changed
    async for changed in watchfiles.awatch(*folders(targets), watch_filter=watchfiles.PythonFilter()):
        yield sorted(Path(path) for _, path in changed)
