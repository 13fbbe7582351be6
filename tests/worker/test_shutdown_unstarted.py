"""Tests shutdown: tasks that are claimed but not started return to the queue at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
import redis

from fairactor import Handle, Runtime, TaskState, actor
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until
from tests.support.records import untouched

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

IDLE = "{fairactor/0}:idle"
"""The key of the set of runtimes that can take more work; a runtime that stops leaves it."""


async def test_what_was_claimed_ahead_goes_back_at_once_and_in_front(make_runtime: Make, db: redis.Redis) -> None:
    begun, release, order = anyio.Event(), anyio.Event(), []

    @actor
    async def run(name: str) -> str:
        order.append(name)
        if name == "first":
            begun.set()
            await release.wait()
        return name

    async with make_runtime(workers=0) as sender, make_runtime(run, workers=1, lease=60) as leaving:
        first = await sender.send("user:1", run("first"))
        await begun.wait()
        second = await sender.send("user:1", run("second"))
        pool, dispatcher = leaving._engine.consumer._pool, leaving._engine.consumer._dispatchers[0]  # type: ignore[union-attr]
        dispatcher._paces[0]._rate = dispatcher._paces[0]._round_trip = dispatcher._paces[0]._run = (
            1.0  # as after many short tasks
        )
        dispatcher.wake()
        await until(lambda: pool.first._ready)  # type: ignore[union-attr]
        young = await sender.send_many(("user:1", run(f"young {n}")) for n in range(3))
        assert await second.state() is TaskState.STARTED
        stopping = asyncio.ensure_future(leaving.stop(grace=PATIENCE))
        await until(partial(is_queued, second))
        assert untouched(db, second)
        await check_invariants(sender)
        async with make_runtime(run, workers=1):
            assert [await handle.result(timeout=PATIENCE) for handle in young] == ["young 0", "young 1", "young 2"]
        assert order == ["first", "second", "young 0", "young 1", "young 2"]
        info = await second.info()
        assert (info.state, info.attempt, info.history) == (TaskState.FINISHED, 1, [])
        assert await first.state() is TaskState.STARTED, "it runs on within its grace"
        assert not stopping.done()
        release.set()
        await stopping
        assert await first.state() is TaskState.FINISHED


async def test_what_is_claimed_by_a_turn_that_was_under_way_goes_back_at_once(
    make_runtime: Make, db: redis.Redis
) -> None:
    begun, release, claimed, go_on, order = anyio.Event(), anyio.Event(), anyio.Event(), anyio.Event(), []

    @actor
    async def run(name: str) -> None:
        order.append(name)
        begun.set()
        await release.wait()

    async with make_runtime(workers=0) as sender, make_runtime(run, workers=2, lease=60) as leaving:
        (dispatcher,) = leaving._engine.consumer._dispatchers  # type: ignore[union-attr]
        turn = dispatcher._shard.turn

        async def slow(*args: Any, **kwargs: Any) -> Any:
            reply = await turn(*args, **kwargs)
            if begun.is_set() and reply.claims:
                claimed.set()
                await go_on.wait()
            return reply

        dispatcher._shard.turn = slow  # type: ignore[method-assign]
        first = await sender.send("user:1", run("first"))
        await begun.wait()
        second, _ = await sender.send_many([("user:1", run("second"))] * 2)  # one alone is handed over
        await claimed.wait()
        stopping = asyncio.ensure_future(leaving.stop(grace=PATIENCE))
        await until(lambda: not dispatcher._claiming)
        assert await second.state() is TaskState.STARTED
        go_on.set()
        await until(partial(is_queued, second))
        assert untouched(db, second)
        assert await first.state() is TaskState.STARTED, "it runs on within its grace"
        await check_invariants(sender)
        release.set()
        await stopping
        assert order == ["first"]
        async with make_runtime(run):
            await second.result(timeout=PATIENCE)


async def is_queued(handle: Handle[Any]) -> bool:
    return await handle.state() is TaskState.QUEUED
