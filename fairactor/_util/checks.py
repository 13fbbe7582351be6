"""Checks of values from users. Each returns the value, or raises an error that names it and says what to give."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from fairactor.errors import ConfigurationError

MAX_NAME: Final = 512
"""The longest name of a tenant and the longest task id, in bytes of UTF-8."""
DEFAULT_QUEUE: Final = "default"
"""The queue of tasks that name none."""
YEAR: Final = 365 * 86400.0
"""A year, in seconds."""
CENTURY: Final = 100 * YEAR
"""A hundred years, in seconds. A longer time is a mistake, and too large for the server's clock."""
_UNBOUNDED: Final = 2**53  # a message does not mention a larger bound
_SHOWN: Final = 100  # the most characters of a value in a message

_brief: Final = reprlib.Repr()
_brief.maxlevel = 4
_brief.maxlist = _brief.maxtuple = _brief.maxset = _brief.maxfrozenset = _brief.maxdict = _brief.maxdeque = 10
_brief.maxstring = _brief.maxlong = _brief.maxother = _SHOWN


def shown(value: object) -> str:
    """Returns the repr of a value for a message: never long, and never an error, whatever the value's class does."""
    if isinstance(value, int) and value.bit_length() > 4 * _SHOWN:  # Python refuses to write very long numbers
        return f"<a number of {value.bit_length()} bits>"
    try:
        text = _brief.repr(value[: 2 * _SHOWN] if isinstance(value, str | bytes) else value)
    except Exception:  # noqa: BLE001 - the value's own __repr__ may raise anything
        text = f"<{type(value).__name__}>"
    if not text.isprintable():  # of several lines, for example
        text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def plain_number(value: float) -> float:
    """Returns a number as a float; infinity if it is too large for one, and nan if it has no value."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # noqa: BLE001 - the number's own __float__ may raise anything
        return math.nan


def to_seconds(value: float | timedelta | None) -> float | None:
    """Converts a timedelta to seconds; leaves anything else as it is."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def check_seconds(setting: str, value: float, *, zero: bool = True, most: float = CENTURY) -> float:
    """Accepts a finite number of seconds from 0 to ``most``, or above 0 if ``zero`` is false.

    Raises:
        ConfigurationError: the value is something else.
    """
    bound = "0 or more" if zero else "more than 0"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{setting}={shown(value)}: give seconds as a number, {bound}")
    seconds = plain_number(value)
    if math.isinf(seconds) or not seconds >= 0 or (seconds == 0 and not zero):
        raise ConfigurationError(f"{setting}={shown(value)}: give a finite number of seconds, {bound}")
    if seconds > most:
        raise ConfigurationError(f"{setting}={shown(value)}: give a number of seconds, at most {most:.0f}")
    return abs(seconds)  # -0.0 is 0


def check_timeout(value: float | None) -> None:
    """Accepts None, or a finite number of seconds, 0 or more.

    Raises:
        ConfigurationError: the value is something else.
    """
    if value is not None:
        check_seconds("timeout", value)


def check_whole_number(
    setting: str, value: Any, least: int, most: float = math.inf, *, far: bool = False, hint: str = ""
) -> int:
    """Accepts an int from ``least`` to ``most``, but no bool.

    Args:
        setting: the name of the setting, for the message.
        value: the given value.
        least: the smallest allowed value.
        most: the largest allowed value.
        far: whether the message mentions ``most`` only if the value is larger.
        hint: other allowed values, for the message.

    Raises:
        ConfigurationError: the value is something else.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not least <= int.__index__(value) <= most:
        beyond = whole and int.__index__(value) > least
        bound = f", {least} or more" if most >= _UNBOUNDED or (far and not beyond) else f" from {least} to {most}"
        raise ConfigurationError(f"{setting}={shown(value)}: give a whole number{bound}{hint}")
    number: int = value
    return number


def check_bool(setting: str, value: bool) -> bool:  # noqa: FBT001 - it checks a value
    """Accepts True and False."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{setting} must be True or False, got {shown(value)}")
    return value


def check_one_of(setting: str, value: Any, allowed: Sequence[str]) -> str:
    """Accepts one of the strings in ``allowed``.

    Raises:
        ConfigurationError: the value is something else.
    """
    if not isinstance(value, str) or value not in allowed:
        raise ConfigurationError(f"{setting}={shown(value)}: give one of {', '.join(map(repr, allowed))}")
    return str(value)


def check_name(kind: str, value: str) -> str:
    """Accepts a name for a tenant or a task: any string of 1 to `MAX_NAME` bytes of UTF-8.

    Raises:
        ConfigurationError: the value is something else.
    """
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{kind} {shown(value)}: give a string that is not empty")
    try:
        length = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{kind} {shown(value)}: contains half a surrogate pair, which UTF-8 cannot encode"
        ) from None
    if length > MAX_NAME:
        raise ConfigurationError(f"{kind} {value[:40]!r}…: {length} bytes long, the limit is {MAX_NAME}")
    return value


def check_route_name(kind: str, value: str) -> str:
    """Accepts a name that is part of a route: that of an actor or a queue.

    Raises:
        ConfigurationError: the value is something else.
    """
    name = check_name(kind, value)
    if "\x1f" in name:
        raise ConfigurationError(f"{kind} {shown(name)}: contains the control character U+001F; leave it out")
    return name


def check_queues(given: Iterable[str] | None) -> tuple[str, ...] | None:
    """Accepts None, or names of queues, at least one; drops repeated ones.

    Raises:
        ConfigurationError: the value is something else, or a name is invalid.
    """
    if given is None:
        return None
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError(
            f"queues={shown(given)} is not a list of queues: give their names, as in queues=['gpu']"
        )
    names = tuple(dict.fromkeys(check_route_name("queue", name) for name in given))
    if not names:
        raise ConfigurationError(
            "queues= names no queue, so this runtime would run nothing: leave it out to serve all queues, or give "
            "workers=0 to run nothing"
        )
    return names


def check_tenants(given: Iterable[str]) -> tuple[str, ...]:
    """Accepts tenant names, and drops repeated ones.

    Raises:
        ConfigurationError: the value is something else, or a name is invalid.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{shown(given)} is not a list of tenants: give their names, as in assigned=['acme']")
    return tuple(dict.fromkeys(check_name("tenant", name) for name in given))


def check_tenants_or_all(given: Iterable[str] | bool) -> tuple[str, ...] | bool:  # noqa: FBT001 - as in Settings
    """Accepts a bool, or tenant names as `check_tenants` does."""
    return given if isinstance(given, bool) else check_tenants(given)


def check_aware(setting: str, value: Any) -> datetime:
    """Accepts a datetime with a time zone.

    Raises:
        ConfigurationError: the value is something else.
    """
    if not isinstance(value, datetime):
        raise ConfigurationError(f"{setting}={shown(value)}: give a datetime with a time zone")
    try:
        offset = value.utcoffset()
        value.timestamp()
    except Exception as error:  # noqa: BLE001 - the time zone's own code may raise anything
        offset, reason = None, f"its time zone fails: {shown(error)}"
    else:
        reason = "has no time zone"
    if offset is None:
        raise ConfigurationError(f"{setting}={shown(value)}: {reason}; give one, such as tzinfo=timezone.utc")
    return value


def validate(
    check: Callable[..., Any], *bounds: Any, **options: Any
) -> Callable[[Any, attrs.Attribute[Any], Any], Any]:
    """Makes an attrs validator of a check: it passes the field's name and value, then ``bounds`` and ``options``."""

    def validator(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        check(attribute.name, value, *bounds, **options)

    return validator
