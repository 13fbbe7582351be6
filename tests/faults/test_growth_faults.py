"""Processes that die, scripts and replies that are lost, and a server that restarts, while a namespace grows."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
import redis

from fairactor import Runtime
from fairactor._client import mover
from tests.support import servers, service
from tests.support.growth import Witness, check_grown
from tests.support.polling import PATIENCE, until
from tests.support.proxy import Fault, proxy
from tests.support.worker_processes import Fleet

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

TENANTS = [f"t{n}" for n in range(16)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover, "_BETWEEN", 0.02)
    monkeypatch.setattr(mover, "LEADS", 1.0)


def order_of(db: redis.Redis, tenant: str) -> list[int]:
    return [int(n) for n in db.lrange(f"order {tenant}", 0, -1)]  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", [1, *[pytest.param(n, marks=pytest.mark.slow) for n in range(2, 12)]])
async def test_the_process_that_leads_is_killed(
    make_runtime: Make, processes: Fleet, db: redis.Redis, seed: int
) -> None:
    draw = random.Random(seed)
    async with make_runtime(workers=0, shards=2) as sender:
        for tenant in TENANTS:
            await sender.tenant(tenant).configure(concurrency=1)
        workers = await processes.start(3, lease=1.0)
        await sender.send_many([(tenant, service.one_at_a_time(n)) for n in range(15) for tenant in TENANTS])
        growth = asyncio.create_task(sender.grow(5))
        meta = sender._shards()[0].keys.fixed("MOVER")
        leader = await until(lambda: db.get(meta))
        await anyio.sleep(draw.uniform(0, 0.3))
        pid = int(leader.decode().split(":")[-2])
        victim = next((each for each in workers if each.pid == pid), workers[0])
        victim.signal(signal.SIGKILL)
        if victim.pid != pid:
            db.delete(meta)  # this process leads: another one takes over
        for n in range(15, 20):
            for tenant in TENANTS:
                await sender.send(tenant, service.one_at_a_time(n))
        await asyncio.wait_for(growth, 3 * PATIENCE)
        await sender.drain(timeout=PATIENCE)
        await check_grown(sender, 5)
        assert (await sender.stats()).finished == 20 * len(TENANTS)
        for tenant in TENANTS:
            order = order_of(db, tenant)
            assert sorted(set(order)) == list(range(20)), (tenant, order)  # others overtake a suspect
            assert len(order) <= 21, "only what the killed process ran is run again"
        await processes.stop()


async def test_lost_scripts_and_replies(url: str, db: redis.Redis) -> None:
    witness = Witness()
    settings: dict[str, object] = {"lease": 3.0, "grace": 2.0, "connect_timeout": 10.0}
    async with (
        proxy(url) as between,
        Runtime(between.url, actors=witness.actors, workers=10, shards=2, **settings) as runtime,  # type: ignore[arg-type]
    ):
        for tenant in TENANTS:
            await runtime.tenant(tenant).configure(concurrency=1)
        await runtime.send_many([(tenant, witness.see(n, 0.001)) for n in range(10) for tenant in TENANTS])
        growth = asyncio.create_task(runtime.grow(5))
        for n in range(10, 20):
            between.strike((Fault.LOSE_AND_CUT, Fault.CUT_REPLY, Fault.CUT_REQUEST)[n % 3])
            db.script_flush()
            for tenant in TENANTS:
                await runtime.send(tenant, witness.see(n))
        await asyncio.wait_for(growth, 2 * PATIENCE)
        await runtime.drain(timeout=PATIENCE)
        await check_grown(runtime, 5)
        witness.check(dict.fromkeys(TENANTS, 20))


@pytest.mark.slow
async def test_the_server_restarts(server_binary: str, tmp_path: Path) -> None:
    witness = Witness()
    with servers.instance(server_binary, "--appendonly", "yes", "--appendfsync", "always") as server:
        settings: dict[str, object] = {"lease": 2.0, "grace": 2.0, "connect_timeout": 20.0}
        async with Runtime(server.url, actors=witness.actors, workers=10, shards=2, **settings) as runtime:  # type: ignore[arg-type]
            for tenant in TENANTS:
                await runtime.tenant(tenant).configure(concurrency=1)
            await runtime.send_many([(tenant, witness.see(n)) for n in range(20) for tenant in TENANTS])
            growth = asyncio.create_task(runtime.grow(5))
            await until(lambda: runtime._shards().layout.growing)
            await anyio.to_thread.run_sync(server.kill)
            await anyio.to_thread.run_sync(server.start)
            await asyncio.wait_for(growth, 2 * PATIENCE)
            await runtime.drain(timeout=PATIENCE)
            await check_grown(runtime, 5)
            for tenant in TENANTS:
                assert list(dict.fromkeys(witness.order[tenant])) == list(range(20))
