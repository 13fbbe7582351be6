"""Thousands of concurrent calls share a few connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import redis

from fairactor import Runtime, TaskState, actor
from fairactor._server.nodes import CONNECTIONS

pytestmark = pytest.mark.anyio


@actor
async def nothing(n: int) -> int:
    return n


async def test_thousands_of_concurrent_calls_wait_for_their_turn(
    make_runtime: Callable[..., Runtime], db: redis.Redis
) -> None:
    async with make_runtime(workers=0) as runtime:
        handles = await runtime.send_many([(f"tenant {n % 10}", nothing(n)) for n in range(2000)])
        assert await asyncio.gather(*(handle.state() for handle in handles)) == [TaskState.QUEUED] * 2000
        assert await asyncio.gather(*(handle.cancel() for handle in handles)) == [TaskState.QUEUED] * 2000
        assert len(db.client_list()) <= CONNECTIONS + 2  # plus the two of the fixtures
        assert (await runtime.stats()).canceled == 2000


async def test_thousands_of_concurrent_asks(make_runtime: Callable[..., Runtime]) -> None:
    async with make_runtime(nothing, workers=50) as runtime:
        asked = (runtime.ask(f"tenant {n % 10}", nothing(n), timeout=30) for n in range(2000))
        assert await asyncio.gather(*asked) == list(range(2000))
