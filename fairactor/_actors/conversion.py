"""Converts arguments and results to JSON and back, by the annotations of handlers.

The forms of `fairactor._values` check and convert, msgspec writes and reads JSON. Nothing is pickled, and nothing is
imported by a name that a payload contains. This module imports cattrs, which is slow to import, so `codec` imports it
when it converts its first value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fairactor._model import record
from fairactor._model.record import DEEPEST, encode, too_deep
from fairactor._util.checks import shown
from fairactor._values.agreement import check_many, tag_for
from fairactor._values.converter import converter
from fairactor._values.form import Form, Misfit
from fairactor._values.forms import form_of, to_json_by_class
from fairactor._values.untyped import UNTYPED
from fairactor.errors import InvalidPayload, NotSerializable

__all__ = [
    "UNTYPED",
    "Form",
    "Misfit",
    "check_encodable",
    "check_many",
    "converter",
    "decode_json",
    "encode_json",
    "encode_plain",
    "form_of",
    "not_serializable",
    "tag_for",
    "value_from_json",
    "value_to_json",
]

decode_json: Final = record.decode_json
_DEEPEST: Final = 100  # levels of a value to search for the part that cannot be encoded


def encode_json(what: str, value: Any) -> bytes:
    """Encodes a value of JSON types as JSON.

    Raises:
        NotSerializable: it has another type, or cannot be encoded; the message has ``what`` and the path to the value.
    """
    try:
        plain = UNTYPED.to_json(value)
    except (Misfit, RecursionError) as error:
        raise not_serializable(what.rstrip(), value, error) from None
    return encode_plain(what.rstrip(), plain)


def encode_plain(what: str, value: Any) -> bytes:
    """Encodes what a form has converted.

    Raises:
        NotSerializable: it has a string or a number that JSON cannot hold, or too many levels.
    """
    try:
        encoded = encode(value)
    except Exception as error:  # noqa: BLE001 - a hook may return anything
        raise not_serializable(what, value, error) from None
    if too_deep(encoded):
        raise _too_deep(what)
    return encoded


def check_encodable(name: str, arguments: Mapping[str, Any]) -> None:
    """Checks that the converted arguments of an actor can be encoded, each by itself; raises as `encode_plain`."""
    for argument, value in arguments.items():
        encode_plain(f"{name}(): {argument}", value)


def value_to_json(what: str, value: Any) -> bytes:
    """Converts a value to JSON by its own class, and encodes it; raises as `encode_json`."""
    try:
        plain = to_json_by_class(value)
    except Exception as error:  # noqa: BLE001 - a hook may raise anything
        raise not_serializable(what.rstrip(), value, error) from None
    return encode_plain(what.rstrip(), plain)


def value_from_json(what: str, encoded: bytes | str, annotation: Any) -> Any:
    """Decodes JSON, and converts it to a type.

    Raises:
        ConfigurationError: the type cannot be converted from JSON.
        InvalidPayload: the value does not fit the type, or cannot be decoded; the message begins with ``what``.
    """
    form = form_of(annotation)
    value = decode_json(encoded.encode() if isinstance(encoded, str) else encoded)
    try:
        return form.from_json(value)
    except Misfit as misfit:
        raise InvalidPayload(f"{what}{misfit.path}: {misfit.reason}") from misfit


def not_serializable(what: str, value: Any, error: Exception) -> NotSerializable:
    """Returns the error for a value that cannot be sent. It names ``what`` and the path to the part that is wrong."""
    if isinstance(error, RecursionError):
        return _too_deep(what)
    if isinstance(error, Misfit):
        return NotSerializable(f"{what}{error.path}: {error.reason}")
    path, culprit = _culprit(value)
    return NotSerializable(
        f"{what}{path}: {shown(culprit)} is a {type(culprit).__name__} that has no JSON form ({error})"
    )


def _too_deep(what: str) -> NotSerializable:
    return NotSerializable(
        f"{what}: more than {DEEPEST} levels of lists and objects in each other, or a value that contains itself; it "
        "could not be read back, so flatten it"
    )


def _culprit(value: Any, depth: int = 0) -> tuple[str, Any]:
    """Finds the innermost part that cannot be encoded; returns its path and the part."""
    children: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        children = [(f"[{shown(key)}]", child) for key, child in value.items()]
    elif isinstance(value, list | tuple):
        children = [(f"[{index}]", child) for index, child in enumerate(value)]
    for step, child in children:
        try:
            encode(child)
        except Exception:  # noqa: BLE001 - any error means that this part caused it
            if depth > _DEEPEST:
                break
            path, culprit = _culprit(child, depth + 1)
            return step + path, culprit
    return "", value
