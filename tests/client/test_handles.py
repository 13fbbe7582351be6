"""Tests handles: they follow and cancel a task from any runtime."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import pytest
import redis

from fairactor import Handle, Priority, Retry, Runtime, TaskCanceled, TaskFailed, TaskState, actor, current_task
from fairactor.errors import TaskNotFound
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


class Gate:
    """Provides an actor that waits, and records its cancellation."""

    def __init__(self) -> None:
        self.begun, self.release = anyio.Event(), anyio.Event()
        self.cleaned: list[str] = []

        @actor
        async def wait(text: str = "done") -> str:
            try:
                self.begun.set()
                await self.release.wait()
            except BaseException:
                self.cleaned.append("canceled")
                raise
            finally:
                self.cleaned.append("cleaned")
            return text

        self.wait = wait


@actor
async def echo(value: Any) -> Any:
    return value


@actor
async def fail() -> None:
    raise ValueError("as told")


async def has_state(handle: Handle[Any], state: TaskState) -> bool:
    return await handle.state() is state


# Results


async def test_a_result_is_pushed_and_nothing_polls(make_runtime: Make, db: redis.Redis) -> None:
    gate = Gate()
    async with make_runtime(gate.wait, lease=60) as runtime, make_runtime(workers=0, lease=60) as waiter:
        handle = await runtime.send("user:1", gate.wait())
        await gate.begun.wait()
        waiting = [asyncio.ensure_future(waiter.handle(handle.id).result()) for _ in range(10)]
        waiting.append(asyncio.ensure_future(handle.result()))
        await until(lambda: db.hlen("{fairactor/0}:watchers"))
        await until(partial(is_quiet, db))
        before = commands(db)
        await anyio.sleep(1)  # a fixed time: the test checks that nothing happens in it
        assert commands(db) - before <= 2, "one INFO, and hardly anything else"
        gate.release.set()
        assert await asyncio.gather(*waiting) == ["done"] * 11


def commands(db: redis.Redis) -> int:
    return int(db.info("stats")["total_commands_processed"])


async def is_quiet(db: redis.Redis) -> bool:
    before = commands(db)
    await anyio.sleep(0.05)
    return commands(db) - before <= 1


async def test_to_wait_in_vain_leaves_the_task_alone(make_runtime: Make) -> None:
    gate = Gate()
    async with make_runtime(gate.wait) as runtime:
        handle = await runtime.send("user:1", gate.wait())
        with pytest.raises(TimeoutError, match=r"has no outcome after 0\.05 s; the task goes on"):
            await handle.result(timeout=0.05)
        with pytest.raises(TimeoutError):
            await runtime.ask("user:2", gate.wait(), timeout=0.05)
        gate.release.set()
        assert await handle.result(timeout=PATIENCE) == "done"
        await runtime.drain(timeout=PATIENCE)
        assert (await runtime.stats()).finished == 2


async def test_two_runtimes_wait_for_one_task(make_runtime: Make) -> None:
    gate = Gate()
    async with make_runtime(gate.wait) as worker, make_runtime(workers=0) as one, make_runtime(workers=0) as two:
        handle = await one.send("user:1", gate.wait("both"))
        waiting = [asyncio.ensure_future(r.handle(handle.id).result(timeout=PATIENCE)) for r in (one, two, worker)]
        await gate.begun.wait()
        gate.release.set()
        assert await asyncio.gather(*waiting) == ["both"] * 3


async def test_who_gives_up_waiting_does_not_take_the_result_from_others(make_runtime: Make) -> None:
    gate = Gate()
    async with make_runtime(gate.wait) as runtime:
        handle = await runtime.send("user:1", gate.wait())
        waiting = [asyncio.ensure_future(handle.result(timeout=PATIENCE)) for _ in range(3)]
        await gate.begun.wait()
        waiting[0].cancel()
        await anyio.wait_all_tasks_blocked()
        gate.release.set()
        assert await asyncio.gather(*waiting[1:]) == ["done"] * 2
        assert not runtime._engine._outcomes._awaited


async def test_a_result_can_be_asked_for_again_until_it_expires(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(echo, result_ttl=0.3) as runtime:
        handle = await runtime.send("user:1", echo([1, None]))
        await runtime.drain(timeout=PATIENCE)
        assert await handle.result(timeout=PATIENCE) == [1, None]
        assert await handle.result(timeout=PATIENCE) == [1, None]
        key = f"{{fairactor/0}}:task:{handle.id}"
        assert 0 < db.pttl(key) <= 300
        await until(lambda: not db.exists(key))
        for use in (handle.result, handle.state, handle.info, handle.cancel):
            with pytest.raises(TaskNotFound, match="expired"):
                await use()


async def test_results_are_kept_as_long_as_was_said(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(echo, fail, result_ttl=100, failed_ttl=2000, canceled_ttl=700) as runtime:
        kept = await runtime.send("user:1", echo(1))
        longer = await runtime.send("user:1", echo(1), result_ttl=timedelta(seconds=500))
        failed = await runtime.send("user:1", fail())
        canceled = await runtime.send("user:1", echo(1), delay=3600)
        await canceled.cancel()
        await runtime.drain(timeout=PATIENCE)
        left = [db.pttl(f"{{fairactor/0}}:task:{h.id}") / 1000 for h in (kept, longer, failed, canceled)]
        assert [round(seconds, -1) for seconds in left] == [100, 500, 2000, 700]


async def test_without_a_time_to_live_the_result_goes_to_who_waits_by_then(make_runtime: Make, db: redis.Redis) -> None:
    gate = Gate()
    async with make_runtime(gate.wait, echo) as runtime, make_runtime(workers=0) as other:
        assert await runtime.ask("user:1", echo(5), result_ttl=0, timeout=PATIENCE) == 5
        handle = await runtime.send("user:1", gate.wait(), result_ttl=0)
        waiting = [asyncio.ensure_future(h.result(timeout=PATIENCE)) for h in (handle, other.handle(handle.id))]
        await until(lambda: noted(db, handle.id, runtime, other))
        gate.release.set()
        assert await asyncio.gather(*waiting) == ["done", "done"]
        assert 0 < db.pttl(f"{{fairactor/0}}:task:{handle.id}") <= 60_000, "who was cut off gets time to ask again"
        unwatched = await runtime.send("user:1", echo(6), result_ttl=0)
        await runtime.drain(timeout=PATIENCE)
        with pytest.raises(TaskNotFound):
            await unwatched.result(timeout=PATIENCE)
        assert not db.exists("{fairactor/0}:watchers")


def noted(db: redis.Redis, task_id: str, *runtimes: Runtime) -> bool:
    """Returns whether the server lists these runtimes as watchers of the task."""
    watchers = db.hget("{fairactor/0}:watchers", task_id) or b""
    return all(runtime.name.encode() in watchers for runtime in runtimes)


async def test_a_failure_is_told_with_all_that_is_known(make_runtime: Make) -> None:
    async with make_runtime(fail) as runtime:
        handle = await runtime.send("user:1", fail())
        with pytest.raises(TaskFailed) as caught:
            await handle.result(timeout=PATIENCE)
        said = f"task '{handle.id}' of tenant 'user:1' (fail) failed after 1 attempt(s): ValueError: as told"
        assert str(caught.value) == said
        assert 'raise ValueError("as told")' in caught.value.traceback
        error = (await handle.info()).error
        assert error is not None
        assert (error.type, error.message) == ("ValueError", "as told")


# Task info


async def test_info_in_each_state(make_runtime: Make) -> None:
    gate = Gate()
    began = datetime.now(UTC)
    async with make_runtime(workers=0) as sender:
        queued = await sender.send("user:1", gate.wait(), priority="high")
        info = await queued.info()
        assert (info.id, info.tenant, info.actor) == (queued.id, "user:1", "wait")
        assert (info.state, info.priority, info.attempt) == (TaskState.QUEUED, Priority.HIGH, 1)
        assert began - timedelta(seconds=1) < info.enqueued_at < datetime.now(UTC) + timedelta(seconds=1)
        assert info.due_at is info.started_at is info.ended_at is info.runtime is info.progress is info.error is None

        scheduled = await sender.send("user:1", gate.wait(), delay=100)
        info = await scheduled.info()
        assert info.state is TaskState.SCHEDULED
        assert info.due_at is not None
        assert 99 < (info.due_at - began).total_seconds() < 102

        async with make_runtime(gate.wait) as worker:
            await gate.begun.wait()
            info = await queued.info()
            assert (info.state, info.due_at, info.started_at) == (TaskState.STARTED, None, None)
            assert (info.runtime or "").startswith(worker.name)
            gate.release.set()
            await queued.result(timeout=PATIENCE)
            info = await queued.info()
            assert (info.id, info.tenant, info.actor, info.attempt) == (queued.id, "user:1", "wait", 1)
            assert (info.state, info.priority) == (TaskState.FINISHED, Priority.HIGH)
            assert info.started_at is not None
            assert info.ended_at is not None
            assert info.enqueued_at <= info.started_at <= info.ended_at
        await scheduled.cancel()
        info = await scheduled.info()
        assert info.state is TaskState.CANCELED
        assert info.error is not None
        assert "by handle.cancel()" in info.error.message


async def test_progress_shows_while_the_task_runs(make_runtime: Make, db: redis.Redis) -> None:
    reported, release = anyio.Event(), anyio.Event()

    @actor
    async def work() -> None:
        await current_task().progress(0)
        await current_task().progress(0.5, "half ☃")
        reported.set()
        await release.wait()

    async with make_runtime(work) as runtime:
        handle = await runtime.send("user:1", work())
        await reported.wait()
        assert (await handle.info()).progress == (0.5, "half ☃")
        release.set()
        await handle.result(timeout=PATIENCE)
        assert (await handle.info()).progress is None
        await runtime.drain(timeout=PATIENCE)
        assert not db.exists("{fairactor/0}:progress")


async def test_a_handle_from_an_id(make_runtime: Make) -> None:
    async with make_runtime(echo) as runtime, make_runtime(workers=0) as other:
        sent = await runtime.send("user:1", echo({"a": 1}))
        assert sent.tenant == "user:1"
        for handle in (other.handle(sent.id), other.handle(sent.id, "user:1")):
            assert await handle.result(timeout=PATIENCE) == {"a": 1}
            assert await handle.state() is TaskState.FINISHED
            assert handle.tenant == "user:1"
        assert repr(other.handle("x", "y")) == "<Handle 'x' of 'y'>"


# Canceling


@pytest.mark.parametrize("wait", ["queued", "scheduled", "retry"])
async def test_a_task_that_waits_is_canceled_at_once(make_runtime: Make, wait: str) -> None:
    @actor(max_retries=5)
    async def again() -> None:
        raise Retry(delay=3600)

    async with make_runtime(again, workers=1 if wait == "retry" else 0) as runtime:
        handle = await runtime.send("user:1", again(), delay=3600 if wait == "scheduled" else 0)
        state = TaskState.QUEUED if wait == "queued" else TaskState.SCHEDULED
        await until(partial(has_state, handle, state))
        waiting = asyncio.ensure_future(handle.result(timeout=PATIENCE))
        await anyio.wait_all_tasks_blocked()
        assert await handle.cancel() is state
        with pytest.raises(TaskCanceled, match=rf"task '{handle.id}' of tenant 'user:1' .*was canceled: by handle"):
            await waiting
        assert await handle.cancel() is TaskState.CANCELED
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)
        stats = await runtime.stats()
        assert (stats.canceled, stats.queued, stats.scheduled, stats.started) == (1, 0, 0, 0)
        await check_invariants(runtime)


async def test_a_running_task_is_canceled_and_its_handler_can_clean_up(make_runtime: Make) -> None:
    gate = Gate()
    async with make_runtime(gate.wait) as runtime, make_runtime(workers=0) as other:
        handle = await runtime.send("user:1", gate.wait())
        await gate.begun.wait()
        assert await other.handle(handle.id).cancel() is TaskState.STARTED
        with pytest.raises(TaskCanceled, match="was canceled: by handle"):
            await handle.result(timeout=PATIENCE)
        assert gate.cleaned == ["canceled", "cleaned"]
        assert await handle.state() is TaskState.CANCELED
        await check_invariants(runtime)


async def test_a_clean_up_may_take_its_time(make_runtime: Make) -> None:
    begun, cleaned = anyio.Event(), []

    @actor
    async def careful() -> None:
        try:
            begun.set()
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)
                cleaned.append(True)

    async with make_runtime(careful) as runtime:
        handle = await runtime.send("user:1", careful())
        await begun.wait()
        await handle.cancel()
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)
        assert cleaned == [True]


async def test_a_handler_may_finish_in_spite_of_a_cancellation(make_runtime: Make) -> None:
    begun = anyio.Event()

    @actor
    async def stubborn() -> str:
        try:
            begun.set()
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            return "all the same"

    async with make_runtime(stubborn) as runtime:
        handle = await runtime.send("user:1", stubborn())
        await begun.wait()
        await handle.cancel()
        assert await handle.result(timeout=PATIENCE) == "all the same"


async def test_what_has_ended_cannot_be_canceled(make_runtime: Make) -> None:
    async with make_runtime(echo, fail) as runtime:
        finished, failed = await runtime.send_many([("user:1", echo(1)), ("user:1", fail())])
        await runtime.drain(timeout=PATIENCE)
        assert await finished.cancel() is TaskState.FINISHED
        assert await failed.cancel() is TaskState.FAILED
        assert await finished.result(timeout=PATIENCE) == 1


async def test_a_canceled_plain_handler_ends_when_its_thread_does(make_runtime: Make) -> None:
    begun, release = anyio.Event(), threading.Event()

    @actor
    def block() -> None:
        anyio.from_thread.run_sync(begun.set)
        release.wait(timeout=PATIENCE)

    async with make_runtime(block, echo, workers=1) as runtime:
        handle = await runtime.send("user:1", block())
        await begun.wait()
        await handle.cancel()
        assert await handle.state() is TaskState.STARTED
        release.set()
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)
        assert await runtime.ask("user:1", echo(1), timeout=PATIENCE) == 1, "its worker is free"
