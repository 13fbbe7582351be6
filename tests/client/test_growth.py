"""A namespace that gets more shards while it runs: every task runs once, in order, and no limit is exceeded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import anyio
import pytest

from fairactor import Handle, Runtime, actor, current_task
from fairactor._client import mover
from fairactor.errors import ConfigurationError, NamespaceMismatch
from fairactor.testing import check_invariants
from tests.support.growth import Brake, Witness, check_grown, growing, is_grown, names, send_in_order
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

TENANTS = [f"t{n}" for n in range(24)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes pauses between passes short."""
    monkeypatch.setattr(mover, "_BETWEEN", 0.02)


@pytest.fixture
def witness() -> Witness:
    return Witness()


async def test_nothing_is_lost_or_run_twice_and_the_order_stays(make_runtime: Make, witness: Witness) -> None:
    async with (
        make_runtime(*witness.actors, shards=2) as first,
        make_runtime(*witness.actors) as second,
        make_runtime(workers=0) as sender,
    ):
        for tenant in TENANTS:
            await first.tenant(tenant).configure(concurrency=1)
        sent = await first.send_many([(tenant, witness.see(n, 0.001)) for n in range(20) for tenant in TENANTS])
        growth = asyncio.create_task(first.grow(5))

        async def send(runtime: Runtime, tenants: list[str]) -> list[Handle[int]]:
            return await send_in_order(runtime, witness, tenants, range(20, 40))

        some = await asyncio.gather(send(sender, TENANTS[::2]), send(second, TENANTS[1::2]))
        await asyncio.wait_for(growth, PATIENCE)
        await sender.drain(timeout=PATIENCE)
        for runtime, handles in ((first, sent), (sender, some[0]), (second, some[1])):
            assert len(await runtime.results(handles, timeout=PATIENCE)) == len(handles)
        witness.check(dict.fromkeys(TENANTS, 40))
        assert set(witness.most.values()) == {1}
        stats = await first.stats()
        assert (stats.finished, stats.pending, stats.failed) == (40 * len(TENANTS), 0, 0)
        await check_grown(first, 5)
        assert len(second._shards()) == len(sender._shards()) == 5
        assert [(await sender.tenant(tenant).stats()).finished for tenant in TENANTS] == [40] * len(TENANTS)


async def test_a_namespace_may_grow_again(make_runtime: Make, witness: Witness) -> None:
    async with make_runtime(*witness.actors, shards=2) as runtime, make_runtime(workers=0) as sender:
        for tenant in TENANTS:
            await runtime.tenant(tenant).configure(concurrency=1)
        batches: list[Handle[int]] = []
        handles: list[Handle[int]] = []
        for turn, shards in enumerate((3, 6)):
            batches += await runtime.send_many(
                [(each, witness.see(20 * turn + n)) for n in range(10) for each in TENANTS]
            )
            growth = asyncio.create_task(sender.grow(shards))
            handles += await send_in_order(sender, witness, TENANTS, range(20 * turn + 10, 20 * turn + 20))
            await asyncio.wait_for(growth, PATIENCE)
        await runtime.drain(timeout=PATIENCE)
        witness.check(dict.fromkeys(TENANTS, 40))
        assert len(await sender.results(handles, timeout=PATIENCE)) == len(handles)
        assert len(await runtime.results(batches, timeout=PATIENCE)) == len(batches)
        assert [(await sender.tenant(each).stats()).finished for each in TENANTS] == [40] * len(TENANTS)
        assert (await sender.stats()).finished == 40 * len(TENANTS)
        await check_grown(runtime, 6)


async def test_a_namespace_of_one_shard_grows(make_runtime: Make, witness: Witness) -> None:
    async with make_runtime(*witness.actors) as runtime:
        handles = await send_in_order(runtime, witness, TENANTS, range(3))
        await asyncio.wait_for(runtime.grow(2), PATIENCE)
        assert [await handle.result(PATIENCE) for handle in handles] == [n for n in range(3) for _ in TENANTS]
        await check_grown(runtime, 2)


async def test_an_idle_runtime_serves_new_shards(make_runtime: Make, witness: Witness) -> None:
    """Tenants of new shards, of which no other runtime knows, are sent to, too."""
    async with make_runtime(*witness.actors, shards=2) as idle, make_runtime(workers=0) as sender:
        await asyncio.wait_for(sender.grow(4), PATIENCE)
        await until(lambda: len(idle._shards()) == 4)
        for tenant in names(2, 4, moves=True, count=8):
            assert await sender.ask(tenant, witness.see(0), timeout=PATIENCE) == 0
        await check_grown(idle, 4)


async def test_an_idle_sender_finds_tenants_that_have_moved(make_runtime: Make, witness: Witness) -> None:
    async with make_runtime(workers=0, shards=2, lease=60) as sender, make_runtime(*witness.actors) as runtime:
        tenants = names(2, 4, moves=True, count=8)
        handles = [await sender.send(tenant, witness.see(0)) for tenant in tenants]
        await asyncio.wait_for(runtime.grow(4), PATIENCE)
        assert await sender.tenant(tenants[0]).policy() is not None
        assert await sender.results(handles, timeout=PATIENCE) == [0] * 8
        for tenant in tenants:
            assert await sender.ask(tenant, witness.see(1), timeout=PATIENCE) == 1
        witness.check(dict.fromkeys(tenants, 2))


@pytest.mark.parametrize("phase", ["begun", "gone", "arrived", "served"])
async def test_a_runtime_that_starts_while_tenants_move(
    make_runtime: Make, witness: Witness, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    brake = Brake(monkeypatch, phase)
    async with make_runtime(workers=0, shards=2) as sender:
        for tenant in TENANTS:
            await sender.tenant(tenant).configure(concurrency=1)
        await send_in_order(sender, witness, TENANTS, range(3))
        async with AsyncExitStack() as stack:
            async with growing(sender, 4, brake):
                runtime = await stack.enter_async_context(make_runtime(*witness.actors))
                other = await stack.enter_async_context(make_runtime(workers=0, shards=2))
                assert len(runtime._shards()) == 4
                await send_in_order(other, witness, TENANTS, range(3, 5))
            await send_in_order(other, witness, TENANTS, range(5, 7))
            await runtime.drain(timeout=PATIENCE)
            witness.check(dict.fromkeys(TENANTS, 7))
            await check_grown(runtime, 4)


async def test_the_number_of_shards_may_be_given_as_it_was_and_as_it_is(make_runtime: Make) -> None:
    async with make_runtime(workers=0, shards=2) as runtime:
        await asyncio.wait_for(runtime.grow(3), PATIENCE)
        for shards in (None, 2, 3):
            async with make_runtime(workers=0, shards=shards) as other:
                assert len(other._shards()) == 3
        with pytest.raises(NamespaceMismatch, match=r"created with shards=2, and has 3 now, not 4"):
            async with make_runtime(workers=0, shards=4):
                pass


async def test_a_namespace_never_gets_fewer_shards(
    make_runtime: Make, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_runtime(*witness.actors, shards=2) as runtime, make_runtime(workers=0) as other:
        await asyncio.wait_for(runtime.grow(2), PATIENCE)
        assert runtime._shards().layout.epoch == 0, "it had as many"
        for shards in (1, 0, -1, 2.5, "3", 20_000):
            with pytest.raises(ConfigurationError):
                await runtime.grow(shards)  # type: ignore[arg-type]
        assert runtime._shards().layout.epoch == 0
        brake = Brake(monkeypatch, "begun")
        async with growing(runtime, 4, brake):
            for shards in (3, 5):
                for caller in (runtime, other):
                    with pytest.raises(ConfigurationError):
                        await caller.grow(shards)
            waits = asyncio.create_task(other.grow(4))
            await asyncio.wait([waits], timeout=0.05)
            assert not waits.done()
        await asyncio.wait_for(waits, PATIENCE)
        await check_grown(runtime, 4)


async def test_two_that_grow_a_namespace_at_once(make_runtime: Make) -> None:
    async with make_runtime(workers=0, shards=2) as runtime, make_runtime(workers=0) as other:
        await asyncio.wait_for(asyncio.gather(runtime.grow(4), other.grow(4)), PATIENCE)
        await check_grown(runtime, 4)
        await check_grown(other, 4)


async def test_two_that_grow_a_namespace_to_other_sizes_at_once(make_runtime: Make) -> None:
    async with make_runtime(workers=0, shards=2) as runtime, make_runtime(workers=0) as other:
        found = await asyncio.wait_for(asyncio.gather(runtime.grow(4), other.grow(5), return_exceptions=True), PATIENCE)
        grown = [size for size, error in zip((4, 5), found, strict=True) if error is None]
        assert grown, found
        assert all(error is None or isinstance(error, ConfigurationError) for error in found), found
        assert len(grown) == 1
        await until(lambda: is_grown(runtime, grown[0]))
        await other._shards().renew()
        assert len(other._shards()) == grown[0]


async def test_a_call_that_is_canceled_does_not_end_the_growth(
    make_runtime: Make, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    brake = Brake(monkeypatch, "begun")
    async with make_runtime(*witness.actors, shards=2) as runtime:
        await send_in_order(runtime, witness, TENANTS, range(2))
        with anyio.move_on_after(0.1):
            await runtime.grow(4)
        assert runtime._shards().layout.growing
        brake.release()
        await runtime.drain(timeout=PATIENCE)
        await check_grown(runtime, 4)
        witness.check(dict.fromkeys(TENANTS, 2), ordered=False)


async def test_the_runtime_that_leads_leaves_and_another_goes_on(
    make_runtime: Make, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    brake = Brake(monkeypatch, "gone")
    monkeypatch.setattr(mover, "LEADS", 0.3)
    async with make_runtime(*witness.actors, shards=2) as other:
        async with make_runtime(workers=0) as leader:
            await send_in_order(leader, witness, names(2, 4, moves=True, count=8), range(3))
            with anyio.move_on_after(0.3):
                await leader.grow(4)
        brake.release()
        await check_grown(other, 4)
        await other.drain(timeout=PATIENCE)
        witness.check(dict.fromkeys(names(2, 4, moves=True, count=8), 3), ordered=False)


# Tasks that take long


async def test_a_tenant_whose_tasks_take_long_is_held_up_for_a_while_and_then_served(
    make_runtime: Make, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mover, "HOLD", 0.3)
    monkeypatch.setattr(mover, "REST", 0.6)
    (tenant,) = names(2, 4, moves=True)
    async with make_runtime(*witness.actors, shards=2) as runtime:
        held = await runtime.send(tenant, witness.wait(0))
        await until(lambda: witness.order[tenant])
        growth = asyncio.create_task(runtime.grow(4))
        await until(lambda: _is_held(runtime, tenant))
        assert await runtime.ask(tenant, witness.see(1), timeout=PATIENCE) == 1, "after it was held up"
        assert not growth.done()
        assert await runtime.ask(tenant, witness.see(2), timeout=PATIENCE) == 2
        witness.gate.set()
        assert await held.result(PATIENCE) == 0
        await asyncio.wait_for(growth, PATIENCE)
        await check_grown(runtime, 4)
        assert await runtime.ask(tenant, witness.see(3), timeout=PATIENCE) == 3


async def _is_held(runtime: Runtime, tenant: str) -> bool:
    shards = runtime._shards()
    return (await shards[shards.layout.source(tenant)].moving()).get(tenant) == "held"


async def test_a_task_that_waits_for_another_of_its_tenant_does_not_hold_it_up_for_ever(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mover, "HOLD", 0.2)
    monkeypatch.setattr(mover, "REST", 0.4)
    begun = asyncio.Event()
    goes_on = asyncio.Event()

    @actor
    async def inner() -> int:
        return 5

    @actor
    async def outer() -> int:
        begun.set()
        await goes_on.wait()
        return await runtime.ask(current_task().tenant, inner(), timeout=PATIENCE)

    (tenant,) = names(2, 4, moves=True)
    async with make_runtime(outer, inner, shards=2) as runtime:
        handle = await runtime.send(tenant, outer())
        await begun.wait()
        growth = asyncio.create_task(runtime.grow(4))
        await until(lambda: _is_held(runtime, tenant))
        goes_on.set()
        assert await handle.result(PATIENCE) == 5
        await asyncio.wait_for(growth, PATIENCE)
        await check_grown(runtime, 4)


# Who is served where


async def test_assigned_tenants_are_served_on_new_shards(make_runtime: Make) -> None:
    served: list[tuple[str, str]] = []

    def serving(name: str) -> object:
        async def note(n: int) -> None:
            served.append((name, current_task().tenant))

        return actor(name="note")(note)

    mine, others = names(2, 4, moves=True, count=3), names(2, 4, moves=True, count=6)[3:]
    first: object = serving("home")
    async with (
        make_runtime(first, shards=2, assigned=mine) as home,
        make_runtime(serving("all")) as everyone,
        make_runtime(workers=0) as sender,
    ):
        await asyncio.wait_for(sender.grow(4), PATIENCE)
        await until(lambda: len(home._shards()) == len(everyone._shards()) == 4)
        for n in range(5):
            for tenant in (*mine, *others):
                await sender.send(tenant, first(n))  # type: ignore[operator]
            await sender.drain(timeout=PATIENCE)
        assert {tenant for name, tenant in served if name == "home"} <= set(mine)
        assert sum(tenant in others for _, tenant in served) == 15
        assert len(served) == 30
        await everyone.stop(0)
        await home.assign(others)
        for tenant in others:
            await sender.send(tenant, first(9))  # type: ignore[operator]
        await sender.drain(timeout=PATIENCE)
        assert sum((name, tenant) == ("home", tenant) for name, tenant in served if tenant in others) == 3
        await check_invariants(sender)


async def test_a_runtime_that_steals_serves_new_shards(make_runtime: Make, witness: Witness) -> None:
    mine, others = names(2, 4, moves=True, count=2), names(2, 4, moves=True, count=6)[2:]
    async with make_runtime(*witness.actors, shards=2, assigned=mine, steal=others) as home:
        await send_in_order(home, witness, [*mine, *others], range(3))
        await asyncio.wait_for(home.grow(4), PATIENCE)
        await send_in_order(home, witness, [*mine, *others], range(3, 6))
        await home.drain(timeout=PATIENCE)
        witness.check(dict.fromkeys([*mine, *others], 6), ordered=False)
        await check_grown(home, 4)


async def test_growth_ends_when_nobody_sends(make_runtime: Make) -> None:
    async with make_runtime(workers=0, shards=2) as runtime:
        await asyncio.wait_for(runtime.grow(40), PATIENCE)
        assert await is_grown(runtime, 40)
        await check_grown(runtime, 40)
