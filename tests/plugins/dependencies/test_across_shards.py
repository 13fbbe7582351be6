"""Tests dependencies between tenants of different shards."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from fairactor_dependencies import Dependencies, at, chain, group, results

from fairactor import Runtime, TaskCanceled, TaskState, actor
from fairactor.errors import NotReplicated
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

TENANTS = [f"t{n}" for n in range(6)]


@actor
async def give(n: int) -> int:
    return n


@actor
async def total(numbers: list[int]) -> int:
    return sum(numbers)


@actor
async def fail() -> None:
    raise ValueError("no")


@pytest.fixture
def make(make_runtime: Make) -> Make:
    return lambda: make_runtime(give, total, fail, shards=4, plugins=[Dependencies()])


async def test_parents_of_other_shards_are_heard_of_whether_they_have_ended_or_not(make: Make) -> None:
    async with make() as runtime:
        assert len({runtime.host.shard_of(tenant) for tenant in TENANTS}) == 4
        for delay in (0, 0.05):
            before = [await runtime.send(tenant, give(n), delay=delay) for n, tenant in enumerate(TENANTS)]
            child = await runtime.send("t0", total(results()), depends_on=before)
            assert await child.result(PATIENCE) == 15


async def test_a_run_over_all_shards_is_sent_whole(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        wide = group(*(at(TENANTS[n % 6], give(n)) for n in range(60)))
        run = await runtime.send("t0", give(0) >> wide >> total(results()))
        assert await run.result(PATIENCE) == sum(range(60))
        run = await runtime.send("t0", chain(*(at(tenant, give(n)) for n, tenant in enumerate(TENANTS * 5))))
        assert await run.result(PATIENCE) == 29
        await check_invariants(runtime)
        await until(lambda: not [key for key in db.scan_iter("*:plugin:*") if key.endswith((b":outbox", b":of:t"))])


async def test_a_failure_goes_down_through_all_shards(make: Make) -> None:
    async with make() as runtime:
        steps = [at(tenant, give(n)) for n, tenant in enumerate(TENANTS)]
        run = await runtime.send("t0", chain(at("t1", fail()), *steps))
        with pytest.raises(TaskCanceled, match=run.handles["fail"].id + " failed"):
            await run.result(PATIENCE)
        assert set((await run.wait(PATIENCE)).values()) == {TaskState.FAILED, TaskState.CANCELED}


async def test_a_graph_that_no_replica_has_confirmed_runs_all_the_same(make_runtime: Make) -> None:
    messages = [give(n).options(id=f"s{n}", depends_on=[f"s{n - 1}"] if n else []) for n in range(len(TENANTS))]
    async with make_runtime(give, shards=4, connect_timeout=1, plugins=[Dependencies()]) as runtime:
        with pytest.raises(NotReplicated, match="the server has the tasks"):
            await runtime.send_many(
                (tenant, message.options(durability="replicated"))
                for tenant, message in zip(TENANTS, messages, strict=True)
            )
        handles = await runtime.send_many(zip(TENANTS, messages, strict=True))
        assert await runtime.results(handles, timeout=PATIENCE) == list(range(len(TENANTS)))
        await check_invariants(runtime)
