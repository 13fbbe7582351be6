"""The policy of a tenant: what it can be told, checked where it is given, and how it is stored."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, Self

import attrs

from .errors import ConfigurationError
from .settings import name
from .wire import PackedPolicy

WEIGHTS: Final = (1e-3, 1e6)
"""The least and the most that a weight may be: beyond it, tags would lose their precision."""

_MOST: Final = 2**53  # that a whole number may be: Lua counts in doubles
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|sec|second|m|min|minute|h|hour|d|day)")
_PERIODS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BURST_TIME: Final = 0.1  # seconds: as many as a rate brings in that time, it may bring at once


@attrs.frozen
class Policy:
    """How a tenant is served. None: no limit, or no group."""

    weight: float = 1.0
    """Its share of service beside tenants of weight 1."""
    concurrency: int | None = None
    """The most of its tasks that run at once, over the whole fleet."""
    rate: str | None = None
    """The most of its tasks that start in a time, over the whole fleet, such as ``10/s``."""
    burst: int | None = None
    """How many may start at once when it has been below its rate."""
    backlog: int | None = None
    """The most of its tasks that wait; beyond it, `send` raises `MailboxFull`."""
    paused: bool = False
    """Whether none of its tasks is started."""
    group: str | None = None
    """The group that it shares its turns with."""

    @classmethod
    def read(cls, own: PackedPolicy, defaults: PackedPolicy) -> Self:
        """A policy as it holds: a tenant's own settings, and the defaults for the others."""
        policy = {**defaults, **own}
        text, interval, burst = policy.get("rate") or ("", 0, 0)
        return cls(
            policy.get("weight", 1.0),
            _whole_or_none(policy.get("concurrency")),
            text or None,
            int(burst) if interval else None,
            _whole_or_none(policy.get("backlog")),
            bool(policy.get("paused")),
            policy.get("group"),
        )


def changes_of(given: Mapping[str, Any], *known: str) -> PackedPolicy:
    """Settings as they are stored; None stands for the default.

    Raises:
        ConfigurationError: one is not among ``known``, or cannot work.
    """
    for setting in given:
        if setting not in known:
            raise ConfigurationError(f"there is no {setting!r} to configure here; there are {', '.join(known)}")
    changes = {setting: _CHECKS[setting](value) for setting, value in given.items() if setting != "burst"}
    burst = given.get("burst")
    if burst is not None:
        if changes.get("rate") is None:
            raise ConfigurationError(f"burst={burst!r}: give it together with rate=, as in rate='10/s', burst=20")
        text, interval, _ = changes["rate"]
        changes["rate"] = (text, interval, _whole("burst", burst))
    return changes


def _weight(value: float | None) -> float | None:
    least, most = WEIGHTS
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigurationError(f"weight={value!r}: give a number from {least:g} to {most:g}, or None")
    return float(value)


def _limit(setting: str) -> Any:
    def check(value: float | None) -> float | None:
        return value if value is None or value == math.inf else _whole(setting, value)

    return check


def _whole(setting: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        raise ConfigurationError(f"{setting}={value!r}: give a whole number, 1 or more, or None; math.inf is no limit")
    return value


def _rate(value: Any) -> tuple[str, float, int] | None:
    """(as it was given, µs between two tasks at an even rate, burst); no time between is no limit."""
    if value is None:
        return None
    if value == math.inf:
        return "", 0.0, 1
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or float(match[1]) == 0:
        raise ConfigurationError(
            f"rate={value!r}: give tasks in a time, such as '10/s', '600/min', '1000/h' or '5/day', or None; math.inf "
            "is no limit"
        )
    interval = _PERIODS[match[2][0]] / float(match[1]) * 1e6
    if not 1 <= interval <= 366 * 86400e6:
        raise ConfigurationError(f"rate={value!r}: give a rate from one a year to a million a second")
    return value, interval, max(1, int(_BURST_TIME * 1e6 / interval))


def _group(value: str | None) -> str | None:
    return None if value is None else name("group", value)


def _whole_or_none(value: float | None) -> int | None:
    return None if value is None or value == math.inf else int(value)


_CHECKS: Final = {
    "weight": _weight,
    "concurrency": _limit("concurrency"),
    "backlog": _limit("backlog"),
    "rate": _rate,
    "group": _group,
}
