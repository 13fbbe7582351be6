"""The policy of a tenant: its settings, and how they are checked and stored."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict

import attrs

from fairactor._util.checks import check_name, check_whole_number, shown
from fairactor.errors import ConfigurationError

if TYPE_CHECKING:
    from .wire import PackedPolicy

SETTINGS: Final = ("weight", "concurrency", "rate", "burst", "backlog", "group")
WEIGHTS: Final = (1e-3, 1e6)
"""The smallest and the largest weight. Outside these bounds, tags would lose their precision."""

_LARGEST: Final = 2**53  # the largest whole number: Lua counts in doubles
_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|sec|second|m|min|minute|h|hour|d|day)")
_PERIODS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BURST_TIME: Final = 0.1  # seconds: the default burst is what the rate allows in this time


class DefaultPolicy(TypedDict, total=False):
    """The settings of `Policies.configure_defaults`, for editors and type checkers. None resets a setting."""

    weight: float | None
    concurrency: float | None
    rate: str | float | None
    burst: int | None
    backlog: float | None


class TenantPolicy(DefaultPolicy, total=False):
    """The settings of `Tenant.configure`, for editors and type checkers. None resets a setting."""

    group: str | None


@attrs.frozen
class Policy:
    """How a tenant is served. None means no limit, or no group."""

    weight: float = 1.0
    """The tenant's share relative to tenants of weight 1."""
    concurrency: int | None = None
    """The most tasks of the tenant that run at once, over the whole fleet."""
    rate: str | None = None
    """The most tasks of the tenant that start per unit of time, over the whole fleet, such as ``10/s``."""
    burst: int | None = None
    """The most tasks that start at once, when the tenant has been below its rate before."""
    backlog: int | None = None
    """The most tasks of the tenant that wait. Beyond that, `send` raises `MailboxFull`."""
    paused: bool = False
    """Whether no tasks of the tenant start until `Tenant.resume`."""
    group: str | None = None
    """The group that the tenant belongs to."""

    @classmethod
    def read(cls, own: PackedPolicy, defaults: PackedPolicy) -> Self:
        """Unpacks the policy of a tenant: its own settings, and the defaults for all others."""
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
    """Checks settings and packs them as they are stored. None resets a setting to the default.

    Raises:
        ConfigurationError: a setting is not among ``known``, or is invalid.
    """
    for setting in given:
        if setting not in known:
            raise ConfigurationError(f"there is no setting {shown(setting)} here; the settings are {', '.join(known)}")
    changes: PackedPolicy = {setting: _CHECKS[setting](value) for setting, value in given.items() if setting != "burst"}
    burst = given.get("burst")
    if burst is not None:
        if changes.get("rate") is None:
            raise ConfigurationError(f"burst={shown(burst)}: give it together with rate=, as in rate='10/s', burst=20")
        text, interval, _ = changes["rate"]
        changes["rate"] = (text, interval, _whole("burst", burst))
    return changes


def _weight(value: float | None) -> float | None:
    least, most = WEIGHTS
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigurationError(f"weight={shown(value)}: give a number from {least:g} to {most:g}, or None")
    return float(value)


def _limit(setting: str) -> Any:
    def check(value: float | None) -> float | None:
        infinite = isinstance(value, float) and value == math.inf
        return value if value is None or infinite else _whole(setting, value)

    return check


def _whole(setting: str, value: Any) -> int:
    return check_whole_number(setting, value, 1, _LARGEST, hint=", or None; math.inf is no limit")


def _rate(value: Any) -> tuple[str, float, int] | None:
    """Returns the rate as given, the µs between two tasks at an even rate (0 for no limit), and the burst."""
    if value is None:
        return None
    if isinstance(value, float) and value == math.inf:
        return "", 0.0, 1
    text, number, seconds = parse_rate(value)
    interval = seconds / number * 1e6
    return text, interval, max(1, int(_BURST_TIME * 1e6 / interval))


def parse_rate(value: Any) -> tuple[str, float, float]:
    """Returns a rate as given, its number, and the seconds of its unit of time.

    Raises:
        ConfigurationError: it is no rate.
    """
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if not isinstance(value, str) or match is None or float(match[1]) == 0:
        raise ConfigurationError(
            f"rate={shown(value)}: give tasks per unit of time, such as '10/s', '600/min', '1000/h' or '5/day', or "
            "None; math.inf is no limit"
        )
    number, seconds = float(match[1]), _PERIODS[match[2][0]]
    if not 1 <= seconds / number * 1e6 <= 366 * 86400e6:
        raise ConfigurationError(f"rate={shown(value)}: give a rate from one a year to a million a second")
    return value, number, seconds


def _group(value: str | None) -> str | None:
    return None if value is None else check_name("group", value)


def _whole_or_none(value: float | None) -> int | None:
    return None if value is None or value == math.inf else int(value)


_CHECKS: Final = {
    "weight": _weight,
    "concurrency": _limit("concurrency"),
    "backlog": _limit("backlog"),
    "rate": _rate,
    "group": _group,
}
