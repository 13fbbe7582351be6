"""A namespace of several shards on one server works as one of a single shard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest
import redis

from fairactor import Runtime, TaskCanceled, TaskFailed, TaskState, actor, current_task
from fairactor._model.keys import shard_of
from fairactor.errors import TaskExists, TaskNotFound
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

TENANTS = [f"user:{n}" for n in range(40)]


@actor
async def double(n: int) -> int:
    return 2 * n


@pytest.fixture
def make_sharded(make_runtime: Make) -> Make:
    return lambda *actors, **settings: make_runtime(*actors, **{"shards": 4} | settings)


def test_a_tenant_is_always_in_the_same_shard() -> None:
    assert [shard_of(tenant, 4) for tenant in ("user:1", "user:2", "☃", "")] == [2, 0, 0, 0]
    assert {shard_of(tenant, 4) for tenant in TENANTS} == {0, 1, 2, 3}
    assert {shard_of(tenant, 1) for tenant in TENANTS} == {0}


async def test_tenants_are_spread_and_all_are_served(make_sharded: Make, db: redis.Redis) -> None:
    async with make_sharded(workers=0) as sender:
        handles = await sender.send_many((tenant, double(n)) for n, tenant in enumerate(TENANTS))
        queues = {key.decode().partition("}")[0] for key in db.scan_iter("*:queue:*")}
        assert queues == {f"{{fairactor/{n}" for n in range(4)}
        stats = await sender.stats()
        assert (stats.queued, stats.waiting_tenants, stats.known_tenants) == (40, 40, 40)
        async with make_sharded(double, workers=2) as runtime:
            assert [await handle.result(timeout=PATIENCE) for handle in handles] == [2 * n for n in range(40)]
            await runtime.drain(timeout=PATIENCE)
            assert len((await runtime.stats()).runtimes) == 1
            assert (await runtime.health()).ok
        assert (await sender.stats()).finished == 40
        await check_invariants(sender)


async def test_a_namespace_is_joined_without_its_number_of_shards(make_sharded: Make, make_runtime: Make) -> None:
    async with make_sharded(double), make_runtime(workers=0) as sender:
        asked = (sender.ask(tenant, double(n), timeout=PATIENCE) for n, tenant in enumerate(TENANTS))
        assert await asyncio.gather(*asked) == [2 * n for n in range(40)]


async def test_a_handle_is_found_by_its_id_alone(make_sharded: Make) -> None:
    async with make_sharded(double) as runtime, make_sharded(workers=0) as other:
        for tenant in TENANTS[:8]:
            sent = await runtime.send(tenant, double(2), delay=3600)
            for handle in (other.handle(sent.id), other.handle(sent.id, tenant)):
                assert await handle.state() is TaskState.SCHEDULED
            assert await other.handle(sent.id).cancel() is TaskState.SCHEDULED
            with pytest.raises(TaskCanceled):
                await runtime.handle(sent.id).result(timeout=PATIENCE)
        for handle in (runtime.handle("no such task"), runtime.handle("no such task", "user:1")):
            for use in (handle.result, handle.state, handle.info, handle.cancel):
                with pytest.raises(TaskNotFound):
                    await use()


async def test_results_errors_and_cancellations_come_back_from_every_shard(make_sharded: Make) -> None:
    begun = anyio.Semaphore(0)

    @actor
    async def work(how: str) -> str:
        if how == "fail":
            raise ValueError(current_task().tenant)
        if how == "wait":
            begun.release()
            await anyio.sleep_forever()
        await current_task().progress(0.5)
        return current_task().tenant

    async with make_sharded(work, workers=20) as runtime, make_sharded(workers=0) as other:
        for tenant in TENANTS[:8]:
            assert await other.ask(tenant, work("return"), timeout=PATIENCE) == tenant
            with pytest.raises(TaskFailed, match=f"ValueError: {tenant}"):
                await other.ask(tenant, work("fail"), timeout=PATIENCE)
            handle = await runtime.send(tenant, work("wait"))
            await begun.acquire()
            assert await other.handle(handle.id).cancel() is TaskState.STARTED
            with pytest.raises(TaskCanceled):
                await handle.result(timeout=PATIENCE)
        await check_invariants(runtime)


async def test_policies_and_counts_of_tenants(make_sharded: Make) -> None:
    order: dict[str, list[int]] = {}

    @actor
    async def run(n: int) -> None:
        order.setdefault(current_task().tenant, []).append(n)
        await anyio.sleep(0)  # noqa: ASYNC115 - that others could overtake it

    async with make_sharded(run) as one, make_sharded(run):
        for tenant in TENANTS[:8]:
            await one.tenant(tenant).configure(concurrency=1)
        await one.send_many((tenant, run(n)) for n in range(20) for tenant in TENANTS[:8])
        await one.drain(timeout=PATIENCE)
        assert all(order[tenant] == list(range(20)) for tenant in TENANTS[:8])
        assert [(await one.tenant(tenant).stats()).finished for tenant in TENANTS[:9]] == [20] * 8 + [0]


async def test_drain_waits_for_every_shard(make_sharded: Make) -> None:
    release = anyio.Event()

    @actor
    async def wait() -> None:
        await release.wait()

    async with make_sharded(wait, workers=20, lease=60) as runtime, make_sharded(workers=0, lease=60) as onlooker:
        handles = await runtime.send_many((tenant, wait()) for tenant in TENANTS[:8])
        drained = asyncio.ensure_future(onlooker.drain())
        await until(lambda: len(runtime._engine.consumer._pool.running()) == 8)  # type: ignore[union-attr]
        assert not drained.done()
        release.set()
        await asyncio.wait_for(drained, 5)
        assert {await handle.state() for handle in handles} == {TaskState.FINISHED}


async def test_tasks_of_one_shard_wait_for_tasks_of_another(make_sharded: Make) -> None:
    @actor
    async def down(depth: int) -> int:
        return 1 + await runtime.ask(TENANTS[depth], down(depth - 1)) if depth else 0

    async with make_sharded(down, workers=1) as runtime:
        assert await runtime.ask(TENANTS[20], down(20), timeout=PATIENCE) == 20


async def test_delays_and_priorities(make_sharded: Make) -> None:
    async with make_sharded(double, lease=60) as runtime:
        asked = (
            runtime.ask(tenant, double(n), delay=0.2, priority="high", timeout=5) for n, tenant in enumerate(TENANTS)
        )
        assert await asyncio.gather(*asked) == [2 * n for n in range(40)]


async def test_an_id_is_unique_within_a_shard_at_least(make_sharded: Make) -> None:
    same = [tenant for tenant in TENANTS if shard_of(tenant, 4) == shard_of(TENANTS[0], 4)]
    async with make_sharded(workers=0) as runtime:
        await runtime.send(same[0], double(1), id="mine")
        with pytest.raises(TaskExists):
            await runtime.send(same[1], double(1), id="mine")


async def test_a_worker_that_one_shard_kept_busy_serves_the_others_at_once(make_runtime: Make) -> None:
    @actor
    async def run() -> None:
        await anyio.sleep(0.02)

    async with make_runtime(workers=0, shards=4) as sender:
        await sender.send_many((f"user:{n}", run()) for n in range(12))
        async with make_runtime(run, workers=1, lease=60) as runtime:
            await runtime.drain(timeout=10)  # a heartbeat takes 20 s
