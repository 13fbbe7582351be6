"""A small model of ideal service: which tenant a runtime should serve next, if runtimes can run different tasks.

Runtimes that can run the same lanes are of one kind. Each kind shares its service among the tenants that have work for
it, in proportion to their weights. A tenant has one share of a kind, in however many of its lanes it has tasks. What
it gets from other kinds does not count: they may be slower, or useless for the other tenants.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence

import attrs


@attrs.define
class Clock:
    """The order in which a kind serves tenants: self-clocked fair queuing."""

    virtual: float = 0.0
    tags: dict[str, float] = attrs.Factory(dict)


@attrs.define
class Ideal:
    """Serves tenants ideally.

    Args:
        kinds: the lanes that each kind of runtimes can run.
        weights: the weight of each tenant.
    """

    kinds: Mapping[str, Collection[str]]
    weights: Mapping[str, float]
    mailboxes: dict[str, dict[str, deque[int]]] = attrs.Factory(dict)
    """tenant -> lane -> the places of its tasks there: lower goes first."""
    clocks: dict[str, Clock] = attrs.Factory(dict)
    _sent: int = 0

    def __attrs_post_init__(self) -> None:
        self.clocks = {kind: Clock() for kind in self.kinds}
        self.mailboxes = {tenant: defaultdict(deque) for tenant in self.weights}

    def send(self, tenant: str, lane: str) -> None:
        """Adds a task behind the tenant's others."""
        self.mailboxes[tenant][lane].append(self._sent)
        self._sent += 1
        self._update(tenant)

    def claim(self, kind: str, among_equals: str = "") -> str | None:
        """Serves the tenant whose turn it is with a runtime of this kind; returns None if there is no work for it.

        If it is the turn of several, it serves ``among_equals`` if that is one of them.
        """
        clock = self.clocks[kind]
        if not clock.tags:
            return None
        least = min(clock.tags.values())
        first = [name for name, tag in sorted(clock.tags.items()) if math.isclose(tag, least, rel_tol=1e-9)]
        tenant = among_equals if among_equals in first else first[0]
        min(self.work(tenant, kind)).popleft()
        clock.virtual = clock.tags[tenant]
        clock.tags[tenant] += 1 / self.weights[tenant]
        self._update(tenant)
        return tenant

    def work(self, tenant: str, kind: str) -> list[deque[int]]:
        """Returns the mailboxes of a tenant from which a kind can take tasks."""
        return [box for lane, box in self.mailboxes[tenant].items() if box and lane in self.kinds[kind]]

    def _update(self, tenant: str) -> None:
        """Lets a tenant join or leave the lines in which it stands."""
        for kind, clock in self.clocks.items():
            if not self.work(tenant, kind):
                clock.tags.pop(tenant, None)
            elif tenant not in clock.tags:
                clock.tags[tenant] = clock.virtual + 1 / self.weights[tenant]


def off_by(served: Sequence[str], wanted: Sequence[str], tenant: str, window: int, spare: int = 1) -> float:
    """Returns how far the service of a tenant is off at most, over any so many claims, in shares of what it should be.

    Both are the tenants served, claim by claim. A difference of ``spare`` tasks counts as nothing.
    """
    ours, ideal, worst = [0], [0], 0.0
    for found, right in zip(served, wanted, strict=True):
        ours.append(ours[-1] + (found == tenant))
        ideal.append(ideal[-1] + (right == tenant))
    for start in range(max(1, len(ours) - window)):
        end = min(start + window, len(ours) - 1)
        got, due = ours[end] - ours[start], ideal[end] - ideal[start]
        if abs(got - due) > spare:
            worst = max(worst, abs(got - due) / max(due, 1))
    return worst
