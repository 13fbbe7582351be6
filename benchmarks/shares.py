"""Whether tenants get their shares: by weight, although some drain, and in seconds.

Weights: four tenants have backlogs that do not run out, and 8,000 tasks are claimed from them (`--claims`). Their
weights are 1, 2, 4 and 8, then equal. Claims are made in turns of 1, 10 and 100 tasks without workers, and by 1, 2 and
8 runtimes, each in its own process, whose claims are ordered by the server's time. In any 1,000 claims in a row
(`--window`), each tenant should have its share. The figure is the largest deviation, in percent of the share.

Draining: half of 20 equal tenants have backlogs. The other half send their next task once the last was claimed, so they
drain after each task. Claimed in turns of 1 and of 10. The figure is what the draining tenants get, against the half
that they should get at most.

By time: a namespace with ``fair_by="time"`` has two equal tenants with backlogs, one of 1 ms tasks and one of 20 ms
tasks. A runtime with 10 workers runs them for a few seconds (`--by-time`). The figure is how much longer the tasks of
one tenant run in total than those of the other, in percent. The first second does not count, because the run times are
learned in it.
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
_SPARE: Final = 3_000  # tasks of each tenant beyond what it should get
_WORKERS: Final = 96  # in all runtimes together
_TENANTS: Final = 20
_LEARNT: Final = 1.0  # seconds in which run times are learned

Claim = Callable[[Bench, int], Awaitable[list[str]]]
"""Claims at least this many tasks; returns their tenants in order."""


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
    figures = [
        Figure(f"largest deviation from the share, {name}", "%", values, goal=at_most(2))
        for name, values in off.items()
    ]
    figures += [
        Figure(
            f"share of draining tenants, {name}", "fraction", values, [0.5] * len(values), "fair share", at_most(1.02)
        )
        for name, values in drained.items()
    ]
    return [*figures, Figure("difference in run time, 1 ms tasks to 20 ms tasks, by time", "%", times, goal=at_most(5))]


# By weight


async def _fill(bench: Bench, weights: Mapping[str, int], claims: int) -> None:
    await bench.clean()
    async with Runtime(bench.url, workers=0) as runtime:
        for tenant, weight in weights.items():
            await runtime.tenant(tenant).configure(weight=weight)
            tasks = claims * weight // sum(weights.values()) + _SPARE
            await runtime.send_many((tenant, nothing(n).options(id=f"{tenant}/{n}")) for n in range(tasks))


def _most_off(order: Sequence[str], weights: Mapping[str, int], window: int) -> float:
    """Returns the largest deviation of a tenant from its share of any ``window`` claims in a row, in percent of it."""
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
        while (await runtime.stats()).queued > left:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
        for line in lines:
            line.send()
        turns = sorted(turn for noted in await all_heard(lines) for turn in noted)
    return [_tenant(task) for _, tasks in turns for task in tasks]


async def _serve(line: Line, url: str, workers: int) -> None:
    """Runs in a process with a runtime: claims from the first message until the second, then sends its claims back."""
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


# Tenants that drain


async def _drain_often(bench: Bench, claims: int, turn: int) -> float:
    """Returns the share of claims for the half of tenants that send a task only once their last was claimed."""
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
    """Returns how much longer the tasks of one tenant run in total than those of the other, in percent."""
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
