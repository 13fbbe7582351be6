"""The part of the model that decides who is served next: policies, limits, tags, costs and homes.

It has no clock: a rate is one start an hour, and starts measure how far a tenant is ahead of its rate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

import attrs

from .model_tasks import Task

GROUP = b"\xff".decode(errors="surrogateescape")
"""The prefix of a group's name where a tenant's name could also stand."""

FIRST = 0.1  # s: the assumed duration of a task of an unknown actor
NEW = 0.2  # the weight of a new sample in an average


class UndecidedError(Exception):
    """The tag of a group is ambiguous: tenants of different homes bring or move the group in the same step."""


@attrs.define
class Ring:
    virtual: float = 0.0
    tags: dict[str, float] = attrs.Factory(dict)


@attrs.define
class Home:
    """A runtime that serves certain tenants only."""

    virtual: float
    assigned: frozenset[str]
    steal: frozenset[str]


@attrs.define
class Costs:
    average: float | None = None
    actors: dict[str, float] = attrs.Factory(dict)
    debt: float = 0.0


@attrs.define
class Service:
    by_time: bool = False
    policies: dict[str, dict[str, Any]] = attrs.Factory(dict)  # by tenant, '' (the defaults), or group
    ahead: dict[str, float] = attrs.Factory(dict)  # tenant -> starts ahead of its rate; -inf: its starts are long ago
    throttled: set[str] = attrs.Factory(set)
    root: Ring = attrs.Factory(Ring)
    groups: dict[str, Ring] = attrs.Factory(dict)
    homes: dict[str, Home] = attrs.Factory(dict)
    costs: dict[str, Costs] = attrs.Factory(dict)  # by tenant, '' (all), or group
    owing: list[str] = attrs.Factory(list)
    stolen: int = 0
    capped: bool = False  # whether the runtime of this turn can start only so many tasks of some actors
    passed: set[str] = attrs.Factory(set)  # tenants that this turn passes over for that
    came: dict[str, float] = attrs.Factory(dict)  # group that joins in this step -> virtual time at which it joined

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
        before = self.mark(whose)
        self.policies[whose] = policy
        if self.mark(whose) != before:
            ring = self.root if before is None else self.groups.get(before, Ring())
            ring.tags.pop(whose, None)
        if not policy:
            del self.policies[whose]
        return policy

    # Who may be served

    def mark(self, name: str) -> str | None:
        """Returns the entry on the shard's ring for a tenant's group; None without a group."""
        group = self.own(name, "group")
        return None if group is None else GROUP + group

    def member(self, name: str) -> str:
        """Returns the entry on the shard's ring for a tenant: its group or itself."""
        return self.mark(name) or name

    def ring_of(self, member: str) -> Ring:
        mark = self.mark(member)
        return self.root if mark is None else self.groups.setdefault(mark, Ring())

    @property
    def served(self) -> dict[str, float]:
        """The tenants on all rings, with their tags."""
        return {
            name: tag
            for ring in (self.root, *self.groups.values())
            for name, tag in ring.tags.items()
            if name[:1] != GROUP
        }

    def seat(self, name: str, queued: int, started: int) -> None:
        """Adds a tenant to its ring, removes it, or throttles it, according to its present state."""
        could = queued > 0 and not self.own(name, "paused") and started < self.limit(name, "concurrency")
        early = False
        if burst := self.burst(name):
            if name in self.ahead:
                self.ahead[name] = min(self.ahead[name], burst)
            early = self.ahead.get(name, -math.inf) > burst - 1
        (self.throttled.add if could and early else self.throttled.discard)(name)
        ring = self.ring_of(name)
        if not could or early:
            ring.tags.pop(name, None)
        elif name not in ring.tags:
            self._enter(name)

    def _enter(self, name: str) -> None:
        mark = self.mark(name)
        if mark is None:
            self.root.tags[name] = self.fresh_tag(name)
            return
        self.groups[mark].tags[name] = self.fresh_tag(name)
        time = self.home_time(name)
        time = self.root.virtual if time is None else time
        if mark not in self.root.tags:
            self.root.tags[mark] = time + self.cost_to_arrive(mark) / self.weight(mark)
            self.came[mark] = time
        elif self.came.get(mark, time) != time:
            raise UndecidedError

    def fresh_tag(self, name: str) -> float:
        """Returns the tag of a tenant that joins a ring."""
        return self.time_for(name) + self.cost_to_arrive(name) / self.weight(name)

    def time_for(self, name: str) -> float:
        """Returns the virtual time that applies to a tenant on its ring."""
        ring, home = self.ring_of(name), self.home_time(name)
        return home if home is not None and ring is self.root else ring.virtual

    def hasten(self, member: str, time: float) -> None:
        """Makes a greater weight count at once."""
        tags = self.ring_of(member).tags
        if member in tags:
            tags[member] = min(tags[member], time + self.usual_cost(member) / self.weight(member))

    def settle(self) -> None:
        """Runs after each change: removes groups without work, and resets virtual time when nobody waits."""
        for mark, ring in list(self.groups.items()):
            if not ring.tags:
                del self.groups[mark]
                self.root.tags.pop(mark, None)
        if not self.root.tags:
            self.root.virtual = 0.0
            for home in self.homes.values():
                home.virtual = 0.0

    # Service

    def open_to(self, runtime: str) -> tuple[Collection[str], Home | None, bool]:
        """Returns the tenants that a runtime may serve now, its home if they belong to it, and whether it steals."""
        served, home = (
            {name: tag for name, tag in self.served.items() if name not in self.passed},
            self.homes.get(runtime),
        )
        if home is None:
            return served, None, False
        if own := served.keys() & home.assigned:
            return own, home, False
        return (served if "" in home.steal else served.keys() & home.steal), None, True

    def serve(self, name: str, runtime: str, cost: float) -> None:
        """Starts a task of a tenant; asserts that it is the turn of that tenant."""
        among, home, steals = self.open_to(runtime)
        assert name in among, f"{name!r} cannot be served: {among}"
        mark, member = self.mark(name), self.member(name)
        tag = self.root.tags[member]
        least = min(self.root.tags[self.member(other)] for other in among)
        assert tag == least, f"{member!r} is served at {tag}, and {least} would come first: {self.root.tags}"
        if mark:
            inner = self.groups[mark]
            least = min(inner.tags[other] for other in among if other in inner.tags)
            assert inner.tags[name] == least, f"{name!r} is served out of turn in its group: {inner.tags}"
            inner.virtual = max(inner.virtual, least)
            inner.tags[name] = (inner.virtual if self.capped else least) + cost / self.weight(name)
        if home:
            home.virtual = max(home.virtual, tag)
        elif not steals or self.home_time(name) is None:
            self.root.virtual = max(self.root.virtual, tag)
        if self.capped:  # it must not catch up with what it has missed
            tag = max(tag, home.virtual if home else self.root.virtual)
        self.root.tags[member] = tag + cost / self.weight(member)
        self.stolen += steals
        self.count_start(name)

    def charge(self, task: Task | None) -> None:
        """Charges a tenant for a task that did not wait its turn, if the tenant has a place on a ring."""
        for whose in filter(None, (task.tenant, self.mark(task.tenant))) if task else ():
            tags = self.ring_of(whose).tags
            if whose in tags:
                tags[whose] += task.charged / self.weight(whose)

    def count_start(self, name: str) -> None:
        if self.burst(name):
            self.ahead[name] = max(self.ahead.get(name, 0), 0) + 1

    # Homes

    def home_time(self, name: str) -> float | None:
        """Returns the latest time of a tenant's homes, or the shard's if that is later; None without a home."""
        times = [home.virtual for home in self.homes.values() if name in home.assigned]
        return max(self.root.virtual, *times) if times else None

    def assign(self, runtime: str, serves: tuple[list[str], list[str]] | None) -> frozenset[str]:
        """Assigns tenants to a runtime; returns those that were added or removed."""
        home = self.homes.pop(runtime, None)
        had = home.assigned if home else frozenset()
        has = frozenset(serves[0] if serves else ())
        time = max(home.virtual, self.root.virtual) if home else self._first_time(has)
        if serves is not None:
            self.homes[runtime] = Home(time, has, frozenset(serves[1]))
        self.move(has - had, time)
        self.move(had - has)
        return had ^ has

    def _first_time(self, names: Collection[str]) -> float:
        """Returns the initial virtual time of a home."""
        tags = [self.root.tags[member] for member in map(self.member, names) if member in self.root.tags]
        times = [time for time in map(self.home_time, names) if time is not None]
        return max(self.root.virtual, min(tags) if tags else max(times, default=0.0))

    def move(self, names: Collection[str], time: float | None = None) -> None:
        """Clamps the tags of tenants that joined a home to its time, or of those that left one to what applies now."""
        held: dict[str, float] = {}
        for name in names:
            member, left = self.member(name), self.home_time(name)
            start = time if time is not None else self.root.virtual if left is None else left
            if member in self.root.tags:
                if held.setdefault(member, start) != start:
                    raise UndecidedError
                latest = start + self.usual_cost(member) / self.weight(member)
                self.root.tags[member] = min(max(self.root.tags[member], start), latest)

    def homeless(self, runtimes: Collection[str]) -> set[str]:
        """Returns the tenants that could be served but are assigned to none of these runtimes.

        Returns an empty set if one of them serves all tenants or may steal from all.
        """
        homes = [self.homes.get(runtime) for runtime in runtimes]
        if not homes or any(home is None or "" in home.steal for home in homes):
            return set()
        return set(self.served).difference(*[home.assigned for home in homes if home])

    def come_home(self, runtime: str) -> None:
        """Starts a home's selection: raises the tags of its tenants to its virtual time."""
        home = self.homes[runtime]
        home.virtual = max(home.virtual, self.root.virtual)
        for member in map(self.member, self.served.keys() & home.assigned):
            self.root.tags[member] = max(self.root.tags[member], home.virtual)

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

    def cost_to_arrive(self, member: str) -> float:
        """Returns what to charge a tenant that joins a ring; this includes its debt, which it pays so."""
        if not self.by_time:
            return 1
        costs = self.costs_of(member)
        debt, costs.debt = costs.debt, 0.0
        return max(0, self.usual_cost(member) + debt)

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

    def owe(self, name: str, seconds: float) -> None:
        """Adds these seconds to the debt of a tenant and of its group."""
        if seconds:
            for whose in filter(None, (name, self.mark(name))):
                self.costs_of(whose).debt += seconds
                self.owing.append(whose)

    def pay(self) -> None:
        """Adds the debts of tenants and groups to their tags, if they are on a ring."""
        for whose in self.owing:
            ring, costs = self.ring_of(whose), self.costs_of(whose)
            if whose in ring.tags:
                ring.tags[whose] += costs.debt / self.weight(whose)
                costs.debt = 0.0
        self.owing.clear()

    def forgive(self) -> None:
        for costs in self.costs.values():
            costs.debt = 0.0


def _moved(average: float | None, seconds: float) -> float:
    return seconds if average is None else average + NEW * (seconds - average)


def is_capped(body: bytes) -> bool:
    """Whether the actor of a live task is the one that `ShardDriver.turn` limits."""
    return body.startswith(b'["f",')


def actor_in(body: bytes) -> str:
    """Returns the actor that a body names; '' if it names none."""
    match = re.match(rb'\["(.*?)"', body, re.DOTALL) or re.match(rb'\{"actor":"(.*?)"', body, re.DOTALL)
    return match[1].decode() if match else ""
