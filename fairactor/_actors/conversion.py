"""Converts values between Python and JSON types, by the annotations of handlers.

cattrs converts between types, msgspec writes and reads JSON. Nothing is pickled, and nothing is imported by a name that
a payload contains. This module imports cattrs, which is slow to import, so `codec` imports it when it converts its
first value.
"""

from __future__ import annotations

import datetime as dt
import decimal
import inspect
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import msgspec
from cattrs.errors import BaseValidationError
from cattrs.preconf.msgspec import make_converter
from cattrs.v import transform_error

from fairactor._model import record
from fairactor._model.record import DEEPEST, encode, too_deep
from fairactor._util.checks import shown
from fairactor.errors import NotSerializable

Hook = Callable[[Any], Any]

converter: Final = make_converter(forbid_extra_keys=False)
"""The cattrs converter of all actors. Register hooks on it for your own types."""
decode_json: Final = record.decode_json

_UNCONVERTED: Final = frozenset({type(None), Any, inspect.Parameter.empty, object, dict, list})
_DEEPEST: Final = 100  # levels of a value to search for the part that cannot be encoded


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("JSON has no such number")
    return value


converter.register_unstructure_hook(float, _finite)
for _type in (uuid.UUID, decimal.Decimal, dt.timedelta, dt.time):  # msgspec knows them, cattrs does not
    converter.register_structure_hook(_type, lambda value, to: msgspec.convert(value, to, strict=False))


@attrs.frozen
class Conversion:
    """How to convert the values of one parameter. A hook that is None leaves them unchanged."""

    to_json: Hook | None
    from_json: Hook | None
    plain: type | None = None
    """A type that JSON has too. Values of exactly this type need no hook."""


UNTYPED: Final = Conversion(converter.unstructure, None)


def conversion_for(hint: Any) -> Conversion:
    """Returns how to convert values with this annotation."""
    if _untyped(hint):
        return UNTYPED
    from_json = converter.get_structure_hook(hint)
    if hint in (int, str, float, bool):
        to_json = converter.unstructure if hint is float else None  # nan and inf have no JSON form
        return Conversion(to_json, lambda value: from_json(value, hint), plain=hint)
    return Conversion(converter.get_unstructure_hook(hint), lambda value: from_json(value, hint))


def _untyped(hint: Any) -> bool:
    try:
        return hint in _UNCONVERTED
    except TypeError:  # not hashable
        return False


def encode_json(what: str, value: Any) -> bytes:
    """Encodes a value as JSON.

    Raises:
        NotSerializable: it cannot be encoded; the message names ``what`` and the path to the value.
    """
    try:
        encoded = encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise not_serializable(what, value, error) from None
    if too_deep(encoded):
        raise _too_deep(what)
    return encoded


def value_to_json(what: str, value: Any) -> bytes:
    """Converts a value to JSON types and encodes it; raises as `encode_json`."""
    try:
        plain = converter.unstructure(value)
    except Exception as error:  # noqa: BLE001 - a hook may raise anything
        raise not_serializable(what, value, error) from None
    return encode_json(what, plain)


def not_serializable(what: str, value: Any, error: Exception) -> NotSerializable:
    """Returns the error for a value that has no JSON form. It names ``what`` and the path to the part without one."""
    if isinstance(error, RecursionError):
        return _too_deep(what)
    path, culprit = _culprit(value)
    return NotSerializable(
        f"{what}{path} is a {type(culprit).__name__}, {shown(culprit)}, which has no JSON form ({error}); annotate the "
        "handler with a type that cattrs knows, or register a hook on fairactor.serialization.converter"
    )


def _too_deep(what: str) -> NotSerializable:
    return NotSerializable(
        f"{what.rstrip()} has more than {DEEPEST} levels of lists and objects in each other, or contains itself, so it "
        "could not be read back; flatten it"
    )


def _culprit(value: Any, depth: int = 0) -> tuple[str, Any]:
    """Finds the innermost part that cannot be encoded; returns its path and the part."""
    children: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        children = [(f"[{shown(key)}]", child) for key, child in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        children = [(f"[{index}]", child) for index, child in enumerate(value)]
    for step, child in children:
        try:
            encode(converter.unstructure(child))
        except Exception:  # noqa: BLE001 - any error means that this part caused it
            if depth > _DEEPEST:
                break
            path, culprit = _culprit(child, depth + 1)
            return step + path, culprit
    return "", value


def describe_misfit(name: str, value: Any, error: Exception) -> str:
    """Describes in one line why the value of a parameter does not fit its annotation."""
    if isinstance(error, BaseValidationError):
        return f"{name}: {'; '.join(transform_error(error))}"
    return f"{name}={shown(value)}: {error}"
