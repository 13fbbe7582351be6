"""The options that plugins add to messages, and the operators that they define between messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

import attrs

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
E = TypeVar("E", "Option[Any]", "Operator")


@attrs.frozen
class OptionValue:
    """An option of a plugin with a value. Calling an `Option` makes one."""

    name: str
    value: Any


@attrs.frozen(eq=False)
class Option(Generic[T_contra]):
    """An option that a plugin adds. Once it is created, ``@actor`` and `Message.options` accept it.

    Call it with a value where options are given, so that type checkers know both:
    ``message.options(cc("ops@example.org"), delay=5)``. The keyword form, ``options(cc="ops@example.org")``, does the
    same at run time.

    Raises:
        ConfigurationError: another plugin has an option with this name.
    """

    name: str
    plugin: str
    """The name of the plugin."""
    convert: Callable[[T_contra], Any] = attrs.field(default=lambda value: value)
    """Converts the given value to JSON types, in which it travels. If the value is invalid, it raises
    ConfigurationError. It is never called with None, which means that the option is not given."""
    script: bool = False
    """Whether only the plugin's Lua reads it, in the hook ``sent``. Such an option does not reach the worker."""
    names_tasks: bool = False
    """Whether its converted value is a list of ids of other tasks. A message that names tasks can be sent only once."""

    def __attrs_post_init__(self) -> None:
        _register(_known, self.name, self, f"option {self.name!r}: plugins")

    def __call__(self, value: T_contra) -> OptionValue:
        """Returns the option with a value, for `Message.options`, ``@actor`` and `Runtime.send`."""
        return OptionValue(self.name, value)


@attrs.frozen(eq=False)
class Operator:
    """An operator between messages: ``>>``, ``<<`` or ``|``. Once it is created, messages support it.

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
    """Adds an entry. A plugin may replace its own entries.

    Raises:
        ConfigurationError: another plugin has added an entry under this key.
    """
    known = entries.get(key, entry)
    if known.plugin != entry.plugin:
        raise ConfigurationError(f"{about} {known.plugin!r} and {entry.plugin!r} both add it")
    entries[key] = entry


def apply_operator(symbol: str, left: Any, right: Any) -> Any:
    """Applies the operator that a plugin defines; returns `NotImplemented` if no installed plugin defines it."""
    if symbol not in _operators:
        _load_plugins()
    operator = _operators.get(symbol)
    return NotImplemented if operator is None else operator.apply(left, right)


def convert_options(given: dict[str, Any], core: Iterable[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Converts options of plugins to JSON types.

    Args:
        given: the options.
        core: the names of fairactor's own options, for the error message.

    Returns:
        The options that travel with the task, and those for scripts, by plugin.

    Raises:
        ConfigurationError: an option is unknown or invalid.
    """
    travelling: dict[str, Any] = {}
    script_options: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        option = _find(name, core)
        if value is not None:
            target = script_options.setdefault(option.plugin, {}) if option.script else travelling
            target[name] = option.convert(value)
    return travelling, script_options


def plugin_of(option: str) -> str:
    """Returns the name of the plugin that adds an option."""
    return _known[option].plugin


def tasks_named_by(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Returns the ids of other tasks that the options of a message name, each with the option."""
    for name, value in options.items():
        if _known[name].names_tasks:
            yield from ((name, task_id) for task_id in value)


def tasks_in(travelled: Mapping[str, Any], most: int) -> tuple[str, ...]:
    """Returns the ids of other tasks that the options of a stored task name, at most so many."""
    found: list[str] = []
    for name, value in travelled.items():
        option = _known.get(name)
        if option is not None and option.names_tasks and isinstance(value, list):
            found += [task_id for task_id in value[: most - len(found)] if isinstance(task_id, str)]
    return tuple(found)


def option_names() -> frozenset[str]:
    """Returns the names of all options that plugins have added so far."""
    return frozenset(_known)


def _find(name: str, core: Iterable[str]) -> Option[Any]:
    if name not in _known:
        _load_plugins()
    if name not in _known:
        import difflib

        names = sorted({*core, *_known})
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? The" if near else "the"
        raise ConfigurationError(f"there is no option {shown(name)}; {hint} options are {', '.join(names)}")
    return _known[name]


def _load_plugins() -> None:
    """Imports all installed plugins, which registers their options and operators."""
    from .entry_points import factories  # plugins import this module

    factories()
