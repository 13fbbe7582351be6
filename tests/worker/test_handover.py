"""Tests tasks that are handed to sleeping runtimes, with real runtimes and with lost messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
import redis

from fairactor import Runtime, TaskCanceled, TaskState, actor, current_task
from fairactor._model.inbox import handed_mark
from fairactor._model.keys import shard_of
from fairactor._model.wire import unpack_mark
from fairactor._worker.dispatcher import Dispatcher
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
ASLEEP = {"lease": 60.0, "workers": 2}
"""With this lease, heartbeats are 20 s apart."""
SOON = 10.0


class Log:
    """Provides actors that record their runs."""

    def __init__(self) -> None:
        self.ran: list[int] = []
        self.on: list[str] = []
        self.begun = anyio.Semaphore(0)
        self.release = anyio.Event()

        @actor
        async def run(n: int) -> int:
            self.ran.append(n)
            self.on.append(current_task().tenant)
            return n

        @actor
        async def wait(n: int) -> int:
            self.ran.append(n)
            self.begun.release()
            await self.release.wait()
            return n

        self.run, self.wait = run, wait


def dispatcher(runtime: Runtime, shard: int = 0) -> Dispatcher:
    assert runtime._engine.consumer is not None
    return runtime._engine.consumer._dispatchers[shard]


async def asleep(db: redis.Redis, *runtimes: Runtime, shard: int = 0) -> None:
    """Waits until the runtimes sleep: a task can then be handed to them."""
    for runtime in runtimes:
        name, of_shard = dispatcher(runtime, shard).runtime, dispatcher(runtime, shard)
        await until(lambda name=name: db.sismember(f"{{fairactor/{shard}}}:idle", name))
        await until(lambda of_shard=of_shard: of_shard._wakeup._waiter is not None)


class Turns:
    """Records the tasks that the turns of a runtime claim."""

    def __init__(self, runtime: Runtime) -> None:
        shard = dispatcher(runtime)._shard
        self.claimed: list[str] = []
        self.heard: list[bool] = []
        take = shard.turn

        async def turn(*args: Any, **how: Any) -> Any:
            reply = await take(*args, **how)
            self.claimed += [task_id.decode() for task_id in reply.claims[::2]]
            self.heard.append(how["received"])
            return reply

        shard.turn = turn  # type: ignore[method-assign]


def claims_of(db: redis.Redis, runtime: Runtime) -> dict[str, bytes]:
    held = db.hgetall(f"{{fairactor/0}}:claims:{dispatcher(runtime).runtime}")
    return {task_id.decode(): unpack_mark(mark).turn for task_id, mark in held.items()}  # type: ignore[union-attr]


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every runtime ignore the tasks that are handed to it, as if the messages were lost."""
    monkeypatch.setattr(Dispatcher, "_take", lambda *_: None)


async def test_what_is_sent_to_a_runtime_that_sleeps_is_claimed_by_no_turn(make_runtime: Make, db: redis.Redis) -> None:
    log = Log()
    async with make_runtime(log.run, **ASLEEP) as runtime:
        turns = Turns(runtime)
        for n in range(20):
            await asleep(db, runtime)
            assert await runtime.ask(f"user:{n}", log.run(n), timeout=SOON) == n
        await asleep(db, runtime)
        await check_invariants(runtime)
    assert turns.claimed == []
    assert True in turns.heard
    assert log.ran == list(range(20))


async def test_of_many_that_are_sent_at_once_each_runs_once_whoever_sleeps(make_runtime: Make) -> None:
    log = Log()
    async with make_runtime(log.run, **ASLEEP) as one, make_runtime(log.run, **ASLEEP):
        async with anyio.create_task_group() as group:
            for n in range(300):
                group.start_soon(one.send, f"user:{n % 7}", log.run(n))
                await anyio.lowlevel.checkpoint()
        await one.drain(timeout=PATIENCE)
        await check_invariants(one)
    assert sorted(log.ran) == list(range(300))


@pytest.mark.usefixtures("deaf")
async def test_a_message_that_is_lost_loses_nothing_and_the_next_turn_brings_the_task(
    make_runtime: Make, db: redis.Redis
) -> None:
    log = Log()
    async with make_runtime(log.run, **ASLEEP) as runtime:
        turns = Turns(runtime)
        await asleep(db, runtime)
        number = dispatcher(runtime)._number
        handle = await runtime.send("user:1", log.run(1))
        assert claims_of(db, runtime) == {handle.id: handed_mark(number)}
        assert await handle.state() is TaskState.STARTED
        await check_invariants(runtime)
        dispatcher(runtime).wake()
        assert await handle.result(timeout=SOON) == 1
        await check_invariants(runtime)
    assert turns.claimed == [handle.id]
    assert log.ran == [1]


async def test_a_runtime_whose_listener_is_cut_is_handed_nothing_and_starts_when_it_listens_again(
    make_runtime: Make, db: redis.Redis
) -> None:
    log = Log()
    async with make_runtime(log.run, **ASLEEP) as runtime, make_runtime(workers=0) as sender:
        for n in range(10):
            await asleep(db, runtime)
            db.client_kill_filter(_type="pubsub")
            handle = await sender.send("user:1", log.run(n))
            assert await handle.result(timeout=SOON) == n
        await check_invariants(runtime)
    assert log.ran == list(range(10))


@pytest.mark.parametrize("leaving", [False, True])
async def test_a_runtime_that_is_told_while_it_stops_gives_it_back(
    make_runtime: Make, db: redis.Redis, *, leaving: bool
) -> None:
    log, other = Log(), Log()
    async with make_runtime(workers=0) as sender:
        async with make_runtime(log.run, **ASLEEP) as runtime:
            await asleep(db, runtime)
            dispatcher(runtime)._claiming = False
            dispatcher(runtime)._leaving = leaving
            handle = await sender.send("user:1", log.run(1))
            if not leaving:
                await until(lambda: not db.hlen("{fairactor/0}:claims:" + dispatcher(runtime).runtime))
                assert await handle.state() is TaskState.QUEUED
        async with make_runtime(other.run, **ASLEEP):
            assert await handle.result(timeout=SOON) == 1
        await check_invariants(sender)
    assert (log.ran, other.ran) == ([], [1])


@pytest.mark.usefixtures("deaf")
async def test_one_that_is_canceled_before_its_runtime_has_heard_does_not_run(
    make_runtime: Make, db: redis.Redis
) -> None:
    log = Log()
    async with make_runtime(log.wait, **ASLEEP) as runtime:
        await asleep(db, runtime)
        handle = await runtime.send("user:1", log.wait(1))
        assert await handle.cancel() is TaskState.STARTED
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=SOON)
        await check_invariants(runtime)


@pytest.mark.usefixtures("deaf")
async def test_what_a_runtime_has_missed_takes_one_of_its_workers(make_runtime: Make, db: redis.Redis) -> None:
    log, other = Log(), Log()
    async with make_runtime(workers=0) as sender, make_runtime(log.wait, lease=60.0, workers=1) as runtime:
        await asleep(db, runtime)
        first = await sender.send("user:1", log.wait(1))
        dispatcher(runtime).wake()
        await log.begun.acquire()
        second = await sender.send("user:1", log.wait(2))
        assert await second.state() is TaskState.QUEUED, "it has no other"
        other.release.set()
        async with make_runtime(other.wait, **ASLEEP):
            assert await second.result(timeout=SOON) == 2
            log.release.set()
            assert await first.result(timeout=SOON) == 1


async def test_one_that_is_handed_over_while_tasks_of_other_shards_have_the_workers_goes_to_others(
    make_runtime: Make, db: redis.Redis
) -> None:
    log, other = Log(), Log()
    near, far = (next(f"user:{n}" for n in range(99) if shard_of(f"user:{n}", 2) == shard) for shard in (0, 1))
    async with make_runtime(workers=0, shards=2) as sender, make_runtime(log.wait, lease=60.0, workers=1) as runtime:
        await asleep(db, runtime, shard=0)
        await asleep(db, runtime, shard=1)
        dispatcher(runtime, 1)._paces[0]._run = 3600.0  # as after slow tasks: the dispatcher claims none ahead
        first = await sender.send(near, log.wait(1))
        await log.begun.acquire()
        second = await sender.send(far, log.wait(2))
        other.release.set()
        async with make_runtime(other.wait, **ASLEEP):
            assert await second.result(timeout=SOON) == 2
            log.release.set()
            assert await first.result(timeout=SOON) == 1


async def test_the_same_id_or_key_is_handed_over_once(make_runtime: Make, db: redis.Redis) -> None:
    log = Log()
    async with make_runtime(log.wait, log.run, lease=60.0, workers=5) as runtime:
        await asleep(db, runtime)
        first = await runtime.send("user:1", log.wait(1), key="k")
        await log.begun.acquire()
        await asleep(db, runtime)
        again = await runtime.send("user:1", log.wait(2), key="k")
        assert (again.id, again.duplicate) == (first.id, True)
        named = await runtime.send("user:1", log.wait(3), id="named")
        await log.begun.acquire()
        await asleep(db, runtime)
        await runtime.send("user:1", log.wait(4), id="named")
        assert claims_of(db, runtime).keys() == {first.id, named.id}
        log.release.set()
        await runtime.drain(timeout=SOON)
        await check_invariants(runtime)
    assert log.ran == [1, 3]


async def test_the_concurrency_of_a_tenant_holds_for_what_is_handed_over(make_runtime: Make, db: redis.Redis) -> None:
    log = Log()
    async with make_runtime(log.wait, lease=60.0, workers=5) as runtime:
        await runtime.tenant("serial").configure(concurrency=1)
        await asleep(db, runtime)
        await runtime.send("serial", log.wait(1))
        await log.begun.acquire()
        await asleep(db, runtime)
        second = await runtime.send("serial", log.wait(2))
        assert await second.state() is TaskState.QUEUED
        assert (await runtime.tenant("serial").stats()).started == 1
        log.release.set()
        assert await second.result(timeout=SOON) == 2
    assert log.ran == [1, 2]
