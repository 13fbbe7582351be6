"""Sends no-op calls to 1,000 tenants, against a bare script call for every 500 tasks.

- send_many: one ``send_many`` of all tasks. The messages were made before; encoding them is included.
- send: 32 coroutines that each send and await one task after the other, so up to 32 share a round trip.
- bare script: one script call after the other, of 500 tasks each, which only SETs each task and RPUSHes its id to the
  list of its tenant: the least that has mailboxes. The ids and bodies, of the same bytes as ours, were made before. The
  goals apply to this.
- one list: the same without tenants, with one MSET and one RPUSH for all 500. A second variant also makes the ids and
  the JSON while the clock runs, as in our own figures.

- send_many over 500,000 tenants: one ``send_many`` of a task for each, against as many tasks of 1,000 tenants.
- longest pause of the event loop: during the former, how late a coroutine was that wanted to run each millisecond. This
  includes Python's garbage collection, which has to look at every message.

No runtime with workers is running. Each round starts with an empty server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from fairactor import Message, Runtime

from . import bare
from .bench import Bench, Usage
from .figures import Figure, at_least
from .handlers import nothing


async def run(
    bench: Bench,
    *,
    tasks: int = 20_000,
    singly: int = 10_000,
    coroutines: int = 32,
    tenants: int = 1_000,
    crowd: int = 500_000,
) -> list[Figure]:
    many: list[float] = []
    single: list[float] = []
    baseline: list[float] = []
    one_list: list[float] = []
    encoding: list[float] = []
    server: list[list[float]] = [[], [], [], [], []]
    crowded: list[float] = []
    uncrowded: list[float] = []
    pauses: list[float] = []
    for _ in bench.each_round():
        messages = [(f"tenant:{n % tenants}", nothing(n)) for n in range(tasks)]
        for n, (rates, count, sending) in enumerate(
            (
                (many, tasks, _send_many(bench, messages)),
                (single, singly, _send_singly(bench, messages[:singly], coroutines)),
                (baseline, tasks, _send_bare(bench, list(bare.batches_for(tasks, tenants)), mailboxes=True)),
                (one_list, tasks, _send_bare(bench, list(bare.batches(tasks)))),
                (encoding, tasks, _send_bare(bench, bare.batches(tasks))),
            )
        ):
            await bench.clean()
            seconds, usage = await sending
            rates.append(count / seconds)
            server[n].append(usage.scripts / count)
        uncrowded.append(crowd / (await _send_crowd(bench, crowd, tenants))[0])
        seconds, pause = await _send_crowd(bench, crowd, crowd)
        crowded.append(crowd / seconds)
        pauses.append(pause * 1000)
    against = f"bare script of {bare.SEND}"
    return [
        Figure("send_many", "tasks/s", many, baseline, against, at_least(0.5)),
        Figure(f"send by {coroutines} coroutines", "tasks/s", single, baseline, against, at_least(0.3)),
        Figure("send_many against one list", "tasks/s", many, one_list, "one list"),
        Figure("send_many against one list and JSON", "tasks/s", many, encoding, "one list and JSON"),
        Figure("script time of send_many", "µs/task", server[0], server[2], against),
        Figure(f"script time of send by {coroutines} coroutines", "µs/task", server[1], server[2], against),
        Figure(
            f"send_many over {crowd:,} tenants", "tasks/s", crowded, uncrowded, f"{tenants:,} tenants", at_least(0.8)
        ),
        Figure("longest pause of the event loop", "ms", pauses),
    ]


async def _send_many(bench: Bench, messages: list[tuple[str, Message[Any]]]) -> tuple[float, Usage]:
    async with Runtime(bench.url, workers=0) as runtime, bench.watched() as usage:
        began = perf_counter()
        await runtime.send_many(messages)
        seconds = perf_counter() - began
    return seconds, usage


async def _send_crowd(bench: Bench, tasks: int, tenants: int) -> tuple[float, float]:
    """Sends as many tasks, spread over the tenants; returns the seconds that it took, and the longest pause."""
    await bench.clean()
    messages = [(f"tenant:{n % tenants}", nothing(n)) for n in range(tasks)]
    async with Runtime(bench.url, workers=0) as runtime, longest_pause() as pause:
        began = perf_counter()
        await runtime.send_many(messages)
        seconds = perf_counter() - began
    return seconds, pause[0]


@asynccontextmanager
async def longest_pause() -> AsyncIterator[list[float]]:
    """Yields a list with the longest time, in seconds, for which the event loop did nothing else inside the block."""
    longest = [0.0]

    async def tick() -> None:
        while True:
            began = perf_counter()
            await asyncio.sleep(0.001)
            longest[0] = max(longest[0], perf_counter() - began - 0.001)

    ticking = asyncio.create_task(tick())
    try:
        yield longest
    finally:
        ticking.cancel()


async def _send_singly(bench: Bench, messages: list[tuple[str, Message[Any]]], coroutines: int) -> tuple[float, Usage]:
    async def send_all(share: Iterator[tuple[str, Message[Any]]]) -> None:
        for tenant, message in share:
            await runtime.send(tenant, message)

    async with Runtime(bench.url, workers=0) as runtime, bench.watched() as usage:
        shared = iter(messages)
        began = perf_counter()
        await asyncio.gather(*[send_all(shared) for _ in range(coroutines)])
        seconds = perf_counter() - began
    return seconds, usage


async def _send_bare(bench: Bench, batches: Iterable[list[bytes]], *, mailboxes: bool = False) -> tuple[float, Usage]:
    async with bare.bare_queue(bench.url) as queue, bench.watched() as usage:
        send = queue.send_to_mailboxes if mailboxes else queue.send
        began = perf_counter()
        for batch in batches:
            await send(batch)
        seconds = perf_counter() - began
    return seconds, usage
