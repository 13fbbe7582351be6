"""Tests what becomes of tasks that no running process can run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from fairactor import Runtime, TaskCanceled, TaskFailed, TaskState, actor
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def mail(n: int) -> int:
    return n


@actor
async def bill(n: int) -> int:
    return n


@actor(queue="gpu", version=3)
async def train(n: int) -> int:
    return n


async def is_unserved(runtime: Runtime, name: str, count: int = 1) -> bool:
    """Whether health knows that no runtime can run an actor, and all runtimes have left its tasks."""
    health = await runtime.health()
    unserved = health.load.unserved if health.load else ()
    return any(each.actor == name for each in unserved) and (await runtime.stats()).queued == count


async def test_tasks_wait_for_a_service_that_is_away(make_runtime: Make, caplog: pytest.LogCaptureFixture) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill):
        handles = await sender.send_many(("acme", mail(n)) for n in range(30))
        await until(lambda: is_unserved(sender, "mail", 30))
        info = await handles[0].info()
        assert (info.state, info.attempt, info.history) == (TaskState.QUEUED, 1, []), "waiting is no attempt"
        assert await sender.ask("acme", bill(1), timeout=PATIENCE) == 1, "they hold up no other task of their tenant"
        async with make_runtime(mail):
            assert await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles)) == list(range(30))
            await check_invariants(sender)
        assert (await sender.stats()).failed == 0
    (line,) = [each for each in caplog.messages if "tasks wait for a process" in each]
    assert "has registered an actor 'mail': this one does not" in line
    assert "they wait for unknown_ttl=, then they fail" in line


async def test_health_names_the_actor_the_tenant_and_the_age(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill):
        await sender.send("acme", mail(1))
        await sender.send("globex", train(1))
        await until(lambda: is_unserved(sender, "mail", 2))
        health = await sender.health()
        assert health.load is not None
        first, second = sorted(health.load.unserved, key=lambda each: each.actor)
        assert (first.actor, first.queue, first.version, first.tenant) == ("mail", "default", 1, "acme")
        assert (second.actor, second.queue, second.version, second.tenant) == ("train", "gpu", 3, "globex")
        assert 0 <= first.waited < PATIENCE
        assert not health.ok
        problems = sorted(health.problems)
        assert problems[0].startswith(
            "no running process has registered an actor 'mail', and tasks of tenant 'acme' have waited 0 s for one: "
        )
        assert "an actor 'train' of version 3 or later and serves the queue 'gpu', and tasks of" in problems[1]
        async with make_runtime(mail, train):
            await sender.drain(PATIENCE)
            assert (await sender.health()).ok


async def test_a_task_fails_when_it_has_waited_for_too_long(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill, unknown_ttl=0.5):
        began = time.monotonic()
        handle = await sender.send("acme", mail(1))
        with pytest.raises(TaskFailed, match=r"no running process has registered an actor 'mail' for 0\.5 s") as caught:
            await handle.result(timeout=PATIENCE)
        assert time.monotonic() - began > 0.4
        assert "(unknown_ttl=): start one, as Runtime(actors=[…]), or correct the name, then redrive" in str(
            caught.value
        )
        assert caught.value.error == "fairactor.errors.UnknownActor"
        (letter,) = [letter async for letter in sender.dead_letters.find()]
        assert (letter.actor, letter.args, letter.attempt) == ("mail", [1], 1)
        await handle.redrive()
        assert (await handle.info()).state is TaskState.QUEUED, "it waits again"
        async with make_runtime(mail):
            assert await handle.result(timeout=PATIENCE) == 1


async def test_any_number_of_tasks_fails(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill, unknown_ttl=0.2):
        await sender.send_many((f"tenant {n % 50}", train(n)) for n in range(600))
        await until(lambda: _all_failed(sender, 600))
        assert await sender.ask("acme", bill(1), timeout=PATIENCE) == 1
        await check_invariants(sender)
        async with make_runtime(train):
            assert await sender.dead_letters.redrive(actor="train") == 600
            await sender.drain(PATIENCE)
        assert (await sender.stats()).finished == 601


async def _all_failed(runtime: Runtime, count: int) -> bool:
    return (await runtime.stats()).dead_letters == count


async def test_without_a_wait_a_task_fails_at_once(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill, unknown_ttl=0):
        handle = await sender.send("acme", mail(1))
        with pytest.raises(TaskFailed, match=r"an actor 'mail': start one, .*, then redrive the task"):
            await handle.result(timeout=PATIENCE)


async def test_the_error_names_what_is_missing(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill, unknown_ttl=0):
        handle = await sender.send("acme", train(1))
        with pytest.raises(
            TaskFailed, match="an actor 'train' of version 3 or later and serves the queue 'gpu': start"
        ):
            await handle.result(timeout=PATIENCE)


async def test_a_waiting_task_can_be_canceled_and_purged(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill):
        canceled, purged = await sender.send_many([("acme", mail(1)), ("globex", mail(2))])
        await until(lambda: is_unserved(sender, "mail", 2))
        assert await canceled.cancel() is TaskState.QUEUED
        assert await sender.tenant("globex").purge() == 1
        for handle in (canceled, purged):
            with pytest.raises(TaskCanceled):
                await handle.result(timeout=PATIENCE)
        assert (await sender.health()).ok


async def test_a_task_that_has_expired_meanwhile_is_canceled(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill):
        handle = await sender.send("acme", mail(1).options(expires=0.001))
        async with make_runtime(mail):
            with pytest.raises(TaskCanceled, match=r"it expired 0\.001 s after it was sent, before it could start"):
                await handle.result(timeout=PATIENCE)


async def test_many_unknown_tasks_starve_nobody(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill):
        await sender.send_many(("acme", mail(n)) for n in range(1000))
        for n in range(20):
            assert await sender.ask("other", bill(n), timeout=PATIENCE) == n
            assert await sender.ask("acme", bill(n), timeout=PATIENCE) == n
        assert await is_unserved(sender, "mail", 1000), "they are not claimed again and again"


async def test_a_handler_may_raise_the_same_error(make_runtime: Make) -> None:
    @actor(max_retries=1, backoff=0)
    async def look_up() -> None:
        raise LookupError("no actor 'x'")

    async with make_runtime(look_up) as runtime:
        with pytest.raises(TaskFailed, match="no actor 'x'"):
            await runtime.ask("acme", look_up(), timeout=PATIENCE)
