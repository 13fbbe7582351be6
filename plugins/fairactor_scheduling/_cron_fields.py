"""The fields of a cron expression, read as cronie reads them, with the extensions of croniter and Jenkins.

Every list, range, step, name and ``H`` becomes plain values. croniter alone would misread some of them: to it, ``9-9``
is every hour, a range that wraps loses its step, and ``mon#2`` counts only on the days of the other day field.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from fairactor.errors import ConfigurationError
from fairactor.plugins import shown

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

_ALIASES: Final = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip

_FORM: Final = (
    "give minute, hour, day of the month, month and day of the week, as in '0 9 * * mon-fri'; a sixth field is for "
    "seconds, a seventh for years"
)
_FEWEST: Final = 5
_MOST: Final = 7


@attrs.frozen
class _Field:
    """One of the fields of an expression."""

    name: str
    low: int
    high: int
    """The highest value that may be written."""
    names: Mapping[str, int] = {}
    last: int = attrs.field(default=attrs.Factory(lambda self: self.high, takes_self=True))
    """The last value of ``*``. It differs for weekdays, in which 7 is Sunday again."""
    hashed: int = attrs.field(default=attrs.Factory(lambda self: self.last, takes_self=True))
    """The last value of a plain ``H``."""


_MINUTE: Final = _Field("minute", 0, 59)
_HOUR: Final = _Field("hour", 0, 23)
_DAY: Final = _Field("day of the month", 1, 31, hashed=28)  # as Jenkins does, so that no month is left out
_MONTH: Final = _Field("month", 1, 12, {name: at for at, name in enumerate(_MONTHS, 1)})
_WEEKDAY: Final = _Field("day of the week", 0, 7, {name: at for at, name in enumerate(_WEEKDAYS)}, last=6)
_SECOND: Final = _Field("second", 0, 59)
_YEAR: Final = _Field("year", 1970, 2099)

_WORD: Final = r"[0-9]+|[a-z]+"
_RANGE: Final = re.compile(rf"(?:(\*)|({_WORD})(?:-({_WORD}))?)(?:/([0-9]+))?")
_HASHED: Final = re.compile(r"h(?:\(([0-9]+)-([0-9]+)\))?(?:/([0-9]+))?")
_RANDOM: Final = re.compile(r"r(?:\(.*\))?(?:/.*)?|.*~.*")
_NEAREST: Final = re.compile(r"([0-9]+)w|w([0-9]+)")
_NTH: Final = re.compile(r"(.+)#(.*)")
_LAST_WEEKDAY: Final = re.compile(r"l([0-9]+)")
_LAST_OF_QUARTZ: Final = re.compile(r"l-[0-9]+|lw|wl|[0-9]l|l[a-z]+|[a-z]{3}l")
_DIGITS: Final = 9  # of the longest number that is read
_WEEK: Final = 7
_WEEKS: Final = 5  # the most in which a weekday comes in a month


@attrs.frozen
class Fields:
    """A cron expression with all its values."""

    minutes: frozenset[int]
    hours: frozenset[int]
    months: frozenset[int]
    days: frozenset[int]
    """Days of the month."""
    last_day: bool
    """Whether the last day of the month is one of them."""
    nearest: int | None
    """The weekday (Monday to Friday) nearest to this day of the month, in place of ``days``."""
    weekdays: frozenset[int]
    """0 is Sunday."""
    nth_weekdays: frozenset[tuple[int, int]]
    """(weekday, which of the month); 0 is the last."""
    both_days: bool
    """Whether a date must match both the day of the month and the weekday. Otherwise one of them is enough."""
    seconds: frozenset[int] | None
    """None: there is no such field, so the second is 0."""
    years: frozenset[int] | None
    any_hour: bool
    """Whether the hour field begins with ``*``."""


def parse(expression: str, hash_id: str) -> Fields:
    """Reads a cron expression.

    Args:
        expression: the expression.
        hash_id: determines the value of ``H``.

    Raises:
        ConfigurationError: it is invalid or ambiguous; the message names the field and the way out.
    """
    raw = _ALIASES.get(expression.lower(), expression.lower())
    if raw.startswith("@"):
        advice = "there are " + ", ".join(_ALIASES) + "; for an interval, give seconds or a timedelta"
        raise ConfigurationError(f"cron expression {shown(expression)}: {advice}")
    fields = re.findall(r"[^ \t\n\r\f\v]+", raw)
    if not _FEWEST <= len(fields) <= _MOST:
        raise ConfigurationError(f"cron expression {shown(expression)} has {len(fields)} fields: {_FORM}")
    readers = [
        _Reader(expression, field, text, hash_id)
        for field, text in zip((_MINUTE, _HOUR, _DAY, _MONTH, _WEEKDAY, _SECOND, _YEAR), fields, strict=False)
    ]
    minute, hour, day, month, weekday, *others = readers
    nearest = day.nearest()
    weekdays, nth_weekdays = weekday.weekdays()
    return Fields(
        minutes=minute.values(),
        hours=hour.values(),
        months=month.values(),
        days=frozenset() if nearest else day.values(),
        last_day=not nearest and day.has_last,
        nearest=nearest,
        weekdays=weekdays,
        nth_weekdays=nth_weekdays,
        both_days=day.begins_with_star or weekday.begins_with_star,
        seconds=others[0].values() if others else None,
        years=others[1].values() if others[1:] else None,
        any_hour=hour.begins_with_star,
    )


class _Reader:
    """Reads one field of an expression."""

    def __init__(self, expression: str, field: _Field, text: str, hash_id: str) -> None:
        if text == "?" and field in (_DAY, _WEEKDAY):
            text = "*"
        self._expression = expression
        self._field = field
        self._text = text
        self._parts = text.split(",")
        self._hash_id = hash_id
        self.begins_with_star = text.startswith("*")
        self.has_last = field is _DAY and "l" in self._parts

    def values(self) -> frozenset[int]:
        """Returns the values of all parts, except the last day of the month."""
        parts = [part for part in self._parts if not (self.has_last and part == "l")]
        return frozenset(value for part in parts for value in self._expand(part))

    def nearest(self) -> int | None:
        """Returns n if this is ``nw`` or ``wn``."""
        found = [_NEAREST.fullmatch(part) for part in self._parts]
        if not any(found):
            return None
        if len(found) > 1 or found[0] is None:
            raise self._error("'w' stands alone, as in '15w': add a schedule for each of these days")
        return self._number(found[0][1] or found[0][2])

    def weekdays(self) -> tuple[frozenset[int], frozenset[tuple[int, int]]]:
        """Returns the plain weekdays, and those of one week of the month: ``#`` and ``l5``."""
        plain: set[int] = set()
        nth: set[tuple[int, int]] = set()
        for part in self._parts:
            if last := _LAST_WEEKDAY.fullmatch(part):
                nth.add((self._number(last[1]) % _WEEK, 0))
            elif of_month := _NTH.fullmatch(part):
                nth.update((value, self._week(of_month[2])) for value in self._expand(of_month[1]))
            else:
                plain.update(self._expand(part))
        return frozenset(plain), frozenset(nth)

    def _expand(self, part: str) -> Iterator[int]:
        """Returns the values of one part of a list: a value, a range, ``*`` or ``H``, each of them with a step."""
        if _RANDOM.fullmatch(part):
            raise self._error(
                "each runtime would choose another value for R or '~'; use H, whose value derives from the tenant and "
                "the schedule's id, as in 'H' or 'H(0-29)'"
            )
        field = self._field
        hashed, matched = _HASHED.fullmatch(part), _RANGE.fullmatch(part)
        if hashed is not None:
            low, high, step = self._hashed(*hashed.groups())
        elif matched is not None:
            star, first, second, by = matched.groups()
            step = self._step(by)
            low = field.low if star else self._number(first)
            high = field.last if star or (by and second is None) else self._last_day_or_number(second or first)
            if high < low:
                high = self._wrapped(part, low, high)
        else:
            raise self._error(self._advice(part))
        cycle = field.last - field.low + 1
        return ((value - field.low) % cycle + field.low for value in range(low, high + 1, step))

    def _wrapped(self, part: str, low: int, high: int) -> int:
        """Returns the end of a range that goes on at the beginning of its field, as an end after that of the field."""
        if self._field is _YEAR:
            raise self._error(f"{part!r} runs backwards: write it as '{high}-{low}'")
        if low > self._field.last:  # 7-2 is 0-2
            return high + low
        return high + self._field.last - self._field.low + 1

    def _hashed(self, begin: str | None, end: str | None, by: str | None) -> tuple[int, int, int]:
        """Returns the first and the last value, and the step, of ``H``."""
        field = self._field
        if field is _YEAR:
            raise self._error("'H' would choose a year at random: give years, or leave the field out")
        low = field.low if begin is None else self._number(begin)
        high = (field.last if by else field.hashed) if end is None else self._number(end)
        if low > high:
            raise self._error(f"the range of 'H' runs backwards: write it as 'H({high}-{low})'")
        step = self._step(by)
        span = min(step, high - low + 1) if by else high - low + 1
        drawn = hashlib.sha256(f"{self._hash_id} {field.name}".encode()).digest()
        first = low + int.from_bytes(drawn[:8], "big") % span
        return first, high if by else first, step

    def _step(self, by: str | None) -> int:
        if by is None:
            return 1
        step = int(by[-_DIGITS:]) if len(by) <= _DIGITS else self._field.high
        if not step:
            raise self._error("the step after '/' must be at least 1")
        return step

    def _week(self, text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) == 1 and 1 <= int(text) <= _WEEKS:
            return int(text)
        raise self._error(f"after '#' stands the week of the month, 1 to {_WEEKS}; 'l5' is the last Friday")

    def _last_day_or_number(self, text: str) -> int:
        """Returns the value of the end of a range. In days of the month, ``l`` is the last one."""
        return self._field.high if text == "l" and self._field is _DAY else self._number(text)

    def _number(self, text: str) -> int:
        """Returns the value of a number or a name."""
        field = self._field
        value = field.names.get(text)
        if value is None and text.isdecimal() and len(text) <= _DIGITS:
            value = int(text)
        if value is None or not field.low <= value <= field.high:
            raise self._error(self._advice(text))
        return value

    def _advice(self, part: str) -> str:
        field = self._field
        names = f", or {next(iter(field.names))} to {list(field.names)[-1]}" if field.names else ""
        problem = "is out of range" if part.isascii() and part.isdecimal() else "is not acceptable"
        advice = f"{part!r} {problem}: give {field.low} to {field.high}{names}"
        if field in (_DAY, _WEEKDAY) and any(map(_LAST_OF_QUARTZ.fullmatch, self._parts)):
            advice += "; 'l' as a day of the month is the last one, 'l5' as a day of the week is the last Friday"
        elif "?" in part:
            advice += "; '?' stands alone, as a day of the month or of the week, and seconds come sixth"
        return advice

    def _error(self, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"cron expression {shown(self._expression)}: {self._field.name} {shown(self._text)}: {reason}"
        )
