"""Conversion of values between Python and JSON types, by the annotations of handlers.

cattrs converts between types, msgspec writes and reads JSON. Nothing is pickled, and nothing is imported by a name
found
in a payload. This module imports cattrs, which is slow to import: `codec` imports it when it converts its first value.
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

from fairactor._model.record import encode
from fairactor.errors import NotSerializable

Hook = Callable[[Any], Any]

converter: Final = make_converter(forbid_extra_keys=False)
"""The cattrs converter of all actors. Register hooks on it for types of your own."""
decode_json: Final = msgspec.json.decode

_AS_THEY_ARE: Final = frozenset({type(None), Any, inspect.Parameter.empty, object, dict, list})
_DEEPEST: Final = 100  # levels of a value that are searched for the part that cannot be encoded


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("JSON has no such number")
    return value


converter.register_unstructure_hook(float, _finite)
for _type in (uuid.UUID, decimal.Decimal, dt.timedelta, dt.time):  # msgspec knows them, cattrs does not
    converter.register_structure_hook(_type, lambda value, to: msgspec.convert(value, to, strict=False))


@attrs.frozen
class Slot:
    """How to convert the values of one parameter. A hook that is None leaves them as they are."""

    to_json: Hook | None
    from_json: Hook | None
    plain: type | None = None
    """A type that JSON has, too: values of exactly this type need no hook."""


UNTYPED: Final = Slot(converter.unstructure, None)


def slot_of(hint: Any) -> Slot:
    """How to convert values with this annotation."""
    if _untyped(hint):
        return UNTYPED
    from_json = converter.get_structure_hook(hint)
    if hint in (int, str, float, bool):
        to_json = converter.unstructure if hint is float else None  # nan and inf have no JSON form
        return Slot(to_json, lambda value: from_json(value, hint), plain=hint)
    return Slot(converter.get_unstructure_hook(hint), lambda value: from_json(value, hint))


def _untyped(hint: Any) -> bool:
    try:
        return hint in _AS_THEY_ARE
    except TypeError:  # not hashable
        return False


def encode_json(what: str, value: Any) -> bytes:
    """Encodes a value as JSON.

    Raises:
        NotSerializable: it has no JSON form; the message names ``what`` and the path to the value.
    """
    try:
        return encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, UnicodeEncodeError) as error:
        raise not_serializable(what, value, error) from None


def not_serializable(what: str, value: Any, error: Exception) -> NotSerializable:
    """The error for a value without a JSON form; it names ``what`` and the path to the part that has none."""
    path, culprit = _culprit(value)
    return NotSerializable(
        f"{what}{path} is a {type(culprit).__name__}, {culprit!r:.80}, which has no JSON form ({error}); annotate the "
        "handler with a type that cattrs knows, or register a hook on fairactor.serialization.converter"
    )


def _culprit(value: Any, depth: int = 0) -> tuple[str, Any]:
    """Finds the innermost part that cannot be encoded; returns its path and the part."""
    children: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        children = [(f"[{key!r}]", child) for key, child in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        children = [(f"[{index}]", child) for index, child in enumerate(value)]
    for step, child in children:
        try:
            encode(converter.unstructure(child))
        except Exception:  # noqa: BLE001 - whatever the error is, this part caused it
            if depth > _DEEPEST:
                break
            path, culprit = _culprit(child, depth + 1)
            return step + path, culprit
    return "", value


def describe_misfit(name: str, value: Any, error: Exception) -> str:
    """Says in one line why the value of that name does not fit its annotation."""
    if isinstance(error, BaseValidationError):
        return f"{name}: {'; '.join(transform_error(error))}"
    return f"{name}={value!r:.80}: {error}"
