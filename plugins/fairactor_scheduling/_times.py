"""The times of a schedule: of a cron expression in a time zone, of an interval, or one moment.

Times are whole milliseconds of unix time. A cron expression is about what a clock on the wall shows, and this module
converts that to UTC as cron does. If the hours are fixed, a time that the clock skips is replaced by the first moment
after the gap, and a time that the clock shows twice counts once, the first time. If the hour field begins with ``*``,
real time goes on: every moment counts whose wall-clock time matches.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from ._cron import CronExpression

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - what a clock on the wall shows has no time zone
_EPOCH_UTC: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_DAY: Final = 86_400_000
_US: Final = timedelta(microseconds=1)
_SOON: Final = 2 * _DAY  # within it a change of the clock can repeat what the clock has just shown
LAST: Final = 4_102_444_800_000 - 2 * _DAY  # two days before the end of 2099, the last year of an expression


class Times(Protocol):
    """Strictly increasing times."""

    def after(self, ms: int) -> int | None:
        """Returns the first time after a moment, if there is one."""
        ...


class Interval:
    """Times at equal distances, in milliseconds, from an anchor on."""

    def __init__(self, every: int, anchor: int) -> None:
        self._every = every
        self._anchor = anchor

    def after(self, ms: int) -> int | None:
        """Returns the first time after a moment."""
        return max(self._anchor, self._anchor + ((ms - self._anchor) // self._every + 1) * self._every)


class Once:
    """One moment."""

    def __init__(self, at: int) -> None:
        self._at = at

    def after(self, ms: int) -> int | None:
        """Returns it, if it is after the given moment."""
        return self._at if ms < self._at else None


class Cron:
    """The times of a cron expression in a time zone.

    Args:
        expression: in the syntax of docs/scheduling.md.
        zone: the time zone.
        hash_id: determines the value of ``H``.

    Raises:
        ConfigurationError: the expression is invalid.
    """

    def __init__(self, expression: str, zone: ZoneInfo, hash_id: str) -> None:
        self._zone = zone
        self._expression = CronExpression(expression, hash_id)

    def after(self, ms: int) -> int | None:
        """Returns the first time after a moment; None if this century has none."""
        return self._after_in_real_time(ms) if self._expression.any_hour else self._after_on_the_wall(ms)

    def _after_on_the_wall(self, ms: int) -> int | None:
        wall = self._wall(ms)
        while (match := self._match_after(wall)) is not None:
            at = self._moment(match)
            if at > ms:
                return at
            wall = self._after_repeated(match, at, ms)
        return None

    def _after_repeated(self, match: datetime, at: int, ms: int) -> datetime:
        """Returns the last wall-clock time that the clock shows twice, if it shows a match again at a later moment."""
        change = self._change(at, ms)
        if change is None:
            return match
        return max(match, self._wall(change) + self._offset(at) - self._offset(change) - _US)

    def _after_in_real_time(self, ms: int) -> int | None:
        wall = self._wall(ms)
        while (match := self._match_after(wall)) is not None:
            at = _in_ms(match - self._offset(ms))
            change = self._change(ms, min(at, ms + _SOON))
            if change is not None:
                ms = change
                wall = self._wall(change) - _US  # the change itself may match
                continue
            if at <= ms + _SOON:
                return at
            at = self._moment(match)
            if self._wall(at) == match:
                return at
            wall = self._wall(at) - _US  # the clock skips the match
        return None

    def _match_after(self, wall: datetime) -> datetime | None:
        return None if _in_ms(wall) > LAST else self._expression.after(wall)

    def _aware(self, ms: int) -> datetime:
        return (_EPOCH_UTC + ms * _MS).astimezone(self._zone)

    def _wall(self, ms: int) -> datetime:
        return self._aware(ms).replace(tzinfo=None, fold=0)

    def _offset(self, ms: int) -> timedelta:
        return self._aware(ms).utcoffset() or timedelta()

    def _moment(self, wall: datetime) -> int:
        """Returns when the clock shows this for the first time, or if it skips this, the first moment after the gap."""
        before, after = (
            _in_ms(wall - (wall.replace(tzinfo=self._zone, fold=fold).utcoffset() or timedelta())) for fold in (0, 1)
        )
        if before <= after or self._wall(before) == wall:
            return before
        change = self._change(after, before)
        return before if change is None else change

    def _change(self, start: int, end: int) -> int | None:
        """Returns when the offset first changes between two moments. A change and back within a day does not count."""
        offset = self._offset(start)
        while start < end:
            step = min(start + _DAY, end)
            if self._offset(step) != offset:
                while step - start > 1:
                    middle = (start + step) // 2
                    if self._offset(middle) == offset:
                        start = middle
                    else:
                        step = middle
                return step
            start = step
        return None


def latest(times: Times, count: int, since: int, before: int) -> list[int]:
    """Returns the last ``count`` times from ``since``, which is one of them, until ``before``.

    It looks at a stretch of time that is long enough for so many and, where times are dense, not much longer.
    """
    second = times.after(since)
    width = count * ((second or before) - since)
    start, too_late = max(since, before - width), before
    early: int | None = None  # a start from which there are too many
    while True:
        found = _some_from(times, start, since, before, 4 * count)
        if len(found) < count and start > since:
            too_late = start
            width *= 4
            start = max(since, before - width) if early is None else (early + too_late) // 2
        elif len(found) <= 4 * count:
            return found[-count:]
        else:
            early = start
            start = (early + too_late) // 2


def _some_from(times: Times, start: int, since: int, before: int, most: int) -> list[int]:
    """Returns the times from a moment until another one; one more than ``most`` if there are more than that."""
    at = since if start <= since else times.after(start - 1)
    found: list[int] = []
    while at is not None and at < before and len(found) <= most:
        found.append(at)
        at = times.after(at)
    return found


def in_ms(moment: datetime) -> int:
    """Converts a moment to whole milliseconds of unix time."""
    return (moment - _EPOCH_UTC) // _MS


def moment(ms: int) -> datetime:
    """Converts milliseconds of unix time to a moment in UTC."""
    return _EPOCH_UTC + ms * _MS


def _in_ms(wall: datetime) -> int:
    return (wall - _EPOCH) // _MS
