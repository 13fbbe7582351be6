"""How fair a run was, and what one FIFO queue would have made of it. Nothing but arithmetic here."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

ENOUGH: Final = 10
"""Tenants with fewer tasks are not compared: they run out before a share can be told."""


@attrs.frozen
class Service:
    """One task, as a worker served it; times are seconds after all were queued."""

    tenant: str
    began: float
    ended: float


def jain_index(values: Iterable[float]) -> float:
    """Jain's fairness index, (Σx)² / (n·Σx²): 1 if all have the same, 1/n if one has everything.

    1 also where nobody has anything.
    """
    xs = list(values)
    most = max(xs, default=0.0)
    if most == 0:
        return 1.0
    xs = [x / most for x in xs]  # the index does not depend on the unit, and squares may overflow
    return sum(xs) ** 2 / (len(xs) * sum(x * x for x in xs))


def compared(sizes: Iterable[int]) -> int:
    """How many tasks a tenant must have to be compared: `ENOUGH`, or as many as the second largest has."""
    two = heapq.nlargest(2, sizes)
    return min(ENOUGH, *two) if two else ENOUGH


def service_while_all_had_work(services: Sequence[Service], least: int) -> dict[str, int]:
    """How many tasks of each tenant began until the first tenant ran out, of those with ``least`` tasks or more.

    A tenant has run out when its last task begins: from then on nothing of it waits.
    """
    begins: defaultdict[str, list[float]] = defaultdict(list)
    for service in services:
        begins[service.tenant].append(service.began)
    enough = {tenant: times for tenant, times in begins.items() if len(times) >= least}
    end = min((max(times) for times in enough.values()), default=0.0)
    return {tenant: sum(time <= end for time in times) for tenant, times in enough.items()}


def replay_fifo(services: Sequence[Service], workers: int) -> list[Service]:
    """The same tasks as one FIFO queue would have served them, in the order in which they were sent.

    The replay takes what was measured: each task occupies a worker for as long as it did, the workers begin when
    the first task began, and each takes its next task, the oldest, as soon as it is free. Between two tasks it takes
    the time that a worker took on average in the run, so that the replay is as fast as the run was: the only
    difference is the order.

    Args:
        services: what was measured, in the order of sending.
        workers: how many tasks ran at once.
    """
    if not services:
        return []
    start = min(service.began for service in services)
    length = max(service.ended for service in services) - start
    worked = sum(service.ended - service.began for service in services)
    between = max(0.0, (workers * length - worked) / len(services))
    free = [start] * workers  # a heap: when each worker is free
    replayed = []
    for service in services:
        began = free[0]
        ended = began + (service.ended - service.began)
        heapq.heapreplace(free, ended + between)
        replayed.append(Service(service.tenant, began, ended))
    return replayed
