"""The forms of enums and literals."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Final

from fairactor._util.checks import shown
from fairactor.errors import ConfigurationError

from .form import INT, KIND_OF, STRING, Form, Misfit, expected
from .scalars import SCALARS, TEXTS

_SIMPLE: Final = frozenset({int, str})
_AS_IN_JSON: Final = (type(None), bool, int, str)


def enum_form(kind: type[enum.Enum]) -> Form:
    """Returns the form of an enum: its values if these are strings or integers, otherwise its names."""
    name = kind.__name__
    members = list(kind)
    by_value = issubclass(kind, enum.Flag) or {type(_plain(member.value)) for member in members} <= _SIMPLE

    def packed(member: Any) -> Any:
        return _plain(member.value) if by_value else member.name

    known = {packed(member): member for member in members}
    written = {member: packed(member) for member in members}

    def to_json(value: Any) -> Any:
        if not isinstance(value, kind):
            raise expected(name, value)
        found = written.get(value)
        return packed(value) if found is None else found  # flags can be combined

    def from_json(value: Any) -> enum.Enum:
        try:
            if type(value) in _SIMPLE and value in known:
                return known[value]
            if by_value and type(value) in _SIMPLE:
                return kind(value)  # of a flag, or of what `_missing_` knows
        except Exception as error:
            raise Misfit(f"expected {name}, got {shown(value)} ({error})") from error
        raise expected(name, value)

    if not members and not issubclass(kind, enum.Flag):
        raise ConfigurationError(f"{name} has no members")
    kinds = frozenset({INT if type(value) is int else STRING for value in known} or {INT})
    return Form(name, to_json, from_json, kinds, kind)


def _plain(value: Any) -> Any:
    """Returns the value of a member: an int or a string without its subclass, such as that of an IntEnum."""
    if isinstance(value, bool):
        return value
    for kind in (int, str):
        if isinstance(value, kind):
            return SCALARS[kind].to_json(value)
    return value


def literal_form(name: str, values: Sequence[Any]) -> Form:
    """Returns the form of a ``Literal``.

    Raises:
        ConfigurationError: two of its values have one form in JSON.
    """
    read: dict[tuple[type, Any], Any] = {}
    written: dict[tuple[type, Any], Any] = {}  # by type and value, because 1 == True
    for value in values:
        packed = enum_form(type(value)).to_json(value) if isinstance(value, enum.Enum) else _packed(value)
        if (type(packed), packed) in read:
            other = read[type(packed), packed]
            raise ConfigurationError(f"{shown(other)} and {shown(value)} are ambiguous: in JSON both are {packed!r}")
        read[type(packed), packed] = value
        written[type(value), value] = packed

    def to_json(value: Any) -> Any:
        for candidate in (value, _plain(value)):
            try:
                return written[type(candidate), candidate]
            except (KeyError, TypeError):
                continue
        raise expected(name, value)

    def from_json(value: Any) -> Any:
        try:
            return read[type(value), value]
        except (KeyError, TypeError):
            raise expected(name, value) from None

    kinds = frozenset(KIND_OF[kind] for kind, _ in read)
    transparent = all(type(value) in _AS_IN_JSON for value in values)
    return Form(name, to_json, from_json, kinds, None, transparent=transparent)


def _packed(value: Any) -> Any:
    return TEXTS[bytes].to_json(value) if isinstance(value, bytes) else value
