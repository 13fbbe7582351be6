"""A limit that tenants share: its settings, and how they are checked and stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, Self, TypedDict

import attrs

from fairactor._util.checks import check_route_name, plain_number, shown
from fairactor.errors import ConfigurationError

from .policy import changes_of, parse_rate

Per = Literal["tenant"]
LIMIT_SETTINGS: Final = ("concurrency", "rate", "per")
MOST_LIMITS: Final = 8
"""The most limits of a task."""
LARGEST_COST: Final = 1e9
"""The most that a start takes of a limit."""
_SPARE: Final = 50  # a rate without a burst keeps this part of what it allows as room for lateness

PackedLimit = dict[str, Any]
"""The settings of a limit as they are stored: ``rate`` is the rate as given, the µs for a unit of cost, the burst that
scripts use, and the burst that was given, or 0; ``whole`` is the concurrency of all shards, if there are several."""


class LimitSettings(TypedDict, total=False):
    """The settings of `Limit.configure`, for editors and type checkers. None resets a setting."""

    concurrency: float | None
    rate: str | float | None
    burst: float | None
    per: Per | None


@attrs.frozen
class LimitPolicy:
    """The settings of a limit. None means that it has none."""

    concurrency: int | None = None
    """The most tasks that count for the limit and run at once, over the whole fleet."""
    rate: str | None = None
    """The most that starts take per unit of time, over the whole fleet, such as ``90000/min``."""
    burst: float | None = None
    """What starts may take at once. None: the rate holds in each second, minute, hour or day, whichever its unit is."""
    per: Per | None = None
    """``"tenant"`` if each tenant has the limit for itself."""
    paused: bool = False
    """Whether it is paused for all tenants, see `Limit.pause`."""

    @classmethod
    def read(cls, packed: PackedLimit, now_ms: float = 0.0) -> Self:
        """Unpacks settings. What an actor's code declares counts where nothing else is set."""
        own = {**(packed.get("declared") or {}), **packed}
        text, _, _, burst = own.get("rate") or ("", 0, 0, 0)
        concurrency = own.get("whole") or own.get("concurrency")
        return cls(
            None if concurrency in (None, math.inf) else int(concurrency),
            text or None,
            burst or None,
            own.get("per"),
            not 0 <= (packed.get("paused") or 0) <= now_ms,
        )


@attrs.frozen
class LimitUsage:
    """How a limit is used now."""

    running: int
    """The tasks that run and count for it."""
    owed: float
    """What starts took and time has not paid for yet, in units of cost; 0 without a rate. If each tenant has its own
    limit, ask for one of them."""
    waiting: int
    """The tenants and groups that wait in lines for the limit; not those that only their own limits hold back."""
    paused: float
    """The seconds until a pause ends; infinity if only `Limit.resume` ends it, 0 without a pause."""


def limit_changes(given: Mapping[str, Any]) -> PackedLimit:
    """Checks settings of a limit and packs them as they are stored. None resets a setting.

    Raises:
        ConfigurationError: a setting is unknown or invalid.
    """
    known = (*LIMIT_SETTINGS, "burst")
    for setting in given:
        if setting not in known:
            raise ConfigurationError(f"there is no setting {shown(setting)} here; the settings are {', '.join(known)}")
    rate, burst = given.get("rate"), given.get("burst")
    if burst is not None and rate is None:
        raise ConfigurationError(f"burst={shown(burst)}: give it together with rate=, as in rate='10/s', burst=20")
    changes: PackedLimit = {}
    if "concurrency" in given:
        changes |= changes_of({"concurrency": given["concurrency"]}, "concurrency")
    if "rate" in given:
        changes["rate"] = _pack_rate(rate, burst)
    if "per" in given:
        if given["per"] not in (None, "tenant"):
            raise ConfigurationError(f"per={shown(given['per'])}: give 'tenant', or None for one limit for all")
        changes["per"] = given["per"]
    return changes


def _pack_rate(rate: Any, burst: Any) -> tuple[str, float, float, float] | None:
    if rate is None:
        return None
    if isinstance(rate, float) and rate == math.inf:
        return "", 0.0, 1.0, 0.0
    text, number, seconds = parse_rate(rate)
    if burst is not None:
        given = check_cost("burst", burst)
        return text, seconds / number * 1e6, given, given
    return text, *_in_any(number, seconds), 0.0  # not None: Lua cuts that off


def _in_any(number: float, seconds: float) -> tuple[float, float]:
    """Returns the µs for a unit of cost and the burst with which starts take at most ``number`` in any ``seconds``."""
    spare = math.floor(number / _SPARE)
    return seconds / (number - spare) * 1e6, 1.0 + spare


def parts_of(settings: PackedLimit, shards: int, *, per: Per | None) -> list[PackedLimit]:
    """Divides settings of a limit among shards, so that all together never exceed it.

    Args:
        settings: what `limit_changes` returns.
        shards: the number of shards.
        per: for whom the limit is. One for each tenant is not divided, because a tenant has one shard.

    Raises:
        ConfigurationError: there is less than one for each shard.
    """
    if shards == 1 or per == "tenant":
        return [settings | ({"whole": None} if "concurrency" in settings else {})] * shards
    concurrency, rate = settings.get("concurrency"), settings.get("rate")
    whole = {"whole": 0 if concurrency == math.inf else None} if "concurrency" in settings else {}
    parts = [settings | whole for _ in range(shards)]
    if concurrency is not None and concurrency != math.inf:
        for part, some in zip(parts, _divided("concurrency", int(concurrency), shards), strict=True):
            part |= {"concurrency": some, "whole": concurrency}
    if rate is not None and rate[1]:
        text, interval, _, burst = rate
        number, seconds = parse_rate(text)[1:]
        if burst:
            _divided("burst", math.floor(burst), shards, shown_as=f"{burst:g}")
        for part, some in zip(parts, _divided("rate", math.floor(number), shards, shown_as=text), strict=True):
            own = (interval * shards, burst / shards) if burst else _in_any(some, seconds)
            part["rate"] = (text, *own, burst)
    return parts


def _divided(setting: str, number: int, shards: int, *, shown_as: str = "") -> list[int]:
    if number < shards:
        raise ConfigurationError(
            f"{setting}={shown_as or number}: this namespace has {shards} shards, which divide a limit: give at "
            f"least {shards}, or per='tenant', which is not divided, or use a namespace with shards=1"
        )
    return [number // shards + (shard < number % shards) for shard in range(shards)]


def check_cost(setting: str, value: Any, *, zero: bool = False) -> float:
    """Accepts what a start takes of a limit: a number above 0, or from 0 on if it may be ``zero``.

    Raises:
        ConfigurationError: the value is something else.
    """
    cost = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else plain_number(value)
    if not 0 < cost <= LARGEST_COST and not (zero and cost == 0):
        least = "from 0 on" if zero else "above 0"
        raise ConfigurationError(f"{setting}={shown(value)}: give a number {least}, at most {LARGEST_COST:.0f}")
    return cost


def check_limit_name(name: Any) -> str:
    """Accepts the name of a limit.

    Raises:
        ConfigurationError: the value is something else.
    """
    checked = check_route_name("limit", name)
    if "," in checked:
        raise ConfigurationError(f"limit {shown(name)}: contains a comma, which separates the names of limits")
    return checked


def to_costs(given: Any) -> dict[str, float] | None:
    """Accepts what a start takes, by limit; a name, or names, of limits of which it takes 1; or None.

    Raises:
        ConfigurationError: the value is something else.
    """
    if given is None:
        return None
    if isinstance(given, str):
        given = (given,)
    if isinstance(given, Mapping):
        costs = {check_limit_name(name): check_cost(f"limits[{name!r}]", cost) for name, cost in given.items()}
    elif isinstance(given, Iterable) and not isinstance(given, bytes):
        costs = {check_limit_name(name): 1.0 for name in given}
    else:
        raise ConfigurationError(
            f"limits={shown(given)}: give what a start takes, as in limits={{'openai': 1500}}, or names of limits"
        )
    if len(costs) > MOST_LIMITS:
        raise ConfigurationError(f"limits= names {len(costs)} limits: give at most {MOST_LIMITS}")
    return costs


def read_usage(now_ms: float, replies: Sequence[tuple[PackedLimit, int, float, int]]) -> LimitUsage:
    """Adds up what the shards say about a limit: its settings, running tasks, µs owed, and tenants that wait."""
    running, owed, waiting, paused = 0, 0.0, 0, 0.0
    for settings, started, owed_us, tenants in replies:
        interval = ({**(settings.get("declared") or {}), **settings}.get("rate") or ("", 0))[1]
        until = settings.get("paused") or 0
        running += started
        owed += owed_us / interval if interval else 0.0
        waiting += tenants
        paused = max(paused, math.inf if until < 0 else (until - now_ms) / 1000)
    return LimitUsage(running, owed, waiting, paused)
