"""Tests shutdown: running tasks finish or return to the queue, and nothing is left waiting."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from functools import partial

import anyio
import psutil
import pytest
import redis

from fairactor import Runtime, TaskState, actor
from fairactor.errors import RuntimeNotRunning, ServerUnavailable, TaskNotFound
from fairactor.testing import check_invariants
from tests.support import servers, service
from tests.support.polling import PATIENCE, pushed, until
from tests.support.records import untouched
from tests.support.worker_processes import Fleet

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

IDLE = "{fairactor/0}:idle"
"""The key of the set of runtimes that can take more work; a runtime that stops leaves it."""


async def test_at_a_signal_running_tasks_end_and_nothing_more_is_claimed(
    make_runtime: Make, processes: Fleet, db: redis.Redis
) -> None:
    (leaving,) = await processes.start(workers=3, grace=PATIENCE)
    async with make_runtime(workers=0) as runtime:
        running = await runtime.send_many((f"user:{n}", service.hold()) for n in range(2))
        await pushed(db, "runs", 2)
        await until(lambda: db.exists(IDLE))
        leaving.signal(signal.SIGTERM)
        await until(lambda: not db.exists(IDLE))
        waiting = await runtime.send_many((f"user:{n}", service.nap(0)) for n in range(4))
        db.rpush("gate", 1, 2)
        assert [await handle.result(timeout=PATIENCE) for handle in running] == [leaving.pid] * 2
        assert await leaving.ended() == 0
        assert {await handle.state() for handle in waiting} == {TaskState.QUEUED}
        await check_invariants(runtime)
        (heir,) = await processes.start()
        assert [await handle.result(timeout=PATIENCE) for handle in waiting] == [heir.pid] * 4
    await processes.stop()


async def test_what_does_not_end_within_the_grace_goes_back(
    make_runtime: Make, processes: Fleet, db: redis.Redis
) -> None:
    (leaving,) = await processes.start(grace=0.3, lease=PATIENCE)
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", service.hold())
        await pushed(db, "runs")
        began = time.monotonic()
        leaving.signal(signal.SIGINT)
        assert await leaving.ended() == 0
        assert 0.3 <= time.monotonic() - began < 3
        assert await handle.state() is TaskState.QUEUED
        assert untouched(db, handle)
        (heir,) = await processes.start()
        await pushed(db, "runs")
        db.rpush("gate", 1)
        assert await handle.result(timeout=PATIENCE) == heir.pid
        assert (await handle.info()).attempt == 1
    await processes.stop()


async def test_a_second_signal_leaves_at_once(make_runtime: Make, processes: Fleet, db: redis.Redis) -> None:
    (leaving,) = await processes.start(grace=PATIENCE, lease=PATIENCE)
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", service.hold())
        await pushed(db, "runs")
        await until(lambda: db.exists(IDLE))
        leaving.signal(signal.SIGTERM)
        await until(lambda: not db.exists(IDLE))
        began = time.monotonic()
        leaving.signal(signal.SIGTERM)
        assert await leaving.ended() == 0
        assert time.monotonic() - began < 4
        assert await handle.state() is TaskState.QUEUED
        await handle.cancel()


async def test_leaving_waits_for_running_tasks_and_gives_back_the_rest(make_runtime: Make) -> None:
    begun, release = anyio.Event(), anyio.Event()

    @actor
    async def run() -> str:
        begun.set()
        await release.wait()
        return "ended"

    async with make_runtime(workers=0) as sender:
        async with make_runtime(run, workers=1, grace=PATIENCE):
            first = await sender.send("user:1", run())
            await begun.wait()
            second = await sender.send("user:1", run())
            asyncio.get_running_loop().call_later(0.1, release.set)
        assert await first.result() == "ended"
        assert await second.state() is TaskState.QUEUED
        await check_invariants(sender)


async def test_what_was_claimed_ahead_goes_back(make_runtime: Make) -> None:
    begun, release = anyio.Event(), anyio.Event()

    @actor
    async def run() -> None:
        begun.set()
        await release.wait()

    async with make_runtime(workers=0) as sender:
        async with make_runtime(run, workers=1, grace=PATIENCE) as runtime:
            first = await sender.send("user:1", run())
            await begun.wait()
            second = await sender.send("user:1", run())
            pool, dispatcher = runtime._engine.consumer._pool, runtime._engine.consumer._dispatchers[0]  # type: ignore[union-attr]
            dispatcher._paces[0]._rate = dispatcher._paces[0]._round_trip = dispatcher._paces[0]._run = (
                1.0  # as after many short tasks
            )
            dispatcher.wake()
            await until(lambda: pool.first._ready)  # type: ignore[union-attr]
            asyncio.get_running_loop().call_later(0.05, release.set)
        assert await first.state() is TaskState.FINISHED
        assert await second.state() is TaskState.QUEUED


async def test_an_error_in_the_body_leaves_at_once(make_runtime: Make) -> None:
    begun = anyio.Event()
    cleaned = []

    @actor
    async def run() -> None:
        try:
            begun.set()
            await anyio.sleep_forever()
        finally:
            cleaned.append(True)

    async def serve() -> None:
        async with make_runtime(run, grace=PATIENCE):
            await begun.wait()
            raise KeyError("of the body")

    async with make_runtime(workers=0) as sender:
        began = time.monotonic()
        handle = await sender.send("user:1", run())
        with pytest.raises(KeyError, match="of the body"):
            await serve()
        assert time.monotonic() - began < 3
        assert cleaned == [True]
        assert await handle.state() is TaskState.QUEUED


async def test_an_error_in_the_body_comes_out_as_it_is(make_runtime: Make) -> None:
    error = KeyError("of the body")
    with pytest.raises(KeyError) as caught:
        async with make_runtime(service.nap):
            raise error from OSError("its cause")
    assert caught.value is error
    assert isinstance(error.__cause__, OSError)


async def test_a_group_of_errors_in_the_body_comes_out_as_it_is(make_runtime: Make) -> None:
    group = ExceptionGroup("of the body", [KeyError("the only one")])
    with pytest.raises(ExceptionGroup) as caught:
        async with make_runtime(service.nap):
            raise group
    assert caught.value is group


async def test_a_canceled_body_gives_everything_back_at_once(make_runtime: Make) -> None:
    begun = anyio.Event()

    @actor
    async def run() -> None:
        begun.set()
        await anyio.sleep_forever()

    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", run())
        with anyio.CancelScope() as scope:
            async with make_runtime(run, grace=PATIENCE, lease=PATIENCE):
                await begun.wait()
                began = time.monotonic()
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert time.monotonic() - began < 2
        assert await handle.state() is TaskState.QUEUED
        assert not (await sender.stats()).runtimes


async def test_a_canceled_asyncio_task_gives_everything_back_at_once(make_runtime: Make) -> None:
    begun = asyncio.Event()

    @actor
    async def run() -> None:
        begun.set()
        await anyio.sleep_forever()

    async def serve() -> None:
        async with make_runtime(run, grace=PATIENCE, lease=PATIENCE):
            await asyncio.Event().wait()

    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", run())
        serving = asyncio.ensure_future(serve())
        await begun.wait()
        began = time.monotonic()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert time.monotonic() - began < 2
        assert await handle.state() is TaskState.QUEUED
        assert not (await sender.stats()).runtimes


@pytest.mark.parametrize("what", ["result", "ask", "drain"])
async def test_who_waits_is_told_when_the_runtime_is_left(make_runtime: Make, what: str) -> None:
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", service.nap(0), id="never run")
        async with make_runtime(workers=0, lease=1) as runtime:
            waits = {
                "result": runtime.handle("never run").result,
                "ask": lambda: runtime.ask("user:1", service.nap(0), id="nor this"),
                "drain": runtime.drain,
            }[what]
            waiting = asyncio.ensure_future(waits())
            await anyio.wait_all_tasks_blocked()
            if what == "ask":
                await until(partial(has_arrived, sender, "nor this"))
            node = runtime._shards().server.calls.topology.of("")
            assert node is not None
            await until(lambda: node.calls.busy == 0)
        with pytest.raises(RuntimeNotRunning, match="left"):
            await asyncio.wait_for(waiting, 5)
        await handle.cancel()


async def test_an_error_of_an_actor_that_starts_comes_out_as_it_is(make_runtime: Make) -> None:
    stopped = []

    @actor
    class First:
        def stopped(self) -> None:
            stopped.append("first")

        def run(self) -> None: ...

    @actor
    class Second:
        async def started(self) -> None:
            raise OSError("no such device") from KeyError("its cause")

        def run(self) -> None: ...

    with pytest.raises(OSError, match="no such device") as caught:
        async with make_runtime(First, Second):
            raise AssertionError
    assert isinstance(caught.value.__cause__, KeyError)
    assert stopped == ["first"]


async def test_a_server_that_is_away_does_not_keep_one_from_leaving(
    server_binary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairactor._worker.consumer.GOODBYE", 0.5)
    begun = anyio.Event()

    @actor
    async def run() -> None:
        begun.set()
        await anyio.sleep_forever()

    before = psutil.Process().children()
    with servers.running(server_binary) as url:
        (server,) = set(psutil.Process().children()) - set(before)
        async with Runtime(url, actors=[run], grace=0.1, connect_timeout=1) as runtime:
            await runtime.send("user:1", run())
            await begun.wait()
            server.suspend()
            sending = asyncio.ensure_future(runtime.send("user:1", run()))
            await until(lambda: not runtime._engine.sender._batchers[0]._outbox)
            began = time.monotonic()
        assert time.monotonic() - began < 3
        with pytest.raises((RuntimeNotRunning, ServerUnavailable)):
            await asyncio.wait_for(sending, 5)


async def has_arrived(runtime: Runtime, task_id: str) -> bool:
    try:
        return bool(await runtime.handle(task_id).state())
    except TaskNotFound:
        return False


async def test_stop_may_be_called_more_than_once(make_runtime: Make) -> None:
    async with make_runtime(service.nap) as runtime:
        await runtime.stop(grace=1)
        await runtime.stop(grace=1)
        handle = await runtime.send("user:1", service.nap(0))
        assert await handle.state() is TaskState.QUEUED, "it claims no more, but still sends"


async def test_run_outside_the_main_thread_says_what_to_do(url: str) -> None:
    def in_a_thread() -> None:
        async def run() -> None:
            async with Runtime(url, workers=0) as runtime:
                await runtime.run()

        with pytest.raises(RuntimeNotRunning, match=r"only the main thread receives.*runtime\.stop\(grace\)"):
            asyncio.run(run())

    await anyio.to_thread.run_sync(in_a_thread)
