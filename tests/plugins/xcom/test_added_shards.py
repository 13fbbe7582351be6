"""Values of tenants that move to shards which are added."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fairactor_dependencies import Dependencies, parents
from fairactor_xcom import Values, XCom, xcom

from fairactor import Runtime, actor
from tests.support.moving_tenants import moving, staying
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

TENANTS = [*moving(4), *staying(2)]


@actor
async def push(key: str, value: int) -> None:
    await xcom.push(key, value)


@actor
async def pull(key: str) -> int:
    return await xcom.pull(key, type=int)


@actor
async def pull_of_parents(key: str) -> list[int]:
    return await xcom.pull(key, from_task=parents, type=int)


@pytest.fixture
def make(make_runtime: Make) -> Make:
    return lambda: make_runtime(push, pull, pull_of_parents, shards=2, plugins=[XCom(), Dependencies()])


async def test_values_are_found_wherever_they_were_pushed(make: Make) -> None:
    async with make() as runtime, make() as other:
        run = {"xcom_run": "r"}
        earlier = {}
        for tenant in TENANTS:
            for number in (1, 2):
                earlier[tenant] = await runtime.send(tenant, push("k", number).options(**run, id=f"{tenant}:{number}"))
                await earlier[tenant].result(PATIENCE)
            await (await runtime.send(tenant, push("old", 0).options(**run))).result(PATIENCE)
        await runtime.grow(5)
        assert len({runtime.host.shard_of(tenant) for tenant in TENANTS}) > 2
        for tenant in TENANTS:  # the other runtime has not heard of the new shards
            values = Values(other, tenant, "r")
            assert await values.pull("k") == 2
            assert [value.key for value in await values.list()] == ["k", "k", "old"]
            assert await (await other.send(tenant, pull("k").options(**run))).result(PATIENCE) == 2
            after = await other.send(tenant, push("k", 3).options(**run, id=f"{tenant}:3"))
            await after.result(PATIENCE)
            assert await values.pull("k") == 3
            tasks = [f"{tenant}:1", earlier[tenant], after, f"{tenant}:4"]
            assert await values.pull("k", from_task=tasks, default=None) == [1, 2, 3, None]
            child = await runtime.send(tenant, pull_of_parents("k"), depends_on=[earlier[tenant], after])
            assert await child.result(PATIENCE) == [2, 3]
            assert [(value.key, value.task[-1:]) for value in await values.list() if value.key == "k"] == [
                ("k", "1"), ("k", "2"), ("k", "3"),
            ]  # fmt: skip
            assert await values.delete("k", from_task=earlier[tenant]) == 1
            assert await values.delete("k") == 2
            assert await values.clear() == 1
            assert await values.list() == []
            with pytest.raises(KeyError):
                await values.pull("k")


async def test_the_last_value_that_is_left_may_be_where_the_tenant_was(make: Make) -> None:
    async with make() as runtime:
        tenant = TENANTS[0]
        await (await runtime.send(tenant, push("k", 1).options(xcom_run="r"))).result(PATIENCE)
        await runtime.grow(5)
        after = await runtime.send(tenant, push("k", 2).options(xcom_run="r"))
        await after.result(PATIENCE)
        values = Values(runtime, tenant, "r")
        assert await values.pull("k") == 2
        assert await values.delete("k", from_task=after) == 1
        assert await values.pull("k") == 1
