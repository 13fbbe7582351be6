"""What a schedule says of its times, and what is to be done at one moment: what to send, and when to look again."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal, get_args
from zoneinfo import ZoneInfo

import attrs
import msgspec
from attrs.validators import optional

from fairactor.errors import ConfigurationError
from fairactor.plugins import (
    YEAR,
    check_aware,
    check_name,
    check_one_of,
    check_seconds,
    check_whole_number,
    to_seconds,
    validate,
    whole_ms,
)

from ._times import LAST, Cron, Interval, Once, Times, in_ms, latest

CatchUp = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip", "queue"]
When = str | float | timedelta | datetime
"""A cron expression, seconds or a timedelta between two runs, or one moment."""

SHORTEST: Final = 0.1
"""Seconds between two runs, at least."""
LEAST_GRACE: Final = 5.0
"""Seconds; longer than it takes until a runtime that has died has a successor."""
MOST_CAUGHT_UP: Final = 10_000
MOST_RUNS: Final = 2**53
"""The largest budget: up to there doubles count exactly."""


def _convert_when(value: Any) -> str | int | datetime:
    """An expression, an interval in ms, or a moment."""
    if isinstance(value, str):
        return check_name("cron expression", value.strip())
    if isinstance(value, datetime):
        return _aware("when", value).astimezone(UTC)
    value = to_seconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(
            f"a schedule at {value!r}: give a cron expression, an interval (seconds or a timedelta), or a datetime"
        )
    every = check_seconds("interval", value, zero=False)
    if every < SHORTEST:
        raise ConfigurationError(
            f"interval={value!r}: give at least {SHORTEST:g} seconds; a handler may loop by itself"
        )
    return whole_ms(every)


def _aware(what: str, value: Any) -> datetime:
    moment = check_aware(what, value)
    if not 1971 <= moment.year < 2099:  # noqa: PLR2004 - in UTC it is between 1970 and 2099
        raise ConfigurationError(f"{what}={value!r}: give a time from 1971 to 2098")
    return moment


def _start(value: datetime | None) -> int | None:
    return None if value is None else in_ms(_aware("start", value))


def _end(value: datetime | None) -> int | None:
    return None if value is None else in_ms(_aware("end", value))


def _seconds(what: str, value: float | timedelta) -> float:
    return check_seconds(what, value.total_seconds() if isinstance(value, timedelta) else value, most=YEAR)


def _jitter(value: float | timedelta) -> float:
    return _seconds("jitter", value)


def _grace(value: float | timedelta) -> float:
    grace = _seconds("grace", value)
    if grace < LEAST_GRACE:
        raise ConfigurationError(
            f"grace={value!r}: give at least {LEAST_GRACE:g} seconds; so long it may take until another runtime goes on"
        )
    return grace


def _kept(value: float | timedelta) -> float:
    return _seconds("kept", value)


def _zone(value: Any) -> str:
    zone = value.key if isinstance(value, ZoneInfo) else value
    try:
        return ZoneInfo(check_name("timezone", zone)).key
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 - what it raises depends on what is wrong with the name
        raise ConfigurationError(
            f"timezone={value!r}: there is no such time zone here; give a name of the IANA database, as in "
            "'Europe/Berlin'. Where the system has none of them, install tzdata"
        ) from None


@attrs.frozen(kw_only=True)
class Rule:
    """What a schedule says of its times.

    Raises:
        ConfigurationError: something cannot work; the message names it.
    """

    when: str | int | datetime = attrs.field(converter=_convert_when)
    timezone: str = attrs.field(default="UTC", converter=_zone)
    start: int | None = attrs.field(default=None, converter=_start)
    end: int | None = attrs.field(default=None, converter=_end)
    jitter: float = attrs.field(default=0.0, converter=_jitter)
    grace: float = attrs.field(default=60.0, converter=_grace)
    budget: int | None = attrs.field(default=None, validator=optional(validate(check_whole_number, 1, MOST_RUNS)))
    catch_up: CatchUp = attrs.field(default="skip", validator=validate(check_one_of, get_args(CatchUp)))
    catch_up_limit: int = attrs.field(default=100, validator=validate(check_whole_number, 1, MOST_CAUGHT_UP))
    overlap: Overlap = attrs.field(default="allow", validator=validate(check_one_of, get_args(Overlap)))
    kept: float = attrs.field(default=86400.0, converter=_kept)

    def __attrs_post_init__(self) -> None:
        if self.start is not None and self.end is not None and self.start > self.end:
            raise ConfigurationError("start= is after end=, so it would never run: change one of them")
        if isinstance(self.when, str):
            Cron(self.when, ZoneInfo(self.timezone), "")  # refuses what cannot work
        elif isinstance(self.when, datetime) and (self.start is not None or self.end is not None):
            raise ConfigurationError("a schedule at one moment has no start= and end=: leave them out")


class Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rule as it is stored."""

    cron: str = ""
    every: int = 0
    anchor: int = 0
    """What an interval counts from."""
    at: int = 0
    zone: str = "UTC"
    start: int | None = None
    end: int | None = None
    jitter: int = 0
    grace: int = 60_000
    budget: int | None = None
    catch_up: CatchUp = "skip"
    limit: int = 100
    overlap: Overlap = "allow"
    kept: int = 86_400_000
    actor: str = ""
    declared: bool = False


def stored(rule: Rule, anchor: int, **more: Any) -> Stored:
    """A rule as it is stored."""
    when, start = rule.when, rule.start
    return Stored(
        cron=when if isinstance(when, str) else "",
        every=when if isinstance(when, int) else 0,
        anchor=(anchor if start is None else start) if isinstance(when, int) else 0,
        at=in_ms(when) if isinstance(when, datetime) else 0,
        zone=rule.timezone,
        start=start,
        end=rule.end,
        jitter=whole_ms(rule.jitter),
        grace=whole_ms(rule.grace),
        budget=rule.budget,
        catch_up=rule.catch_up,
        limit=rule.catch_up_limit,
        overlap=rule.overlap,
        kept=whole_ms(rule.kept),
        **more,
    )


@attrs.frozen
class Plan:
    """What is to be done about a schedule at one moment."""

    send: list[int]
    """The times to send a run for, in their order."""
    missed: int | None
    """The first time that is passed over."""
    following: int | None
    """The first time after them."""
    due: int | None
    """When that is to be sent, with its jitter."""
    checked: int
    """Up to where the limit of what is caught up was seen to."""


class Calendar:
    """The times of one schedule, with its bounds and its jitter.

    Args:
        rule: as it is stored.
        schedule: whose it is, which the jitter and ``H`` depend on.
    """

    def __init__(self, rule: Stored, schedule: str) -> None:
        self._rule = rule
        self._schedule = schedule.encode()
        self._times: Times
        if rule.cron:
            self._times = Cron(rule.cron, ZoneInfo(rule.zone), schedule)
        else:
            self._times = Interval(rule.every, rule.anchor) if rule.every else Once(rule.at)

    def after(self, ms: int) -> int | None:
        """The first time after a moment."""
        rule = self._rule
        at = self._times.after(ms if rule.start is None else max(ms, rule.start - 1))
        return None if at is None or at > (LAST if rule.end is None else rule.end) else at

    def due(self, at: int) -> int:
        """When the run of a time is to be sent: with its jitter, but not after the next time."""
        most = self._rule.jitter
        if not most:
            return at
        following = self.after(at)
        most = most if following is None else min(most, following - at)
        drawn = hashlib.sha256(b"%b %d" % (self._schedule, at)).digest()
        return at + int.from_bytes(drawn[:6], "big") % (most + 1)

    def first(self, now: int) -> int | None:
        """The first time of a schedule that is new."""
        rule = self._rule
        back = rule.catch_up != "skip"
        if rule.at:
            return rule.at if back or rule.at >= now - rule.grace else None
        return self.after(rule.start - 1 if back and rule.start is not None else now)

    def plan(self, at: int, now: int, checked: int = 0, most: int = 500) -> Plan:
        """What is to be done now.

        Args:
            at: the next time that nothing was done about yet.
            now: the server's time.
            checked: as the last plan had it.
            most: how many runs to send at once.
        """
        begin: int | None = at
        missed: int | None = None
        threshold = now - self._rule.grace - self._rule.jitter
        if at < threshold:
            begin, checked = self._made_up_for(at, threshold, now, checked)
            missed = at if begin != at else None
        send: list[int] = []
        following = begin
        while following is not None and len(send) < most and self.due(following) <= now:
            send.append(following)
            following = self.after(following)
        return Plan(send, missed, following, None if following is None else self.due(following), checked)

    def _made_up_for(self, at: int, threshold: int, now: int, checked: int) -> tuple[int | None, int]:
        """The first time to send a run for, where some were missed."""
        rule = self._rule
        recent = self.after(threshold - 1)
        if rule.catch_up == "skip":
            return recent, checked
        if rule.catch_up == "once":
            passed = recent is not None and self.due(recent) <= now
            return recent if passed else latest(self, 1, at, threshold)[0], checked
        if at < checked:
            return at, checked
        many: int | None = at
        for _ in range(rule.limit):
            many = self.after(many) if many is not None else None
        if many is not None and many < threshold:
            at = latest(self, rule.limit, at, threshold)[0]
        return at, threshold


@lru_cache(maxsize=4096)
def calendar(rule: bytes, schedule: str) -> Calendar:
    """The times of a schedule, by its rule as it is stored."""
    return Calendar(msgspec.json.decode(rule, type=Stored), schedule)
