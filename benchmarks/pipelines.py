"""What dependencies cost: a step of a pipeline against a plain task, and plugins that are not used.

Chain: 1,000 steps, each of which waits for the one before it, against as many plain tasks of a tenant that runs one
task at a time. Both take one turn of the dispatcher per task. Measured from the first start to the last result.

Fan-out: a task, 10,000 tasks that wait for it, and one that waits for all of these, against as many plain tasks.
Measured from the first start to the last result, and how long sending takes.

Unused: a drain of plain tasks by a runtime with the plugins that come with fairactor, against a runtime without
plugins.
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
        without.append(1e6 / (await _plain(bench, tasks, without_plugins=True))[1])
        having.append(1e6 / (await _plain(bench, tasks))[1])
    return [
        Figure("running plain tasks, one at a time", "µs/task", one_by_one),
        Figure("running a step of a chain", "µs/step", chained, one_by_one, "plain", at_most(2.0)),
        Figure("sending plain tasks", "µs/task", sent),
        Figure("sending a fan-out", "µs/step", sent_fanned, sent, "plain"),
        Figure("running plain tasks", "µs/task", plain),
        Figure("running a step of a fan-out", "µs/step", fanned, plain, "plain", at_most(2.0)),
        Figure("drain without plugins", "tasks/s", without),
        Figure("drain with unused plugins", "tasks/s", having, without, "without", at_least(0.95)),
    ]


async def _one_by_one(bench: Bench, steps: int) -> float:
    """Returns µs per plain task of a tenant that runs one at a time."""
    await bench.clean()
    async with Runtime(bench.url) as sender:
        await sender.tenant("t").configure(concurrency=1)
        *_, last = await sender.send_many([("t", nothing(1))] * steps)
        begun = perf_counter()
        async with Runtime(bench.url, actors=[nothing]):
            await last.result(_PATIENCE)
            return (perf_counter() - begun) * 1e6 / steps


async def _plain(bench: Bench, tasks: int, **settings: Any) -> tuple[float, float]:
    """Returns µs per plain task: to send it, and to run it."""
    await bench.clean()
    async with Runtime(bench.url, **settings) as sender:
        begun = perf_counter()
        *_, last = await sender.send_many([("t", nothing(1))] * tasks)
        sent = perf_counter()
        async with Runtime(bench.url, actors=[nothing], **settings):
            await last.result(_PATIENCE)
            return (sent - begun) * 1e6 / tasks, (perf_counter() - sent) * 1e6 / tasks


async def _pipeline(bench: Bench, graph: Any, steps: int) -> tuple[float, float]:
    """Returns µs per step: to send it, and to run it."""
    await bench.clean()
    async with Runtime(bench.url) as sender:
        begun = perf_counter()
        run = await sender.send("t", graph)
        sent = perf_counter()
        async with Runtime(bench.url, actors=[nothing]):
            await run.result(_PATIENCE)
            return (sent - begun) * 1e6 / steps, (perf_counter() - sent) * 1e6 / steps
