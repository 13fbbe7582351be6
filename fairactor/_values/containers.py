"""The forms of lists, tuples, sets and dicts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import isfinite
from typing import Any, Final

from fairactor._model.record import decode_json, encode
from fairactor._util.checks import shown

from .form import (
    ARRAY,
    BOOL,
    FLOAT,
    INT,
    NO_KINDS,
    NULL,
    OBJECT,
    OF_JSON,
    STRING,
    Form,
    Hook,
    Misfit,
    converted,
    converted_pairs,
    expected,
)
from .scalars import SCALARS

_NO_SEQUENCES: Final = (str, bytes, bytearray, memoryview)
_STR: Final = frozenset({str})
_SEQUENCES: Final = frozenset({list, tuple})
_PAIR: Final = 2
_NUMBERS: Final = frozenset({NULL, BOOL, INT, FLOAT})


def is_sequence(value: Any) -> bool:
    """Whether a value can arrive as a list: a sequence, but no string."""
    return isinstance(value, Sequence) and not isinstance(value, _NO_SEQUENCES)


def is_unbounded(value: Any) -> bool:
    """Whether a value is a deque without a greatest length, which would be lost."""
    return isinstance(value, deque) and value.maxlen is None


def is_set(value: Any) -> bool:
    """Whether a value is a set of any kind."""
    return isinstance(value, AbstractSet)


def _is_a(kind: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def items_form(
    name: str, kind: Any, item: Form, make: Callable[[Iterable[Any]], Any], fits: Callable[[Any], bool] | None = None
) -> Form:
    """Returns the form of a list, a set, or another collection with items of one type.

    Args:
        name: the type, for messages.
        kind: the class of the values.
        item: the form of the items.
        make: makes a value of a list.
        fits: whether a value can be sent; by default the instances of the class.
    """
    fits = fits or _is_a(kind)
    can_be_sent, can_be_read = _sent_check(item), _check_of(item.read_as_is)
    in_set = make in (set, frozenset) and item.kind is object

    def to_json(value: Any) -> list[Any]:
        if (type(value) is not kind or kind is deque) and not fits(value):
            raise expected(name, value)
        if can_be_sent(value):
            return value if kind is list and type(value) is list else list(value)
        found = converted(value, item.to_json)
        if in_set and not _SEQUENCES.isdisjoint(map(type, found)):
            raise Misfit(f"expected {name}, got a tuple in it, which would arrive as a list; annotate the items")
        return found

    def from_json(value: Any) -> Any:
        if type(value) is not list:
            raise expected(name, value)
        if can_be_read(value):
            return value if make is list else make(value)
        found = converted(value, item.from_json)
        return found if make is list else make(found)

    read_as_is = frozenset({list}) if make is list and item.read_as_is >= OF_JSON else NO_KINDS
    transparent = kind is list and item.transparent
    return Form(
        name, to_json, from_json, frozenset({ARRAY}), kind, read_as_is=read_as_is, transparent=transparent,
        items=[item],
    )  # fmt: skip


def _check_of(kinds: frozenset[type], *, finite: bool = False) -> Callable[[Iterable[Any]], bool]:
    """Returns whether items need no conversion: a fast check of their classes, and of floats that they are finite."""
    if finite:
        return lambda values: kinds.issuperset(map(type, values)) and isfinite(sum(values))
    return lambda values: kinds.issuperset(map(type, values))


def _sent_check(item: Form) -> Callable[[Iterable[Any]], bool]:
    is_float = item is SCALARS[float]
    return _check_of(item.read_as_is if is_float else item.sent_as_is, finite=is_float)


def tuple_form(name: str, items: Sequence[Form]) -> Form:  # noqa: C901 - three functions
    """Returns the form of a tuple with a type for each item."""

    def check(value: Any) -> None:
        if len(value) != len(items):
            raise Misfit(f"expected {name} with {len(items)} items, got {len(value)}")

    def to_json(value: Any) -> list[Any]:
        if not isinstance(value, tuple):
            raise expected(name, value)
        check(value)
        found: list[Any] = []
        try:
            for item, child in zip(items, value, strict=True):
                found.append(child if type(child) in item.sent_as_is else item.to_json(child))
        except Misfit as misfit:
            raise misfit.at(f"[{len(found)}]") from None
        return found

    def from_json(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise expected(name, value)
        check(value)
        found: list[Any] = []
        try:
            for item, child in zip(items, value, strict=True):
                found.append(child if type(child) in item.read_as_is else item.from_json(child))
        except Misfit as misfit:
            raise misfit.at(f"[{len(found)}]") from None
        return tuple(found)

    return Form(name, to_json, from_json, frozenset({ARRAY}), tuple, items=items)


def mapping_form(  # noqa: C901 - two functions
    name: str, kind: Any, key: Form, item: Form, make: Callable[[Any], Any] | None, fits: Any = Mapping
) -> Form:
    """Returns the form of a dict. It travels as an object if its keys can be strings, otherwise as a list of pairs.

    Args:
        name: the type, for messages.
        kind: the class of the values.
        key: the form of the keys.
        item: the form of the values under them.
        make: makes a value of a dict; None: it is a dict.
        fits: the class whose instances can be sent.
    """
    write_key, read_key = _key_hooks(key)
    in_pairs = write_key is None
    key_to_json = write_key or key.to_json
    plain_keys = str in key.sent_as_is and not in_pairs
    can_be_sent, can_be_read = _sent_check(item), _check_of(item.read_as_is)

    def to_json(value: Any) -> Any:
        if type(value) is not kind and not isinstance(value, fits):
            raise expected(name, value)
        if plain_keys and _STR.issuperset(map(type, value)):
            if can_be_sent(value.values()):
                return value if type(value) is dict else dict(value)
            return _converted(value, item.to_json)
        keys, children = converted_pairs(value.items(), key_to_json, item.to_json)
        if in_pairs:
            return list(map(list, zip(keys, children, strict=True)))  # lists, as JSON will have them
        found = dict(zip(keys, children, strict=True))
        if len(found) < len(keys):
            raise Misfit("two of its keys become the same, so one would be lost")
        return found

    def from_json(value: Any) -> Any:
        found: dict[Any, Any]
        if type(value) is dict and plain_keys:
            found = value if can_be_read(value.values()) else _converted(value, item.from_json)
        elif type(value) is dict:
            found = dict(zip(*converted_pairs(value.items(), read_key, item.from_json), strict=True))
        elif in_pairs and type(value) is list and all(type(each) is list and len(each) == _PAIR for each in value):
            found = dict(zip(*converted_pairs(value, key.from_json, item.from_json), strict=True))
        else:
            raise expected(name, value)
        return found if make is None else make(found)

    is_dict = kind is dict and plain_keys
    read_as_is = frozenset({dict}) if is_dict and make is None and item.read_as_is >= OF_JSON else NO_KINDS
    return Form(
        name, to_json, from_json, frozenset({ARRAY if in_pairs else OBJECT}), kind, read_as_is=read_as_is,
        transparent=is_dict and item.transparent, items=[key, item],
    )  # fmt: skip


def _converted(value: Mapping[str, Any], hook: Hook) -> dict[str, Any]:
    """Applies a hook to the values of a mapping; a misfit gets the key as a step of the path."""
    found = {}
    key = ""
    try:
        for key, child in value.items():
            found[key] = hook(child)
    except Misfit as misfit:
        raise misfit.at(f"[{shown(key)}]") from None
    return found


def _key_hooks(key: Form) -> tuple[Hook | None, Hook]:
    """Returns how keys become strings, None if they do not, and how they come back."""
    if key.kinds == frozenset({STRING}):
        return key.to_json, key.from_json
    if key.kind is object:  # without an annotation they have to be strings
        return _untyped_key, _untyped_key
    if key.kinds <= _NUMBERS:
        return lambda value: encode(key.to_json(value)).decode(), lambda text: key.from_json(_number(text))
    return None, key.from_json


def _untyped_key(value: Any) -> str:
    if not isinstance(value, str):
        raise Misfit(
            f"expected str as JSON has it, got {type(value).__name__}; annotate the handler with the type of the keys"
        )
    return str.__str__(value)


def _number(text: Any) -> Any:
    try:
        return decode_json(text)
    except ValueError:
        raise expected("a number", text) from None
