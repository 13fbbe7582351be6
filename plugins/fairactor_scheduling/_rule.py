"""The rule of a schedule: what it says about its times, and what to do about them at one moment."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypedDict, get_args
from zoneinfo import ZoneInfo

import attrs
import msgspec

from fairactor.errors import ConfigurationError
from fairactor.plugins import (
    YEAR,
    check_aware,
    check_name,
    check_one_of,
    check_seconds,
    check_whole_number,
    shown,
    to_seconds,
    whole_ms,
)

from ._cron import check_cron
from ._options import CatchUp, Overlap
from ._times import LAST, Cron, Interval, Once, Times, in_ms, latest, moment

MIN_INTERVAL: Final = 0.1
"""Seconds."""
MIN_GRACE: Final = 5.0
"""Seconds. If a runtime dies, another one takes over within this time."""
MAX_CAUGHT_UP: Final = 10_000
MAX_BUDGET: Final = 2**53
"""Lua counts with doubles, which are exact up to here."""


def _to_when(value: Any) -> str | int | datetime:
    """Returns a cron expression, an interval in ms, or a moment in UTC."""
    if isinstance(value, str):
        return check_name("cron expression", value.strip())
    if isinstance(value, datetime):
        return _to_moment("when", value).astimezone(UTC)
    value = to_seconds(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(
            f"when={shown(value)}: give a cron expression, an interval (seconds or a timedelta), or a datetime"
        )
    every = check_seconds("interval", value, zero=False)
    if every < MIN_INTERVAL:
        raise ConfigurationError(
            f"interval={shown(value)}: give at least {MIN_INTERVAL:g} seconds; to act more often, use a loop in a "
            "handler"
        )
    return whole_ms(every)


def _to_moment(name: str, value: Any) -> datetime:
    found = check_aware(name, value)
    if not 1971 <= found.year < 2099:  # noqa: PLR2004 - in UTC it is between 1970 and 2099
        raise ConfigurationError(f"{name}={shown(value)}: give a time from 1971 to 2098")
    return found


def _to_start(value: datetime | None) -> int | None:
    return None if value is None else in_ms(_to_moment("start", value))


def _to_end(value: datetime | None) -> int | None:
    return None if value is None else in_ms(_to_moment("end", value))


def _to_seconds(name: str, value: float | timedelta) -> float:
    return check_seconds(name, value.total_seconds() if isinstance(value, timedelta) else value, most=YEAR)


def _to_jitter(value: float | timedelta) -> float:
    return _to_seconds("jitter", value)


def _to_grace(value: float | timedelta) -> float:
    grace = _to_seconds("grace", value)
    if grace < MIN_GRACE:
        raise ConfigurationError(
            f"grace={shown(value)}: give at least {MIN_GRACE:g} seconds; it can take that long until another runtime "
            "takes over from one that died"
        )
    return grace


def _to_kept(value: float | timedelta) -> float:
    return _to_seconds("kept", value)


def _to_zone(value: str | ZoneInfo) -> str:
    name = value.key if isinstance(value, ZoneInfo) else value
    try:
        return ZoneInfo(check_name("timezone", name)).key
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 - what it raises depends on what is wrong with the name
        raise ConfigurationError(
            f"timezone={shown(value)}: there is no such time zone here; give a name from the IANA database, such as "
            "'Europe/Berlin'. If the system has no time zones, install tzdata"
        ) from None


@attrs.frozen(kw_only=True)
class Rule:
    """What a schedule says about its times. `Schedules.add` describes each option.

    Its ``repr`` is part of the digest by which a stored schedule is compared.

    Raises:
        ConfigurationError: something cannot work; the message names it.
    """

    when: str | int | datetime = attrs.field(converter=_to_when)
    """A cron expression, an interval in ms, or a moment in UTC."""
    timezone: str = attrs.field(default="UTC", converter=_to_zone)
    start: int | None = attrs.field(default=None, converter=_to_start)
    """In ms of unix time, like ``end``."""
    end: int | None = attrs.field(default=None, converter=_to_end)
    jitter: float = attrs.field(default=0.0, converter=_to_jitter)
    grace: float = attrs.field(default=60.0, converter=_to_grace)
    budget: int | None = None
    catch_up: CatchUp = "skip"
    catch_up_limit: int = 100
    overlap: Overlap = "allow"
    kept: float = attrs.field(default=86400.0, converter=_to_kept)

    def __attrs_post_init__(self) -> None:
        if self.budget is not None:
            check_whole_number("budget", self.budget, 1, MAX_BUDGET)
        check_one_of("catch_up", self.catch_up, get_args(CatchUp))
        check_whole_number("catch_up_limit", self.catch_up_limit, 1, MAX_CAUGHT_UP)
        check_one_of("overlap", self.overlap, get_args(Overlap))
        if self.start is not None and self.end is not None and self.start > self.end:
            raise ConfigurationError("start= is after end=, so the schedule would never run: change one of them")
        if isinstance(self.when, str):
            check_cron(self.when)
        elif isinstance(self.when, datetime) and (self.start is not None or self.end is not None):
            raise ConfigurationError("a schedule for one moment has no start= and end=: leave them out")


class Definition(TypedDict):
    """A stored rule in the terms of its users: `Schedule` has these fields, and of them a `Rule` is made."""

    when: str | timedelta | datetime
    timezone: str
    start: datetime | None
    end: datetime | None
    jitter: float
    grace: float
    budget: int | None
    catch_up: CatchUp
    catch_up_limit: int
    overlap: Overlap
    kept: float


class Stored(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rule as it is stored. Times and durations are in ms."""

    cron: str = ""
    every: int = 0
    anchor: int = 0
    """The moment from which an interval counts."""
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

    def definition(self) -> Definition:
        """Returns the rule in the terms of its users."""
        when: str | timedelta | datetime = self.cron
        if not self.cron:
            when = timedelta(milliseconds=self.every) if self.every else moment(self.at)
        return {
            "when": when,
            "timezone": self.zone,
            "start": None if self.start is None else moment(self.start),
            "end": None if self.end is None else moment(self.end),
            "jitter": self.jitter / 1000,
            "grace": self.grace / 1000,
            "budget": self.budget,
            "catch_up": self.catch_up,
            "catch_up_limit": self.limit,
            "overlap": self.overlap,
            "kept": self.kept / 1000,
        }


def to_stored(rule: Rule, anchor: int, actor: str, *, declared: bool) -> Stored:
    """Returns a rule as it is stored.

    Args:
        rule: the rule.
        anchor: the moment from which an interval counts if the rule has no start.
        actor: the name of the actor.
        declared: whether it comes from ``@schedule``.
    """
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
        actor=actor,
        declared=declared,
    )


@attrs.frozen
class DuePlan:
    """What to do about a schedule at one moment."""

    send: list[int]
    """The times to send a run for, in order."""
    missed: int | None
    """The first of the times that are passed over."""
    following: int | None
    """The first time after all of these."""
    due: int | None
    """When to send the run for that time, with its jitter."""
    checked: int
    """The moment up to which missed runs were handled."""


class Calendar:
    """The times of one schedule, within its bounds and with its jitter.

    Args:
        rule: its rule.
        schedule: its name, from which the jitter and ``H`` derive.
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
        """Returns the first time after a moment."""
        rule = self._rule
        at = self._times.after(ms if rule.start is None else max(ms, rule.start - 1))
        return None if at is None or at > (LAST if rule.end is None else rule.end) else at

    def due(self, at: int) -> int:
        """Returns when to send the run for a time: with its jitter, but not after the next time or the end."""
        most = self._rule.jitter
        if not most:
            return at
        limit = self.after(at)
        if limit is None:
            limit = self._rule.end
        if limit is not None:
            most = max(0, min(most, limit - at))
        drawn = hashlib.sha256(b"%b %d" % (self._schedule, at)).digest()
        return at + int.from_bytes(drawn[:6], "big") % (most + 1)

    def first(self, now: int) -> int | None:
        """Returns the first time of a new schedule."""
        rule = self._rule
        catches_up = rule.catch_up != "skip"
        if rule.at:
            return rule.at if catches_up or rule.at >= now - rule.grace else None
        return self.after(rule.start - 1 if catches_up and rule.start is not None else now)

    def plan(self, at: int, now: int, checked: int = 0, most: int = 500) -> DuePlan:
        """Plans what to do now.

        Args:
            at: the first time that was not handled yet.
            now: the server's time.
            checked: what the last plan returned.
            most: the most runs to send.
        """
        begin: int | None = at
        missed: int | None = None
        threshold = self._first_kept(at, now - self._rule.grace)
        if at < threshold:
            begin, checked = self._catch_up(at, threshold, now, checked)
            missed = at if begin != at else None
        send: list[int] = []
        following = begin
        while following is not None and len(send) < most and self.due(following) <= now:
            send.append(following)
            following = self.after(following)
        return DuePlan(send, missed, following, None if following is None else self.due(following), checked)

    def _first_kept(self, at: int, oldest: int) -> int:
        """Returns a moment before which all times from ``at`` on were missed, and none after it.

        Args:
            at: the first time that was not handled yet.
            oldest: the moment before which a run that was to be sent then is missed.
        """
        if self.due(at) >= oldest:
            return at
        if not self._rule.jitter:
            return oldest
        last = latest(self, 1, at, oldest)[0]  # only this one can be delayed until later: no jitter passes a next time
        return last if self.due(last) >= oldest else oldest

    def _catch_up(self, at: int, threshold: int, now: int, checked: int) -> tuple[int | None, int]:
        """Returns the first time to send a run for, if those before the threshold were missed; and ``checked``."""
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
    """Returns the calendar of a schedule, from its rule as it is stored."""
    return Calendar(msgspec.json.decode(rule, type=Stored), schedule)
