"""A limit that many tenants share: who gets how much of it, and how much is used.

Shares: 1,000 tenants have weights from 1 to 4 and 10 tasks in each of three lanes, all under one limit. It lets half of
the workers run. Figures, while no tenant has drained: the largest deviation of the tenants of a weight from their share
of the starts, in percent of it; and the largest deviation of a tenant, in tasks.

Beside it: as many tasks that need no limit wait, of the same tenants. Throughput of these, against the same without the
tasks that need the limit.

Rate: a limit of 1,000 a second, which each start takes 1 of, while tasks of 100 tenants wait (`--seconds`). The most
and the fewest starts in any second, by the server's time.

Audited (`--audited`, in claims, only if asked for; `--seed` says which): runtimes of three kinds claim and settle tasks
under limits of concurrency, of rates and for each tenant. Every claim is held against books of what runs, and of what
starts took. Figure: the claims that exceeded a limit.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from time import perf_counter
from typing import Final

from fairactor import Runtime, actor

from .audited_claims import audited_claims
from .bench import Bench
from .claiming import noting_claims
from .figures import Figure, at_least, at_most

_TENANTS: Final = 1_000
_EACH: Final = 10
_WORKERS: Final = 100
_PER_SECOND: Final = 1_000
_HOLD: Final = 0.002  # seconds that a task takes


@actor(limits="api")
async def first(n: int) -> None:  # noqa: ARG001 - a call without arguments would be unrealistic
    await asyncio.sleep(_HOLD)


@actor(limits="api")
async def second(n: int) -> None:  # noqa: ARG001 - as above
    await asyncio.sleep(_HOLD)


@actor(limits="api")
async def third(n: int) -> None:  # noqa: ARG001 - as above
    await asyncio.sleep(_HOLD)


@actor
async def free(n: int) -> None:
    """Does nothing, and needs no limit."""


_ACTORS: Final = (first, second, third)


async def run(
    bench: Bench, *, tenants: int = _TENANTS, seconds: float = 4.0, audited: int = 0, seed: int = 1
) -> list[Figure]:
    if audited:
        exceeded = [await audited_claims(bench, audited, seed + n) for n, _ in enumerate(bench.each_round())]
        return [Figure(f"claims that exceeded a limit, of {audited:,}", "claims", exceeded, goal=at_most(0))]
    off, by_tasks, beside, alone, most, fewest = ([] for _ in range(6))
    for _ in bench.each_round():
        off_here, tasks = await _shares(bench, tenants)
        off.append(off_here)
        by_tasks.append(tasks)
        beside.append(await _free(bench, tenants, waiting=True))
        alone.append(await _free(bench, tenants, waiting=False))
        most_here, fewest_here = await _starts(bench, seconds)
        most.append(most_here)
        fewest.append(fewest_here)
    return [
        Figure("largest deviation from the share of a limit, by weight", "%", off, goal=at_most(2)),
        Figure("largest deviation of a tenant from its share of a limit", "tasks", by_tasks, goal=at_most(1.5)),
        Figure("throughput of tasks beside those that wait for a limit", "tasks/s", beside, alone, "alone"),
        Figure("most starts in any second, limit 1,000/s", "starts", most, goal=at_most(_PER_SECOND)),
        Figure("fewest starts in any second, limit 1,000/s", "starts", fewest, goal=at_least(0.97 * _PER_SECOND)),
    ]


def _weight(tenant: int) -> int:
    return 1 + tenant % 4


async def _shares(bench: Bench, tenants: int) -> tuple[float, float]:
    """Returns the largest deviation from the share: in percent, of a weight; and in tasks, of a tenant."""
    await bench.clean()
    async with Runtime(bench.url, workers=0) as sender:
        await sender.limit("api").configure(concurrency=_WORKERS // 2)
        for n in range(tenants):
            await sender.tenant(f"t{n}").configure(weight=_weight(n))
        await sender.send_many(
            (f"t{n}", each(m).options(id=f"{n}/{m}/{each.name}"))
            for each in _ACTORS
            for m in range(_EACH)
            for n in range(tenants)
        )
    # All drain at the end, so only the beginning shows shares: a whole number of rounds.
    until = int(0.8 * _EACH * len(_ACTORS) / 4) * sum(map(_weight, range(tenants)))
    order = [int(task.partition("/")[0]) for task in await _order(bench, until)][:until]
    got = Counter(order)
    total = sum(map(_weight, range(tenants)))
    by_weight = Counter(_weight(n) for n in order)
    number = Counter(_weight(n) for n in range(tenants))
    off = max(abs(by_weight[w] / (until * w * number[w] / total) - 1) for w in number)
    return 100 * off, max(abs(got[n] - until * _weight(n) / total) for n in range(tenants))


async def _order(bench: Bench, number: int) -> list[str]:
    """Returns the first tasks that a fleet starts, in order."""
    with noting_claims() as noted:
        async with (
            Runtime(bench.url, actors=[*_ACTORS], workers=_WORKERS // 2, result_ttl=0) as one,
            Runtime(bench.url, actors=[*_ACTORS], workers=_WORKERS // 2, result_ttl=0) as other,
        ):
            while sum(len(tasks) for _, tasks in noted) < number:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)
            await asyncio.gather(one.stop(grace=0), other.stop(grace=0))
        return [task for _, tasks in sorted(noted) for task in tasks]


async def _free(bench: Bench, tenants: int, *, waiting: bool) -> float:
    """Returns the throughput of tasks that need no limit, while others wait for one that is used up."""
    await bench.clean()
    number = tenants * _EACH
    async with Runtime(bench.url, workers=0) as sender:
        await sender.limit("api").pause()
        if waiting:
            await sender.send_many((f"t{n % tenants}", first(n)) for n in range(number))
        await sender.send_many((f"t{n % tenants}", free(n)) for n in range(number))
        began = perf_counter()
        async with Runtime(bench.url, actors=[free, *_ACTORS], workers=_WORKERS, result_ttl=0):
            left = number if waiting else 0
            while (await sender.stats()).queued > left:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        return number / (perf_counter() - began)


async def _starts(bench: Bench, seconds: float) -> tuple[float, float]:
    """Returns the most and the fewest starts in any second."""
    await bench.clean()
    number = int((seconds + 2) * _PER_SECOND)
    async with Runtime(bench.url, workers=0) as sender:
        await sender.limit("api").configure(rate=f"{_PER_SECOND}/s")
        await sender.send_many((f"t{n % 100}", first(n)) for n in range(number))
    with noting_claims() as noted:
        async with Runtime(bench.url, actors=[*_ACTORS], workers=_WORKERS, result_ttl=0) as runtime:
            await asyncio.sleep(seconds)
            await runtime.stop(grace=0)
        times = sorted(at for at, tasks in noted for _ in tasks)
    most = max(bisect_left(times, at + 1) - n for n, at in enumerate(times))
    whole = [at for at in times if at <= times[-1] - 1]
    fewest = min(bisect_left(times, at + 1) - bisect_left(times, at) for at in whole)
    return float(most), float(fewest)
