"""Whether tenants get their shares: by weight, in spite of draining, and in seconds.

Weights: four tenants whose backlogs do not run out are claimed from, 8,000 times (`--claims`). Their weights are
1, 2, 4 and 8, then they are equal. Claims are made by turns of 1, 10 and 100 tasks without workers, and by 1, 2 and 8
runtimes, each in a process of its own, whose claims are put in order by the server's time. Of any 1,000 claims in a row
(`--window`) each tenant ought to have its share; how much more or less it has at most, in per cent of its share.

Draining: half of 20 equal tenants have backlogs, and half send their next task when their last was claimed, so
that they drain after each. Claimed by turns of 1 and of 10, what these get, against the half that they ought to get at
most.

By time: in a namespace with ``fair_by="time"`` two equal tenants have backlogs, one of tasks of 1 ms, the other of 20
ms; a runtime with 10 workers runs them for some seconds (`--by-time`). How much longer the tasks of one run in all than
those of the other, in per cent; the first second does not count, in which their times are learnt.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from fairactor import Runtime

from .bench import Bench
from .claiming import claimer, noting_claims
from .figures import Figure, at_most
from .handlers import nothing, services, work
from .processes import Line, all_heard, processes

_WEIGHTS: Final = {"a": 1, "b": 2, "c": 4, "d": 8}
_EQUAL: Final = dict.fromkeys(_WEIGHTS, 1)
_SPARE: Final = 3_000  # tasks of each tenant more than it ought to get
_WORKERS: Final = 96  # of all runtimes
_TENANTS: Final = 20
_LEARNT: Final = 1.0  # seconds

Claim = Callable[[Bench, int], Awaitable[list[str]]]
"""Claims so many tasks or more; returns whose they were."""


async def run(bench: Bench, *, claims: int = 8_000, window: int = 1_000, by_time: float = 4.0) -> list[Figure]:
    off: dict[str, list[float]] = {}
    drained: dict[str, list[float]] = {}
    times: list[float] = []
    for _ in bench.each_round():
        for weights, names in (_WEIGHTS, "weights 1:2:4:8"), (_EQUAL, "equal weights"):
            for how, claim in _CLAIMS.items():
                await _fill(bench, weights, claims)
                order = (await claim(bench, claims))[:claims]
                off.setdefault(f"{names}, {how}", []).append(_most_off(order, weights, window))
        for turn in (1, 10):
            drained.setdefault(f"turns of {turn}", []).append(await _drain_often(bench, claims, turn))
        times.append(await _off_in_time(bench, by_time))
    figures = [Figure(f"most off the share, {name}", "%", values, goal=at_most(2)) for name, values in off.items()]
    figures += [
        Figure(f"share of those that drain, {name}", "of 1", values, [0.5] * len(values), "fair share", at_most(1.02))
        for name, values in drained.items()
    ]
    return [*figures, Figure("seconds of 1 ms tasks off those of 20 ms, by time", "%", times, goal=at_most(5))]


# By weight


async def _fill(bench: Bench, weights: Mapping[str, int], claims: int) -> None:
    await bench.clean()
    async with Runtime(bench.url, workers=0) as runtime:
        for tenant, weight in weights.items():
            await runtime.tenant(tenant).configure(weight=weight)
            tasks = claims * weight // sum(weights.values()) + _SPARE
            await runtime.send_many((tenant, nothing(n).options(id=f"{tenant}/{n}")) for n in range(tasks))


def _most_off(order: Sequence[str], weights: Mapping[str, int], window: int) -> float:
    """How far what a tenant gets of any ``window`` claims in a row is off its share, in per cent of the share."""
    most = 0.0
    for tenant, weight in weights.items():
        share = window * weight / sum(weights.values())
        got = order[:window].count(tenant)
        for out, into in zip(order, [*order[window:], ""], strict=False):
            most = max(most, abs(got - share) / share)
            got += (into == tenant) - (out == tenant)
    return 100 * most


async def _by_turns(want: int, bench: Bench, claims: int) -> list[str]:
    order: list[str] = []
    async with claimer(bench.url) as claiming:
        while len(order) < claims:
            order += await claiming.claim(want)
    return [_tenant(task) for task in order]


async def _by_runtimes(number: int, bench: Bench, claims: int) -> list[str]:
    async with (
        Runtime(bench.url, workers=0) as runtime,
        processes(number, _serve, bench.url, _WORKERS // number) as lines,
    ):
        left = (await runtime.stats()).queued - claims
        for line in lines:
            line.send()
        while (await runtime.stats()).queued > left:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)
        for line in lines:
            line.send()
        turns = sorted(turn for noted in await all_heard(lines) for turn in noted)
    return [_tenant(task) for _, tasks in turns for task in tasks]


async def _serve(line: Line, url: str, workers: int) -> None:
    """A process with a runtime: claims from the first word until the second, then hands over what it has claimed."""
    await line.receive()
    with noting_claims() as noted:
        async with Runtime(url, actors=[nothing], workers=workers, result_ttl=0):
            await line.receive()
        line.send(noted)


def _tenant(task: str) -> str:
    return task.partition("/")[0]


_CLAIMS: Final[dict[str, Claim]] = {
    **{f"turns of {want}": partial(_by_turns, want) for want in (1, 10, 100)},
    **{f"{number} runtime{'s'[: number - 1]}": partial(_by_runtimes, number) for number in (1, 2, 8)},
}


# By tenants that drain


async def _drain_often(bench: Bench, claims: int, turn: int) -> float:
    """The share of the claims that tenants get which send a task when their last was claimed, half of all."""
    await bench.clean()
    half = range(_TENANTS // 2)
    got: Counter[str] = Counter()
    async with Runtime(bench.url, workers=0) as runtime, claimer(bench.url) as claiming:
        backlogs = [f"stays:{n}" for n in half for _ in range(claims // len(half))]
        await runtime.send_many((tenant, nothing(0).options(id=f"{tenant}/{n}")) for n, tenant in enumerate(backlogs))
        again = [f"drains:{n}" for n in half]
        while got.total() < claims:
            sent = enumerate(again, got.total())
            await runtime.send_many((tenant, nothing(0).options(id=f"{tenant}/{n}")) for n, tenant in sent)
            whose = [_tenant(task) for task in await claiming.claim(turn)]
            again = [tenant for tenant in whose if tenant.startswith("drains")]
            got.update(whose)
    return sum(tasks for tenant, tasks in got.items() if tenant.startswith("drains")) / got.total()


# By time


async def _off_in_time(bench: Bench, seconds: float) -> float:
    """How much longer the tasks of one tenant run in all than those of the other, in per cent."""
    await bench.clean()
    services.clear()
    workers, long, short = 10, 0.02, 0.001
    enough = (_LEARNT + seconds) * workers  # seconds of work for all workers
    async with Runtime(bench.url, workers=0, fair_by="time") as sender:
        for tenant, each in ("long", long), ("short", short):
            await sender.send_many((tenant, work(tenant, each)) for _ in range(int(enough / each)))
    async with Runtime(bench.url, actors=[work], workers=workers, result_ttl=0) as runtime:
        await asyncio.sleep(_LEARNT + seconds)
        await runtime.stop(grace=0)
    begin = services[0].began + _LEARNT
    ran: dict[str, float] = {"long": 0.0, "short": 0.0}
    for service in services:
        if service.began >= begin:
            ran[service.tenant] += service.ended - service.began
    return 100 * (max(ran.values()) / min(ran.values()) - 1)
