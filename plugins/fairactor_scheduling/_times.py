"""The times of a schedule: of a cron expression in a time zone, of an interval, or one moment.

Times are whole milliseconds of unix time. A cron expression is about what a clock on the wall shows: croniter finds the
matching times without a time zone, and this module converts them to UTC as cron does. If the hours are fixed, a time
that the clock skips is replaced by the first moment after the gap, and a time that the clock shows twice counts once,
the first time. If the hour may be any (``*`` or ``*/n``), real time goes on: every moment counts whose wall-clock time
matches.
"""

from __future__ import annotations

import re
from collections import deque
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from fairactor.errors import ConfigurationError
from fairactor.plugins import shown

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - what a clock on the wall shows has no time zone
_EPOCH_UTC: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_DAY: Final = 86_400_000
LAST: Final = 4_102_444_800_000 - 2 * _DAY  # two days before the end of 2099, where croniter ends
_HOUR: Final = 1  # the index of the field
_RANDOM: Final = re.compile(r"(^|\s)r(?=$|[\s(/])", re.IGNORECASE)


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
        expression: in croniter's syntax: 5 fields, a sixth for seconds, a seventh for years, or ``@daily`` and the
            like.
        zone: the time zone.
        hash_id: determines the value of ``H``, so that schedules which need no specific time are spread out.

    Raises:
        ConfigurationError: the expression is invalid.
    """

    def __init__(self, expression: str, zone: ZoneInfo, hash_id: str) -> None:
        from croniter import CroniterBadDateError  # type: ignore[import-untyped]  # it has no types, and is slow to import

        self._zone = zone
        self._cron = _parse(expression, hash_id)
        self._no_more: type[Exception] = CroniterBadDateError
        hours: Any = self._cron.expressions[_HOUR]
        self._lock = Lock()
        self._any_hour = hours.startswith("*") or self._cron.expanded[_HOUR] == ["*"]

    def after(self, ms: int) -> int | None:
        """Returns the first time after a moment; None if this century has none."""
        return self._after_in_real_time(ms) if self._any_hour else self._after_on_the_wall(ms)

    def _after_on_the_wall(self, ms: int) -> int | None:
        wall = self._wall(ms)
        while (match := self._match_after(wall)) is not None:
            at = self._moment(match)
            if at > ms:
                return at
            wall = match  # it is in an hour that the clock shows twice, or in a gap
        return None

    def _after_in_real_time(self, ms: int) -> int | None:
        wall = self._wall(ms)
        while (match := self._match_after(wall)) is not None:
            at = _in_ms(match - self._offset(ms))
            change = self._change(ms, at)
            if change is None:
                return at
            ms = change
            wall = self._wall(change) - timedelta(microseconds=1)  # the change itself may match
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


def check_cron(expression: str) -> None:
    """Accepts a cron expression.

    Raises:
        ConfigurationError: it is invalid.
    """
    _parse(expression, "")


def latest(times: Times, count: int, since: int, before: int) -> list[int]:
    """Returns the last ``count`` times from ``since``, which is one of them, until ``before``."""
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
    """Converts a moment to whole milliseconds of unix time."""
    return (moment - _EPOCH_UTC) // _MS


def moment(ms: int) -> datetime:
    """Converts milliseconds of unix time to a moment in UTC."""
    return _EPOCH_UTC + ms * _MS


def _in_ms(wall: datetime) -> int:
    return (wall - _EPOCH) // _MS


def _parse(expression: str, hash_id: str) -> Any:
    """Parses a cron expression.

    Raises:
        ConfigurationError: it is invalid.
    """
    from croniter import croniter  # as above

    if _RANDOM.search(expression):
        raise ConfigurationError(
            f"cron expression {shown(expression)}: each runtime would choose another value for R; use H, whose value "
            "derives from the tenant and the schedule's id"
        )
    used_id = None if expression.startswith("@") else hash_id  # with an id, croniter runs @daily at a hashed time
    try:
        return croniter(expression, _EPOCH, ret_type=datetime, hash_id=used_id)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).rstrip(".")
        raise ConfigurationError(
            f"cron expression {shown(expression)}: {reason}. Give minute, hour, day of the month, month and day of the "
            "week, as in '0 9 * * mon-fri'; a sixth field is for seconds"
        ) from None
