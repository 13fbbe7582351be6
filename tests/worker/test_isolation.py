"""Tests that whatever a handler does to its asyncio task or thread stays the outcome of that attempt."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

from fairactor import Runtime, TaskCanceled, TaskFailed, TaskState, actor
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
Mischief = Callable[[], Awaitable[Any]]

LATER = 0.02  # seconds after which something that a handler has left behind cancels its asyncio task
kept: list[Any] = []


def own_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def cancel_itself() -> None:
    own_task().cancel()
    await anyio.sleep_forever()


async def cancel_itself_at_the_end() -> None:
    own_task().cancel()


async def cancel_itself_and_go_on() -> str:
    own_task().cancel()
    try:
        await anyio.sleep_forever()
    except asyncio.CancelledError:
        return "went on"


async def be_canceled_while_it_waits() -> None:
    asyncio.get_running_loop().call_later(LATER, own_task().cancel)
    await anyio.sleep_forever()


async def be_canceled_after_it_has_ended() -> None:
    asyncio.get_running_loop().call_later(LATER, own_task().cancel)


async def be_canceled_after_it_has_waited_and_ended() -> None:
    await anyio.lowlevel.checkpoint()
    asyncio.get_running_loop().call_later(LATER, own_task().cancel)


async def leave_a_timeout_open() -> None:
    await asyncio.timeout(LATER).__aenter__()


async def leave_a_scope_open() -> None:
    anyio.move_on_after(LATER).__enter__()


async def leave_a_canceled_scope_open() -> None:
    scope = anyio.CancelScope()
    scope.__enter__()
    scope.cancel()


async def leave_a_task_group_open() -> None:
    group = asyncio.TaskGroup()
    await group.__aenter__()
    group.create_task(asyncio.sleep(LATER))


async def leave_a_group_of_anyio_open() -> None:
    group = anyio.create_task_group()
    await group.__aenter__()
    group.cancel_scope.deadline = anyio.current_time() + LATER
    kept.append(group)


class Broken(BaseException):
    """An exception whose text cannot be read."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


EXITS = (KeyboardInterrupt, SystemExit, GeneratorExit, BaseException, asyncio.CancelledError, Broken, MemoryError)


def raising(kind: type[BaseException]) -> Mischief:
    async def run() -> NoReturn:
        raise kind

    return run


MISCHIEF: dict[str, tuple[Mischief, str | None]] = {
    "cancels itself": (cancel_itself, "CancelledError: not by fairactor"),
    "cancels itself at the end": (cancel_itself_at_the_end, None),
    "cancels itself and goes on": (cancel_itself_and_go_on, None),
    "is canceled while it waits": (be_canceled_while_it_waits, "CancelledError: not by fairactor"),
    "is canceled after its end": (be_canceled_after_it_has_ended, None),
    "is canceled after it waited": (be_canceled_after_it_has_waited_and_ended, None),
    "leaves a timeout open": (leave_a_timeout_open, None),
    "leaves a scope open": (leave_a_scope_open, None),
    "leaves a canceled scope open": (leave_a_canceled_scope_open, None),
    "leaves a task group open": (leave_a_task_group_open, None),
    "leaves a group of anyio open": (leave_a_group_of_anyio_open, None),
} | {kind.__name__: (raising(kind), kind.__name__) for kind in EXITS}


@pytest.mark.parametrize("limit", [None, PATIENCE])
@pytest.mark.parametrize("how", MISCHIEF)
async def test_what_an_async_handler_does_to_its_task_harms_no_other(
    make_runtime: Make, how: str, limit: float | None
) -> None:
    mischief, error = MISCHIEF[how]

    @actor
    async def misbehave() -> None:
        await mischief()

    @actor
    async def behave(n: int) -> int:
        await anyio.sleep(2 * LATER if n == 0 else 0)
        return n

    async with make_runtime(misbehave, behave, workers=1) as runtime:
        bad = await runtime.send("mallory", misbehave().options(timeout=limit))
        good = [await runtime.send("acme", behave(n)) for n in range(3)]
        assert [await handle.result(timeout=PATIENCE) for handle in good] == [0, 1, 2]
        if error is not None:
            with pytest.raises(TaskFailed, match=error):
                await bad.result(timeout=PATIENCE)
        elif limit is None:
            assert await bad.result(timeout=PATIENCE) is None
        else:  # with an open scope, the timeout's own scope cannot be closed
            await until(lambda: ended(bad))
        await check_invariants(runtime)
    kept.clear()


async def ended(handle: Any) -> bool:
    return await handle.state() in (TaskState.FINISHED, TaskState.FAILED)


@pytest.mark.parametrize("kind", [*EXITS, StopIteration], ids=lambda kind: kind.__name__)
async def test_whatever_a_plain_handler_raises_is_its_outcome(make_runtime: Make, kind: type[BaseException]) -> None:
    @actor
    def misbehave() -> None:
        raise kind

    @actor
    def behave(n: int) -> int:
        return n

    async with make_runtime(misbehave, behave, workers=1) as runtime:
        with pytest.raises(TaskFailed, match=kind.__name__):
            await runtime.ask("mallory", misbehave(), timeout=PATIENCE)
        assert await runtime.ask("acme", behave(1), timeout=PATIENCE) == 1


class Odd:
    """A value whose comparison fails, as that of a numpy array does."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Equal:
    """A value that equals every other."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable", default=None)


@pytest.mark.parametrize("kind", [Odd, Equal, object])
async def test_context_variables_end_with_their_handler_and_are_not_compared(
    make_runtime: Make, kind: type[Any]
) -> None:
    variable.set(outer := kind())

    @actor
    async def change() -> bool:
        before = variable.get()
        variable.set(kind())
        await anyio.lowlevel.checkpoint()
        return before is outer

    async with make_runtime(change, workers=1) as runtime:
        handles = await runtime.send_many(("acme", change()) for _ in range(3))
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == [True] * 3


async def test_a_canceled_handler_is_still_canceled(make_runtime: Make) -> None:
    begun = anyio.Event()

    @actor
    async def wait() -> None:
        own_task().cancel()
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            begun.set()
            await anyio.sleep_forever()

    @actor
    async def behave() -> int:
        return 1

    async with make_runtime(wait, behave, workers=1) as runtime:
        handle = await runtime.send("acme", wait())
        await begun.wait()
        await handle.cancel()
        with pytest.raises(TaskCanceled, match="by handle"):
            await handle.result(timeout=PATIENCE)
        assert await runtime.ask("acme", behave(), timeout=PATIENCE) == 1


# Threads


async def test_a_retry_starts_only_after_the_thread_of_the_timed_out_attempt_has_ended(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fairactor._actors.threads.SLOW_END", 0.01)
    gate, running, most, attempts = threading.Event(), [0], [0], [0]

    @actor(timeout=0.05, max_retries=2, backoff=0)
    def work() -> None:
        attempts[0] += 1
        running[0] += 1
        most[0] = max(most[0], running[0])
        if attempts[0] == 1:
            gate.wait(timeout=PATIENCE)
        else:
            threading.Event().wait(timeout=0.1)
        running[0] -= 1

    async with make_runtime(work, workers=10) as runtime:
        await runtime.tenant("acme").configure(concurrency=1)
        handle = await runtime.send("acme", work())
        other = await runtime.send("acme", work())
        await until(lambda: "which cannot be stopped" in caplog.text)
        assert await handle.state() is TaskState.STARTED
        gate.set()
        for each in (handle, other):
            with pytest.raises(TaskFailed, match="TimeoutError"):
                await each.result(timeout=PATIENCE)
    assert (most, attempts) == ([1], [6])


async def test_a_thread_can_notice_that_it_was_canceled(make_runtime: Make) -> None:
    begun = anyio.Event()

    @actor
    def work() -> None:
        anyio.from_thread.run_sync(begun.set)
        while True:
            anyio.from_thread.check_cancelled()

    async with make_runtime(work, workers=1) as runtime:
        handle = await runtime.send("acme", work())
        await begun.wait()
        await handle.cancel()
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)
        with pytest.raises(TaskFailed, match="TimeoutError"):
            await runtime.ask("acme", work().options(timeout=0.05), timeout=PATIENCE)


@pytest.mark.filterwarnings("ignore:Exception ignored in. <coroutine:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["async", "ignores even GeneratorExit", "thread"])
async def test_a_handler_that_ignores_its_cancellation_is_named_and_left_behind(
    make_runtime: Make, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("fairactor._worker.consumer.GOODBYE", 0.2)
    begun, gate = anyio.Event(), threading.Event()
    ignored = (asyncio.CancelledError,) if how == "async" else (asyncio.CancelledError, GeneratorExit)

    @actor
    async def stubborn() -> None:
        begun.set()
        while not gate.is_set():
            with suppress(*ignored):
                await anyio.sleep_forever()

    @actor
    def stuck() -> None:
        anyio.from_thread.run_sync(begun.set)
        gate.wait(timeout=PATIENCE)

    handler = stuck if how == "thread" else stubborn
    async with make_runtime(workers=0) as sender:
        async with make_runtime(handler, grace=0, lease=PATIENCE) as runtime:
            handle = await sender.send("acme", handler())
            await begun.wait()
        assert runtime is not sender
        assert await handle.state() is TaskState.QUEUED
        assert not (await handle.info()).history
    assert any(
        f"{handle.id} ({handler.name} of tenant 'acme')" in message
        for name, level, message in caplog.record_tuples
        if level >= logging.WARNING
    )
    gate.set()
