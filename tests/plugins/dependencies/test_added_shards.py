"""Dependencies of tenants that move to shards which are added meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio
import pytest
from fairactor_dependencies import Dependencies, UnknownParent, at, each, group, result, result_of, results

from fairactor import Handle, Runtime, TaskCanceled, TaskState, actor, current_task
from fairactor._model.layout import Layout
from fairactor.testing import check_invariants
from tests.support.moving_tenants import moving, staying
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

MOVING = moving(6)
TENANTS = [*MOVING, *staying(3)]
AFTER = Layout((2, 5))
ran: Counter[str] = Counter()
go_on: list[anyio.Event] = []
fails: list[bool] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    go_on[:] = [anyio.Event()]
    ran.clear()
    fails[:] = [True]


@actor
async def give(n: int) -> int:
    ran[current_task().id] += 1
    return n


@actor
async def hold(n: int) -> int:
    ran[current_task().id] += 1
    await go_on[0].wait()
    return n


@actor
async def total(numbers: list[int]) -> int:
    ran[current_task().id] += 1
    return sum(numbers)


@actor
async def numbers(many: int) -> list[int]:
    return list(range(many))


@actor(max_retries=0)
async def odd_fails(n: int) -> int:
    ran[str(n)] += 1
    if n % 2 and fails[0]:
        raise ValueError(n)
    return n


@pytest.fixture
def make(make_runtime: Make) -> Make:
    return lambda **settings: make_runtime(
        give, hold, total, numbers, odd_fails, shards=2, plugins=[Dependencies()], **settings
    )


def homes(runtime: Runtime, tenants: list[str]) -> list[int]:
    return [runtime.host.shard_of(tenant) for tenant in tenants]


async def test_a_graph_over_tenants_that_waits_is_carried_out_whole_and_they_move_afterwards(make: Make) -> None:
    async with make(workers=40) as runtime, make() as other:
        wide = group(*(at(TENANTS[n % len(TENANTS)], give(n)) for n in range(36)))
        runs = [await runtime.send(tenant, hold(0) >> wide >> total(results())) for tenant in (MOVING[0], TENANTS[-1])]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.grow, 5)
            await until(lambda: runtime.host.shard_count == 5)
            late = await other.send(MOVING[1], hold(1) >> wide >> total(results()))
            go_on[0].set()
            for run in [*runs, late]:
                assert await run.result(PATIENCE) == sum(range(36))
        assert homes(runtime, TENANTS) == [AFTER.place(tenant) for tenant in TENANTS]
        assert set(ran.values()) == {1}
        assert len(ran) == 3 * 38
        for run in [*runs, late]:
            assert set((await run.wait(PATIENCE)).values()) == {TaskState.FINISHED}
        await check_invariants(runtime)


async def test_tasks_for_which_others_wait_stay_until_these_have_heard(make: Make) -> None:
    async with make() as runtime:
        for tenant in TENANTS:
            await runtime.tenant(tenant).pause()
        handles = [await runtime.send(tenant, give(n)) for n, tenant in enumerate(MOVING)]
        child = await runtime.send(TENANTS[-1], total(results()), depends_on=handles)
        alone = await runtime.send(TENANTS[-2], give(7))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runtime.grow, 5)
            await until(lambda: runtime.host.shard_count == 5)
            for tenant in TENANTS:
                await runtime.tenant(tenant).resume()
            assert await child.result(PATIENCE) == sum(range(len(MOVING)))
            assert await alone.result(PATIENCE) == 7
        assert homes(runtime, MOVING) == [AFTER.place(tenant) for tenant in MOVING]
        await check_invariants(runtime)


async def test_waiting_tasks_move_and_others_can_wait_for_them_there(make: Make) -> None:
    async with make() as runtime, make() as other:
        for tenant in MOVING:
            await runtime.tenant(tenant).pause()
        handles = [await runtime.send(tenant, give(n)) for n, tenant in enumerate(MOVING)]
        sent: list[int] = []
        children: list[Handle[int]] = []

        async def wait_for_them(waiting: Runtime) -> None:
            while waiting.host.shard_count == 2 or len(sent) < 20:
                child = await waiting.send(TENANTS[-1], total(results()), depends_on=handles)
                sent.append(1)
                children.append(child)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_them, other)
            tasks.start_soon(wait_for_them, runtime)
            await until(lambda: len(sent) >= 2)
            tasks.start_soon(runtime.grow, 5)
            await until(lambda: runtime.host.shard_count == 5)
            await until(lambda: len(sent) >= 20)
            for tenant in MOVING:
                await runtime.tenant(tenant).resume()
        for child in children:
            assert await child.result(PATIENCE) == 15
        assert homes(runtime, MOVING) == [AFTER.place(tenant) for tenant in MOVING]
        await check_invariants(runtime)


@pytest.mark.parametrize("named", [True, False], ids=["by handle", "by id"])
async def test_parents_that_ended_before_their_tenants_moved_are_known(make: Make, named: bool) -> None:
    async with make() as runtime, make() as other:
        before = [await runtime.send(tenant, give(n)) for n, tenant in enumerate(TENANTS)]
        await runtime.results(before, timeout=PATIENCE)
        await runtime.grow(5)
        parents = before if named else [handle.id for handle in before]
        for tenant in TENANTS:
            child = await other.send(tenant, total(results()), depends_on=parents)
            assert await child.result(PATIENCE) == sum(range(len(TENANTS)))
            child = await other.send(tenant, give(result_of(parents[0])), depends_on=parents[:1])
            assert await child.result(PATIENCE) == 0
        with pytest.raises(UnknownParent):
            await other.send(MOVING[0], give(1), depends_on=[other.handle("none", MOVING[0])])


async def test_each_goes_on_while_shards_are_added(make: Make) -> None:
    async with make() as runtime:
        runs = [await runtime.send(tenant, numbers(40) >> each(give) >> total(result())) for tenant in TENANTS]
        await runtime.grow(5)
        for run in runs:
            assert await run.result(PATIENCE) == sum(range(40))
            assert len(await run.items()) == 40
            assert set((await run.states()).values()) == {TaskState.FINISHED}
        assert set(ran.values()) == {1}
        assert homes(runtime, TENANTS) == [AFTER.place(tenant) for tenant in TENANTS]
        await check_invariants(runtime)


async def test_a_run_is_retried_after_its_tenant_has_moved_and_its_finished_items_are_kept(make: Make) -> None:
    async with make() as runtime:
        runs = [await runtime.send(tenant, numbers(6) >> each(odd_fails) >> total(result())) for tenant in MOVING]
        for run in runs:
            with pytest.raises(TaskCanceled):
                await run.result(PATIENCE)
            await run.wait(PATIENCE)
        await runtime.grow(5)
        fails[0] = False
        for run in runs:
            again = await run.retry()
            assert await again.result(PATIENCE) == sum(range(6))
            assert len(await again.items()) == 6
        many = len(MOVING)
        assert ran["0"] == ran["2"] == ran["4"] == many
        assert ran["1"] == ran["3"] == ran["5"] == 2 * many
        await check_invariants(runtime)


async def test_a_graph_that_is_sent_again_after_the_move_runs_once(make: Make) -> None:
    async with make() as runtime, make() as other:
        tenants = [MOVING[0], TENANTS[-1], MOVING[1]]
        messages = [give(n).options(id=f"again{n}", depends_on=[f"again{n - 1}"] if n else []) for n in range(3)]
        batch = list(zip(tenants, messages, strict=True))
        first = await runtime.send_many(batch)
        assert await runtime.results(first, timeout=PATIENCE) == [0, 1, 2]
        await runtime.grow(5)
        more = (tenants[0], give(3).options(id="again3", depends_on=["again2"]))
        handles = await other.send_many([*batch, more])
        assert await other.results(handles, timeout=PATIENCE) == [0, 1, 2, 3]
        assert set(ran.values()) == {1}


async def test_results_that_are_too_large_for_a_message_are_found_after_the_move(make: Make) -> None:
    async with make() as runtime, make() as other:
        runs = [await runtime.send(tenant, numbers(150) >> each(give)) for tenant in MOVING]
        for run in runs:
            await run.wait(PATIENCE)
        await runtime.grow(5)
        for tenant, run in zip(MOVING, runs, strict=True):
            assert await run.result(PATIENCE) == [*range(150)]
            joined = [*run.handles.values()][-1]
            child = await other.send(tenant, total(result_of(joined)), depends_on=[joined])
            assert await child.result(PATIENCE) == sum(range(150))
