"""The keywords of schedules, for editors and type checkers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict
from zoneinfo import ZoneInfo

from fairactor import Message
from fairactor.errors import ConfigurationError
from fairactor.plugins import Graph

CatchUp = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip", "queue"]
Recurring = str | float | timedelta
"""A cron expression, or an interval in seconds or as a timedelta."""
When = Recurring | datetime
"""The same, or one moment."""


class ScheduleOptions(TypedDict, total=False):
    """What ``@schedule``, `Schedules.add` and `Schedules.update` have in common. `Schedules.add` describes each."""

    timezone: str | ZoneInfo
    start: datetime | None
    end: datetime | None
    jitter: float | timedelta
    grace: float | timedelta
    budget: int | None
    catch_up: CatchUp
    catch_up_limit: int
    overlap: Overlap


class RuleOptions(ScheduleOptions, total=False):
    """All that makes a `Rule`."""

    when: When
    kept: float | timedelta


class ScheduleChanges(RuleOptions, total=False):
    """What `Schedules.update` can change."""

    message: Message[Any] | Graph
    metadata: Mapping[str, Any] | None


def check_keywords(function: str, given: Collection[str], known: Collection[str]) -> None:
    """Accepts keywords that a function takes.

    Raises:
        ConfigurationError: there are others.
    """
    if unknown := set(given) - set(known):
        raise ConfigurationError(f"{function} takes no {min(unknown)}=; there are {', '.join(sorted(known))}")
