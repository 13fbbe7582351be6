"""Keys with ``replace=True``: the last message wins, and a message during the run leads to one more run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio.lowlevel
import pytest
import redis

from fairactor import Handle, Priority, Retry, Runtime, TaskCanceled, TaskState, actor, current_task
from fairactor.errors import ConfigurationError, Deadlock, MailboxFull
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

HOUR = 3600.0


@actor(key="same", replace=True)
async def echo(value: Any) -> Any:
    return value


class Gate:
    """An actor whose runs begin one by one, and end when they are let go."""

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.open = asyncio.Semaphore(0)

        @actor(key="same", replace=True)
        async def work(value: Any) -> Any:
            self.ran.append(value)
            await self.open.acquire()
            return value

        self.work = work


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def has_state(handle: Handle[Any], state: TaskState) -> bool:
    return await handle.state() is state


# While the task waits


async def test_a_queued_task_gets_the_last_call_and_keeps_its_place(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        first = await sender.send("user:1", echo(1))
        other = await sender.send("user:1", echo(2), key="other")
        again = await sender.send("user:1", echo(3), priority=Priority.NORMAL)
        assert (again.id, again.duplicate) == (first.id, True)
        assert (await first.info()).args == [3]
        assert not (await sender.send("user:2", echo(4))).duplicate, "keys belong to tenants"
        assert (await sender.stats()).queued == 3
        await check_invariants(sender)
        ran: list[Any] = []

        @actor(name=echo.name)
        async def note(value: Any) -> Any:
            ran.append(value)
            return value

        async with make_runtime(note, workers=1) as runtime:
            assert await first.result(timeout=PATIENCE) == 3
            await other.result(timeout=PATIENCE)
            await runtime.drain(timeout=PATIENCE)
        assert [value for value in ran if value != 4] == [3, 2]


async def test_the_delay_starts_anew_and_options_are_those_of_the_last(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as sender:
        first = await sender.send("user:1", echo(1), delay=60, max_retries=5)
        before = (await first.info()).due_at
        await sender.send("user:1", echo(2), delay=HOUR, priority=Priority.HIGH)
        info = await first.info()
        assert before is not None
        assert info.due_at is not None
        assert (info.state, info.args, info.priority) == (TaskState.SCHEDULED, [2], Priority.HIGH)
        assert HOUR - 120 < (info.due_at - before).total_seconds() <= HOUR
        await check_invariants(sender)
        await sender.send("user:1", echo(3))
        assert await first.state() is TaskState.QUEUED
        await check_invariants(sender)
        await sender.send("user:1", echo(4), delay=HOUR)
        assert await first.state() is TaskState.SCHEDULED
        await check_invariants(sender)
        assert (await sender.stats()).scheduled == 1
        await first.cancel()
        assert not (await sender.send("user:1", echo(5))).duplicate


async def test_of_many_in_one_batch_the_last_wins(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        messages = [(f"user:{n % 2}", echo(n).options(key=f"{n % 5}")) for n in range(1200)]
        handles = await sender.send_many(messages)
        assert (await sender.stats()).queued == 10
        assert [(await handle.info()).args for handle in handles[:10]] == [[1190 + n] for n in range(10)]
        await check_invariants(sender)


async def test_a_task_between_retries_starts_anew_with_the_new_call(make_runtime: Make) -> None:
    @actor(key="same", replace=True, max_retries=1)
    async def flaky(text: str) -> str:
        if text == "bad":
            raise Retry(delay=HOUR)
        return f"{text} {current_task().attempt}"

    async with make_runtime(flaky) as runtime:
        first = await runtime.send("user:1", flaky("bad"))
        await until(partial(has_state, first, TaskState.SCHEDULED))
        await runtime.send("user:1", flaky("good"))
        assert await first.result(timeout=PATIENCE) == "good 1"
        assert len((await first.info()).history) == 1
        await check_invariants(runtime)


# While the task runs


async def test_however_many_come_during_a_run_one_more_run_has_the_last(make_runtime: Make, gate: Gate) -> None:
    async with make_runtime(gate.work, workers=5) as runtime:
        first = await runtime.send("user:1", gate.work(1))
        await until(lambda: gate.ran == [1])
        second = await runtime.send("user:1", gate.work(2))
        third = await runtime.send("user:1", gate.work(3))
        many = await runtime.send_many([("user:1", gate.work(n)) for n in range(4, 9)])
        assert (second.duplicate, second.id == first.id) == (False, False)
        assert {handle.id for handle in (third, *many)} == {second.id}
        assert await second.state() is TaskState.DEFERRED
        plain = await runtime.send("user:1", gate.work(99), replace=False)
        assert plain.id == first.id, "the first wins, as without replace="
        await check_invariants(runtime)
        gate.open.release()
        assert await first.result(timeout=PATIENCE) == 1
        await until(lambda: gate.ran == [1, 8])
        await check_invariants(runtime)
        fourth = await runtime.send("user:1", gate.work(9), delay=HOUR)
        gate.open.release()
        assert await second.result(timeout=PATIENCE) == 8
        await until(partial(has_state, fourth, TaskState.SCHEDULED))
        await check_invariants(runtime)
        await fourth.cancel()
        await check_invariants(runtime)


async def test_what_follows_can_be_canceled_and_outlives_a_cancellation(
    make_runtime: Make, gate: Gate, db: redis.Redis
) -> None:
    async with make_runtime(gate.work) as runtime:
        first = await runtime.send("user:1", gate.work(1))
        await until(lambda: gate.ran == [1])
        second = await runtime.send("user:1", gate.work(2))
        assert await second.cancel() is TaskState.DEFERRED
        await check_invariants(runtime)
        third = await runtime.send("user:1", gate.work(3))
        assert third.id != second.id
        assert await runtime.tenant("user:1").purge() == 1
        await check_invariants(runtime)
        fourth = await runtime.send("user:1", gate.work(4))
        await first.cancel()
        with pytest.raises(TaskCanceled):
            await first.result(timeout=PATIENCE)
        gate.open.release()
        assert await fourth.result(timeout=PATIENCE) == 4
        assert gate.ran == [1, 4]
        await runtime.drain(timeout=PATIENCE)
        await check_invariants(runtime)
        assert not [*db.scan_iter("*:again"), *db.scan_iter("*:keyed"), *db.scan_iter("*:key:*")]


async def test_what_follows_is_purged_with_a_task_that_waits_again(make_runtime: Make, gate: Gate) -> None:
    async with make_runtime(workers=0) as sender:
        async with make_runtime(gate.work, grace=0):
            first = await sender.send("user:1", gate.work(1))
            await until(lambda: gate.ran == [1])
            second = await sender.send("user:1", gate.work(2))
        await until(partial(has_state, first, TaskState.QUEUED))
        assert (await sender.send("user:1", gate.work(3))).id == second.id, "it would run after the first"
        await check_invariants(sender)
        assert await sender.tenant("user:1").purge() == 2
        assert (await first.state(), await second.state()) == (TaskState.CANCELED, TaskState.CANCELED)
        await check_invariants(sender)


# After its end, and what cannot be


async def test_within_the_window_of_a_finished_task_a_change_is_not_lost(make_runtime: Make) -> None:
    async with make_runtime(echo) as runtime:
        first = await runtime.send("user:1", echo(1), key_window=HOUR)
        assert await first.result(timeout=PATIENCE) == 1
        assert (await runtime.send("user:1", echo(0), replace=False)).id == first.id
        second = await runtime.send("user:1", echo(2))
        assert not second.duplicate
        assert await second.result(timeout=PATIENCE) == 2
        await check_invariants(runtime)


async def test_a_full_mailbox_refuses_what_follows_but_not_what_replaces(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        await sender.tenant("user:1").configure(backlog=1)
        first = await sender.send("user:1", echo(1))
        assert (await sender.send("user:1", echo(2))).id == first.id
        with pytest.raises(MailboxFull):
            await sender.send_many([("user:1", echo(3)), ("user:1", echo(4).options(key="other"))])
        assert (await first.info()).args == [2], "all of them or none"
        await check_invariants(sender)


async def test_what_cannot_be_combined_is_refused(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        parent = await sender.send("user:1", echo(1))
        for options, reason in (
            ({"key": None, "actor": None}, "needs a key="),
            ({"id": "one"}, "cannot have an id="),
            ({"depends_on": [parent]}, "fairactor_dependencies"),
        ):
            plain = actor(name="plain")(echo.function) if "actor" in options else echo
            options.pop("actor", None)
            with pytest.raises(ConfigurationError, match=reason):
                await sender.send("user:1", plain(1), replace=True, **options)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="replace must be True or False"):
            echo(1).options(replace=1)  # type: ignore[arg-type]


async def test_a_handler_that_asks_for_its_own_next_run_is_told_that_it_cannot_wait(make_runtime: Make) -> None:
    @actor(key="same", replace=True)
    async def ask_itself() -> str:
        task = current_task()
        assert task.runtime is not None
        try:
            await task.runtime.ask("user:1", ask_itself(), timeout=PATIENCE)
        except Deadlock as error:
            return str(error)
        return "no"

    async with make_runtime(ask_itself) as runtime:
        assert "its own key" in await runtime.ask("user:1", ask_itself(), timeout=PATIENCE)
        await check_invariants(runtime)


async def test_while_work_streams_in_the_last_call_runs_last(make_runtime: Make) -> None:
    ran: list[int] = []
    running = 0

    @actor(key="same", replace=True)
    async def note(value: int) -> None:
        nonlocal running
        running += 1
        assert running == 1, "never two at once"
        await anyio.lowlevel.checkpoint()
        ran.append(value)
        running -= 1

    async with make_runtime(note, workers=4) as one, make_runtime(note, workers=4) as two:
        for n in range(200):
            await (one, two)[n % 2].send("user:1", note(n))
        await one.drain(timeout=PATIENCE)
        assert ran[-1] == 199
        assert ran == sorted(set(ran))
        await check_invariants(one)
