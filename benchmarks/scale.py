"""What a claim costs with 10, 1,000 and 100,000 tenants, and how much server memory tasks take.

Claims: 100,000 tasks wait, spread evenly over the tenants and sent in random order. Then 20,000 of them are claimed in
turns of 100, and 5,000 in turns of 10, without workers. Each turn also settles what the previous turn claimed. With 10
tenants, a turn of 100 takes ten tasks from each, so it touches ten times fewer tenants than with 1,000 or 100,000. A
turn of 10 touches ten tenants whatever their number, so these turns show what the number alone costs.

- script time: time the server spends in those turns, per task claimed and settled.
- wall time: from the first turn to the last, also per task.

Memory: ``used_memory`` of the server with 100,000 waiting tasks, minus that of the empty server, per task, minus the
bytes of its body. The goal applies to 1,000 tenants with 100 tasks each. With one task per tenant, everything that is
kept for a tenant counts as memory of its task.

Memory of a tenant: what each of the 100,000 tenants adds, compared with the same tasks of 1,000 tenants.

Keys: a runtime runs 10,000 tasks over 1,000 tenants and keeps each result for one second. Measured is how many more
keys (``DBSIZE``) there are than before sending, when ``drain`` returns and after the results have expired. Measured are
also the processor time of the server for such a task, sent and run, and the connections of the runtime. These figures,
and those of memory, are the ones that the page on sizing computes with.
"""

from __future__ import annotations

import asyncio
import random
from statistics import mean
from time import perf_counter
from typing import Final, NamedTuple

from fairactor import Runtime

from . import bare
from .bench import Bench
from .claiming import claimer
from .figures import Figure, at_most
from .handlers import nothing

_TENANTS: Final = (10, 1_000, 100_000)
_RESULT_TTL: Final = 1.0
_PATIENCE: Final = 20.0  # seconds that the server may take to remove expired keys


async def run(bench: Bench, *, tasks: int = 100_000, claims: int = 20_000, finished: int = 10_000) -> list[Figure]:
    sizes = [min(tenants, tasks) for tenants in _TENANTS]
    script: list[list[float]] = [[] for _ in sizes]
    wall: list[list[float]] = [[] for _ in sizes]
    small: list[list[float]] = [[] for _ in sizes]
    memory: list[list[float]] = [[] for _ in sizes]
    kept: list[_Whole] = []
    for _ in bench.each_round():
        for i, tenants in enumerate(sizes):
            memory[i].append(await _fill(bench, tasks, tenants))
            in_scripts, in_all = await _claim(bench, claims, turn=100)
            script[i].append(in_scripts)
            wall[i].append(in_all)
            small[i].append((await _claim(bench, claims // 4, turn=10))[0])
        kept.append(await _keys(bench, finished))
    least, most = f"{sizes[0]:,} tenants", f"{sizes[-1]:,} tenants"
    figures = [
        Figure(f"script time of a claim, {tenants:,} tenants", "µs/task", times)
        for tenants, times in zip(sizes[:-1], script[:-1], strict=True)
    ]
    figures += [
        Figure(f"script time of a claim, {most}", "µs/task", script[-1], script[0], least),
        Figure(f"script time of a claim, {most}, turns of 10", "µs/task", small[-1], small[0], least, at_most(1.3)),
        Figure(f"wall time of a claim, {most}", "µs/task", wall[-1], wall[0], least),
    ]
    figures += [
        Figure(f"memory without the body, {tenants:,} tenants", "bytes/task", size, goal=goal)
        for tenants, size, goal in zip(sizes, memory, (None, at_most(400), None), strict=True)
    ]
    more = sizes[-1] - sizes[-2]
    of_tenants = [tasks * (many - few) / more for many, few in zip(memory[-1], memory[-2], strict=True)] if more else ()
    return [
        *figures,
        *([Figure("memory of a tenant", "bytes", of_tenants)] if of_tenants else []),
        Figure("server time of a task, sent and run", "µs/task", [each.server for each in kept]),
        Figure("connections of a runtime", "connections", [each.connections for each in kept]),
        Figure("extra keys after drain", "keys", [each.after for each in kept]),
        Figure("extra keys after expiry", "keys", [each.left for each in kept], goal=at_most(0)),
    ]


async def _fill(bench: Bench, tasks: int, tenants: int) -> float:
    """Sends the tasks; returns the bytes of memory per task, without its body."""
    names = [f"tenant:{n % tenants}" for n in range(tasks)]
    random.Random(tasks + tenants).shuffle(names)
    await bench.clean()
    async with Runtime(bench.url, workers=0) as runtime:
        empty = await _memory(bench)
        await runtime.send_many((name, nothing(n)) for n, name in enumerate(names))
        full = await _memory(bench)
    return (full - empty) / tasks - mean(len(bare.body(nothing.name, n)) for n in range(tasks))


async def _memory(bench: Bench) -> int:
    return int((await bench.admin.info("memory"))["used_memory"])


async def _claim(bench: Bench, claims: int, turn: int) -> tuple[float, float]:
    """Claims and settles; returns µs in scripts and µs in total, per task."""
    async with claimer(bench.url) as claiming, bench.watched() as usage:
        began = perf_counter()
        for _ in range(claims // turn):
            if len(await claiming.claim(turn)) != turn:
                raise RuntimeError("a turn claimed fewer tasks than it wanted")
        wall = perf_counter() - began
    return usage.scripts / claims, wall * 1e6 / claims


class _Whole(NamedTuple):
    """What sending and running tasks took: extra keys after `drain` and after expiry, µs a task, connections."""

    after: int
    left: int
    server: float
    connections: int


async def _keys(bench: Bench, tasks: int) -> _Whole:
    """Sends and runs tasks."""
    await bench.clean()
    async with Runtime(bench.url, actors=[nothing], result_ttl=_RESULT_TTL) as runtime:
        await runtime.ask("warm-up", nothing(0).options(result_ttl=0), timeout=10)
        await runtime.drain(timeout=10)
        before = await bench.admin.dbsize()
        async with bench.watched() as usage:
            await runtime.send_many((f"tenant:{n % 1000}", nothing(n)) for n in range(tasks))
            await runtime.drain(timeout=60)
        connections = len(await bench.admin.client_list()) - 1  # without this one
        after = left = await bench.admin.dbsize()
        deadline = perf_counter() + _RESULT_TTL + _PATIENCE
        while left != before and perf_counter() < deadline:
            await asyncio.sleep(0.1)
            left = await bench.admin.dbsize()
    return _Whole(after - before, left - before, usage.cpu / tasks, connections)
