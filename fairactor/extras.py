"""What plugins add to messages: options, and operators between them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import attrs

from .errors import ConfigurationError

E = TypeVar("E", "Option", "Operator")


@attrs.frozen(eq=False)
class Option:
    """An option of a plugin. From when it is made, ``@actor`` and `Message.options` know it.

    Raises:
        ConfigurationError: another plugin has an option of that name.
    """

    name: str
    plugin: str
    """The name of the plugin."""
    convert: Callable[[Any], Any] = attrs.field(default=lambda value: value)
    """Makes what travels, in JSON, of what was given; raises ConfigurationError where that cannot work. None, which is
    the option left out, does not come to it."""
    script: bool = False
    """Whether it is for the Lua of the plugin that the send runs, its hook ``sent``, and travels no further."""

    def __attrs_post_init__(self) -> None:
        _enter(_known, self.name, self, f"option {self.name!r}: plugins")


@attrs.frozen(eq=False)
class Operator:
    """An operator between messages, ``>>``, ``<<`` or ``|``. From when it is made, messages have it.

    Raises:
        ConfigurationError: another plugin has made something else of it.
    """

    symbol: str
    plugin: str
    """The name of the plugin."""
    apply: Callable[[Any, Any], Any]
    """What it makes of what stands at its left and at its right; `NotImplemented` where it can make nothing of that."""

    def __attrs_post_init__(self) -> None:
        _enter(_operators, self.symbol, self, f"{self.symbol} between messages:")


_known: Final[dict[str, Option]] = {}
_operators: Final[dict[str, Operator]] = {}


def _enter(entries: dict[str, E], key: str, entry: E, about: str) -> None:
    """Enters what a plugin adds; the same plugin may do so again.

    Raises:
        ConfigurationError: another one has.
    """
    known = entries.get(key, entry)
    if known.plugin != entry.plugin:
        raise ConfigurationError(f"{about} {known.plugin!r} and {entry.plugin!r} both add it")
    entries[key] = entry


def operate(symbol: str, left: Any, right: Any) -> Any:
    """What a plugin makes of an operator; `NotImplemented` where there is none that has it."""
    if symbol not in _operators:
        _load_all()
    operator = _operators.get(symbol)
    return NotImplemented if operator is None else operator.apply(left, right)


def convert(given: dict[str, Any], core: Iterable[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Plugins' options as they travel, and those for scripts, by plugin.

    Args:
        given: the options.
        core: the names of those that are no plugin's, for the message.

    Raises:
        ConfigurationError: there is no such option, or its value cannot work.
    """
    travelling: dict[str, Any] = {}
    for_scripts: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        option = _option(name, core)
        if value is not None:
            place = for_scripts.setdefault(option.plugin, {}) if option.script else travelling
            place[name] = option.convert(value)
    return travelling, for_scripts


def plugin_of(option: str) -> str:
    """The name of the plugin that has an option."""
    return _known[option].plugin


def _option(name: str, core: Iterable[str]) -> Option:
    if name not in _known:
        _load_all()
    if name not in _known:
        names = sorted({*core, *_known})
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? There" if near else "there"
        raise ConfigurationError(f"there is no option {name!r}; {hint} are {', '.join(names)}")
    return _known[name]


def _load_all() -> None:
    """Imports all plugins that are installed, so that what they add is known."""
    from .discovery import factories  # plugins import this module

    factories()
