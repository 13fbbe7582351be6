"""Claims under limits, each of which is held against books that know nothing of the scripts."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs

from fairactor import Message, Runtime, actor
from fairactor.testing import check_invariants

from .bench import Bench
from .claiming import Claimer, claimer

_TENANTS: Final = 200
_BACKLOG: Final = 4_000
_AUDIT_EACH: Final = 50_000
_CALLS: Final = 8_000
_TOKENS: Final = 60_000
_BURST: Final = 1_500
_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "db": {"concurrency": 40},
    "each": {"concurrency": 2, "per": "tenant"},
    "calls": {"rate": f"{_CALLS}/s"},
    "tokens": {"rate": f"{_TOKENS}/s", "burst": _BURST},
}
_MIXES: Final[tuple[Mapping[str, float], ...]] = (
    {"db": 1}, {"each": 1}, {"calls": 1}, {"tokens": 7}, {"db": 1, "each": 1}, {"calls": 1, "tokens": 3},
    {"db": 1, "tokens": 11}, {"each": 1, "calls": 1}, {},
)  # fmt: skip
_RUNNING: Final = {"db": 40, "each": 2, "work": 90}
_CLOCK: Final = 2e-6  # seconds: the time of a turn is a double


@actor(concurrency=90)
async def work(n: int) -> None: ...


@actor
async def other(n: int) -> None: ...


@attrs.define
class _Books:
    """What runs, and what starts took lately."""

    running: Counter[str] = attrs.Factory(Counter)
    calls: deque[float] = attrs.Factory(deque)
    owed: float = 0.0
    """Of `tokens`, as a bucket that leaks."""
    at: float = 0.0
    exceeded: int = 0

    def settle(self, task: str) -> None:
        for limit in _fields(task):
            self.running[limit] -= 1

    def claim(self, task: str, now: float) -> None:
        for limit in _fields(task):
            self.running[limit] += 1
            most = _RUNNING.get(limit.partition("/")[0])
            self.exceeded += most is not None and self.running[limit] > most
        costs = _mix(task)
        if "calls" in costs:
            self.calls.append(now)
            while now - self.calls[0] >= 1 - _CLOCK:
                self.calls.popleft()
            self.exceeded += len(self.calls) > _CALLS
        if "tokens" in costs:
            self.owed = max(0.0, self.owed - _TOKENS * (now - self.at)) + costs["tokens"]
            self.at = now
            self.exceeded += self.owed > _BURST + _TOKENS * _CLOCK


def _mix(task: str) -> Mapping[str, float]:
    return _MIXES[int(task.split("/")[1])]


def _fields(task: str) -> list[str]:
    """Returns the limits for which a task counts while it runs; with its tenant, if each has its own."""
    name, _, tenant = task.split("/")[2:]
    named = [f"{limit}/{tenant}" if limit == "each" else limit for limit in _mix(task)]
    return [*named, name]


async def audited_claims(bench: Bench, number: int, seed: int) -> float:
    """Claims so many tasks; returns how many claims exceeded a limit."""
    await bench.clean()
    rng, books, sent, claimed, audited = random.Random(seed), _Books(), 0, 0, 0
    async with Runtime(bench.url, workers=0) as sender, AsyncExitStack() as stack:
        for name, settings in _SETTINGS.items():
            await sender.limit(name).configure(**settings)
        await sender.limit(work).configure(concurrency=90)
        claimers = [
            await stack.enter_async_context(claimer(bench.url, "both", ["work", "other"])),
            await stack.enter_async_context(claimer(bench.url, "some", ["work"])),
            await stack.enter_async_context(claimer(bench.url, "gpu", ["work", "other"], ["gpu"])),
        ]
        while claimed < number:
            if sent - claimed < _BACKLOG:
                await sender.send_many(_task(rng, n) for n in range(sent, sent + 1_000))
                sent += 1_000
            claimed += await _turn(rng.choice(claimers), books, rng)
            if claimed >= audited:
                await check_invariants(sender)
                audited += _AUDIT_EACH
    return float(books.exceeded)


def _task(rng: random.Random, n: int) -> tuple[str, Message[None]]:
    number, each = rng.randrange(_TENANTS), rng.choice((work, other))
    tenant, mix, queue = f"t{number}", number % len(_MIXES), "gpu" if number % 2 else None
    return tenant, each(n).options(id=f"{n}/{mix}/{each.name}/{queue}/{tenant}", limits=_MIXES[mix], queue=queue)


async def _turn(claiming: Claimer, books: _Books, rng: random.Random) -> int:
    ends = rng.randint(0, len(claiming.held))
    for settled in claiming.held[:ends]:
        books.settle(settled.id)
    ids = await claiming.claim(rng.choice((1, 10, 100)), settle=ends)
    for task in ids:
        books.claim(task, claiming.now)
    return len(ids)
