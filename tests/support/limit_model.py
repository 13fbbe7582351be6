"""A plain-Python model of limits that tenants share, and of how tenants that wait for one share it."""

from __future__ import annotations

import math

import attrs

SLACK = 1 / 50
"""The part of a rate that is the burst, if none is given."""


@attrs.define
class Limit:
    """A limit: the generic cell rate algorithm in units of cost, concurrency, and a pause."""

    concurrency: float = math.inf
    interval: float = 0.0
    """Seconds for one unit of cost at an even rate; 0: no rate."""
    burst: float = 1.0
    paused_until: float = 0.0
    started: int = 0
    due: float = 0.0
    """When what was taken is paid for, at an even rate."""

    @classmethod
    def windowed(cls, number: float, unit: float) -> Limit:
        """Makes a limit of ``number`` in any ``unit`` seconds."""
        spare = math.floor(number * SLACK)
        return cls(interval=unit / (number - spare), burst=1 + spare)

    def allowed_from(self, now: float, cost: float) -> float:
        """Returns when a start may take this much: ``now``, a later time, or infinity if no time is enough."""
        if self.started >= self.concurrency:
            return math.inf
        # What is more than the burst has to wait until nothing is owed.
        free_at = self.due - self.interval * max(0.0, self.burst - cost)
        return max(now, free_at, self.paused_until)

    def take(self, now: float, cost: float) -> None:
        """Counts a start."""
        self.started += 1
        self.correct(now, cost)

    def end(self) -> None:
        """Counts a task that stops running."""
        self.started -= 1

    def correct(self, now: float, difference: float) -> None:
        """Takes more, or gives back."""
        if difference > 0:
            self.due = max(now, self.due) + difference * self.interval
        else:
            self.due = max(0.0, self.due + difference * self.interval)


@attrs.define
class Line:
    """The tenants that wait for a limit: self-clocked fair queuing in what the limit counts."""

    weights: dict[str, float]
    virtual: float = 0.0
    waiting: dict[str, list[float]] = attrs.Factory(dict)
    """The costs of the waiting tasks of each tenant, in order."""
    tags: dict[str, float] = attrs.Factory(dict)
    """The finish tag of the first waiting task of each tenant."""
    served: dict[str, float] = attrs.Factory(dict)

    def send(self, tenant: str, cost: float) -> None:
        """Adds a task."""
        waiting = self.waiting.setdefault(tenant, [])
        waiting.append(cost)
        if tenant not in self.tags:
            self.tags[tenant] = self.virtual + cost / self.weights[tenant]

    def first(self) -> tuple[str, float] | None:
        """Returns the tenant that is next, and what its task takes."""
        if not self.tags:
            return None
        tenant = min(self.tags, key=lambda name: (self.tags[name], name))
        return tenant, self.waiting[tenant][0]

    def serve(self) -> tuple[str, float]:
        """Starts the first task."""
        found = self.first()
        assert found is not None
        tenant, cost = found
        self.virtual = max(self.virtual, self.tags[tenant])
        self.served[tenant] = self.served.get(tenant, 0.0) + cost
        waiting = self.waiting[tenant]
        waiting.pop(0)
        if waiting:
            self.tags[tenant] += waiting[0] / self.weights[tenant]
        else:
            del self.tags[tenant]
        return tenant, cost
