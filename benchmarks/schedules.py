"""What a tick costs with 1,000, 10,000 and 100,000 schedules of which 1,000 are due.

Each schedule sends a message to one of 1,000 tenants. 1,000 schedules are due, one of each tenant; the others are due
at random times within a year. They are handled as a runtime does: it asks what is due (`due.lua`), computes the next
times, and has the server send the messages (`tick.lua`), 100 at a time, until nothing is due. There are no workers.

- script time of a run: what the server spends in both scripts, per run sent.
- script time of an idle check: what the server spends when it is asked and nothing is due, per check.
- computing next times: what the runtime spends on them, per run.
- memory: ``used_memory`` of the server, minus that of the empty server, per schedule.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any, Final

import attrs
from fairactor_scheduling import Schedules, Scheduling
from fairactor_scheduling._plugin import AT_ONCE, ticks
from fairactor_scheduling._schedule import NAME

from fairactor import Runtime

from .bench import Bench
from .figures import Figure, at_most
from .handlers import nothing

_SIZES: Final = (1_000, 10_000, 100_000)
_TENANTS: Final = 1_000
_YEAR: Final = timedelta(days=365)
_AT_ONCE: Final = 200  # schedules that are added concurrently
_LOOKS: Final = 1_000


class _Scripts:
    """The plugin's scripts, without the actor that runs them."""

    name = NAME
    scripts: Final = Scheduling().scripts
    lua: Final = Scheduling().lua


@attrs.define
class _Cost:
    run: list[float] = attrs.field(factory=list)
    look: list[float] = attrs.field(factory=list)
    work: list[float] = attrs.field(factory=list)
    memory: list[float] = attrs.field(factory=list)


async def run(bench: Bench, *, schedules: int = 100_000, due: int = 1_000) -> list[Figure]:
    sizes = [min(size, schedules) for size in _SIZES]
    costs = [_Cost() for _ in sizes]
    for _ in bench.each_round():
        await _measure(
            bench, sizes[0], due, _Cost()
        )  # memory that the server frees from the previous round must not count
        for size, cost in zip(sizes, costs, strict=True):
            await _measure(bench, size, due, cost)
    return _figures(sizes, costs)


def _figures(sizes: Sequence[int], costs: Sequence[_Cost]) -> list[Figure]:
    least, goal = f"{sizes[0]:,}", at_most(1.5)
    return [
        Figure(f"script time of a run, {sizes[0]:,} schedules", "µs", costs[0].run),
        *(
            Figure(f"script time of a run, {size:,} schedules", "µs", cost.run, costs[0].run, least, goal)
            for size, cost in zip(sizes[1:], costs[1:], strict=True)
        ),
        Figure(
            f"script time of an idle check, {sizes[-1]:,} schedules", "µs", costs[-1].look, costs[0].look, least, goal
        ),
        Figure("computing next times, per run", "µs", costs[-1].work),
        Figure(f"memory, {sizes[-1]:,} schedules", "bytes/schedule", costs[-1].memory),
    ]


async def _measure(bench: Bench, size: int, due: int, cost: _Cost) -> None:
    await bench.clean()
    async with Runtime(bench.url, workers=0, plugins=[_Scripts()]) as runtime:
        empty = await _memory(bench)
        await _fill(Schedules(runtime), size, due)
        cost.memory.append((await _memory(bench) - empty) / size)
        sent = worked = 0.0
        async with bench.watched() as usage:
            while found := (await _look(runtime))[2:]:
                began = perf_counter()
                arguments = ticks(found, int(datetime.now(UTC).timestamp() * 1000))
                worked += perf_counter() - began
                sent += sum(await runtime.host.call(f"{NAME}/tick", 0, *arguments))
        if sent != due:
            raise RuntimeError(f"{sent:.0f} of {due} due messages were sent")
        cost.run.append(usage.scripts / due)
        cost.work.append(worked * 1e6 / due)
        async with bench.watched() as usage:
            for _ in range(_LOOKS):
                await _look(runtime)
        cost.look.append(usage.scripts / _LOOKS)


async def _look(runtime: Runtime) -> Any:
    return await runtime.host.call(f"{NAME}/due", 0, "bench", AT_ONCE, 60_000)


async def _fill(schedules: Schedules, size: int, due: int) -> None:
    """Adds schedules. The last ones are due."""
    draw, now = random.Random(size), datetime.now(UTC)

    async def add_some(first: int) -> None:
        for n in range(first, size, _AT_ONCE):
            is_due = n >= size - due
            start = now - timedelta(hours=1) if is_due else now + draw.random() * _YEAR + timedelta(hours=1)
            await schedules.add(
                _YEAR, f"tenant {n % _TENANTS}", nothing(n), id=f"schedule {n}", start=start, catch_up="once"
            )

    await asyncio.gather(*(add_some(first) for first in range(_AT_ONCE)))


async def _memory(bench: Bench) -> int:
    return int((await bench.admin.info("memory"))["used_memory"])
