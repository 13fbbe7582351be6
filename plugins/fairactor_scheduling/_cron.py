"""Cron expressions: the times at which the clock on the wall shows what they say."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from threading import Lock
from typing import Any, Final

from fairactor.errors import ConfigurationError
from fairactor.plugins import shown

from ._cron_fields import Fields, parse

_BEFORE: Final = datetime(1969, 12, 31, 23, 59, 59)  # noqa: DTZ001 - what a clock on the wall shows has no time zone
_YEARS: Final = 130
"""From the first to the last year that an expression can name."""


class CronExpression:
    """A cron expression. Its times have no time zone: they are what a clock on the wall shows.

    croniter searches for them. It gets plain values only, and an expression for each way in which a date can match.

    Args:
        text: 5 fields, a sixth for seconds, a seventh for years, or ``@daily`` and the like.
        hash_id: determines the value of ``H``, so that schedules which need no specific time are spread out.

    Raises:
        ConfigurationError: it is invalid.
    """

    def __init__(self, text: str, hash_id: str) -> None:
        from croniter import CroniterBadDateError, croniter  # type: ignore[import-untyped]  # it has no types, and is slow to import

        fields = parse(text, hash_id)
        self.any_hour: Final = fields.any_hour
        self._no_more: type[Exception] = CroniterBadDateError
        self._lock = Lock()
        self._searches: list[Any] = [
            croniter(plain, _BEFORE, ret_type=datetime, day_or=False, max_years_between_matches=_YEARS)
            for plain in _plain_expressions(fields)
        ]

    def after(self, wall: datetime) -> datetime | None:
        """Returns the first time after the given one; None if there is none within 130 years."""
        with self._lock:  # runtimes in several threads share it
            found = [self._next(search, wall) for search in self._searches]
        return min((time for time in found if time is not None), default=None)

    def _next(self, search: Any, wall: datetime) -> datetime | None:
        try:
            found: datetime = search.get_next(datetime, start_time=wall)
        except self._no_more:
            return None
        return found


def check_cron(expression: str) -> None:
    """Accepts a cron expression.

    Raises:
        ConfigurationError: it is invalid, or no date matches it.
    """
    if CronExpression(expression, "").after(_BEFORE) is None:
        _, _, day, month, weekday, *others = expression.split()
        year = f", year {others[1]!r}" if others[1:] else ""
        raise ConfigurationError(
            f"cron expression {shown(expression)} would never run: there is no date with day of the month {day!r}, "
            f"month {month!r}{year} and day of the week {weekday!r}; change one of them"
        )


def _plain_expressions(fields: Fields) -> Iterator[str]:
    """Returns expressions with plain values, of which one must match: a date matches in one way or another."""
    days = [_listed(fields.days, 31)] if fields.days else []
    if fields.last_day:
        days = ["*"] if days == ["*"] else [",".join([*days, "l"])]
    if fields.nearest:
        days.append(f"{fields.nearest}w")
    weekdays = [_listed(fields.weekdays, 7)] if fields.weekdays else []
    if fields.nth_weekdays:
        weekdays.append(",".join(f"{day}#{n}" if n else f"l{day}" for day, n in sorted(fields.nth_weekdays)))
    if fields.both_days:
        dates = [(day, weekday) for day in days for weekday in weekdays]
    else:
        dates = [*((day, "*") for day in days), *(("*", weekday) for weekday in weekdays)]
    minutes, hours, months = _listed(fields.minutes, 60), _listed(fields.hours, 24), _listed(fields.months, 12)
    rest = "" if fields.seconds is None else f" {_listed(fields.seconds, 60)}"
    rest += "" if fields.years is None else f" {_listed(fields.years, _YEARS)}"
    for day, weekday in dates:
        yield f"{minutes} {hours} {day} {months} {weekday}{rest}"


def _listed(values: Collection[int], most: int) -> str:
    """Returns values as a list, short because croniter reads long ones slowly; ``*`` if there are all."""
    if len(values) == most:
        return "*"
    spans: list[tuple[int, int]] = []
    for value in sorted(values):
        if spans and spans[-1][1] == value - 1:
            spans[-1] = spans[-1][0], value
        else:
            spans.append((value, value))
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in spans)
