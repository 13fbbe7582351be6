"""Discovers installed plugins by the entry points in the group ``fairactor.plugins``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from fairactor.errors import ConfigurationError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "fairactor.plugins"


def factories(without: Collection[str] = ()) -> Mapping[str, Callable[[], Any]]:
    """Returns the classes or functions that make the installed plugins by entry point name, in the order of the names.

    Args:
        without: names of entry points not to import.

    Raises:
        ConfigurationError: a plugin cannot be imported.
    """
    return {entry.name: _load(entry) for entry in _entries() if entry.name not in without}


def installed_names() -> list[str]:
    """Returns the names of the entry points of the installed plugins."""
    return [entry.name for entry in _entries()]


@cache
def _entries() -> tuple[EntryPoint, ...]:
    from importlib.metadata import entry_points  # slow to import, and not every program needs it

    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: entry.name))


@cache
def _load(entry: EntryPoint) -> Callable[[], Any]:
    try:
        made: Callable[[], Any] = entry.load()
    except Exception as error:
        package = entry.dist.name if entry.dist else "an unknown package"
        raise ConfigurationError(
            f"plugin {entry.name!r} of {package} cannot be imported: {error!r}. Repair or uninstall it, or leave it "
            f"out: Runtime(without_plugins=[{entry.name!r}])"
        ) from error
    return made
