"""The form of values without an annotation: what JSON has. Anything else would arrive as another type."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from fairactor._model.placeholder import Placeholder
from fairactor._util.checks import shown

from .form import ANY_KIND, OF_JSON, Form, Misfit, converted, expected
from .scalars import SCALARS, from_numpy

_AS_IS: Final = frozenset({type(None), bool, int, str})  # floats may be nan
_STR: Final = frozenset({str})
_to_float: Final = SCALARS[float].to_json


def check_untyped(value: Any) -> Any:
    """Returns a value of JSON types; subclasses of these become the types themselves, and tuples lists.

    Raises:
        Misfit: it has another type.
    """
    kind = type(value)
    if kind in _AS_IS:
        return value
    if kind is float:
        return value if isfinite(value) else _to_float(value)
    if kind is dict:
        if _AS_IS.issuperset(map(type, value.values())) and _STR.issuperset(map(type, value)):
            return value
        return _check_mapping(value)
    if kind is list or kind is tuple:
        return value if _AS_IS.issuperset(map(type, value)) else _check_sequence(value)
    return _check_other(value)


def _check_mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    found = {}
    for key, child in value.items():
        if type(key) is str and (type(child) in _AS_IS or (type(child) is float and isfinite(child))):
            found[key] = child
            continue
        if not isinstance(key, str):
            raise Misfit(
                f"the key {shown(key)} is a {type(key).__name__}, which JSON does not have as a key; {_ADVICE}"
            )
        try:
            found[key if type(key) is str else str.__str__(key)] = check_untyped(child)
        except Misfit as misfit:
            raise misfit.at(f"[{shown(key)}]") from None
    return found


def _check_sequence(value: list[Any] | tuple[Any, ...]) -> list[Any]:
    return converted(value, check_untyped)


_ADVICE: Final = "annotate the handler with a type, so that it arrives as what it is"


def _check_other(value: Any) -> Any:
    for kind in (str, int, float):
        if isinstance(value, kind):
            return SCALARS[kind].to_json(value)
    if isinstance(value, Mapping):
        return _check_mapping(value)
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return _check_sequence(value)
    plain = from_numpy(value)
    if plain is not value:
        return check_untyped(plain)
    if isinstance(value, Placeholder):
        raise expected("", value)
    raise Misfit(f"{shown(value)} is a {type(value).__name__}, which JSON does not have; {_ADVICE}")


UNTYPED: Final = Form("Any", check_untyped, lambda value: value, ANY_KIND, object, _AS_IS, OF_JSON, transparent=True)
