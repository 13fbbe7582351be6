"""Large messages and results, with real runtimes: over a link that is slow, and while something else happens."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
import redis

from fairactor import Runtime, TaskState, actor
from fairactor._util.link import MOST
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until
from tests.support.proxy import Proxy, proxy

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
TEXT = "x" * 600_000
LONG = "x" * 1_200_000
"""More than the reply to a turn has."""


@pytest.fixture
async def link(url: str) -> AsyncIterator[Proxy]:
    async with proxy(url) as made:
        yield made


@actor(result_ttl=0)
async def length(text: str) -> int:
    return len(text)


@actor
async def double(text: str) -> str:
    return 2 * text


async def test_a_record_that_the_link_does_not_carry_in_time_arrives(make_runtime: Make, link: Proxy) -> None:
    link.rate = 1e6  # bytes a second: it takes 1.2 s, and a call is given up after 1 s of silence
    async with (
        make_runtime(workers=0, max_payload=2 * MOST) as sender,
        Runtime(link.url, actors=[length], lease=3.0, workers=10) as worker,
    ):
        handle = await sender.send("t", length(LONG))
        (dispatcher,) = worker._engine.consumer._dispatchers  # type: ignore[union-attr]
        name = dispatcher.runtime
        assert await handle.result(PATIENCE) == len(LONG)
        assert dispatcher.runtime == name, "it keeps its lease"
        await check_invariants(sender)


async def test_sending_and_reporting_over_a_slow_link(make_runtime: Make, link: Proxy) -> None:
    link.rate = 1e6
    async with (
        make_runtime(double, workers=10),
        Runtime(link.url, actors=[double], lease=3.0, workers=0, max_payload=1 << 22) as sender,
    ):
        handles = await asyncio.gather(*(sender.send(f"t{n}", double("y" * 400_000)) for n in range(2)))
        assert [len(await handle.result(PATIENCE)) for handle in handles] == [800_000] * 2


async def test_concurrent_sends_of_large_messages_go_in_several_calls(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as sender:
        (batcher,) = sender._engine.sender._batchers
        sizes: list[int] = []
        send = batcher._shard.send

        async def note(items: Any, *args: Any, **kwargs: Any) -> Any:
            sizes.append(sum(item.size for item in items))
            return await send(items, *args, **kwargs)

        batcher._shard.send = note  # type: ignore[method-assign]
        await asyncio.gather(*(sender.send("t", length(TEXT)) for _ in range(6)))
        await sender.send_many([("t", length("z" * 100_000))] * 30)
        assert max(sizes) <= MOST
        assert sum(sizes) > 6 * len(TEXT) + 3_000_000
        assert (await sender.stats()).queued == 36


async def test_a_task_that_is_canceled_while_its_record_is_read_does_not_start(make_runtime: Make, link: Proxy) -> None:
    async with (
        make_runtime(workers=0, max_payload=2 * MOST) as sender,
        Runtime(link.url, actors=[length], lease=6.0, workers=2) as worker,
    ):
        (dispatcher,) = worker._engine.consumer._dispatchers  # type: ignore[union-attr]
        link.rate = 5e5
        handle = await sender.send("t", length(LONG).options(result_ttl=60))
        await until(lambda: dispatcher.reader._waiting)
        await handle.cancel()
        await until(lambda: not dispatcher.reader._waiting)
        link.rate = math.inf
        await until(lambda: has_state(handle, TaskState.CANCELED))
        assert [*(await handle.info()).args] == [LONG]
        assert worker._engine.consumer._pool.vacancies == 2  # type: ignore[union-attr]
        await check_invariants(sender)


async def test_what_is_being_read_goes_back_when_the_runtime_stops(make_runtime: Make, link: Proxy) -> None:
    async with make_runtime(workers=0, max_payload=2 * MOST) as sender:
        async with Runtime(link.url, actors=[length], lease=6.0, workers=2) as worker:
            (dispatcher,) = worker._engine.consumer._dispatchers  # type: ignore[union-attr]
            link.rate = 5e5
            handle = await sender.send("t", length(LONG))
            await until(lambda: dispatcher.reader._waiting)
            link.rate = math.inf
        assert await handle.state() is TaskState.QUEUED
        async with make_runtime(length):
            await sender.drain(PATIENCE)


async def test_small_tasks_run_while_a_large_record_is_read(make_runtime: Make, link: Proxy) -> None:
    async with (
        make_runtime(workers=0, max_payload=2 * MOST) as sender,
        Runtime(link.url, actors=[length], lease=6.0, workers=2) as worker,
    ):
        (dispatcher,) = worker._engine.consumer._dispatchers  # type: ignore[union-attr]
        link.rate = 2e5
        large = await sender.send("t", length(LONG))
        await until(lambda: dispatcher.reader._waiting)
        small = await sender.send("u", length("small"))
        assert await small.result(PATIENCE) == 5
        assert dispatcher.reader._waiting
        link.rate = math.inf
        with anyio.fail_after(PATIENCE):
            await large.result()


async def has_state(handle: Any, state: TaskState) -> bool:
    return await handle.state() is state
