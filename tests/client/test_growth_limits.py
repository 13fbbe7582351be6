"""Limits while a namespace grows: they are divided among more shards, and never exceeded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest

from fairactor import Message, Runtime, actor
from fairactor._client import mover
from tests.support.growth import Witness, check_grown, names
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

TENANTS = [f"t{n}" for n in range(12)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover, "_BETWEEN", 0.02)


async def test_a_limit_that_tenants_share_is_never_exceeded(make_runtime: Make) -> None:
    running = most = 0

    @actor
    async def call(n: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.005)
        running -= 1

    async with make_runtime(call, shards=2, workers=40) as first, make_runtime(call, workers=40):
        await first.limit("api").configure(concurrency=6)
        await first.send_many([(tenant, call(n).options(limits={"api": 1})) for n in range(10) for tenant in TENANTS])
        await asyncio.wait_for(first.grow(3), PATIENCE)
        grown = most
        await first.drain(timeout=PATIENCE)
        assert 1 <= grown <= most <= 6
        assert (await first.limit("api").policy()).concurrency == 6
        await check_grown(first, 3)


async def test_the_limit_of_an_actor_is_divided_again(make_runtime: Make) -> None:
    running = most = 0

    @actor(concurrency=4)
    async def call(n: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.005)
        running -= 1

    async with make_runtime(call, shards=2, workers=40) as first, make_runtime(call, workers=40) as second:
        await first.send_many([(tenant, call(n)) for n in range(6) for tenant in TENANTS])
        await asyncio.wait_for(first.grow(4), PATIENCE)
        await first.drain(timeout=PATIENCE)
        assert 1 <= most <= 4
        found = [await shard.limits() for shard in second._shards()]
        declared = [next(iter(limits.values()))[0]["declared"]["concurrency"] for _, limits in found]
        assert declared == [1, 1, 1, 1]
        await check_grown(first, 4)


async def test_a_rate_of_a_tenant_holds_over_its_move(make_runtime: Make) -> None:
    witness = Witness()
    (tenant,) = names(2, 4, moves=True)
    async with make_runtime(*witness.actors, shards=2) as runtime:
        await runtime.tenant(tenant).configure(rate="20/s")
        await runtime.send_many([(tenant, witness.see(n)) for n in range(30)])
        await anyio.sleep(0.2)
        await asyncio.wait_for(runtime.grow(4), PATIENCE)
        await runtime.drain(timeout=PATIENCE)
        await check_grown(runtime, 4)
    witness.check({tenant: 30}, ordered=False)
    times = witness.times[tenant]
    assert all(later - sooner > 0.9 for sooner, later in zip(times, times[20:], strict=False)), "20 in any second"


async def test_a_limit_per_tenant_holds_over_its_move(make_runtime: Make) -> None:
    witness = Witness()
    (tenant,) = names(2, 4, moves=True)
    async with make_runtime(*witness.actors, shards=2) as runtime:
        await runtime.limit("api").configure(rate="1000/h", burst=5, per="tenant")
        await runtime.limit("one").configure(concurrency=1, per="tenant")

        def limited(n: int) -> Message[int]:
            return witness.see(n).options(limits={"api": 1, "one": 1})

        for n in range(3):
            await runtime.ask(tenant, limited(n), timeout=PATIENCE)
        usage = await runtime.limit("api").usage(tenant)
        await asyncio.wait_for(runtime.grow(4), PATIENCE)
        await runtime.send_many([(tenant, limited(n)) for n in range(3, 9)])
        with anyio.move_on_after(0.7):
            await runtime.drain()
        assert len(witness.order[tenant]) == 5, "a burst of five in all"
        assert usage is not None
        assert witness.most[tenant] == 1
        await check_grown(runtime, 4)
