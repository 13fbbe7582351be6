"""Whether tenants get their shares although they are in different shards, and what several shards cost.

Shares: some tenants are alone on their shard, others crowd on one. All have the same weight and a backlog that does not
run out. Runtimes run tasks of 1 ms, 10 ms and 100 ms for a few seconds (`--seconds`), with 10 and 100 workers, in one
process and in two. The first half second does not count. Every tenant should get the same. The figure is the largest
deviation of a tenant from that, in percent; with slow tasks a few tasks are several percent.

Throughput: tasks that do nothing, of 200 tenants, are drained by one runtime, from 1, 2 and 8 shards.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from time import monotonic, perf_counter
from typing import Final

from fairactor import Runtime
from fairactor._model.keys import shard_of

from .bench import Bench
from .figures import Figure, at_most
from .handlers import nothing, services, starts, work
from .processes import Line, all_heard, processes

_WARM_UP: Final = 0.5  # seconds that do not count
_FASTEST: Final = 5_000  # tasks per second that a process runs at most, about
_CROWDS: Final = {"9:1": (9, 1), "6:1:3:2": (6, 1, 3, 2)}  # tenants of each shard
_LENGTHS: Final = (0.001, 0.01, 0.1)
_WORKERS: Final = (10, 100)


async def run(bench: Bench, *, seconds: float = 4.0, tasks: int = 10_000, tenants: int = 200) -> list[Figure]:
    off: dict[str, list[float]] = {}
    rates: dict[int, list[float]] = {}
    for _ in bench.each_round():
        for crowds, length, workers, runtimes in _cases():
            where = "in 2 processes" if runtimes == 2 else "in one process"
            name = f"{crowds} tenants, {1000 * length:g} ms, {workers} workers {where}"
            got = await _serve_all(bench, _CROWDS[crowds], length, workers // runtimes, runtimes, seconds)
            off.setdefault(name, []).append(_most_off(got))
        for shards in (1, 2, 8) if tasks else ():
            rates.setdefault(shards, []).append(await _drain(bench, shards, tasks, tenants))
    figures = [
        Figure(f"largest deviation from the share, {name}", "%", values, goal=at_most(10))
        for name, values in off.items()
    ]
    one = rates.get(1, ())
    return figures + [
        Figure(f"throughput, {shards} shard{'s'[: shards - 1]}", "tasks/s", values, one, "1 shard")
        for shards, values in rates.items()
    ]


def _cases() -> list[tuple[str, float, int, int]]:
    return [
        (crowds, length, workers, runtimes)
        for crowds in _CROWDS
        for length in _LENGTHS
        for workers in _WORKERS
        for runtimes in (1, 2)
    ]


def _most_off(got: Counter[str]) -> float:
    """Returns the largest deviation of a tenant from an equal share, in percent of it."""
    share = got.total() / len(got)
    return 100 * max(abs(tasks - share) / share for tasks in got.values())


def _tenants(crowds: Sequence[int]) -> list[str]:
    """Returns as many tenants of each shard as it should have."""
    found: list[list[str]] = [[] for _ in crowds]
    number = 0
    while any(len(names) < crowd for names, crowd in zip(found, crowds, strict=True)):
        name = f"tenant:{number}"
        number += 1
        shard = shard_of(name, len(crowds))
        if len(found[shard]) < crowds[shard]:
            found[shard].append(name)
    return [name for names in found for name in names]


async def _serve_all(
    bench: Bench, crowds: Sequence[int], length: float, workers: int, runtimes: int, seconds: float
) -> Counter[str]:
    """Returns how many tasks of each tenant ran."""
    await bench.clean()
    names = _tenants(crowds)
    each = int(2 * min(workers / length, _FASTEST) * runtimes * (seconds + _WARM_UP) / len(names)) + 100
    async with Runtime(bench.url, workers=0, shards=len(crowds)) as sender:
        await sender.send_many((tenant, work(tenant, length)) for _ in range(each) for tenant in names)
    async with processes(runtimes, _serve, bench.url, workers) as lines:
        for line in lines:
            line.send()
        await asyncio.sleep(_WARM_UP)
        begin = monotonic()
        await asyncio.sleep(seconds)
        end = monotonic()
        for line in lines:
            line.send()
        served = [service for each in await all_heard(lines) for service in each]
    got = Counter(dict.fromkeys(names, 0))
    got.update(service.tenant for service in served if begin <= service.began < end)
    return got


async def _serve(line: Line, url: str, workers: int) -> None:
    """Runs in a process of its own: serves from the first message until the second."""
    await line.receive()
    async with Runtime(url, actors=[work], workers=workers, result_ttl=0) as runtime:
        await line.receive()
        await runtime.stop(grace=0)
    line.send(services)


async def _drain(bench: Bench, shards: int, tasks: int, tenants: int) -> float:
    """Returns how many tasks per second a runtime drains."""
    await bench.clean()
    async with Runtime(bench.url, workers=0, shards=shards) as sender:
        await sender.send_many((f"tenant:{n % tenants}", nothing(n)) for n in range(tasks))
    starts.clear()
    async with Runtime(bench.url, actors=[nothing], workers=100, result_ttl=0) as runtime:
        await runtime.drain(timeout=300)
        return tasks / (perf_counter() - starts[0])
