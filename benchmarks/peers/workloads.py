"""The workloads, the same for all peers. Each returns its values by name; `WORKLOADS` describes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from statistics import quantiles
from typing import Final

import attrs

from benchmarks.figures import Goal, at_least, at_most

from .place import Noted, PeerFailed, Place
from .rivals import Peer, Way

_WARM: Final = 1_000_000_000  # the number of the first warm-up task
_WARMING: Final = 100  # how many warm-up tasks there are
_PATIENCE: Final = 120.0  # seconds that tasks may take
_READY: Final = 30.0  # seconds until a worker process runs its first task


@attrs.frozen
class Metric:
    """A quantity that a workload measures."""

    name: str
    unit: str
    more: bool
    """Whether more is better."""
    judged: bool = True
    """Whether the goal is to match the best peer."""

    @property
    def goal(self) -> Goal | None:
        """The bound on our value / the best peer's value."""
        if not self.judged:
            return None
        return at_least(1) if self.more else at_most(1)


@attrs.frozen
class Sizes:
    """The sizes of the workloads."""

    tasks: int
    tenants: int
    samples: int


Found = dict[str, float]
Workload = Callable[[Place, Way, Sizes], Awaitable[Found]]


async def enqueue(place: Place, way: Way, sizes: Sizes) -> Found:
    """Measures how many tasks per second one process sends, one per call."""
    return {"enqueue": await _enqueue(place, way, sizes, "singly", min(sizes.tasks, place.peer.sends))}


async def batches(place: Place, way: Way, sizes: Sizes) -> Found:
    """Measures the same for sending in batches."""
    return {"batches": await _enqueue(place, way, sizes, "many", sizes.tasks)}


async def _enqueue(place: Place, way: Way, sizes: Sizes, how: str, count: int) -> float:
    sender = await place.sender(way)
    await sender.send("singly", _WARMING, first=_WARM, tenants=sizes.tenants)  # opens its connections
    answer = await sender.send(how, count, tenants=sizes.tenants)
    return count / float(answer["seconds"])


async def drain_one(place: Place, way: Way, sizes: Sizes) -> Found:
    """Measures how many tasks per second one worker process starts."""
    return await _drain(place, way, sizes, 1)


async def drain_two(place: Place, way: Way, sizes: Sizes) -> Found:
    """Measures the same for two worker processes."""
    return await _drain(place, way, sizes, 2)


async def _drain(place: Place, way: Way, sizes: Sizes, processes: int) -> Found:
    count = min(sizes.tasks, place.peer.drains)
    sender = await place.sender(way)
    await sender.send("many", count, tenants=sizes.tenants)
    await sender.leave()
    await place.work(way, processes)
    noted = await place.noted(count, _PATIENCE)
    starts = noted.starts.values()
    return {
        f"drain {processes}": (len(starts) - 1) / (max(starts) - min(starts)) * 1e9,
        "doubled": noted.doubled,
    }


async def latency(place: Place, way: Way, sizes: Sizes) -> Found:
    """Measures the time from the call that sends a task to its start, with idle workers."""
    sender = await place.sender(way)
    await sender.send("singly", _WARMING, first=_WARM)
    await place.work(way)
    await place.noted(_WARMING, _READY, rest=1)
    answer = await sender.send("singly", sizes.samples, interval=0.02, times=True)
    noted = await place.noted(_WARMING + sizes.samples, _PATIENCE)
    cuts = quantiles(_waits(noted, answer["sent"], 0), n=100, method="inclusive")
    return {"latency p50": cuts[49] * 1000, "latency p99": cuts[98] * 1000, "doubled": noted.doubled}


async def neighbour(place: Place, way: Way, _sizes: Sizes) -> Found:
    """Measures how long a tenant's tasks wait, beside a tenant with a backlog and alone."""
    alone = await _beside(place, way, 0)
    await place.clear()
    waits = await _beside(place, way, place.peer.backlog)
    doubled = sum(runs > 1 for runs in place.read().runs.values())
    return {**_cuts("beside", waits), **_cuts("alone", alone), "doubled": doubled}


async def _beside(place: Place, way: Way, backlog: int) -> list[float]:
    """Measures how long each of 50 tasks waits, sent a second after the first task of the backlog started."""
    few = 50
    sender = await place.sender(way)
    await sender.send("singly", _WARMING, first=_WARM, tenant="A")  # opens its connections
    await sender.send("many", backlog, seconds=0.005, tenant="A")
    await place.work(way)
    await place.noted(_WARMING + min(backlog, 1), _READY, rest=1)
    answer = await sender.send("many", few, first=backlog, seconds=0.005, tenant="B", times=True)
    if backlog and len(place.read().ends) >= backlog:
        raise PeerFailed(f"the backlog of {backlog} tasks was done before the neighbour came")
    noted = await place.noted(_WARMING + backlog + few, _PATIENCE)
    return _waits(noted, answer["sent"], backlog)


async def sleepers(place: Place, way: Way, _sizes: Sizes) -> Found:
    """Measures how long 2,000 sleeps of a second take 1,000 workers, and how many connections they use."""
    count, connections = 2_000, 0
    sender = await place.sender(way)
    await sender.send("many", count, seconds=1, tenants=100)
    await sender.leave()
    await place.work(way)
    waiting = asyncio.create_task(place.noted(count, _PATIENCE, ends=True))
    while not waiting.done():
        connections = max(connections, (await place.admin.info("clients"))["connected_clients"] - 1)
        await asyncio.wait([waiting], timeout=0.3)
    noted = waiting.result()
    seconds = (max(noted.ends.values()) - min(noted.starts.values())) / 1e9
    return {"sleepers": seconds, "connections": connections, "doubled": noted.doubled}


def _waits(noted: Noted, sent: list[int], first: int) -> list[float]:
    """Returns the milliseconds from the calls that sent the tasks to their starts."""
    return [(noted.starts[first + number] - at) / 1e6 for number, at in enumerate(sent)]


def _cuts(name: str, waits: list[float]) -> Found:
    cuts = quantiles(waits, n=100, method="inclusive")
    return {f"{name} p50": cuts[49], f"{name} p95": cuts[94], f"{name} max": max(waits)}


@attrs.frozen
class Task:
    """A workload, the ways that a peer has for it, and its metrics. The first metric picks the best way."""

    run: Workload
    ways: Callable[[Peer], tuple[Way, ...]]
    metrics: dict[str, Metric]


WORKLOADS: Final[dict[str, Task]] = {
    "enqueue": Task(
        enqueue,
        lambda peer: peer.enqueue,
        {"enqueue": Metric("enqueue, one per call", "tasks/s", more=True)},
    ),
    "batches": Task(
        batches, lambda peer: peer.batches, {"batches": Metric("enqueue in batches", "tasks/s", more=True)}
    ),
    "drain1": Task(drain_one, lambda peer: peer.drain, {"drain 1": Metric("drain, 1 process", "tasks/s", more=True)}),
    "drain2": Task(drain_two, lambda peer: peer.drain, {"drain 2": Metric("drain, 2 processes", "tasks/s", more=True)}),
    "latency": Task(
        latency,
        lambda peer: peer.latency,
        {
            "latency p50": Metric("idle latency p50", "µs", more=False),
            "latency p99": Metric("idle latency p99", "µs", more=False),
        },
    ),
    "neighbour": Task(
        neighbour,
        lambda peer: peer.neighbour,
        {
            **{
                f"beside {cut}": Metric(f"wait beside a backlog, {cut}", "ms", more=False)
                for cut in ("p50", "p95", "max")
            },
            **{
                f"alone {cut}": Metric(f"wait without a backlog, {cut}", "ms", more=False, judged=False)
                for cut in ("p50", "p95", "max")
            },
        },
    ),
    "sleepers": Task(
        sleepers,
        lambda peer: peer.sleepers,
        {
            "sleepers": Metric("2,000 sleeps of 1 s by 1,000 workers", "s", more=False),
            "connections": Metric("connections of the sleepers", "connections", more=False, judged=False),
        },
    ),
}
