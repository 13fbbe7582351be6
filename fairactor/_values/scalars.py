"""The forms of numbers, strings, dates and other single values."""

from __future__ import annotations

import binascii
import datetime as dt
import decimal
import sys
import uuid
from collections.abc import Callable
from math import isfinite, nan
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from fairactor._util.checks import shown

from .form import BOOL, FLOAT, INT, NO_KINDS, NULL, STRING, Form, Misfit, expected

_NUMPY_SCALARS: Final = "biufU"  # booleans, numbers and strings; not times, whose nanoseconds would be lost


def from_numpy(value: Any) -> Any:
    """Returns the Python value of a scalar of numpy; anything else as it is."""
    numpy = sys.modules.get("numpy")  # no value is one of numpy's unless it is loaded
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in _NUMPY_SCALARS:
        return value.item()
    return value


def _int(value: Any) -> int:
    if isinstance(value, int):
        return int.__int__(value)  # a plain int, whatever a subclass does
    plain = from_numpy(value)
    if isinstance(plain, int):
        return int(plain)
    raise expected("int", value)


def _float(value: Any) -> float:
    if type(value) is float and isfinite(value):
        return value
    plain = from_numpy(value)
    if isinstance(plain, float):
        found = float.__float__(plain)
    elif isinstance(plain, int):
        found = _widened(int.__int__(plain))
    else:
        raise expected("float", value)
    if not isfinite(found):
        raise Misfit(f"expected a finite float, got {found}, which JSON does not have; send None, or a Decimal")
    return found


def _widened(value: int) -> float:
    try:
        found = float(value)
    except OverflowError:
        found = nan
    if found != value:
        raise Misfit(f"expected float, got int {shown(value)}, which no float equals")
    return found


def _bool(value: Any) -> bool:
    plain = from_numpy(value)
    if plain is True or plain is False:
        return bool(plain)
    raise expected("bool", value)


def _str(value: Any) -> str:
    if isinstance(value, str):
        return str.__str__(value)  # a plain string, whatever a subclass does
    raise expected("str", value)


def _none(value: Any) -> None:
    if value is not None:
        raise expected("None", value)


def _from_int(value: Any) -> int:
    if isinstance(value, int):  # a bool, from senders of an earlier version
        return int(value)
    raise expected("int", value)


def _from_float(value: Any) -> float:
    if isinstance(value, float):
        return value
    if isinstance(value, int):
        return _widened(value)
    raise expected("float", value)


def _scalar(kind: Any, name: str, to_json: Callable[[Any], Any], from_json: Callable[[Any], Any], of: str) -> Form:
    as_is = frozenset({kind})
    sent_as_is = NO_KINDS if kind is float else as_is  # a float may be nan
    return Form(name, to_json, from_json, frozenset({of}), kind, sent_as_is, as_is, transparent=True)


SCALARS: Final[dict[Any, Form]] = {
    int: _scalar(int, "int", _int, _from_int, INT),
    float: _scalar(float, "float", _float, _from_float, FLOAT),
    bool: _scalar(bool, "bool", _bool, _bool, BOOL),
    str: _scalar(str, "str", _str, _str, STRING),
    type(None): _scalar(type(None), "None", _none, _none, NULL),
}
"""The forms of the types that JSON has, too."""


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, dt.datetime) and one.tzinfo:  # Python says of moments in a repeated hour that they differ
        return bool(one.timestamp() == other.timestamp())
    return bool(one == other)


def text_form(kind: Any, dump: Callable[[Any], str], load: Callable[[str], Any], without: tuple[Any, ...] = ()) -> Form:
    """Returns the form of values that travel as text.

    Args:
        kind: their class. Instances of subclasses fit if they equal what comes back.
        dump: writes a value as text.
        load: reads it.
        without: subclasses whose instances do not fit.
    """
    name = kind.__name__

    def to_json(value: Any) -> str:
        exact = type(value) is kind
        if not exact and (not isinstance(value, kind) or isinstance(value, without)):
            raise expected(name, value)
        try:
            text = dump(value)
            same = exact or _is_same(load(text), value)
        except Exception as error:
            raise Misfit(f"{name} {shown(value)} cannot be written: {error}") from error
        if not same:
            raise Misfit(f"expected {name}, got {type(value).__name__} {shown(value)}, which has more than a {name}")
        return text

    def from_json(value: Any) -> Any:
        if type(value) is not str:
            raise expected(name, value)
        try:
            return load(value)
        except Exception as error:
            raise Misfit(f"expected {name}, got {shown(value)} ({error})") from error

    return Form(name, to_json, from_json, frozenset({STRING}), kind)


def _write_datetime(value: dt.datetime) -> str:
    """Writes it as RFC 9557 does: with the name of its zone, if it has one."""
    return dt.datetime.isoformat(value) + _zone_of(value)


def _write_time(value: dt.time) -> str:
    zone = _zone_of(value)
    if not zone and value.tzinfo is not None and value.utcoffset() is None:
        raise ValueError(f"its time zone {shown(value.tzinfo)} has no fixed offset")
    return dt.time.isoformat(value) + zone


def _zone_of(value: dt.datetime | dt.time) -> str:
    zone = value.tzinfo
    return f"[{zone.key}]" if isinstance(zone, ZoneInfo) and zone.key else ""


def _read_time(text: str) -> dt.time:
    text, _, zone = text.removesuffix("]").partition("[")
    found = dt.time.fromisoformat(text)
    return found.replace(tzinfo=ZoneInfo(zone)) if zone else found


def _read_datetime(text: str) -> dt.datetime:
    text, _, zone = text.removesuffix("]").partition("[")
    if "T" not in text:
        raise ValueError("it has no time")
    moment = dt.datetime.fromisoformat(text)
    if not zone:
        return moment
    local = moment.replace(tzinfo=ZoneInfo(zone))
    for fold in (0, 1):
        if local.replace(fold=fold).utcoffset() == moment.utcoffset():
            return local.replace(fold=fold)
    return moment.astimezone(ZoneInfo(zone))  # the zone's rules have changed since it was sent


def _write_bytes(value: bytes | bytearray) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


def _read_bytes(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True) if text else b""


def _read_timedelta(text: str) -> dt.timedelta:
    return msgspec.convert(text, dt.timedelta)


_PATHS: Final = (Path, type(Path()), PurePath, PurePosixPath, PureWindowsPath)
TEXTS: Final[dict[Any, Form]] = {
    dt.datetime: text_form(dt.datetime, _write_datetime, _read_datetime),
    dt.date: text_form(dt.date, dt.date.isoformat, dt.date.fromisoformat, without=(dt.datetime,)),
    dt.time: text_form(dt.time, _write_time, _read_time),
    dt.timedelta: text_form(dt.timedelta, msgspec.to_builtins, _read_timedelta),
    decimal.Decimal: text_form(decimal.Decimal, str, decimal.Decimal),
    uuid.UUID: text_form(uuid.UUID, str, uuid.UUID),
    bytes: text_form(bytes, _write_bytes, _read_bytes),
    bytearray: text_form(bytearray, _write_bytes, lambda text: bytearray(_read_bytes(text))),
    **{kind: text_form(kind, str, kind) for kind in _PATHS},
}
"""The forms of the types that travel as text."""


def subclass_form(kind: Any, base: Form) -> Form:
    """Returns the form of a subclass of a scalar type, such as ``class UserId(str)``, or of a numpy type."""
    name = kind.__name__

    def to_json(value: Any) -> Any:
        if not isinstance(value, kind):
            raise expected(name, value)
        return base.to_json(value)

    def from_json(value: Any) -> Any:
        plain = base.from_json(value)
        try:
            return kind(plain)
        except Exception as error:
            raise Misfit(f"expected {name}, got {shown(value)} ({error})") from error

    return Form(name, to_json, from_json, base.kinds, kind)


def scalar_base(kind: type) -> Form | None:
    """Returns the form of the scalar type that a class derives from, if it does."""
    for base in (bool, int, float, str, bytes):
        if issubclass(kind, base) and kind is not base:
            return (SCALARS | TEXTS)[base]
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.generic):
        for of_numpy, base in ((numpy.bool_, bool), (numpy.integer, int), (numpy.floating, float)):
            if issubclass(kind, of_numpy):
                return SCALARS[base]
    return None
