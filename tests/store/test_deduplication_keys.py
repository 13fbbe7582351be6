"""Deduplication keys: while a task is live, a tenant gets no other task with the same key."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
import pytest
import redis

from fairactor import Handle, Retry, Runtime, TaskCanceled, TaskFailed, TaskState, actor, current_task
from fairactor.errors import ConfigurationError, Deadlock, NotADeadLetter, TaskExists
from fairactor.testing import check_invariants
from tests.support import service
from tests.support.polling import PATIENCE, pushed, until
from tests.support.worker_processes import Fleet

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

HOUR = 3600.0


@actor
async def echo(value: Any) -> Any:
    return value


@actor
async def fail(text: str = "as told") -> None:
    raise ValueError(text)


def kept_keys(db: redis.Redis) -> list[bytes]:
    """Returns everything that the server stores about deduplication keys."""
    return [*db.scan_iter("*:key:*"), *db.scan_iter("*:keyed")]


async def has_state(handle: Handle[Any], state: TaskState) -> bool:
    return await handle.state() is state


@pytest.fixture
def begun() -> anyio.Event:
    return anyio.Event()


@pytest.fixture
def release() -> anyio.Event:
    return anyio.Event()


@pytest.fixture
def work(begun: anyio.Event, release: anyio.Event) -> Any:
    @actor(max_retries=1, key="same")
    async def work(text: str = "first", *, again: bool = False) -> str:
        begun.set()
        if again and current_task().attempt == 1:
            raise Retry(delay=HOUR)
        await release.wait()
        return text

    return work


@actor
async def count() -> int:
    return 1


# While the first task is live


@pytest.mark.parametrize("state", ["queued", "scheduled", "started", "between retries"])
async def test_a_key_stands_for_its_task_in_whatever_state_that_is(
    make_runtime: Make, db: redis.Redis, work: Any, begun: anyio.Event, release: anyio.Event, state: str
) -> None:
    workers = 2 if state in {"started", "between retries"} else 0
    async with make_runtime(work, echo, workers=workers) as runtime, make_runtime(workers=0) as other:
        first = await runtime.send(
            "user:1", work(again=state == "between retries"), delay=HOUR if state == "scheduled" else 0
        )
        assert not first.duplicate
        expected = {"between retries": TaskState.SCHEDULED}.get(state) or TaskState(state)
        await until(partial(has_state, first, expected))
        for sender, message in ((runtime, work("second")), (other, echo(5).options(key="same", delay=9, key_window=9))):
            again = await sender.send("user:1", message)
            assert (again.id, again.tenant, again.duplicate) == (first.id, "user:1", True)
        separate = [
            await runtime.send("user:2", work("other tenant")),
            await runtime.send("user:1", work("other key"), key="other"),
            await runtime.send("user:1", echo("no key")),
        ]
        assert not any(handle.duplicate for handle in separate)
        assert len({handle.id for handle in (first, *separate)}) == 4
        await check_invariants(runtime)
        release.set()
        if workers and state == "started":
            assert await first.result(timeout=PATIENCE) == "first"
        else:
            assert await first.cancel() is expected
        assert not (await runtime.send("user:1", work("the next"))).duplicate, "its end has freed the key"
        await check_invariants(runtime)


async def test_nothing_is_left_of_a_key(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(echo, fail) as runtime:
        messages = [
            (f"user:{n % 3}", (echo(n), fail())[n % 2].options(key=f"key {n}", result_ttl=0)) for n in range(30)
        ]
        handles = await runtime.send_many(messages)
        later = await runtime.send("user:1", echo(1), delay=HOUR, key="later")
        await runtime.drain(timeout=PATIENCE)
        assert not any(handle.duplicate for handle in handles)
        assert len(kept_keys(db)) == 2
        await later.cancel()
        assert not kept_keys(db)
        await check_invariants(runtime)


async def test_keys_and_tenants_are_kept_apart(make_runtime: Make) -> None:
    parts = ("a", "bc", "ab", "c", "1", "1:", ":1", "1:a", "2:ab", "11", ":", "\0", "é", "{x}", "a\n", "x" * 512)
    pairs = list(itertools.product(parts, parts))
    async with make_runtime(workers=0) as runtime:
        first = await runtime.send_many((tenant, echo(0).options(key=key)) for tenant, key in pairs)
        assert not any(handle.duplicate for handle in first)
        assert len({handle.id for handle in first}) == len(pairs)
        again = await runtime.send_many((tenant, echo(0).options(key=key)) for tenant, key in pairs)
        assert all(handle.duplicate for handle in again)
        assert [handle.id for handle in again] == [handle.id for handle in first]
        assert (await runtime.stats()).queued == len(pairs)
        await check_invariants(runtime)


async def test_to_ask_with_a_key_gives_the_result_of_the_first(
    make_runtime: Make, work: Any, begun: anyio.Event, release: anyio.Event
) -> None:
    async with make_runtime(work, echo, count) as runtime, make_runtime(workers=0) as other:
        first = await runtime.send("user:1", work("first"))
        await begun.wait()
        asked = [
            asyncio.ensure_future(each.ask("user:1", message, timeout=PATIENCE))
            for each in (runtime, other)
            for message in (work("second"), echo(5).options(key="same"), count().options(key="same", result_ttl=0))
        ]
        with pytest.raises(TimeoutError, match=f"task '{first.id}' has no outcome"):
            await other.ask("user:1", work("third"), timeout=0.01)
        release.set()
        assert await asyncio.gather(*asked) == ["first"] * 6
        assert (await runtime.stats()).finished == 1
        assert not runtime._engine._outcomes._awaited
        assert not other._engine._outcomes._awaited


async def test_to_ask_with_a_key_of_one_that_fails_or_is_canceled(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        first = await sender.send("user:1", fail("of the first"), key="same")
        asked = asyncio.ensure_future(sender.ask("user:1", echo(1), key="same", timeout=PATIENCE))
        async with make_runtime(fail):
            with pytest.raises(TaskFailed, match=f"task '{first.id}'.*of the first"):
                await asked
        first = await sender.send("user:1", echo(2), key="same")
        asked = asyncio.ensure_future(sender.ask("user:1", echo(1), key="same", timeout=PATIENCE))
        await anyio.wait_all_tasks_blocked()
        await first.cancel()
        with pytest.raises(TaskCanceled, match=first.id):
            await asked


async def test_a_handler_that_asks_with_its_own_key_is_told_that_it_cannot_wait(make_runtime: Make) -> None:
    @actor(key="same")
    async def ask_itself() -> None:
        await runtime.ask("user:1", ask_itself(), timeout=0.3)

    async with make_runtime(ask_itself) as runtime:
        with pytest.raises(TaskFailed) as caught:
            await runtime.ask("user:1", ask_itself(), timeout=PATIENCE)
        if caught.value.error == "TimeoutError":
            raise TimeoutError
        assert caught.value.error == f"{Deadlock.__module__}.Deadlock"


async def test_an_id_sent_twice_is_a_repeat_whatever_its_key(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        first = await runtime.send("user:1", echo(1), id="one", key="same")
        for key in ("same", "other"):
            again = await runtime.send("user:1", echo(1), id="one", key=key)
            assert (again.id, again.duplicate) == ("one", True)
        assert (await runtime.send("user:1", echo(1), id="two", key="same")).id == first.id
        assert not (await runtime.send("user:1", echo(1), id="two", key="other")).duplicate, "a repeat takes no key"
        with pytest.raises(TaskExists):
            await runtime.send("user:2", echo(1), id="one", key="third")
        assert not (await runtime.send("user:2", echo(1), key="third")).duplicate, "what is refused takes no key"
        await check_invariants(runtime)


# Many messages at once


async def test_within_one_send_and_over_concurrent_ones_the_first_is_taken(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        messages = [(f"user:{n % 2}", echo(n).options(key=f"{n % 5}")) for n in range(1200)]  # over several batches
        handles = await runtime.send_many(messages)
        assert [handle.duplicate for handle in handles] == [n >= 10 for n in range(1200)]
        assert [handle.id for handle in handles] == [handle.id for handle in handles[:10]] * 120
        many = await asyncio.gather(*(runtime.send("user:3", echo(n), key="same") for n in range(100)))
        assert sorted(handle.duplicate for handle in many) == [False] + [True] * 99
        assert len({handle.id for handle in many}) == 1
        assert (await runtime.stats()).queued == 11
        await check_invariants(runtime)


async def test_of_runtimes_that_race_one_wins(make_runtime: Make) -> None:
    ran: list[str] = []

    @actor
    async def run(key: str) -> str:
        ran.append(key)
        await anyio.sleep_forever()
        return key

    async with make_runtime(workers=0) as one, make_runtime(workers=0) as two, make_runtime(run, workers=40, grace=0):
        sends = [(runtime, f"key {n}") for n in range(30) for runtime in (one, two) for _ in range(3)]
        handles = await asyncio.gather(*(runtime.send("user:1", run(key), key=key) for runtime, key in sends))
        await until(lambda: len(ran) == 30)
        assert len(set(ran)) == 30
        for n in range(30):
            same = handles[6 * n : 6 * n + 6]
            assert len({handle.id for handle in same}) == 1
            assert [handle.duplicate for handle in same].count(False) == 1
        stats = await one.stats()
        assert (stats.started, stats.pending) == (30, 30)
        await check_invariants(one)


# After the end of the first task


async def test_within_its_window_a_key_stands_for_one_that_has_finished(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(echo, result_ttl=0) as runtime:
        first = await runtime.send("user:1", echo("of the first"), key="same", key_window=timedelta(hours=1))
        await runtime.drain(timeout=PATIENCE)
        again = await runtime.send("user:1", echo("of another"), key="same")
        assert (again.id, again.duplicate) == (first.id, True)
        assert await again.result(timeout=PATIENCE) == "of the first"
        assert await runtime.ask("user:1", echo("of another"), key="same", timeout=PATIENCE) == "of the first"
        (kept,) = kept_keys(db)
        assert HOUR - PATIENCE < db.pttl(kept) / 1000 <= HOUR
        assert HOUR - PATIENCE < db.pttl(f"{{fairactor/0}}:task:{first.id}") / 1000 <= HOUR
        await check_invariants(runtime)
        short = await runtime.send("user:1", echo(1), key="short", key_window=0.2)
        await until(lambda: len(kept_keys(db)) == 1)
        third = await runtime.send("user:1", echo(1), key="short")
        assert (third.duplicate, third.id == short.id) == (False, False)


@pytest.mark.parametrize("end", ["failed", "canceled"])
async def test_after_a_failure_or_a_cancellation_there_is_no_window(
    make_runtime: Make, db: redis.Redis, end: str
) -> None:
    async with make_runtime(fail, echo) as runtime:
        delay = HOUR if end == "canceled" else 0
        first = await runtime.send("user:1", fail(), key="same", key_window=HOUR, delay=delay)
        if end == "canceled":
            await first.cancel()
        await runtime.drain(timeout=PATIENCE)
        assert await first.state() is TaskState(end)
        assert not kept_keys(db)
        assert await runtime.ask("user:1", echo("anew"), key="same", timeout=PATIENCE) == "anew"


async def test_a_dead_letter_takes_its_key_again_if_that_is_free(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(fail) as runtime:
        dead = await runtime.send("user:1", fail(), key="same", key_window=HOUR)
        await runtime.drain(timeout=PATIENCE)
    async with make_runtime(workers=0) as sender:
        holder = await sender.send("user:1", echo(1), key="same")
        assert not holder.duplicate
        with pytest.raises(NotADeadLetter, match=f"task '{holder.id}' now has its key"):
            await sender.handle(dead.id).redrive()
        assert await sender.dead_letters.redrive() == 0
        assert await sender.handle(dead.id).state() is TaskState.FAILED
        await check_invariants(sender)
        await holder.cancel()
        await sender.handle(dead.id).redrive()
        again = await sender.send("user:1", echo(2), key="same")
        assert (again.id, again.duplicate) == (dead.id, True)
        await check_invariants(sender)

        @actor(name="fail")
        async def mended(text: str = "as told") -> str:
            return text

        async with make_runtime(mended):
            assert await again.result(timeout=PATIENCE) == "as told"
        (kept,) = kept_keys(db)
        assert db.pttl(kept) > 0, "its window comes with it"
        assert (await sender.send("user:1", echo(2), key="same")).id == dead.id


async def test_of_dead_letters_with_one_key_the_first_is_sent_again(make_runtime: Make) -> None:
    async with make_runtime(fail) as runtime:
        dead = []
        for _ in range(3):
            dead.append((await runtime.send("user:1", fail(), key="same")).id)
            await runtime.drain(timeout=PATIENCE)
    async with make_runtime(workers=0) as sender:
        assert len(set(dead)) == 3
        assert await sender.dead_letters.redrive() == 1
        assert [letter.id async for letter in sender.dead_letters.find()] == dead[1:]
        assert (await sender.send("user:1", fail(), key="same")).id == dead[0]
        await check_invariants(sender)


async def test_a_key_outlives_the_process_that_is_killed(make_runtime: Make, processes: Fleet, db: redis.Redis) -> None:
    (victim,) = await processes.start(lease=0.5)
    async with make_runtime(workers=0) as sender:
        first = await sender.send("user:1", service.hold(), key="same")
        await pushed(db, "runs")
        victim.signal(signal.SIGKILL)
        await victim.ended()
        assert (await sender.send("user:1", service.hold(), key="same")).id == first.id
        (heir,) = await processes.start(lease=0.5)
        await pushed(db, "runs")
        assert (await sender.send("user:1", service.hold(), key="same")).id == first.id
        await check_invariants(sender)
        db.rpush("gate", 1)
        assert await first.result(timeout=PATIENCE) == heir.pid
        assert not kept_keys(db)
        assert db.llen("runs") == 0, "it was run twice in all, and nothing else was"
        assert not (await sender.send("user:1", service.nap(0), key="same")).duplicate
    await processes.stop()


# Invalid keys


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("", "key '': give a string that is not empty"),
        (5, "key 5: give a string"),
        (b"x", "key b'x': give a string"),
        ("x" * 513, "key 'x+'…: 513 bytes long, the limit is 512"),
        ("é" * 257, "514 bytes long"),
        ("\udcff", "half a surrogate pair"),
    ],
)
def test_a_key_that_cannot_be_is_refused(bad: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        echo(1).options(key=bad)
    with pytest.raises(ConfigurationError, match=words):
        actor(key=bad)


@pytest.mark.parametrize("bad", [-1, float("nan"), "1", True, timedelta(seconds=-1), 1e300])
def test_a_window_that_cannot_be_is_refused(bad: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^key_window="):
        echo(1).options(key="same", key_window=bad)
