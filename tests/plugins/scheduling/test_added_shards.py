"""Schedules of tenants that move to shards which are added while the schedules go on."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
import redis
from fairactor_dependencies import Dependencies, result
from fairactor_scheduling import ScheduleNotFound, Schedules, Scheduling, planned_time, schedule

from fairactor import Runtime, actor, current_task
from fairactor.plugins import Actor
from fairactor.testing import check_invariants
from tests.support.moving_tenants import moving, staying
from tests.support.polling import until
from tests.support.scheduling.schedules import FOREVER, list_schedules, note, server_time

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

MOVING = moving(6)
TENANTS = [*MOVING, *staying(3)]
ran: Counter[tuple[str, dt.datetime | None]] = Counter()


@actor
async def tick() -> None:
    task = current_task()
    ran[task.tenant, planned_time(task.id)] += 1


@actor
async def one() -> int:
    return 1


@actor
async def double(number: int) -> int:
    return 2 * number


@pytest.fixture
def make(make_runtime: Make) -> Make:
    ran.clear()
    plugins = [Scheduling(), Dependencies()]
    return lambda *more: make_runtime(tick, note, one, double, *more, shards=2, plugins=plugins)


def shards_with(db: redis.Redis, tenant: str, name: str) -> list[int]:
    """Returns the numbers of the shards that keep a schedule."""
    keys = db.scan_iter(f"*schedule:{len(tenant)}:{tenant}{name}")
    return sorted(int(key.partition(b"}")[0].rpartition(b"/")[2]) for key in keys)


async def test_schedules_go_on_once_for_each_time_while_and_after_their_tenants_move(
    make: Make, db: redis.Redis
) -> None:
    async with make() as runtime, make() as other:
        schedules = Schedules(runtime)
        started = server_time(db)
        for tenant in TENANTS:
            await schedules.add(0.2, tenant, tick(), id="often", grace=30, catch_up="all")
        await runtime.grow(5)
        for tenant in TENANTS:
            assert shards_with(db, tenant, "often") == [runtime.host.shard_of(tenant)]
            await until(lambda tenant=tenant: other.host.shard_of(tenant) == runtime.host.shard_of(tenant))
        after = (server_time(db) - started).total_seconds()
        many = int(after / 0.2) + 5
        await until(lambda: all(sum(1 for of, _ in ran if of == tenant) >= many for tenant in TENANTS))
        for tenant in TENANTS:
            await schedules.remove(tenant, "often")
        await runtime.drain()
        assert set(ran.values()) == {1}
        for tenant in TENANTS:
            times = sorted(at for of, at in ran if of == tenant and at)
            assert {b - a for a, b in pairwise(times)} == {dt.timedelta(seconds=0.2)}
        await check_invariants(runtime)


async def test_a_schedule_is_read_and_changed_wherever_its_tenant_is(make: Make) -> None:
    async with make() as runtime, make() as other:
        schedules, others = Schedules(runtime), Schedules(other)
        for tenant in TENANTS:
            for name in ("changes", "goes", "pauses"):
                await schedules.add(FOREVER, tenant, note(name), id=name, metadata={"of": tenant})
            await schedules.pause(tenant, "pauses")
        before = {tenant: await schedules.get(tenant, "pauses") for tenant in TENANTS}
        await runtime.grow(5)
        for tenant in TENANTS:
            assert await others.get(tenant, "pauses") == before[tenant]
            assert [each.id for each in await list_schedules(others, tenant)] == ["changes", "goes", "pauses"]
            assert (await others.update(tenant, "changes", when=2 * FOREVER)).when == dt.timedelta(days=2)
            assert await others.remove(tenant, "goes")
            assert not await schedules.remove(tenant, "goes")
            await others.resume(tenant, "pauses")
            assert (await schedules.get(tenant, "pauses")).state == "active"
            assert await (await others.run_now(tenant, "changes")).result(30)
        assert sorted((each.tenant, each.id) for each in await list_schedules(schedules)) == sorted(
            (tenant, name) for tenant in TENANTS for name in ("changes", "pauses")
        )


async def test_what_is_asked_of_a_schedule_on_its_way_brings_it_along(make: Make, db: redis.Redis) -> None:
    """A runtime without the plugin moves the tenant, as it does not know of schedules."""
    async with make() as runtime:
        schedules = Schedules(runtime)
        for tenant in MOVING:
            for name in ("a", "b", "c"):
                await schedules.add(FOREVER, tenant, note(), id=name)
    async with Runtime(runtime.settings.url, shards=2, workers=0, without_plugins=True) as bare:
        await bare.grow(5)
        for tenant in MOVING:
            assert shards_with(db, tenant, "a") != [bare.host.shard_of(tenant)]
    async with make() as runtime:
        schedules = Schedules(runtime)
        for tenant in MOVING:
            home = [runtime.host.shard_of(tenant)]
            await schedules.pause(tenant, "a")
            assert shards_with(db, tenant, "a") == home
            assert await schedules.remove(tenant, "b")
            assert not shards_with(db, tenant, "b")
            with pytest.raises(ScheduleNotFound):
                await schedules.get(tenant, "b")
            assert [each.id for each in await list_schedules(schedules, tenant)] == ["a", "c"]
            assert shards_with(db, tenant, "c") == home


async def test_a_due_schedule_that_was_left_behind_goes_to_its_tenant(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        for tenant in MOVING:
            await Schedules(runtime).add(0.3, tenant, tick(), id="often", grace=60, catch_up="all")
    async with Runtime(runtime.settings.url, shards=2, workers=0, without_plugins=True) as bare:
        await bare.grow(5)
    async with make() as runtime:
        await until(lambda: {of for of, _ in ran} == {*MOVING})
        for tenant in MOVING:
            await until(lambda tenant=tenant: shards_with(db, tenant, "often") == [runtime.host.shard_of(tenant)])
    assert set(ran.values()) == {1}


async def test_a_run_waits_for_the_one_before_it_across_the_move(make: Make) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        for tenant in MOVING:
            await runtime.tenant(tenant).pause()
            await schedules.add(0.2, tenant, tick(), id="queued", overlap="queue", grace=60, budget=3)

        async def all_wait() -> bool:
            return all([(await schedules.get(tenant, "queued")).waiting == 2 for tenant in MOVING])

        await until(all_wait)
        await runtime.grow(5)
        assert await all_wait()
        assert not ran
        for tenant in MOVING:
            await runtime.tenant(tenant).resume()
        await until(lambda: sum(ran.values()) == 3 * len(MOVING))
        assert set(ran.values()) == {1}


async def test_a_graph_on_schedule_moves_with_its_tenant(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        graph = one() >> double(result())
        for tenant in MOVING:
            await schedules.add(FOREVER, tenant, graph, id="graph")
        await runtime.grow(5)
        for tenant in MOVING:
            assert await (await schedules.run_now(tenant, "graph")).result(30) == 2
            meta = f"{{fairactor/{runtime.host.shard_of(tenant)}}}"
            assert "fairactor_dependencies" in (db.hget(meta, "plugins") or b"").decode()


async def test_declared_schedules_move_and_can_be_dropped_afterwards(make: Make, db: redis.Redis) -> None:
    def declared(*tenants: str) -> Actor[[], None]:
        @actor(name="declared")
        async def declared() -> None:
            pass

        return schedule(FOREVER, tenant=tenants)(declared)

    async with make(declared(*TENANTS)) as runtime:
        await runtime.grow(5)
        for tenant in TENANTS:
            assert shards_with(db, tenant, "@declared#0") == [runtime.host.shard_of(tenant)]
    async with make(declared(TENANTS[0])) as runtime:
        assert [each.tenant for each in await list_schedules(Schedules(runtime))] == [TENANTS[0]]
