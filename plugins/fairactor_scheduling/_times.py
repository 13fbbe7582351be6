"""When a schedule runs: the times of a cron expression in a time zone, of an interval, or of one moment.

Times are whole milliseconds of unix time. A cron expression is about what a clock on the wall shows. croniter says
which such times match, without a time zone; what they are in UTC is decided here, as cron has it: where the hours are
fixed, a time that the clock skips is made up for at the first moment after the gap, and one that it shows twice counts
once, the first time. Where any hour will do (``*`` or ``*/n``) real time goes on, and every moment counts whose time on
the wall matches.
"""

from __future__ import annotations

import re
from collections import deque
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from fairactor.errors import ConfigurationError

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - what a clock on the wall shows has no zone
_EPOCH_UTC: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_DAY: Final = 86_400_000
LAST: Final = 4_102_444_800_000 - 2 * _DAY  # the end of 2099, and so of what croniter knows
_HOUR: Final = 1  # its field
_RANDOM: Final = re.compile(r"(^|\s)r(?=$|[\s(/])", re.IGNORECASE)


class Times(Protocol):
    """Strictly growing times."""

    def after(self, ms: int) -> int | None:
        """The first one after a moment."""
        ...


class Interval:
    """Every so many milliseconds from a moment on."""

    def __init__(self, every: int, anchor: int) -> None:
        self._every = every
        self._anchor = anchor

    def after(self, ms: int) -> int | None:
        """The first one after a moment."""
        return max(self._anchor, self._anchor + ((ms - self._anchor) // self._every + 1) * self._every)


class Once:
    """One moment."""

    def __init__(self, at: int) -> None:
        self._at = at

    def after(self, ms: int) -> int | None:
        """It, if it is after a moment."""
        return self._at if ms < self._at else None


class Cron:
    """A cron expression in a time zone.

    Args:
        expression: what croniter takes: 5 fields, a sixth for seconds, a seventh for years, or ``@daily`` and the like.
        zone: the time zone.
        hashed: what ``H`` is chosen by, so that schedules which need no certain time are spread.

    Raises:
        ConfigurationError: croniter refuses it.
    """

    def __init__(self, expression: str, zone: ZoneInfo, hashed: str) -> None:
        from croniter import CroniterBadDateError, croniter  # type: ignore[import-untyped]  # it has no types

        self._zone = zone
        if _RANDOM.search(expression):
            raise ConfigurationError(
                f"cron expression {expression!r}: R is chosen anew by each runtime, so they would not agree; use H, "
                "which is chosen by the schedule's id"
            )
        hash_id = None if expression.startswith("@") else hashed  # else croniter takes @daily for some time of the day
        try:
            self._cron = croniter(expression, _EPOCH, ret_type=datetime, hash_id=hash_id)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"cron expression {expression!r}: {error}. Give minute, hour, day of the month, month and day of the "
                "week, as in '0 9 * * mon-fri'; a sixth field is for seconds"
            ) from None
        self._no_more: type[Exception] = CroniterBadDateError
        hours: Any = self._cron.expressions[_HOUR]
        self._lock = Lock()
        self._any_hour = hours.startswith("*") or self._cron.expanded[_HOUR] == ["*"]

    def after(self, ms: int) -> int | None:
        """The first one after a moment; None: there is none in this century."""
        return self._after_in_real_time(ms) if self._any_hour else self._after_on_the_wall(ms)

    def _after_on_the_wall(self, ms: int) -> int | None:
        wall = self._wall(ms)
        while (match := self._match_after(wall)) is not None:
            at = self._moment(match)
            if at > ms:
                return at
            wall = match  # of an hour that comes twice, or of a gap
        return None

    def _after_in_real_time(self, ms: int) -> int | None:
        wall = self._wall(ms)
        while (match := self._match_after(wall)) is not None:
            at = _in_ms(match - self._offset(ms))
            change = self._change(ms, at)
            if change is None:
                return at
            ms = change
            wall = self._wall(change) - timedelta(microseconds=1)  # it may match itself
        return None

    def _match_after(self, wall: datetime) -> datetime | None:
        if _in_ms(wall) > LAST:
            return None
        with self._lock:  # runtimes in several threads share it
            try:
                found: datetime = self._cron.get_next(datetime, start_time=wall)
            except self._no_more:
                return None
        return found

    def _aware(self, ms: int) -> datetime:
        return (_EPOCH_UTC + ms * _MS).astimezone(self._zone)

    def _wall(self, ms: int) -> datetime:
        return self._aware(ms).replace(tzinfo=None, fold=0)

    def _offset(self, ms: int) -> timedelta:
        return self._aware(ms).utcoffset() or timedelta()

    def _moment(self, wall: datetime) -> int:
        """When the clock shows that: the first time, or where it never does, the first moment after the gap."""
        before, after = (
            _in_ms(wall - (wall.replace(tzinfo=self._zone, fold=fold).utcoffset() or timedelta())) for fold in (0, 1)
        )
        if before <= after or self._wall(before) == wall:
            return before
        change = self._change(after, before)
        return before if change is None else change

    def _change(self, start: int, end: int) -> int | None:
        """When the offset changes first, between two moments; a change and back within a day is none."""
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
    """The last ``count`` times of those from ``since``, which is one, until ``before``."""
    second = times.after(since)
    width = count * ((second or before) - since)
    while True:
        start = max(since, before - width)
        found = deque([since] if start == since else [], maxlen=count)
        at = times.after(start if start == since else start - 1)
        while at is not None and at < before:
            found.append(at)
            at = times.after(at)
        if len(found) == count or start == since:
            return list(found)
        width *= 4


def in_ms(moment: datetime) -> int:
    """Whole milliseconds of unix time."""
    return (moment - _EPOCH_UTC) // _MS


def moment(ms: int) -> datetime:
    """A moment, in UTC."""
    return _EPOCH_UTC + ms * _MS


def _in_ms(wall: datetime) -> int:
    return (wall - _EPOCH) // _MS
