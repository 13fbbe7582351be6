"""What limits promise, in plain Python: settings, what runs, what is owed, and which starts are allowed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

APART: Final = "\x1f"
"""Between a limit and the tenant of its instance."""
SLACK: Final = 0.5
"""Seconds by which the shard and the book may differ about a moment."""
UNITS: Final = 0.1
"""The difference in units of cost that comes from this."""


class Taken(dict[str, float]):
    """What a start took: limit, or instance of a tenant -> cost; and when it was."""

    at: float = 0.0


@attrs.define
class Book:
    """Limits, as docs/limits.md describes them. Times are those of the machine, in seconds."""

    own: dict[str, dict[str, Any]] = attrs.Factory(dict)
    """limit -> settings that were configured."""
    declared: dict[str, dict[str, Any]] = attrs.Factory(dict)
    """actor -> settings in its code."""
    paused: dict[str, float] = attrs.Factory(dict)
    """limit, or instance of a tenant -> until when it is paused."""
    dues: dict[str, float] = attrs.Factory(dict)
    """limit, or instance -> when what was taken is paid for."""
    since: dict[str, float] = attrs.Factory(dict)
    """limit, or instance -> since when something has been owed without a break."""
    running: Counter[str] = attrs.Factory(Counter)
    lowered: set[str] = attrs.Factory(set)
    """Limits and instances of which more may run than they allow, since their settings changed."""

    def settings(self, field: str) -> dict[str, Any]:
        """Returns the settings of a limit, or those that hold for an instance."""
        name = field.partition(APART)[0]
        return {**self.declared.get(name, {}), **self.own.get(name, {})}

    def interval(self, field: str) -> float:
        """Returns the seconds for a unit of cost at an even rate; 0 without a rate."""
        rate = self.settings(field).get("rate")
        return rate[1] / 1e6 if rate else 0.0

    def is_per_tenant(self, name: str) -> bool:
        return self.settings(name).get("per") == "tenant"

    def field_of(self, name: str, tenant: str) -> str:
        """Returns for what a start counts."""
        return name + APART + tenant if self.is_per_tenant(name) else name

    # What is owed

    def owes(self, field: str, now: float) -> float:
        """Returns the units that are owed."""
        interval = self.interval(field)
        return max(0.0, self.dues.get(field, 0.0) - now) / interval if interval else 0.0

    def _take(self, field: str, units: float, now: float) -> None:
        due = self.dues.get(field, 0.0)
        if due <= now:
            self.since[field] = now
        self.dues[field] = max(now, due) + units * self.interval(field)

    def _give_back(self, field: str, units: float, taken: Taken) -> None:
        """Gives back a part of what a start took, unless some of the rate went unused meanwhile: that is lost."""
        if taken.at >= self.since.get(field, 0.0):
            self.dues[field] = self.dues.get(field, 0.0) - units * self.interval(field)

    def change(self, name: str, now: float, own: Mapping[str, Any] | None, declared: Mapping[str, Any] | None) -> None:
        """Replaces settings of a limit. What is owed stays as much in units; in instances, as long."""
        units = self.owes(name, now)
        for all_settings, given in ((self.own, own), (self.declared, declared)):
            all_settings.pop(name, None)
            if given:
                all_settings[name] = dict(given)
        self.dues[name] = now + units * self.interval(name)
        self.lowered |= {field for field in self.running if field.partition(APART)[0] == name}

    def resume(self, name: str) -> None:
        """Ends all pauses of a limit."""
        for field in [field for field in self.paused if field.partition(APART)[0] == name]:
            del self.paused[field]

    # Starts

    def pauses(self, name: str, tenant: str) -> float:
        """Returns until when a limit is paused for a tenant."""
        return max(self.paused.get(name, 0.0), self.paused.get(name + APART + tenant, 0.0))

    def refusals(self, costs: Mapping[str, float], tenant: str, now: float, slack: float) -> Iterator[tuple[str, str]]:
        """Yields the limits that forbid a start, and why. With slack > 0 only what certainly forbids it."""
        for name, cost in costs.items():
            field = self.field_of(name, tenant)
            settings, burst = self.settings(name), (self.settings(name).get("rate") or ("", 0, 1.0))[2]
            if self.pauses(name, tenant) > now + slack:
                yield field, "it is paused"
            if self.running[field] >= settings.get("concurrency", math.inf):
                yield field, f"{self.running[field]} run"
            owed = self.owes(field, now + slack)
            if owed > max(0.0, burst - cost) + UNITS * (1 if slack > 0 else -1) and owed > 0:
                yield field, f"{owed} is owed, {cost} would be taken, and the burst is {burst}"

    def start(self, costs: Mapping[str, float], tenant: str, now: float) -> Taken:
        """Counts a start. Returns what it took."""
        taken = Taken({self.field_of(name, tenant): cost for name, cost in costs.items()})
        taken.at = now
        for field, cost in taken.items():
            self.running[field] += 1
            self._take(field, cost, now)
        return taken

    def end(self, taken: Taken, *, never_started: bool = False) -> None:
        """Counts a task that runs no more."""
        for field, cost in taken.items():
            self.running[field] -= 1
            if not self.running[field]:
                del self.running[field]
            if never_started:
                self._give_back(field, cost, taken)

    def charge(self, taken: Taken, name: str, tenant: str, used: float, now: float) -> int:
        """Corrects what a start took; returns the reply of charge.lua."""
        field = next((field for field in (name, name + APART + tenant) if field in taken), None)
        if field is None:
            return -1
        if used > taken[field]:
            self._take(field, used - taken[field], now)
        else:
            self._give_back(field, taken[field] - used, taken)
        taken[field] = used
        return 1
