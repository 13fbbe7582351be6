"""Tests that no cancellation is lost, and that each frees the slot and the process of its handler."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import psutil
import pytest
import redis

from fairactor import Handle, Retry, Runtime, TaskCanceled, TaskFailed, TaskState, actor
from fairactor._worker.dispatcher import Dispatcher
from fairactor.testing import check_invariants
from tests.support import service
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

HOUR = 3600.0
CANCELS = "{fairactor/0}:cancels:*"
"""Matches the keys of cancellations that the runtimes have not reported yet."""


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every runtime ignore cancel messages, as if the messages were lost."""
    monkeypatch.setattr(Dispatcher, "_cancel", lambda self, task_id: None)


class Work:
    """Provides an actor that counts its runs, waits until it is released or canceled, and then calls `end`."""

    def __init__(self, end: Callable[[], str] = lambda: "done", **options: Any) -> None:
        self.begun, self.release = anyio.Event(), anyio.Event()
        self.runs = 0

        @actor(**options)
        async def work() -> str:
            self.runs += 1
            self.begun.set()
            await self.release.wait()
            return end()

        self.work = work


@actor
async def echo(value: int) -> int:
    return value


def a_retry() -> str:
    raise Retry("of the handler", delay=0)


def an_error() -> str:
    raise ValueError("of the handler")


async def has_state(handle: Handle[Any], state: TaskState) -> bool:
    return await handle.state() is state


# Lost messages


async def test_who_does_not_hear_of_it_cancels_at_its_next_heartbeat(
    make_runtime: Make, db: redis.Redis, deaf: None
) -> None:
    told = Work()
    async with make_runtime(told.work, lease=1.5) as runtime, make_runtime(workers=0) as sender:
        handle, other = await sender.send_many([("user:1", told.work())] * 2)
        await until(lambda: told.runs == 2)
        began = time.monotonic()
        assert await handle.cancel() is TaskState.STARTED
        assert await handle.cancel() is TaskState.STARTED, "it may be told so again"
        assert len(list(db.scan_iter(CANCELS))) == 1
        await check_invariants(sender)
        with pytest.raises(TaskCanceled, match=r"\(work\) was canceled: by handle\.cancel\(\)"):
            await handle.result(timeout=PATIENCE)
        assert time.monotonic() - began < 1.5 / 3 + 2
        assert await handle.cancel() is TaskState.CANCELED
        assert await other.state() is TaskState.STARTED
        assert not list(db.scan_iter(CANCELS))
        await check_invariants(sender)
        told.release.set()
        assert await other.result(timeout=PATIENCE) == "done"
        assert (await runtime.stats()).canceled == 1
    assert told.runs == 2


async def test_one_that_cannot_hear_while_its_listener_is_cut_off_is_told_afterwards(
    make_runtime: Make, db: redis.Redis
) -> None:
    told = Work()
    async with make_runtime(told.work, lease=PATIENCE) as runtime, make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", told.work())
        await told.begun.wait()
        find, go_on = runtime._engine.subscriber._find, anyio.Event()

        async def find_late(meta: str) -> Any:
            await go_on.wait()
            return await find(meta)

        runtime._engine.subscriber._find = find_late  # type: ignore[method-assign]
        channels = [channel for channel in db.pubsub_channels() if runtime.name.encode() in channel]
        db.client_kill_filter(_type="pubsub", skipme=True)
        await until(lambda: not {*channels} & {*db.pubsub_channels()})
        assert await handle.cancel() is TaskState.STARTED
        assert await handle.state() is TaskState.STARTED
        go_on.set()
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE / 3 - 2)
        await check_invariants(sender)


@pytest.mark.parametrize("end", [a_retry, an_error])
async def test_one_that_is_to_be_retried_at_the_same_moment_is_not_run_again(
    make_runtime: Make, db: redis.Redis, deaf: None, end: Callable[[], str]
) -> None:
    told = Work(end, max_retries=5, backoff=0)
    async with make_runtime(told.work, lease=60) as runtime:
        handle = await runtime.send("user:1", told.work(), key="same")
        await told.begun.wait()
        waiting = asyncio.ensure_future(handle.result(timeout=PATIENCE))
        assert await handle.cancel() is TaskState.STARTED
        told.release.set()
        with pytest.raises(TaskCanceled, match=r"by handle\.cancel\(\)"):
            await waiting
        assert await handle.cancel() is TaskState.CANCELED
        assert [(attempt.attempt, attempt.message) for attempt in (await handle.info()).history] == [
            (1, "of the handler")
        ]
        stats = await runtime.stats()
        assert (stats.canceled, stats.scheduled, stats.pending, stats.failed) == (1, 0, 0, 0)
        assert not [*db.scan_iter(CANCELS), *db.scan_iter("*:key:*"), *db.scan_iter("*:keyed")]
        await check_invariants(runtime)
        assert told.runs == 1


@pytest.mark.parametrize("end", ["finished", "failed"])
async def test_one_that_ends_before_it_hears_has_ended_so(
    make_runtime: Make, db: redis.Redis, deaf: None, end: str
) -> None:
    told = Work(an_error if end == "failed" else lambda: "done")
    async with make_runtime(told.work, lease=60) as runtime:
        handle = await runtime.send("user:1", told.work())
        await told.begun.wait()
        assert await handle.cancel() is TaskState.STARTED
        told.release.set()
        await runtime.drain(timeout=PATIENCE)
        assert await handle.cancel() is TaskState(end)
        assert not list(db.scan_iter(CANCELS))
        await check_invariants(runtime)


@pytest.mark.parametrize("grace", [0, PATIENCE])
async def test_one_whose_runtime_leaves_is_not_run_again(
    make_runtime: Make, db: redis.Redis, deaf: None, grace: float
) -> None:
    told = Work(a_retry, max_retries=5)
    async with make_runtime(workers=0) as sender:
        async with make_runtime(told.work, lease=60) as leaving:
            handle = await sender.send("user:1", told.work())
            await told.begun.wait()
            assert await handle.cancel() is TaskState.STARTED
            stopping = asyncio.ensure_future(leaving.stop(grace=grace))
            await until(lambda: not leaving._engine.consumer._dispatchers[0]._claiming)  # type: ignore[union-attr]
            told.release.set()
            await stopping
        assert await handle.cancel() is TaskState.CANCELED
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)
        assert not list(db.scan_iter(CANCELS))
        await check_invariants(sender)
        async with make_runtime(told.work) as heir:
            await heir.drain(timeout=PATIENCE)
    assert told.runs == 1


async def test_one_between_retries_is_canceled_and_keeps_its_history(make_runtime: Make, db: redis.Redis) -> None:
    @actor(max_retries=5, backoff=HOUR, backoff_cap=HOUR)
    async def again() -> None:
        raise Retry("of the handler", delay=HOUR)

    async with make_runtime(again) as runtime:
        handle = await runtime.send("user:1", again(), key="same", key_window=HOUR)
        await until(partial(has_state, handle, TaskState.SCHEDULED))
        assert await handle.cancel() is TaskState.SCHEDULED
        info = await handle.info()
        assert (info.state, info.due_at) == (TaskState.CANCELED, None)
        assert [(attempt.attempt, attempt.message) for attempt in info.history] == [(1, "of the handler")]
        assert not db.exists("{fairactor/0}:scheduled", "{fairactor/0}:delayed:user:1", "{fairactor/0}:keyed")
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)
        assert await handle.cancel() is TaskState.CANCELED
        await check_invariants(runtime)


# Slots, threads and processes of handlers


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Blocks plain handlers; opens after the test, so that no thread stays blocked."""
    opens = threading.Event()
    yield opens
    opens.set()


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_a_thread_keeps_its_slot_and_its_outcome_until_it_returns(
    make_runtime: Make, gate: threading.Event, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    begun = anyio.Event()

    @actor
    def block() -> None:
        anyio.from_thread.run_sync(begun.set)
        gate.wait(timeout=PATIENCE)

    async with make_runtime(block, echo, workers=1) as runtime:
        handle = await runtime.send("user:1", block(), timeout=0.2 if how == "timeout" else HOUR)
        await begun.wait()
        if how == "cancel":
            assert await handle.cancel() is TaskState.STARTED
        next_one = await runtime.send("user:1", echo(1))
        await until(lambda: "which cannot be stopped" in caplog.text)
        assert await handle.state() is TaskState.STARTED
        assert await next_one.state() is TaskState.QUEUED
        gate.set()
        await ends(handle, how)
        assert await next_one.result(timeout=PATIENCE) == 1
        await check_invariants(runtime)


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_a_process_is_killed_and_its_slot_is_free_at_once(make_runtime: Make, how: str) -> None:
    async with make_runtime(service.crunch, service.crunch_long, echo, workers=1) as runtime:
        pid, _ = await runtime.ask("user:1", service.crunch(1), timeout=PATIENCE)
        process = psutil.Process(pid)  # the process waits for its next task
        timeout = 0.2 if how == "timeout" else HOUR
        handle = await runtime.send("user:1", service.crunch_long(PATIENCE), timeout=timeout)
        await until(partial(has_state, handle, TaskState.STARTED))
        assert process.is_running()
        await ends(handle, how)
        assert await runtime.ask("user:1", echo(1), timeout=PATIENCE) == 1
        await until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
        another, _ = await runtime.ask("user:1", service.crunch(2), timeout=PATIENCE)
        assert another != pid
        await check_invariants(runtime)


async def ends(handle: Handle[Any], how: str) -> None:
    """Checks that a started task ends quickly when it is canceled or exceeds its timeout."""
    began = time.monotonic()
    if how == "timeout":
        with pytest.raises(TaskFailed, match=r"TimeoutError: the attempt took longer than its timeout of 0\.2 s"):
            await handle.result(timeout=PATIENCE)
    else:
        await handle.cancel()
        with pytest.raises(TaskCanceled, match=r"by handle\.cancel\(\)"):
            await handle.result(timeout=PATIENCE)
    assert time.monotonic() - began < 10
