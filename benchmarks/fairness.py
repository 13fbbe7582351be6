"""1,000 tenants with 10 tasks each, and eight processes that each run one task at a time.

All tasks are queued, tenant by tenant, before the workers start. Then all workers are told to start at once, and the
clock starts. A task sleeps: once for 20 ms, and in every round for 0 ms. The baseline is bare loops: the same number of
processes sleep as often as there are tasks, and do nothing else.

- wall time: from the start until the last task has ended.
- throughput: tasks / (from the first start of a task to the end of the last).
- tasks per worker: how much the numbers of tasks that the workers ran differ. The numbers themselves stand below the
  table, for each round.
- first pickup: from the start until the first task of a tenant starts, over the tenants. With perfectly even service
  and 10 tasks each, the last tenant's would start when a tenth of the run is over.
- wait: from the start until a task starts: the mean of each tenant, over the tenants.
- starved: the number of tenants whose first pickup is later than twice the median.
"""

from __future__ import annotations

import asyncio
from statistics import mean, median, pstdev
from time import monotonic

import attrs

from fairactor import Runtime

from . import plots
from .bench import Bench
from .figures import Figure, at_least, at_most
from .handlers import Service, services, work
from .processes import Line, all_heard, processes


@attrs.frozen
class _Served:
    """The tasks that the workers ran."""

    start: float
    workers: list[list[Service]]

    @property
    def all(self) -> list[Service]:
        return [service for worker in self.workers for service in worker]

    @property
    def wall(self) -> float:
        return max(service.ended for service in self.all) - self.start

    @property
    def throughput(self) -> float:
        return len(self.all) / (self.wall + self.start - min(service.began for service in self.all))

    @property
    def counts(self) -> list[int]:
        return [len(worker) for worker in self.workers]

    @property
    def off_mean(self) -> float:
        """The largest deviation of a worker's count from the mean, in percent."""
        even = mean(self.counts)
        return 100 * max(abs(count - even) for count in self.counts) / even

    @property
    def waits(self) -> list[list[float]]:
        """For each tenant, the seconds from the start until each of its tasks began."""
        waits: dict[str, list[float]] = {}
        for service in self.all:
            waits.setdefault(service.tenant, []).append(service.began - self.start)
        return [*waits.values()]


async def run(
    bench: Bench, *, partitions: int = 1_000, tasks: int = 10, workers: int = 8, work_duration: float = 0.02
) -> list[Figure]:
    loops = await _sleep_all(workers, partitions * tasks // workers, work_duration)
    slow = await _serve_all(bench, partitions, tasks, workers, work_duration)
    fast = [await _serve_all(bench, partitions, tasks, workers, 0) for _ in bench.each_round()]
    bench.pictures.append(plots.fairness([min(waits) for waits in slow.waits], slow.wall / tasks))
    bench.notes.append(f"tasks per worker: {_listed(slow.counts)}")
    bench.notes.extend(
        f"tasks per worker, no-op tasks, round {number}: {_listed(each.counts)}" for number, each in enumerate(fast, 1)
    )
    return [
        Figure("wall time", "s", [slow.wall], [loops.wall], "bare loops", at_most(1.05)),
        *_of_tenants(slow, tasks),
        Figure("throughput", "tasks/s", [slow.throughput], [loops.throughput], "bare loops"),
        Figure("tasks per worker, stdev", "tasks", [pstdev(slow.counts)]),
        Figure("tasks per worker, largest deviation from the mean", "%", [slow.off_mean], goal=at_most(5)),
        Figure("throughput, no-op tasks", "tasks/s", [each.throughput for each in fast], goal=at_least(15_400)),
        Figure("tasks per worker, stdev, no-op tasks", "tasks", [pstdev(each.counts) for each in fast]),
        Figure(
            "tasks per worker, largest deviation from the mean, no-op tasks",
            "%",
            [each.off_mean for each in fast],
            goal=at_most(5),
        ),
    ]


def _listed(counts: list[int]) -> str:
    """Returns the count of each worker, and their sum."""
    return f"{', '.join(f'{count:,}' for count in counts)}; in all {sum(counts):,}"


def _of_tenants(served: _Served, tasks: int) -> list[Figure]:
    first = [min(waits) for waits in served.waits]
    even = f"1/{tasks} of the run"
    return [
        Figure("first pickup, max", "s", [max(first)], [served.wall / tasks], even, at_most(1.1)),
        Figure("first pickup, min", "s", [min(first)]),
        Figure("first pickup, mean", "s", [mean(first)]),
        Figure("first pickup, median", "s", [median(first)]),
        Figure("first pickup, stdev", "s", [pstdev(first)]),
        Figure("wait, mean", "s", [mean(map(mean, served.waits))]),
        Figure("wait, stdev", "s", [pstdev(map(mean, served.waits))]),
        Figure("starved", "tenants", [sum(each > 2 * median(first) for each in first)], goal=at_most(0)),
    ]


async def _serve_all(bench: Bench, partitions: int, tasks: int, workers: int, seconds: float) -> _Served:
    await bench.clean()
    tenants = [f"tenant:{n}" for n in range(partitions) for _ in range(tasks)]
    async with Runtime(bench.url, workers=0) as runtime:
        await runtime.send_many((tenant, work(tenant, seconds)) for tenant in tenants)
        async with processes(workers, _serve, bench.url) as lines:
            start = _start(lines)
            await runtime.drain(timeout=60 + 2 * len(tenants) * seconds / workers)
            for line in lines:
                line.send()
            served = _Served(start, await all_heard(lines))
    if len(served.all) != len(tenants):
        raise RuntimeError(f"{len(tenants)} tasks were sent, but {len(served.all)} were run")
    return served


async def _sleep_all(workers: int, sleeps: int, seconds: float) -> _Served:
    async with processes(workers, _sleep, sleeps, seconds) as lines:
        return _Served(_start(lines), await all_heard(lines))


def _start(lines: list[Line]) -> float:
    start = monotonic()
    for line in lines:
        line.send()
    return start


async def _serve(line: Line, url: str) -> None:
    """Runs in a worker process: serves from the first message until the second."""
    await line.receive()
    async with Runtime(url, actors=[work], workers=1, result_ttl=0):
        await line.receive()
        line.send(services)


async def _sleep(line: Line, sleeps: int, seconds: float) -> None:
    """Runs in a process of the baseline: a bare loop of sleeps."""
    await line.receive()
    for _ in range(sleeps):
        began = monotonic()
        await asyncio.sleep(seconds)
        services.append(Service("", began, monotonic()))
    line.send(services)
