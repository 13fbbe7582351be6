"""Discovers installed plugins by the entry points in the group ``fairactor.plugins``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from fairactor.errors import ConfigurationError

GROUP: Final = "fairactor.plugins"


@cache
def factories() -> tuple[Callable[[], Any], ...]:
    """Returns the classes or functions that make the installed plugins, ordered by entry point name.

    Raises:
        ConfigurationError: a plugin cannot be imported.
    """
    from importlib.metadata import entry_points  # slow to import, and not every program needs it

    found = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            found.append(entry.load())
        except Exception as error:
            package = entry.dist.name if entry.dist else "an unknown package"
            raise ConfigurationError(
                f"plugin {entry.name!r} of {package} cannot be imported: {error!r}. Repair or uninstall it, or say "
                "which plugins to use: Runtime(plugins=[…])"
            ) from error
    return tuple(found)
