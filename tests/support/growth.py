"""Growths that stop at a chosen moment, and witnesses of what runs meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final

import anyio
import pytest

from fairactor import Handle, Runtime, actor, current_task
from fairactor._client import mover
from fairactor._model.layout import Layout
from fairactor._store.migration import Migration
from fairactor._store.shard import Shard
from fairactor.testing import check_invariants

from .polling import PATIENCE, until

_MOVES: Final = ContextVar("moves", default=False)
"""Whether this is a mover, and not somebody who redrives a dead letter, which moves it as well."""
PHASES: Final = ("begun", "held", "gone", "handed over", "arrived", "served")
"""Where a growth can stop: nothing has moved; tenants are held up; they have gone and their tasks have not; their tasks
are on both shards; all have arrived and none is started; all are served, and dead letters have not moved."""


def names(*counts: int, moves: bool, count: int = 1, prefix: str = "t") -> list[str]:
    """Returns tenants that move, or do not, when the last of these counts of shards is reached."""
    layout = Layout(counts)
    found = (f"{prefix}{n}" for n in itertools.count())
    return list(
        itertools.islice((each for each in found if (layout.source(each) != layout.place(each)) is moves), count)
    )


class Brake:
    """Stops all movers of this process at a phase until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
        self._released = asyncio.Event()
        self.reached = asyncio.Event()
        where: dict[str, tuple[Any, str, Any]] = {
            "begun": (mover.Mover, "_pass", None),
            "held": (Migration, "depart", lambda wish="", *_: wish == "go"),
            "gone": (Migration, "export", None),
            "handed over": (Migration, "exported", None),
            "arrived": (Migration, "welcome", lambda wish="", *_: wish == "served"),
            "served": (mover, "carry_letters", None),
        }
        owner, name, applies = where[phase]
        whole = getattr(owner, name)

        async def braked(first: Any, *others: Any, **named: Any) -> Any:
            moves = _MOVES.get() or owner is mover.Mover
            if moves and (applies is None or applies(*others[1:])):
                self.reached.set()
                await self._released.wait()
            return await whole(first, *others, **named)

        lead = mover.Mover._lead

        async def move(each: mover.Mover) -> bool:
            _MOVES.set(True)
            return await lead(each)

        monkeypatch.setattr(owner, name, braked)
        monkeypatch.setattr(mover.Mover, "_lead", move)

    def release(self) -> None:
        """Lets the movers go on."""
        self._released.set()


@asynccontextmanager
async def growing(runtime: Runtime, shards: int, brake: Brake) -> AsyncIterator[None]:
    """Grows a namespace, and enters once the movers stand still; lets them go at the end, and waits for the growth."""
    growth = asyncio.create_task(runtime.grow(shards))
    try:
        async with asyncio.timeout(PATIENCE):
            await brake.reached.wait()
        yield
        brake.release()
        async with asyncio.timeout(PATIENCE):
            await growth
    finally:
        brake.release()
        growth.cancel()
        await asyncio.gather(growth, return_exceptions=True)


async def complete(brake: Brake, call: Any) -> Any:
    """Returns what a call does that may have to wait until the tenant has moved on."""
    task = asyncio.ensure_future(call)
    await asyncio.wait([task], timeout=0.3)
    if not task.done():
        brake.release()
    async with asyncio.timeout(PATIENCE):
        return await task


class Witness:
    """Sees which tasks run, in which order, and how many of a tenant at once."""

    def __init__(self) -> None:
        self.order: dict[str, list[int]] = defaultdict(list)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.gate = asyncio.Event()

        async def see(n: int, seconds: float = 0.0) -> int:
            tenant = current_task().tenant
            self.order[tenant].append(n)
            self.times[tenant].append(anyio.current_time())
            self.running[tenant] += 1
            self.most[tenant] = max(self.most[tenant], self.running[tenant])
            await anyio.sleep(seconds)
            self.running[tenant] -= 1
            return n

        async def wait(n: int) -> int:
            self.order[current_task().tenant].append(n)
            await self.gate.wait()
            return n

        async def fail(n: int) -> int:
            self.order[current_task().tenant].append(n)
            raise ValueError(str(n))

        self.see = actor(see)
        self.wait = actor(wait)
        self.fail = actor(max_retries=0)(fail)
        self.actors: list[Any] = [self.see, self.wait, self.fail]

    def check(self, wanted: dict[str, int], *, ordered: bool = True) -> None:
        """Checks that tasks 0, 1, ... of each tenant have run exactly once, and in this order."""
        for tenant, count in wanted.items():
            found = self.order[tenant] if ordered else sorted(self.order[tenant])
            assert found == list(range(count)), (tenant, found)


async def shards_with_live_tasks(runtime: Runtime, tenant: str) -> list[int]:
    """Returns the numbers of the shards that have live tasks of a tenant."""
    found = []
    for number, shard in enumerate(runtime._shards()):
        counts = await shard.tenant_stats(tenant)
        if counts.queued + counts.started + counts.scheduled + counts.deferred:
            found.append(number)
    return found


async def is_grown(runtime: Runtime, shards: int) -> bool:
    """Returns whether the namespace has so many shards, and nothing moves any more."""
    await runtime._shards().renew()
    layout = runtime._shards().layout
    return layout.shards == shards and not layout.growing


async def check_grown(runtime: Runtime, shards: int) -> None:
    """Checks that a growth is complete, with nothing left of it and nothing out of place."""
    await until(lambda: is_grown(runtime, shards))
    await until(lambda: _is_tidy(runtime))
    await check_invariants(runtime)


async def _is_tidy(runtime: Runtime) -> bool:
    return not any([await shard.moving() for shard in runtime._shards()])


async def send_in_order(
    runtime: Runtime, witness: Witness, tenants: Iterable[str], numbers: range
) -> list[Handle[int]]:
    """Sends the tasks of all tenants, one after the other."""
    return [await runtime.send(tenant, witness.see(n)) for n in numbers for tenant in tenants]


def shard_of_layout(runtime: Runtime, tenant: str) -> Shard:
    """Returns the shard on which a tenant belongs in the end."""
    return runtime._shards()[runtime._shards().layout.place(tenant)]
