"""The part of the model that holds for all kinds of runtimes alike: policies, limits and costs of tenants.

It has no clock: a rate is one start an hour, and starts measure how far a tenant is ahead of its rate.
"""

from __future__ import annotations

import math
import re
from typing import Any

import attrs

from .model_lanes import SEPARATOR

GROUP = b"\xff".decode(errors="surrogateescape")
"""The prefix of a group's name where a tenant's name could also stand."""

FIRST = 0.1  # s: the assumed duration of a task of an unknown actor
NEW = 0.2  # the weight of a new sample in an average


@attrs.define
class Costs:
    average: float | None = None
    actors: dict[str, float] = attrs.Factory(dict)
    debts: dict[str, float] = attrs.Factory(dict)  # by kind of runtimes


@attrs.define
class Rules:
    by_time: bool = False
    policies: dict[str, dict[str, Any]] = attrs.Factory(dict)  # by tenant, '' (the defaults), or group
    ahead: dict[str, float] = attrs.Factory(dict)  # tenant -> starts ahead of its rate; -inf: its starts are long ago
    throttled: set[str] = attrs.Factory(set)
    costs: dict[str, Costs] = attrs.Factory(dict)  # by tenant, '' (all), or group
    stolen: int = 0  # tasks that runtimes took from tenants that are not theirs

    # Policies

    def own(self, name: str, setting: str) -> Any:
        return self.policies.get(name, {}).get(setting)

    def setting(self, name: str, setting: str) -> Any:
        """Returns the effective value of a setting for a tenant."""
        own = self.own(name, setting)
        return self.own("", setting) if own is None else own

    def weight(self, member: str) -> float:
        found = self.own(member, "weight") if member[:1] == GROUP else self.setting(member, "weight")
        return 1.0 if found is None else found

    def limited(self, name: str) -> bool:
        kinds = ("concurrency", "rate", "backlog")
        return bool(self.own(name, "paused")) or any(self.setting(name, kind) is not None for kind in kinds)

    def limit(self, name: str, setting: str) -> float:
        found = self.setting(name, setting)
        return math.inf if found is None else found

    def burst(self, name: str) -> int:
        """Returns how many tasks may start at once; 0 without a rate limit."""
        _, interval, burst = self.setting(name, "rate") or ("", 0, 0)
        return burst if interval else 0

    def configure(self, whose: str, changes: dict[str, Any]) -> dict[str, Any]:
        policy = {**self.policies.get(whose, {}), **changes}
        policy = {setting: value for setting, value in policy.items() if value is not None}
        self.policies[whose] = policy
        if not policy:
            del self.policies[whose]
        return policy

    def mark(self, name: str) -> str | None:
        """Returns the entry on the shard's ring for a tenant's group; None without a group."""
        group = self.own(name, "group")
        return None if group is None else GROUP + group

    def member(self, name: str) -> str:
        """Returns the entry on the shard's ring for a tenant: its group or itself."""
        return self.mark(name) or name

    # Limits

    def free(self, name: str) -> bool:
        """Whether a tenant's rate allows a start."""
        return self.ahead.get(name, 0) <= self.burst(name) - 1

    def lets(self, name: str, queued: int, started: int) -> bool:
        """Whether the limits of a tenant let one of its queued tasks start. Throttles it if only its rate does not."""
        could = queued > 0 and not self.own(name, "paused") and started < self.limit(name, "concurrency")
        early = False
        if burst := self.burst(name):
            if name in self.ahead:
                self.ahead[name] = min(self.ahead[name], burst)
            early = self.ahead.get(name, -math.inf) > burst - 1
        (self.throttled.add if could and early else self.throttled.discard)(name)
        return could and not early

    def count_start(self, name: str) -> None:
        if self.burst(name):
            self.ahead[name] = max(self.ahead.get(name, 0), 0) + 1

    # Costs

    def cost(self, name: str, body: bytes) -> float:
        """Returns what to charge for a task."""
        if not self.by_time:
            return 1
        actor = actor_in(body)
        for whose in (name, ""):
            if actor in self.costs_of(whose).actors:
                return self.costs_of(whose).actors[actor]
        return FIRST

    def costs_of(self, name: str) -> Costs:
        return self.costs.setdefault(name, Costs())

    def usual_cost(self, member: str) -> float:
        if not self.by_time:
            return 1
        averages = (self.costs_of(whose).average for whose in (member, ""))
        return next((average for average in averages if average is not None), FIRST)

    def learn(self, name: str, actor: str, seconds: float) -> None:
        """Learns how long a task ran."""
        for whose in (name, ""):
            costs = self.costs_of(whose)
            costs.average = _moved(costs.average, seconds)
            if actor:
                costs.actors[actor] = _moved(costs.actors.get(actor), seconds)


def _moved(average: float | None, seconds: float) -> float:
    return seconds if average is None else average + NEW * (seconds - average)


def is_capped(body: bytes) -> bool:
    """Whether the actor of a live task is the one that `ShardDriver.turn` limits."""
    return body.startswith((b'["f",', b'["f\\u001f'))


def actor_in(body: bytes) -> str:
    """Returns the actor that a body names; '' if it names none."""
    match = re.match(rb'\["(.*?)"', body, re.DOTALL) or re.match(rb'\{"actor":"(.*?)"', body, re.DOTALL)
    return match[1].decode().partition(SEPARATOR)[0] if match else ""
