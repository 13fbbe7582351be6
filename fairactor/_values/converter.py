"""The converter of cattrs, on which users register hooks for their own types."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

from cattrs.preconf.msgspec import MsgspecJsonConverter, configure_converter

Predicate = Callable[[Any], bool]


class _Converter(MsgspecJsonConverter):
    """A converter that knows for which types hooks were registered since it was configured."""

    def __init__(self) -> None:
        self._registered: list[Predicate] = []
        self.changed: Callable[[], None] = lambda: None
        """Called when a hook is registered."""
        super().__init__(forbid_extra_keys=False)
        configure_converter(self)
        self._registered.clear()

    def has_hook(self, hint: Any) -> bool:
        """Whether the user has registered a hook for a type."""
        return any(_holds(predicate, hint) for predicate in self._registered)

    def _note(self, predicate: Predicate) -> None:
        self._registered.append(predicate)
        self.changed()

    def register_structure_hook(self, cl: Any, func: Any = None) -> Any:
        if func is None:  # a decorator, which calls this again
            return super().register_structure_hook(cl)
        self._note(_is(cl))
        return super().register_structure_hook(cl, func)

    def register_structure_hook_func(self, check_func: Predicate, func: Any) -> None:
        self._note(check_func)
        super().register_structure_hook_func(check_func, func)

    def register_structure_hook_factory(self, predicate: Predicate, factory: Any = None) -> Any:
        self._note(predicate)
        return super().register_structure_hook_factory(predicate, factory)

    def register_unstructure_hook(self, cls: Any = None, func: Any = None) -> Any:
        if func is None:
            return super().register_unstructure_hook(cls)
        self._note(_is(cls))
        return super().register_unstructure_hook(cls, func)

    def register_unstructure_hook_func(self, check_func: Predicate, func: Any) -> None:
        self._note(check_func)
        super().register_unstructure_hook_func(check_func, func)

    def register_unstructure_hook_factory(self, predicate: Predicate, factory: Any = None) -> Any:
        self._note(predicate)
        return super().register_unstructure_hook_factory(predicate, factory)


def _is(given: Any) -> Predicate:
    """Returns what cattrs compares: a class fits its subclasses, too."""
    if inspect.isclass(given):
        return lambda hint: hint is given or (inspect.isclass(hint) and issubclass(hint, given))
    return lambda hint: bool(hint == given)


def _holds(predicate: Predicate, hint: Any) -> bool:
    try:
        return bool(predicate(hint))
    except Exception:  # noqa: BLE001 - cattrs ignores it, too: not every predicate knows all types
        return False


converter: Final = _Converter()
"""The cattrs converter of all actors. Register hooks on it for your own types; others have forms of our own."""
