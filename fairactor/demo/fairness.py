"""Measures of how fair a run was, and a replay of the run with one FIFO queue."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

ENOUGH: Final = 10
"""Tenants with fewer tasks are not compared, because they run out of tasks too early."""


@attrs.frozen
class Service:
    """The run of one task. Times are seconds since all tasks were queued."""

    tenant: str
    began: float
    ended: float


def jain_index(values: Iterable[float]) -> float:
    """Returns Jain's fairness index, (Σx)² / (n·Σx²): 1 if all values are equal, 1/n if only one is not 0.

    If all values are 0, or there are none, the index is 1.
    """
    xs = list(values)
    most = max(xs, default=0.0)
    if most == 0:
        return 1.0
    xs = [x / most for x in xs]  # the index does not depend on the unit, and squares may overflow
    return sum(xs) ** 2 / (len(xs) * sum(x * x for x in xs))


def least_to_compare(sizes: Iterable[int]) -> int:
    """Returns how many tasks a tenant needs to be compared: `ENOUGH`, or fewer if the second largest has fewer."""
    two = heapq.nlargest(2, sizes)
    return min(ENOUGH, *two) if two else ENOUGH


def service_while_all_had_work(services: Sequence[Service], least: int) -> dict[str, int]:
    """Counts the tasks of each tenant that began before the first tenant had no more tasks waiting.

    Only tenants with at least ``least`` tasks are counted. A tenant has none waiting once its last task has begun.
    """
    begins: defaultdict[str, list[float]] = defaultdict(list)
    for service in services:
        begins[service.tenant].append(service.began)
    enough = {tenant: times for tenant, times in begins.items() if len(times) >= least}
    end = min((max(times) for times in enough.values()), default=0.0)
    return {tenant: sum(time <= end for time in times) for tenant, times in enough.items()}


def replay_fifo(services: Sequence[Service], workers: int) -> list[Service]:
    """Returns the tasks as one FIFO queue would have run them, in the order in which they were sent.

    The replay uses the measured times. Each task occupies a worker for as long as it did in the run. The workers begin
    when the first task began, and a free worker takes the oldest task. Between two tasks a worker pauses for as long as
    workers did on average in the run. So the replay is as fast as the run, and differs only in the order.

    Args:
        services: the measured runs, in the order of sending.
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
