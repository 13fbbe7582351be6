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

import attrs

from fairactor import Runtime
from fairactor.settings import Settings

from .bench import Bench
from .claiming import claimer, noting_claims
from .figures import Figure, at_most
from .handlers import nothing, services, work
from .processes import Line, all_heard, processes

_WEIGHTS: Final = {"a": 1, "b": 2, "c": 4, "d": 8}
_EQUAL: Final = dict.fromkeys(_WEIGHTS, 1)
_SPARE: Final = 3_000  # tasks of each tenant more than it ought to get
_RESULTS: Final = {"result_ttl": 0}
_LEARNT: Final = 1.0  # seconds
_HAS_TIME: Final = "fair_by" in attrs.fields_dict(Settings)

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
        if _HAS_TIME:
            times.append(await _off_in_time(bench, by_time))
    figures = [Figure(f"most off the share, {name}", "%", values, goal=at_most(2)) for name, values in off.items()]
    figures += [
        Figure(f"share of those that drain, {name}", "of 1", values, [0.5] * len(values), "fair share", at_most(1.02))
        for name, values in drained.items()
    ]
    if times:
        figures.append(Figure("seconds of 1 ms tasks off those of 20 ms, by time", "%", times, goal=at_most(5)))
    return figures


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
    async with processes(number, _serve, bench.url, 100 // number, claims // number) as lines:
        for line in lines:
            line.send()
        turns = sorted(turn for noted in await all_heard(lines) for turn in noted)
    return [_tenant(task) for _, tasks in turns for task in tasks]


async def _serve(line: Line, url: str, workers: int, claims: int) -> None:
    """A runtime that hands over what it has claimed when that is as much as it was asked for."""
    await line.receive()
    with noting_claims() as noted:
        async with Runtime(url, actors=[nothing], workers=workers, **_RESULTS) as runtime:
            while sum(len(tasks) for _, tasks in noted) < claims:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.005)
            line.send(list(noted))
            await runtime.stop(grace=0)


def _tenant(task: str) -> str:
    return task.partition("/")[0]
