"""Tests that tasks survive killed and frozen processes, cut connections and blocked event loops."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
import redis
import redis.asyncio

from fairactor import Handle, Runtime, TaskFailed, TaskState, actor
from tests.support import service
from tests.support.polling import PATIENCE, until
from tests.support.worker_processes import Fleet

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

LEASE = 1.0
HERE = os.getpid()


@pytest.fixture
async def here(url: str) -> AsyncIterator[None]:
    """Enables the actors of `service` to run in this process, too."""
    async with redis.asyncio.Redis.from_url(url) as service.store:
        yield


def runs(db: redis.Redis) -> list[tuple[str, int]]:
    """Returns the started tasks and their processes, in order."""
    entries = (entry.decode().rpartition(" ") for entry in db.lrange("runs", 0, -1))
    return [(task, int(pid)) for task, _, pid in entries]


async def results(handles: list[Handle[Any]]) -> list[Any]:
    return await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles))


async def test_a_process_killed_in_mid_run_loses_nothing(make_runtime: Make, processes: Fleet, db: redis.Redis) -> None:
    victim, survivor = await processes.start(2, lease=LEASE)
    async with make_runtime(workers=0) as runtime:
        handles = await runtime.send_many((f"user:{n % 10}", service.nap(0.02)) for n in range(300))
        await until(lambda: db.llen("runs") >= 100)
        victim.signal(signal.SIGKILL)
        ended_by = await results(handles)
        stats = await runtime.stats()
    assert stats.finished == 300, "an outcome was lost, or accepted twice"
    assert stats.pending == stats.failed == stats.canceled == 0
    begun = Counter(task for task, _ in runs(db))
    assert set(begun) == {handle.id for handle in handles}
    again = {task for task, count in begun.items() if count > 1}
    of_the_victim = {task for task, pid in runs(db) if pid == victim.pid}
    assert again <= of_the_victim
    assert len(again) <= 4, "more were run again than the killed process was running"
    assert victim.pid in ended_by
    assert survivor.pid in ended_by
    await processes.stop()


async def test_the_claims_of_a_killed_process_return_within_its_lease_and_a_second(
    make_runtime: Make, processes: Fleet, here: None, db: redis.Redis
) -> None:
    (victim,) = await processes.start(lease=LEASE)
    async with make_runtime(workers=0) as sender:
        handles = await sender.send_many((f"user:{n}", service.hold()) for n in range(4))
        await until(lambda: db.llen("runs") == 4)
        async with make_runtime(service, lease=LEASE):
            victim.signal(signal.SIGKILL)
            killed = time.monotonic()
            await until(lambda: db.llen("runs") == 8)
            assert time.monotonic() - killed < LEASE + 1
            assert {pid for _, pid in runs(db)[4:]} == {HERE}
            db.rpush("gate", *range(4))
            assert await results(handles) == [HERE] * 4


async def test_claims_of_a_killed_process_wait_for_the_next_one_if_it_was_the_last(
    make_runtime: Make, processes: Fleet, here: None, db: redis.Redis
) -> None:
    (victim,) = await processes.start(lease=LEASE)
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", service.hold())
        await until(lambda: db.llen("runs"))
        victim.signal(signal.SIGKILL)
        await victim.ended()
        assert await handle.state() is TaskState.STARTED
        db.rpush("gate", 1)
        async with make_runtime(service):
            assert await handle.result(timeout=PATIENCE) == HERE


@pytest.mark.parametrize("when", ["while it runs again", "when it has ended elsewhere"])
async def test_the_outcome_of_a_frozen_process_is_refused(
    make_runtime: Make, processes: Fleet, here: None, db: redis.Redis, when: str
) -> None:
    (frozen,) = await processes.start(lease=LEASE)
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", service.nap(LEASE / 2))
        await until(lambda: db.llen("runs") == 1)
        frozen.signal(signal.SIGSTOP)
        async with make_runtime(service):
            await until(lambda: db.llen("runs") == 2)
            if when == "when it has ended elsewhere":
                assert await handle.result(timeout=PATIENCE) == HERE
            frozen.signal(signal.SIGCONT)
            assert await handle.result(timeout=PATIENCE) == HERE
        assert await sender.ask("user:1", service.nap(0), timeout=PATIENCE) == frozen.pid, "it goes on, anew"
        assert await handle.result() == HERE
        assert (await sender.stats()).finished == 2
    assert await frozen.stop() == 0
    assert "silent for longer than the lease" in frozen.log


async def test_tasks_of_a_frozen_process_are_canceled_in_it_when_it_goes_on(
    make_runtime: Make, processes: Fleet, here: None, db: redis.Redis
) -> None:
    (frozen,) = await processes.start(lease=LEASE, workers=1)
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", service.hold())
        await until(lambda: db.llen("runs") == 1)
        frozen.signal(signal.SIGSTOP)
        async with make_runtime(service, workers=1):
            await until(lambda: db.llen("runs") == 2)
            frozen.signal(signal.SIGCONT)
            # The only worker of the thawed process is free again and ours is busy: further tasks run there.
            naps = await sender.send_many([("user:2", service.nap(0)), ("user:3", service.nap(0))])
            assert await results(naps) == [frozen.pid] * 2
            db.rpush("gate", 1)
            assert await handle.result(timeout=PATIENCE) == HERE
    await processes.stop()


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_cut_connections_lose_neither_tasks_nor_outcomes(make_runtime: Make, db: redis.Redis, kind: str) -> None:
    @actor
    async def echo(n: int) -> int:
        await anyio.sleep(0.002)
        return n

    async with make_runtime(echo) as one, make_runtime(echo) as two, anyio.create_task_group() as group:

        async def cut() -> None:
            while True:
                db.client_kill_filter(_type=kind, skipme=True)
                await anyio.sleep(0.03)

        group.start_soon(cut)
        expected = list(range(400))
        asked = [one.ask(f"user:{n % 7}", echo(n), timeout=PATIENCE) for n in expected[:200]]
        sent = await two.send_many((f"user:{n % 7}", echo(n)) for n in expected[200:])
        assert await asyncio.gather(*asked, results(sent)) == [*expected[:200], expected[200:]]
        group.cancel_scope.cancel()
    async with make_runtime(workers=0) as runtime:
        stats = await runtime.stats()
    assert (stats.finished, stats.pending, stats.failed) == (400, 0, 0)


async def test_an_outcome_told_while_the_listener_was_cut_off_is_asked_for(make_runtime: Make, db: redis.Redis) -> None:
    leave = anyio.Event()

    @actor
    async def wait() -> str:
        await leave.wait()
        return "told"

    async with make_runtime(wait) as worker, make_runtime(workers=0) as waiter:
        handle = await waiter.send("user:1", wait())
        waiting = asyncio.ensure_future(handle.result(timeout=PATIENCE))
        await until(lambda: db.exists("{fairactor/0}:watchers"))
        db.client_kill_filter(_type="pubsub")
        leave.set()
        assert await waiting == "told"
        assert (await worker.stats()).finished == 1


async def test_the_server_may_forget_the_scripts_at_any_time(make_runtime: Make, db: redis.Redis) -> None:
    @actor
    async def echo(n: int) -> int:
        await anyio.sleep(0.001)
        return n

    async with make_runtime(echo) as runtime, anyio.create_task_group() as group:

        async def flush() -> None:
            while True:
                db.script_flush()
                await anyio.sleep(0.01)

        group.start_soon(flush)
        asked = [runtime.ask(f"user:{n % 7}", echo(n), timeout=PATIENCE) for n in range(300)]
        assert await asyncio.gather(*asked) == list(range(300))
        group.cancel_scope.cancel()
        assert (await runtime.stats()).finished == 300


async def test_a_blocked_loop_with_nobody_else_there_keeps_its_claim(
    make_runtime: Make, processes: Fleet, db: redis.Redis
) -> None:
    (only,) = await processes.start(lease=0.5)
    async with make_runtime(workers=0) as runtime:
        assert await runtime.ask("user:1", service.block(1.2), timeout=PATIENCE) == only.pid
        assert db.llen("runs") == 1
    await processes.stop()


async def test_a_loop_blocked_for_longer_than_its_lease_keeps_its_claim(
    make_runtime: Make, processes: Fleet, db: redis.Redis
) -> None:
    blocked, other = await processes.start(2, lease=0.5)
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", service.block(1.5))
        ended_in = await handle.result(timeout=PATIENCE)
        assert runs(db) == [(handle.id, ended_in)]
        assert not (await handle.info()).history
        assert (await runtime.health()).ok
    await processes.stop()
    (log,) = [process.log for process in (blocked, other) if process.pid == ended_in]
    assert f"{handle.id} (block of tenant 'user:1')" in log


async def test_a_loop_blocked_beyond_the_bound_goes_on_under_a_new_lease(
    make_runtime: Make, processes: Fleet, db: redis.Redis
) -> None:
    first, second = await processes.start(2, lease=0.4)
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", service.block(3.0))
        await handle.result(timeout=PATIENCE)
        (_, blocked), (_, other) = runs(db)
        assert {blocked, other} == {first.pid, second.pid}
        assert await handle.result() == other

        async def both_serve() -> bool:
            health = await runtime.health()
            return health.ok and {r.pid for r in health.stats.runtimes} == {blocked, other}  # type: ignore[union-attr]

        await until(both_serve)
        assert (await runtime.stats()).finished == 1
    await processes.stop()


async def test_a_handler_that_keeps_pythons_lock_is_named_by_its_process(
    make_runtime: Make, processes: Fleet, db: redis.Redis
) -> None:
    first, second = await processes.start(2, lease=0.5)
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", service.match(23))
        await handle.result(timeout=PATIENCE)
        assert await runtime.ask("user:1", service.nap(0), timeout=PATIENCE), "they still serve"
    await processes.stop()
    assert f"{handle.id} (match of tenant 'user:1')" in first.log + second.log


async def test_a_task_that_kills_its_processes_is_given_up(
    make_runtime: Make, processes: Fleet, here: None, db: redis.Redis
) -> None:
    doomed = await processes.start(2, lease=0.5, max_deliveries=2, workers=1)
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", service.die(times=2))
        assert [await process.ended() for process in doomed] == [7, 7]
        async with make_runtime(service, max_deliveries=2):
            with pytest.raises(TaskFailed, match="2 runtimes died"):
                await handle.result(timeout=PATIENCE)
    assert db.llen("runs") == 2


async def test_a_task_that_killed_one_process_only_is_finished_by_another(
    make_runtime: Make, processes: Fleet, here: None, db: redis.Redis
) -> None:
    (doomed,) = await processes.start(lease=0.5)
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", service.die(times=1))
        assert await doomed.ended() == 7
        async with make_runtime(service):
            assert await handle.result(timeout=PATIENCE) == HERE
        assert (await handle.info()).attempt == 1, "a death is no attempt of the handler's"
