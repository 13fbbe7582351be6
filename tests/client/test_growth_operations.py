"""What can be done with tenants and tasks before their tenant moves, meanwhile, and afterwards: always the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Self

import pytest

from fairactor import Handle, Runtime, TaskCanceled, TaskFailed, TaskState
from fairactor._client import mover
from fairactor.errors import ConfigurationError, MailboxFull, TaskNotFound
from fairactor.testing import check_invariants
from tests.support.growth import PHASES, Brake, Witness, check_grown, complete, growing, names, send_in_order
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

(MOVES,) = names(2, 4, moves=True)
(STAYS,) = names(2, 4, moves=False)
BOTH: Final = (MOVES, STAYS)
EVER: Final = (*PHASES, "settled")
"""The phases of a growth, and after it."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover, "_BETWEEN", 0.02)


@pytest.fixture
def witness() -> Witness:
    return Witness()


RARE: Final = {"begun", "held", "served"}
"""What the others cover in part, so that the default run stays short."""


@pytest.fixture(params=[pytest.param(each, marks=pytest.mark.slow) if each in RARE else each for each in EVER])
def phase(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Growth:
    """A growth that is at a phase, or over."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
        self.brake = Brake(monkeypatch, "served" if phase == "settled" else phase)
        self._phase = phase
        self._context = growing(runtime, 4, self.brake)
        self._runtime = runtime

    async def __aenter__(self) -> Self:
        await self._context.__aenter__()
        if self._phase == "settled":
            self.brake.release()
            await asyncio.wait_for(self._runtime.grow(4), PATIENCE)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._context.__aexit__(*error)  # type: ignore[arg-type]

    async def do(self, call: object) -> object:
        """Returns what a call does, which may have to wait for the tenant."""
        return await complete(self.brake, call)


async def test_tasks_can_be_looked_at(make_runtime: Make, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    witness = Witness()
    async with make_runtime(workers=0, shards=2) as runtime, make_runtime(workers=0) as other:
        handles = await send_in_order(runtime, witness, BOTH, range(3))
        later = [await runtime.send(tenant, witness.see(9), delay=3600) for tenant in BOTH]
        async with Growth(runtime, monkeypatch, phase):
            for one in (runtime, other):
                for handle in [*handles, *later]:
                    for found in (one.handle(handle.id, handle.tenant), one.handle(handle.id)):
                        info = await found.info()
                        assert info.tenant == handle.tenant
                        assert info.state is (TaskState.SCHEDULED if handle in later else TaskState.QUEUED)
                for tenant in BOTH:
                    stats = await one.tenant(tenant).stats()
                    assert stats.scheduled <= 2
                    assert (stats.queued, stats.scheduled) == (3, 1) or phase == "handed over"
            with pytest.raises(TaskNotFound):
                await runtime.handle("no such task", MOVES).info()
            with pytest.raises(TaskNotFound):
                await runtime.handle(handles[0].id, STAYS).info()
        await check_grown(runtime, 4)
        for tenant in BOTH:
            stats = await other.tenant(tenant).stats()
            assert (stats.queued, stats.scheduled) == (3, 1)
        assert (await other.stats()).queued == 6


async def test_tasks_can_be_canceled(make_runtime: Make, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    witness = Witness()
    async with make_runtime(workers=0, shards=2) as runtime:
        handles = await send_in_order(runtime, witness, BOTH, range(6))
        later = [await runtime.send(tenant, witness.see(9), delay=3600) for tenant in BOTH]
        async with Growth(runtime, monkeypatch, phase) as growth:
            assert await growth.do(handles[0].cancel()) is TaskState.QUEUED
            assert await growth.do(runtime.handle(handles[1].id).cancel()) is TaskState.QUEUED
            assert await growth.do(later[0].cancel()) is TaskState.SCHEDULED
            many = await growth.do(runtime.cancel_many([*handles[2:4], later[1], later[0]]))
            assert many == [TaskState.QUEUED, TaskState.QUEUED, TaskState.SCHEDULED, TaskState.CANCELED]
            unknown = [runtime.handle(handles[4].id), runtime.handle(handles[5].id), runtime.handle("none")]
            assert await growth.do(runtime.cancel_many(unknown)) == [TaskState.QUEUED, TaskState.QUEUED, None]
            for handle in (*handles[:6], *later):
                with pytest.raises(TaskCanceled):
                    await growth.do(handle.result(PATIENCE))
        await check_grown(runtime, 4)
        async with make_runtime(*witness.actors) as worker:
            await worker.drain(timeout=PATIENCE)
            assert witness.order == {tenant: [3, 4, 5] for tenant in BOTH}
            stats = await worker.stats()
            assert (stats.finished, stats.canceled, stats.pending, stats.scheduled) == (6, 8, 0, 0)
        for n, handle in enumerate(handles[6:], 6):
            assert await handle.state() is TaskState.FINISHED, n


async def test_a_tenant_can_be_purged(make_runtime: Make, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    witness = Witness()
    async with make_runtime(workers=0, shards=2) as runtime:
        handles = await send_in_order(runtime, witness, [MOVES], range(250))
        later = await runtime.send(MOVES, witness.see(9), delay=3600)
        async with Growth(runtime, monkeypatch, phase) as growth:
            assert await growth.do(runtime.tenant(MOVES).purge()) == 251
            for handle in (*handles[:3], handles[-1], later):
                with pytest.raises(TaskCanceled):
                    await growth.do(handle.result(PATIENCE))
        await check_grown(runtime, 4)
        async with make_runtime(*witness.actors) as worker:
            await worker.drain(timeout=PATIENCE)
            assert await worker.ask(MOVES, witness.see(0), timeout=PATIENCE) == 0
        witness.check({MOVES: 1})


async def test_a_tenant_can_be_configured(make_runtime: Make, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    witness = Witness()
    async with make_runtime(workers=0, shards=2) as runtime, make_runtime(workers=0) as other:
        for tenant in BOTH:
            await runtime.tenant(tenant).configure(concurrency=3, weight=2.0, group="g", rate="500/s")
        await send_in_order(runtime, witness, BOTH, range(3))
        async with Growth(runtime, monkeypatch, phase):
            for tenant in BOTH:
                policy = await other.tenant(tenant).policy()
                assert (policy.concurrency, policy.weight, policy.group) == (3, 2.0, "g")
                policy = await other.tenant(tenant).configure(concurrency=1, backlog=4)
                assert (policy.concurrency, policy.weight, policy.backlog) == (1, 2.0, 4)
                await runtime.tenant(tenant).pause()
                assert (await other.tenant(tenant).policy()).paused
                listed = await other.policies.tenants()
                assert listed.keys() == set(BOTH)
                assert listed[tenant].concurrency == 1
                await other.send(tenant, witness.see(3))
                if tenant == STAYS or phase not in {"gone", "handed over"}:  # each shard counts what waits there
                    with pytest.raises(MailboxFull):
                        await other.send(tenant, witness.see(4))
        await check_grown(runtime, 4)
        async with make_runtime(*witness.actors) as worker:
            for tenant in BOTH:
                policy = await worker.tenant(tenant).policy()
                assert (policy.concurrency, policy.weight, policy.backlog, policy.paused) == (1, 2.0, 4, True)
            await until(lambda: _sees_all(worker))
            assert not witness.order
            for tenant in BOTH:
                await worker.tenant(tenant).resume()
            await worker.drain(timeout=PATIENCE)
            assert (await worker.policies.tenants()).keys() == set(BOTH)
            await worker.policies.remove(MOVES)
            assert (await worker.policies.tenants()).keys() == {STAYS}
        witness.check(dict.fromkeys(BOTH, 4))
        assert max(witness.most.values()) == 1


async def _sees_all(worker: Runtime) -> bool:
    return len((await worker.stats()).runtimes) == 1


async def test_outcomes_arrive(make_runtime: Make, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    """Those that wait since before the growth hear of the outcomes, and so do those that come meanwhile."""
    witness = Witness()
    async with make_runtime(workers=0, shards=2) as sender, make_runtime(workers=0) as other:
        for tenant in BOTH:
            await sender.tenant(tenant).configure(concurrency=1)
        before = [asyncio.create_task(sender.ask(tenant, witness.see(0), timeout=PATIENCE)) for tenant in BOTH]
        await until(lambda: _waiting(sender, 2))
        handles = await send_in_order(sender, witness, BOTH, range(1, 3))
        before += [asyncio.create_task(handle.result(PATIENCE)) for handle in handles]
        before += [asyncio.create_task(other.handle(each.id).result(PATIENCE)) for each in handles]
        many = asyncio.create_task(sender.results(handles, timeout=PATIENCE))
        async with Growth(sender, monkeypatch, phase):
            meanwhile = [asyncio.create_task(sender.ask(tenant, witness.see(3), timeout=PATIENCE)) for tenant in BOTH]
            meanwhile += [asyncio.create_task(other.handle(e.id, e.tenant).result(PATIENCE)) for e in handles]
            more = asyncio.create_task(other.results([other.handle(e.id, e.tenant) for e in handles], timeout=PATIENCE))
            await asyncio.wait(meanwhile, timeout=0.05)
        async with make_runtime(*witness.actors) as worker:
            assert await asyncio.gather(*before) == [0, 0, 1, 1, 2, 2, 1, 1, 2, 2]
            assert await asyncio.gather(*meanwhile) == [3, 3, 1, 1, 2, 2]
            assert await many == await more == [1, 1, 2, 2]
            await check_grown(worker, 4)
            assert await worker.results([worker.handle(e.id) for e in handles], timeout=PATIENCE) == [1, 1, 2, 2]
        witness.check(dict.fromkeys(BOTH, 4))


async def _waiting(runtime: Runtime, count: int) -> bool:
    return (await runtime.stats()).queued >= count


async def test_what_has_ended_stays_known(make_runtime: Make, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    """A task that ended before its tenant moved has its result, its id, and its key for its window."""
    witness = Witness()
    async with make_runtime(*witness.actors, shards=2) as runtime, make_runtime(workers=0) as other:
        for tenant in BOTH:
            assert await runtime.ask(tenant, witness.see(0), id=f"{tenant} first", timeout=PATIENCE) == 0
            keyed = await runtime.send(tenant, witness.see(1), key="k", key_window=600)
            assert await keyed.result(PATIENCE) == 1
            await runtime.send(tenant, witness.see(9), delay=3600)
        await runtime.drain(timeout=PATIENCE)
        async with Growth(runtime, monkeypatch, phase):
            for one in (other, runtime):
                for tenant in BOTH:
                    again = await one.send(tenant, witness.see(7), id=f"{tenant} first")
                    assert await again.result(PATIENCE) == 0
                    repeated = await one.send(tenant, witness.see(7), key="k", key_window=600)
                    assert await repeated.result(PATIENCE) == 1
                    assert await one.ask(tenant, witness.see(7), key="k", timeout=PATIENCE) == 1
                    assert await one.ask(tenant, witness.see(7), id=f"{tenant} first", timeout=PATIENCE) == 0
                batch = await one.send_many(
                    [(tenant, witness.see(7).options(id=f"{tenant} first")) for tenant in BOTH]
                    + [(tenant, witness.see(7).options(key="k")) for tenant in BOTH]
                )
                assert await one.results(batch, timeout=PATIENCE) == [0, 0, 1, 1]
        await check_grown(runtime, 4)
        witness.check(dict.fromkeys(BOTH, 2))
        for tenant in BOTH:
            assert await other.handle(f"{tenant} first").result(PATIENCE) == 0


async def test_waiting_tasks_keep_ids_and_keys(make_runtime: Make, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    witness = Witness()
    async with make_runtime(workers=0, shards=2) as runtime, make_runtime(workers=0) as other:
        first = {
            tenant: [
                await runtime.send(tenant, witness.see(0), id=f"{tenant} first"),
                await runtime.send(tenant, witness.see(1), key="k", key_window=600),
                await runtime.send(tenant, witness.see(9), key="r", delay=3600),
                await runtime.send(tenant, witness.see(9), key="w"),
            ]
            for tenant in BOTH
        }
        async with Growth(runtime, monkeypatch, phase):
            for one in (other, runtime):
                for tenant in BOTH:
                    again = await one.send(tenant, witness.see(7), id=f"{tenant} first")
                    assert again.id == f"{tenant} first"
                    same = await one.send(tenant, witness.see(7), key="k", key_window=600)
                    assert same.id == first[tenant][1].id
        for tenant in BOTH:
            await other.send(tenant, witness.see(2), key="r", replace=True)
            await other.send(tenant, witness.see(3), key="w", replace=True)
        await check_grown(runtime, 4)
        async with make_runtime(*witness.actors) as worker:
            await worker.drain(timeout=PATIENCE)
            for tenant in BOTH:
                assert sorted(witness.order[tenant]) == [0, 1, 2, 3], (tenant, witness.order)
                again = await worker.send(tenant, witness.see(7), key="k", key_window=600)
                assert again.id == first[tenant][1].id
                await worker.ask(tenant, witness.see(4), key="w", timeout=PATIENCE)
            witness.check(dict.fromkeys(BOTH, 5), ordered=False)


async def test_a_task_that_is_replaced_meanwhile(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """replace=True replaces a task that is on its way once that has arrived."""
    witness = Witness()
    async with make_runtime(workers=0, shards=2) as runtime:
        for tenant in BOTH:
            await runtime.send(tenant, witness.see(0), key="r")
        async with Growth(runtime, monkeypatch, phase) as growth:
            for tenant in BOTH:
                await growth.do(runtime.send(tenant, witness.see(1), key="r", replace=True))
        await check_grown(runtime, 4)
        async with make_runtime(*witness.actors) as worker:
            await worker.drain(timeout=PATIENCE)
            await check_invariants(worker)
        for tenant in BOTH:
            assert witness.order[tenant] == [1], (tenant, witness.order)


async def test_dead_letters(make_runtime: Make, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    if phase in {"gone", "handed over"}:
        pytest.skip("no task waits")
    witness = Witness()
    async with make_runtime(*witness.actors, shards=2) as runtime, make_runtime(workers=0) as other:
        handles: list[Handle[int]] = []
        for n in range(4):
            handles += [await runtime.send(tenant, witness.fail(n), key=None if n else "d0") for tenant in BOTH]
        for handle in handles:
            with pytest.raises(TaskFailed):
                await handle.result(PATIENCE)
        async with Growth(runtime, monkeypatch, phase):
            found = {letter.id async for letter in other.dead_letters.find()}
            assert found == {handle.id for handle in handles}
            with pytest.raises(TaskFailed):
                await other.handle(handles[0].id, MOVES).result(PATIENCE)
            await other.handle(handles[0].id, MOVES).redrive()
            await other.handle(handles[1].id).redrive()
            assert await other.dead_letters.purge(tenant=MOVES, error="KeyError") == 0
        await until(lambda: _failed_again(witness, 10))
        await check_grown(runtime, 4)
        letters = {letter.id async for letter in other.dead_letters.find()}
        assert letters == {handle.id for handle in handles}
        assert await other.dead_letters.redrive(tenant=MOVES) == 4
        await until(lambda: _failed_again(witness, 14))
        await runtime.drain(timeout=PATIENCE)
        assert await other.dead_letters.purge() == 8
        assert [letter async for letter in other.dead_letters.find()] == []
        await check_invariants(runtime)


async def _failed_again(witness: Witness, count: int) -> bool:
    return sum(map(len, witness.order.values())) == count


async def test_a_dead_letter_is_redriven_and_purged_in_bulk_meanwhile(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    witness = Witness()
    async with make_runtime(*witness.actors, shards=2) as runtime:
        for n in range(3):
            await runtime.send_many([(tenant, witness.fail(n)) for tenant in BOTH])
        await runtime.drain(timeout=PATIENCE)
        async with Growth(runtime, monkeypatch, phase):
            assert await runtime.dead_letters.redrive() == 6
        await runtime.drain(timeout=PATIENCE)
        assert sum(map(len, witness.order.values())) == 12
        await check_grown(runtime, 4)
        assert await runtime.dead_letters.purge(tenant=MOVES) == 3
        assert await runtime.dead_letters.purge() == 3


async def test_a_dead_letter_is_purged_meanwhile(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    witness = Witness()
    async with make_runtime(*witness.actors, shards=2) as runtime:
        await runtime.send_many([(tenant, witness.fail(0)) for tenant in BOTH])
        await runtime.drain(timeout=PATIENCE)
        async with Growth(runtime, monkeypatch, phase):
            purged = await runtime.dead_letters.purge(tenant=MOVES)
            assert purged == 1 or (purged, phase) == (2, "handed over"), "it is on both shards then"
        assert len([letter async for letter in runtime.dead_letters.find()]) == 1
        await check_grown(runtime, 4)


async def test_defaults_and_groups_hold_on_new_shards(make_runtime: Make) -> None:
    witness = Witness()
    async with make_runtime(workers=0, shards=2) as runtime:
        await runtime.policies.configure_defaults(concurrency=1, weight=2.0)
        await runtime.policies.configure_group("g", weight=5.0)
        await asyncio.wait_for(runtime.grow(4), PATIENCE)
        assert (await runtime.policies.groups()) == {"g": 5.0}
        policies = [await shard.policies() for shard in runtime._shards()]
        assert all(found == policies[0] for found in policies), policies
        async with make_runtime(*witness.actors) as worker:
            await worker.send_many([(MOVES, witness.see(n, 0.005)) for n in range(5)])
            await worker.drain(timeout=PATIENCE)
        witness.check({MOVES: 5})
        assert witness.most[MOVES] == 1


async def test_a_limit_too_small_to_be_divided_keeps_a_namespace_as_it_is(make_runtime: Make) -> None:
    witness = Witness()
    async with make_runtime(*witness.actors, shards=2) as runtime:
        await runtime.limit("api").configure(concurrency=3)
        await runtime.limit("own").configure(concurrency=1, per="tenant")
        before = [await shard.limits() for shard in runtime._shards()]
        with pytest.raises(ConfigurationError):
            await runtime.grow(4)
        assert runtime._shards().layout.epoch == 0
        assert [found for _, found in before] == [(await shard.limits())[1] for shard in runtime._shards()]
        await check_invariants(runtime)
        await asyncio.wait_for(runtime.grow(3), PATIENCE)
        policy = await runtime.limit("api").policy()
        assert policy.concurrency == 3
        await check_grown(runtime, 3)
