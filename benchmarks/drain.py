"""No-op tasks over 1,000 tenants, drained by one process, against the bare loop.

All tasks are sent first, cycling through the tenants. Then a runtime with 100 workers that keeps no results is entered
and drains them. The bare loop of `benchmarks.bare` drains as many tasks of the same bytes: it pops 200 at a time, runs
them one after the other, and acknowledges each one, the 200 calls in one pipeline. The goal applies to that loop. Two
more loops are there for information. They acknowledge 200 tasks at once, so they cannot tell a task that ended from one
that did not; one of them has workers, like the runtime.

- throughput: tasks / (from the first start of a handler until the server has every outcome).
- overhead: the mean time between the starts of two handlers that do nothing, which is what a handler sees of the
  library.
- process time: processor time of this process, per task.
- script time: time the server spends inside scripts, per task (``INFO commandstats``).
- server time: processor time of the server, per task, including reading and writing its sockets.
- script calls: round trips per task. commands: commands per task, including those inside scripts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter, process_time

import attrs

from fairactor import Handle, Runtime
from fairactor._model.keys import Keys

from . import bare
from .bench import Bench, Usage
from .figures import Figure, Goal, at_least
from .handlers import nothing, starts


@attrs.frozen
class Drained:
    """What was measured."""

    seconds: float
    overhead: float
    process: float
    usage: Usage


async def run(bench: Bench, *, tasks: int = 20_000, tenants: int = 1_000, workers: int = 100) -> list[Figure]:
    ours: list[Drained] = []
    baseline: list[Drained] = []
    at_once: list[Drained] = []
    by_workers: list[Drained] = []
    for _ in bench.each_round():
        await bench.clean()
        ours.append(await drain_runtime(bench, tasks, tenants, workers))
        await bench.clean()
        baseline.append(await _drain_bare(bench, tasks, bare.BareQueue.drain_singly))
        await bench.clean()
        at_once.append(await _drain_bare(bench, tasks, bare.BareQueue.drain))
        await bench.clean()
        by_workers.append(
            await _drain_bare(bench, tasks, lambda queue, handlers: queue.drain_by_workers(handlers, workers))
        )

    def figure(name: str, unit: str, value: Callable[[Drained], float], goal: Goal | None = None) -> Figure:
        return Figure(name, unit, [*map(value, ours)], [*map(value, baseline)], "bare loop", goal)

    def throughput(rounds: list[Drained]) -> list[float]:
        return [tasks / drained.seconds for drained in rounds]

    return [
        figure("throughput", "tasks/s", lambda drained: tasks / drained.seconds, at_least(0.5)),
        Figure("same, 200 acks at once", "tasks/s", throughput(ours), throughput(at_once), "bare loop, acks at once"),
        Figure("same, and workers", "tasks/s", throughput(ours), throughput(by_workers), f"{workers} bare workers"),
        figure("overhead", "µs/task", lambda drained: drained.overhead),
        figure("process time", "µs/task", lambda drained: drained.process / tasks),
        figure("script time", "µs/task", lambda drained: drained.usage.scripts / tasks),
        figure("server time", "µs/task", lambda drained: drained.usage.cpu / tasks),
        figure("script calls", "calls/task", lambda drained: drained.usage.calls / tasks),
        figure("commands", "commands/task", lambda drained: drained.usage.commands / tasks),
    ]


async def drain_runtime(bench: Bench, tasks: int, tenants: int, workers: int) -> Drained:
    async with Runtime(bench.url, workers=0) as runtime:
        handles = await runtime.send_many((f"tenant:{n % tenants}", nothing(n)) for n in range(tasks))
    await _check_bytes(bench, handles[0])
    del handles
    async with bench.watched() as usage:
        starts.clear()
        cpu = process_time()
        async with Runtime(bench.url, actors=[nothing], workers=workers, result_ttl=0) as runtime:
            await runtime.drain(timeout=300)
            ended = perf_counter()
            cpu = process_time() - cpu
    return _drained(tasks, ended, cpu, usage)


async def _drain_bare(
    bench: Bench, tasks: int, drain: Callable[[bare.BareQueue, bare.Handlers], Awaitable[None]]
) -> Drained:
    async with bare.bare_queue(bench.url) as queue:
        for batch in bare.batches(tasks):
            await queue.send(batch)
        async with bench.watched() as usage:
            starts.clear()
            cpu = process_time()
            await drain(queue, {nothing.name: nothing.function})
            ended = perf_counter()
            cpu = process_time() - cpu
    return _drained(tasks, ended, cpu, usage)


def _drained(tasks: int, ended: float, cpu: float, usage: Usage) -> Drained:
    if len(starts) != tasks:
        raise RuntimeError(f"{tasks} tasks were sent, but {len(starts)} were run")
    overhead = (starts[-1] - starts[0]) / (tasks - 1) * 1e6
    return Drained(ended - starts[0], overhead, cpu * 1e6, usage)


async def _check_bytes(bench: Bench, handle: Handle[None]) -> None:
    """Checks that the bare loop gets the same bytes."""
    stored: bytes = await bench.admin.get(Keys("fairactor").task(handle.id))
    if not stored.endswith(bare.body(nothing.name, 0)):
        raise RuntimeError(f"the bare loop would run different bytes than {stored!r}")
