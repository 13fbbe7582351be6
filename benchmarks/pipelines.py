"""What it costs to wait for others: a step of a pipeline beside a plain task, and plugins that are not used.

Chain: 1,000 steps, each of which waits for the one before it, against as many plain tasks of a tenant that runs one
at a time: both are a turn of the dispatcher for each. From the first start to the last result.

Fan-out: a task, 10,000 that wait for it, and one that waits for these, against as many plain tasks. From the first
start to the last result, and what it takes to send them.

Unused: a drain of plain tasks by a runtime that has the plugins which come with fairactor, against one that has none.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any, Final

from fairactor_dependencies import chain, group

from fairactor import Runtime

from .bench import Bench
from .figures import Figure, at_least, at_most
from .handlers import nothing

_PATIENCE: Final = 300.0


async def run(bench: Bench, *, steps: int = 1_000, width: int = 10_000, tasks: int = 50_000) -> list[Figure]:
    one_by_one: list[float] = []
    chained: list[float] = []
    plain: list[float] = []
    fanned: list[float] = []
    sent: list[float] = []
    sent_fanned: list[float] = []
    without: list[float] = []
    having: list[float] = []
    for _ in bench.each_round():
        one_by_one.append(await _one_by_one(bench, steps))
        chained.append((await _pipeline(bench, chain(*(nothing(1) for _ in range(steps))), steps))[1])
        of_plain = await _plain(bench, width)
        sent.append(of_plain[0])
        plain.append(of_plain[1])
        fan = chain(nothing(1), group(*(nothing(1) for _ in range(width))), nothing(1))
        of_fan = await _pipeline(bench, fan, width)
        sent_fanned.append(of_fan[0])
        fanned.append(of_fan[1])
        without.append(1e6 / (await _plain(bench, tasks, plugins=[]))[1])
        having.append(1e6 / (await _plain(bench, tasks))[1])
    return [
        Figure("plain tasks, one at a time", "µs/task", one_by_one),
        Figure("a step of a chain", "µs/step", chained, one_by_one, "plain", at_most(2.0)),
        Figure("plain tasks, sent", "µs/task", sent),
        Figure("a fan-out, sent", "µs/step", sent_fanned, sent, "plain"),
        Figure("plain tasks, run", "µs/task", plain),
        Figure("a step of a fan-out, run", "µs/step", fanned, plain, "plain", at_most(2.0)),
        Figure("drain without plugins", "tasks/s", without),
        Figure("drain with plugins that are not used", "tasks/s", having, without, "without", at_least(0.95)),
    ]


async def _one_by_one(bench: Bench, steps: int) -> float:
    """Microseconds for each plain task of a tenant that runs one at a time."""
    await bench.clean()
    async with Runtime(bench.url) as sender:
        await sender.tenant("t").configure(concurrency=1)
        *_, last = await sender.send_many([("t", nothing(1))] * steps)
        begun = perf_counter()
        async with Runtime(bench.url, actors=[nothing]):
            await last.result(_PATIENCE)
            return (perf_counter() - begun) * 1e6 / steps


async def _plain(bench: Bench, tasks: int, **settings: Any) -> tuple[float, float]:
    """Microseconds for each plain task: to send it, and to run it."""
    await bench.clean()
    async with Runtime(bench.url, **settings) as sender:
        begun = perf_counter()
        *_, last = await sender.send_many([("t", nothing(1))] * tasks)
        sent = perf_counter()
        async with Runtime(bench.url, actors=[nothing], **settings):
            await last.result(_PATIENCE)
            return (sent - begun) * 1e6 / tasks, (perf_counter() - sent) * 1e6 / tasks


async def _pipeline(bench: Bench, graph: Any, steps: int) -> tuple[float, float]:
    """Microseconds for each step: to send it, and to run it."""
    await bench.clean()
    async with Runtime(bench.url) as sender:
        begun = perf_counter()
        run = await sender.send("t", graph)
        sent = perf_counter()
        async with Runtime(bench.url, actors=[nothing]):
            await run.result(_PATIENCE)
            return (sent - begun) * 1e6 / steps, (perf_counter() - sent) * 1e6 / steps
