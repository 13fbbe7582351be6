"""Finding plugins: those of installed packages, by the entry points ``fairactor.plugins``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from .errors import ConfigurationError

if TYPE_CHECKING:
    from .plugins import Plugin

GROUP: Final = "fairactor.plugins"


@cache
def factories() -> tuple[Callable[[], Any], ...]:
    """What makes the plugins that are installed, in the order of their names.

    Raises:
        ConfigurationError: one cannot be imported.
    """
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


def installed() -> list[Plugin]:
    """The plugins that are installed, made anew; what a `Runtime` uses that is not told otherwise.

    Raises:
        ConfigurationError: one cannot be imported.
    """
    return [make() for make in factories()]
