"""Reads type annotations: aliases, qualifiers, and the type parameters of generic classes."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Mapping
from types import SimpleNamespace, UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    NewType,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

UNIONS: Final = (Union, UnionType)
_QUALIFIERS: Final = ("Final", "Required", "NotRequired", "ReadOnly", "ClassVar")

_BUILT_IN: Final = frozenset({Any, object, None, type(None), int, float, bool, str, bytes})
_COLLECTIONS: Final = frozenset({list, dict, tuple, set, frozenset})


def is_of_builtins(hint: Any) -> bool:
    """Whether a type consists of built-in types alone, so values of it can certainly be sent."""
    try:
        if hint in _BUILT_IN or hint in _COLLECTIONS or hint is ...:
            return True
    except TypeError:  # metadata that cannot be hashed
        return False
    return get_origin(hint) in (*_COLLECTIONS, *UNIONS) and all(map(is_of_builtins, get_args(hint)))


def unwrapped(hint: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """Returns what an alias, a ``NewType``, a ``TypeVar``, or a type with metadata stands for, or the type itself."""
    origin = get_origin(hint)
    if origin is Annotated:
        return hint.__origin__
    if isinstance(hint, NewType):
        return hint.__supertype__
    if isinstance(hint, TypeVar):
        return _stands_for(hint)
    if type(hint).__name__ == "TypeAliasType":  # of typing, or of typing_extensions
        return _value_of(hint)
    if type(origin).__name__ == "TypeAliasType":
        return substituted(_value_of(origin), dict(zip(origin.__type_params__, get_args(hint), strict=False)))
    if hint is typing.LiteralString:
        return str
    return hint


def _value_of(alias: Any) -> Any:
    """Returns the type that an alias stands for; it may name types as strings."""
    stand_in = SimpleNamespace(__annotations__={"value": alias.__value__})
    return get_type_hints(stand_in, vars(sys.modules.get(alias.__module__, typing)), include_extras=True)["value"]


def without_qualifiers(hint: Any) -> Any:
    """Returns the type in ``Final[…]``, ``Required[…]`` and the like; anything else as it is."""
    while getattr(get_origin(hint), "_name", None) in _QUALIFIERS:
        (hint,) = get_args(hint)
    return Any if getattr(hint, "_name", None) == "Final" else hint


def fields_of(hint: Any) -> Mapping[str, Any]:
    """Returns the types of a class's fields by name, with the type parameters replaced.

    Raises:
        NameError: an annotation names what does not exist.
    """
    cls = get_origin(hint) or hint
    parameters = _parameters_of(hint)
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if not inspect.get_annotations(base):
            continue
        resolved = get_type_hints(base, include_extras=True)
        own = inspect.get_annotations(base)
        found |= {name: substituted(resolved[name], parameters.get(base, {})) for name in own if name in resolved}
    return found


def substituted(hint: Any, parameters: Mapping[Any, Any]) -> Any:
    """Replaces type parameters in a type."""
    if isinstance(hint, TypeVar):
        return parameters.get(hint, hint)
    inner = getattr(hint, "__parameters__", ())
    if not inner or inspect.isclass(hint):
        return hint
    return hint[tuple(parameters.get(each, _stands_for(each)) for each in inner)]


def _stands_for(parameter: Any) -> Any:
    """Returns the bound of a type parameter, its constraints, or ``Any``."""
    if getattr(parameter, "__constraints__", ()):
        return Union[parameter.__constraints__]  # noqa: UP007 - they are a tuple
    bound = getattr(parameter, "__bound__", None)
    return Any if bound is None else bound


def _parameters_of(hint: Any) -> dict[Any, dict[Any, Any]]:
    """Returns for a class and its generic base classes what their type parameters stand for."""
    cls = get_origin(hint) or hint
    given = get_args(hint)
    own = dict(zip(getattr(cls, "__parameters__", ()), given, strict=False)) if given else {}
    found = {cls: own}
    for base in getattr(cls, "__orig_bases__", ()):
        if get_origin(base) not in (None, Generic, Protocol):
            found |= _parameters_of(substituted(base, own))
    return found
