"""What plugins add to messages: options, and operators between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeVar

import attrs

from fairactor.errors import ConfigurationError

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
E = TypeVar("E", "Option[Any]", "Operator")


@attrs.frozen
class OptionValue:
    """An option of a plugin with its value: what calling an `Option` makes."""

    name: str
    value: Any


@attrs.frozen(eq=False)
class Option(Generic[T_contra]):
    """An option that a plugin adds. Once it is created, ``@actor`` and `Message.options` accept it.

    Call it with a value where options are given, so that type checkers know both:
    ``message.options(cc("ops@example.org"), delay=5)``. The keyword form, ``options(cc="ops@example.org")``, does the
    same at run time.

    Raises:
        ConfigurationError: another plugin has an option of that name.
    """

    name: str
    plugin: str
    """The name of the plugin."""
    convert: Callable[[T_contra], Any] = attrs.field(default=lambda value: value)
    """Turns the given value into JSON types, in which it travels. It raises ConfigurationError for a value that cannot
    work. It is never called with None, which means that the option was left out."""
    script: bool = False
    """Whether only the plugin's Lua reads it, in the hook ``sent``. Such an option does not reach the worker."""

    def __attrs_post_init__(self) -> None:
        _register(_known, self.name, self, f"option {self.name!r}: plugins")

    def __call__(self, value: T_contra) -> OptionValue:
        """The option with a value, for `Message.options`, ``@actor`` and `Runtime.send`."""
        return OptionValue(self.name, value)


@attrs.frozen(eq=False)
class Operator:
    """An operator between messages, ``>>``, ``<<`` or ``|``. Once it is created, messages have it.

    Raises:
        ConfigurationError: another plugin defines the same operator.
    """

    symbol: str
    plugin: str
    """The name of the plugin."""
    apply: Callable[[Any, Any], Any]
    """Combines the left and the right operand; returns `NotImplemented` for operands that it does not support."""

    def __attrs_post_init__(self) -> None:
        _register(_operators, self.symbol, self, f"{self.symbol} between messages:")


_known: Final[dict[str, Option[Any]]] = {}
_operators: Final[dict[str, Operator]] = {}


def _register(entries: dict[str, E], key: str, entry: E, about: str) -> None:
    """Adds an entry; the same plugin may replace its own.

    Raises:
        ConfigurationError: another plugin has added one under this key.
    """
    known = entries.get(key, entry)
    if known.plugin != entry.plugin:
        raise ConfigurationError(f"{about} {known.plugin!r} and {entry.plugin!r} both add it")
    entries[key] = entry


def apply_operator(symbol: str, left: Any, right: Any) -> Any:
    """Applies the operator that a plugin defines; `NotImplemented` if no installed plugin does."""
    if symbol not in _operators:
        _load_plugins()
    operator = _operators.get(symbol)
    return NotImplemented if operator is None else operator.apply(left, right)


def convert_options(given: dict[str, Any], core: Iterable[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Converts plugins' options to JSON types: those that travel with the task, and those for scripts, by plugin.

    Args:
        given: the options.
        core: the names of fairactor's own options, for the message.

    Raises:
        ConfigurationError: there is no such option, or its value cannot work.
    """
    travelling: dict[str, Any] = {}
    for_scripts: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        option = _find(name, core)
        if value is not None:
            target = for_scripts.setdefault(option.plugin, {}) if option.script else travelling
            target[name] = option.convert(value)
    return travelling, for_scripts


def plugin_of(option: str) -> str:
    """The name of the plugin that adds an option."""
    return _known[option].plugin


def option_names() -> frozenset[str]:
    """The names of all options that plugins have added so far."""
    return frozenset(_known)


def _find(name: str, core: Iterable[str]) -> Option[Any]:
    if name not in _known:
        _load_plugins()
    if name not in _known:
        import difflib

        names = sorted({*core, *_known})
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? There" if near else "there"
        raise ConfigurationError(f"there is no option {name!r}; {hint} are {', '.join(names)}")
    return _known[name]


def _load_plugins() -> None:
    """Imports all installed plugins, which registers what they add."""
    from .entry_points import factories  # plugins import this module

    factories()
