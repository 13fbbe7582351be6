"""Fleets whose runtimes do not all have the same actors, against the same runtimes alone.

- idle fleet: one runtime has the actor, and 0, 1, 3 or 15 others lack it. All sleep. From ``send`` to the start of the
  handler, p50 and p99, against a fleet of the one runtime.
- both pools busy: two runtimes with different actors, each with its own backlog. The handlers sleep, so the processor
  is no limit. Throughput of each, against the runtime alone.
- 8 lanes: one runtime drains tasks of 8 queues, against as many of one.
- many lanes known: tasks wait in 1,000 lanes, and a runtime serves 2 of them. Script time of its turns, for each task,
  against 2 lanes known.
- claims: 100,000 tasks wait in 2 lanes that a runtime serves, in random order. Script time of a claim in turns of 10,
  with 100,000 tenants, against 10 tenants.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from statistics import quantiles
from time import perf_counter, perf_counter_ns
from typing import Final

from fairactor import Runtime, actor

from .bench import Bench
from .claiming import claimer
from .figures import Figure, at_least, at_most
from .handlers import arrive, delays, nothing

_WITHOUT: Final = (1, 3, 15)
_QUIET: Final = 0.3  # seconds until a fleet that has just started is idle
_PATIENCE: Final = 10.0


@actor
async def on_cpu(seconds: float) -> None:
    await asyncio.sleep(seconds)


@actor
async def on_gpu(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def run(
    bench: Bench, *, samples: int = 120, tasks: int = 10_000, lanes: int = 8, known: int = 1_000, tenants: int = 100_000
) -> list[Figure]:
    p50: dict[int, list[float]] = {}
    p99: dict[int, list[float]] = {}
    alone: list[float] = []
    beside: dict[str, list[float]] = {"on_cpu": [], "on_gpu": []}
    drained: dict[int, list[float]] = {1: [], lanes: []}
    turns: dict[int, list[float]] = {2: [], known: []}
    claims: dict[int, list[float]] = {10: [], tenants: []}
    for _ in bench.each_round():
        for others in (0, *_WITHOUT):
            await bench.clean()
            cuts = quantiles(await _idle(bench.url, others, samples), n=100, method="inclusive")
            p50.setdefault(others, []).append(cuts[49])
            p99.setdefault(others, []).append(cuts[98])
        await bench.clean()
        alone.append((await _busy(bench.url, ["on_cpu"]))["on_cpu"])
        await bench.clean()
        for name, rate in (await _busy(bench.url, ["on_cpu", "on_gpu"])).items():
            beside[name].append(rate)
        for number, rates in drained.items():
            await bench.clean()
            rates.append(await _drain(bench.url, tasks, number))
        for number, times in turns.items():
            await bench.clean()
            times.append(await _among(bench, tasks // 5, number))
        for number, times in claims.items():
            await bench.clean()
            times.append(await _claims(bench, tenants, number))
    figures = []
    for others in _WITHOUT:
        figures.append(Figure(f"p50, {others} without", "µs", p50[others], p50[0], "0 without", at_most(1.1)))
        figures.append(Figure(f"p99, {others} without", "µs", p99[others], p99[0], "0 without", at_most(1.1)))
    for name, rates in beside.items():
        figures.append(Figure(f"{name}, both busy", "tasks/s", rates, alone, "alone", at_least(0.95)))
    figures.append(Figure(f"drain, {lanes} lanes", "tasks/s", drained[lanes], drained[1], "1 lane", at_least(0.85)))
    name = f"script time, {known} lanes known"
    figures.append(Figure(name, "µs/task", turns[known], turns[2], "2 known", at_most(1.2)))
    name = f"script time of a claim in lanes, {tenants:,} tenants"
    figures.append(Figure(name, "µs/task", claims[tenants], claims[10], "10 tenants", at_most(1.3)))
    return figures


async def _idle(url: str, others: int, samples: int) -> list[float]:
    async with AsyncExitStack() as fleet:
        sender = await fleet.enter_async_context(Runtime(url, workers=0))
        await fleet.enter_async_context(Runtime(url, actors=[arrive]))
        for _ in range(others):
            await fleet.enter_async_context(Runtime(url, actors=[nothing]))
        delays.clear()
        await asyncio.sleep(_QUIET)
        for _ in range(samples):
            await asyncio.sleep(0.02)
            await sender.send("tenant", arrive(perf_counter_ns()))
        async with asyncio.timeout(_PATIENCE):
            while len(delays) < samples:  # noqa: ASYNC110 - the handler must do nothing but note the time
                await asyncio.sleep(0.02)
    return delays.copy()


async def _busy(
    url: str, names: list[str], *, seconds: float = 0.02, workers: int = 10, tasks: int = 1_000
) -> dict[str, float]:
    """Returns the tasks of each actor that have ended in a second, while tasks of all of them wait."""
    actors = {"on_cpu": on_cpu, "on_gpu": on_gpu}
    rates = {}
    async with AsyncExitStack() as fleet:
        sender = await fleet.enter_async_context(Runtime(url, workers=0))
        handles = {}
        for name in names:
            messages = [(f"tenant {n % 50}", actors[name](seconds)) for n in range(tasks)]
            handles[name] = await sender.send_many(messages)
        began = perf_counter()
        for name in names:
            await fleet.enter_async_context(Runtime(url, actors=[actors[name]], workers=workers))

        async def wait_for(name: str) -> None:
            await asyncio.gather(*[handle.result(timeout=120) for handle in handles[name]])
            rates[name] = tasks / (perf_counter() - began)

        await asyncio.gather(*map(wait_for, names))
    return rates


async def _drain(url: str, tasks: int, lanes: int) -> float:
    async with Runtime(url, workers=0) as runtime:
        messages = [
            nothing(n) if lanes == 1 else nothing(n).options(queue=f"lane{n // 7 % lanes}") for n in range(tasks)
        ]
        await runtime.send_many((f"tenant:{n % 1_000}", message) for n, message in enumerate(messages))
    async with Runtime(url, actors=[nothing], workers=100, result_ttl=0) as runtime:
        began = perf_counter()
        await runtime.drain(timeout=300)
        return tasks / (perf_counter() - began)


async def _among(bench: Bench, tasks: int, known: int) -> float:
    async with Runtime(bench.url, workers=0) as runtime:
        messages = [(f"other:{n}", nothing(n).options(queue=f"lane{n}")) for n in range(2, known)]
        messages += [(f"tenant:{n % 100}", nothing(n).options(queue=f"lane{n // 3 % 2}")) for n in range(tasks)]
        await runtime.send_many(messages)
    return await _claim(bench, tasks, turn=20)


async def _claims(bench: Bench, tasks: int, tenants: int, *, claims: int = 5_000) -> float:
    names = [f"tenant:{n % tenants}" for n in range(tasks)]
    random.Random(tasks + tenants).shuffle(names)
    async with Runtime(bench.url, workers=0) as runtime:
        await runtime.send_many((name, nothing(n).options(queue=f"lane{n % 2}")) for n, name in enumerate(names))
    return await _claim(bench, claims, turn=10)


async def _claim(bench: Bench, claims: int, *, turn: int) -> float:
    """Claims and settles what is in two lanes, as a runtime that serves no others; returns µs in scripts, per task."""
    served = ["lane0", "lane1"]
    async with claimer(bench.url, actors=[nothing.name], queues=served) as claiming, bench.watched() as usage:
        for _ in range(claims // turn):
            if len(await claiming.claim(turn)) != turn:
                raise RuntimeError("a turn claimed fewer tasks than it wanted")
    return usage.scripts / claims
