"""A cron daemon that looks at the clock on the wall every minute: what `Cron` is held against.

It expands nothing. For each minute it asks of each field whether its text allows what the clock shows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from functools import lru_cache
from zoneinfo import ZoneInfo

MINUTE = dt.timedelta(minutes=1)
DAY = dt.timedelta(days=1)
NAMES = {
    name: number
    for names, first in (("jan feb mar apr may jun jul aug sep oct nov dec", 1), ("sun mon tue wed thu fri sat", 0))
    for number, name in enumerate(names.split(), first)
}


@lru_cache(maxsize=100_000)
def allows(text: str, shown: int, low: int, high: int) -> bool:
    """Whether a list allows a value of a field whose values go from ``low`` to ``high``."""
    return any(_part_allows(part, shown, low, high) for part in text.split(","))


def _part_allows(part: str, shown: int, low: int, high: int) -> bool:
    span, _, by = part.partition("/")
    first, dash, last = span.partition("-")
    if first == "*":
        return (shown - low) % int(by or 1) == 0
    begin = NAMES.get(first, int(first) if first.isdecimal() else -1)
    end = NAMES.get(last, int(last) if last.isdecimal() else -1) if dash else high if by else begin
    around = high - low + 1
    if end < begin:
        end += around
    return any(begin <= at <= end and (at - begin) % int(by or 1) == 0 for at in (shown, shown + around))


class Walker:
    """A cron daemon for one expression."""

    def __init__(self, expression: str, zone: str) -> None:
        self.minute, self.hour, self.day, self.month, self.weekday, *rest = expression.lower().split()
        self.second = rest[0] if rest else "0"
        self.year = rest[1] if rest[1:] else "*"
        self.zone = ZoneInfo(zone)

    def first(self, start: dt.datetime, last: dt.date) -> dt.datetime | None:
        """Returns the first run from a moment in UTC on, up to a date."""
        date = (start - DAY).astimezone(self.zone).date()
        while date <= last:
            if self.has_date(date) and (found := self._on(date, start)):
                return found
            date += DAY
        return None

    def has_any_date(self) -> bool:
        """Whether there is a date for it at all."""
        date = dt.date(1970, 1, 1)
        while date.year < 2100:
            if self.has_date(date):
                return True
            date = date + DAY if allows(self.month, date.month, 1, 12) else (date + 31 * DAY).replace(day=1)
        return False

    def _on(self, date: dt.date, start: dt.datetime) -> dt.datetime | None:
        midnight = dt.datetime.combine(date, dt.time(), self.zone).astimezone(dt.UTC)
        begin, end = midnight - DAY, midnight + 2 * DAY
        if begin.astimezone(self.zone).utcoffset() == end.astimezone(self.zone).utcoffset():
            end = midnight + DAY
            begin = min(max(midnight, start.replace(second=0, microsecond=0)), end)
        for found in self._runs(begin, end, date):
            if found >= start:
                return found
        return None

    def _runs(self, begin: dt.datetime, end: dt.datetime, date: dt.date) -> Iterator[dt.datetime]:
        """Looks at the clock every minute; yields the runs of a date."""
        latest: dt.datetime | None = None
        at = begin
        while at < end:
            wall = at.astimezone(self.zone).replace(tzinfo=None)
            if self.hour.startswith("*"):
                yield from self._at(at, wall, date)
            elif latest is None or wall > latest:
                passed = latest + MINUTE if latest else wall
                while passed < wall:  # the clock has skipped these
                    if any(self._at(at, passed, date)):
                        yield at
                        break
                    passed += MINUTE
                yield from self._at(at, wall, date)
                latest = wall
            at += MINUTE

    def _at(self, at: dt.datetime, wall: dt.datetime, date: dt.date) -> Iterator[dt.datetime]:
        if allows(self.hour, wall.hour, 0, 23) and allows(self.minute, wall.minute, 0, 59) and wall.date() == date:
            for second in range(60):
                if allows(self.second, second, 0, 59):
                    yield at + dt.timedelta(seconds=second)

    def has_date(self, date: dt.date) -> bool:
        if not (allows(self.month, date.month, 1, 12) and allows(self.year, date.year, 1970, 2099)):
            return False
        day, weekday = self._has_day(date), self._has_weekday(date)
        if self.day[0] in "*?" or self.weekday[0] in "*?":
            return day and weekday
        return day or weekday

    def _has_day(self, date: dt.date) -> bool:
        last = ((date.replace(day=1) + 31 * DAY).replace(day=1) - DAY).day
        text = self.day.replace("?", "*")
        if "w" in text:
            wanted = date.replace(day=min(int(text.strip("w")), last))
            near = [wanted + n * DAY for n in (0, -1, 1, -2, 2)]
            return date == next(each for each in near if each.month == date.month and each.weekday() < 5)
        parts = text.replace("-l", "-31").split(",")
        if "l" in parts:
            parts.remove("l")
            return date.day == last or (bool(parts) and allows(",".join(parts), date.day, 1, 31))
        return allows(",".join(parts), date.day, 1, 31)

    def _has_weekday(self, date: dt.date) -> bool:
        for part in self.weekday.replace("?", "*").split(","):
            if part[0] == "l":
                if int(part[1:]) % 7 == date.isoweekday() % 7 and (date + 7 * DAY).month != date.month:
                    return True
            else:
                weekdays, _, nth = part.partition("#")
                if allows(weekdays, date.isoweekday() % 7, 0, 6) and nth in ("", str((date.day + 6) // 7)):
                    return True
        return False
