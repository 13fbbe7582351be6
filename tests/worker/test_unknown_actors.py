"""Tests what becomes of tasks whose actor no running process has registered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from fairactor import Handle, Runtime, TaskCanceled, TaskFailed, TaskState, actor
from fairactor._model import record
from fairactor._worker import unknown_actors
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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the delays."""
    for name in ("FIRST_DELAY", "ELSEWHERE_DELAY", "FRESH"):
        monkeypatch.setattr(unknown_actors, name, 0.05)
    monkeypatch.setattr(unknown_actors, "LONGEST_DELAY", 0.2)


async def waiting(*handles: Handle[Any]) -> bool:
    """Whether the tasks have all been seen, and wait."""
    infos = [await handle.info() for handle in handles]
    return all(info.state is TaskState.SCHEDULED and info.history for info in infos)


async def test_tasks_wait_for_a_service_that_is_away(
    make_runtime: Make, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill):
        handles = await sender.send_many(("acme", mail(n)) for n in range(30))
        await until(lambda: waiting(*handles))
        info = await handles[0].info()
        assert [(line.attempt, line.error) for line in info.history] == [(1, "fairactor.errors.UnknownActor")]
        assert info.history[0].message == "no running process has registered an actor 'mail'; the task waits for one"
        assert info.attempt == 1, "waiting is no attempt"
        assert await sender.ask("acme", bill(1), timeout=PATIENCE) == 1, "they hold up no other task of their tenant"
        async with make_runtime(mail):
            assert await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles)) == list(range(30))
            await check_invariants(sender)
        assert (await sender.stats()).failed == 0
    (line,) = [each for each in caplog.messages if "tasks wait for actor" in each]
    assert "'mail', which no running process has registered" in line
    assert "600 s (unknown_ttl=)" in line


async def test_a_task_fails_when_it_has_waited_for_too_long(make_runtime: Make, quick: None) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill, unknown_ttl=0.5):
        began = time.monotonic()
        handle = await sender.send("acme", mail(1))
        with pytest.raises(TaskFailed, match=r"no running process has registered an actor 'mail' for \d s") as caught:
            await handle.result(timeout=PATIENCE)
        assert time.monotonic() - began > 0.5
        assert "(unknown_ttl=0.5): start a service with it" in str(caught.value)
        assert caught.value.error == "fairactor.errors.UnknownActor"
        await handle.redrive()
        await until(lambda: waiting(handle))  # as long again
        async with make_runtime(mail):
            assert await handle.result(timeout=PATIENCE) == 1


async def test_without_a_wait_a_task_fails_at_once(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill, unknown_ttl=0):
        handle = await sender.send("acme", mail(1))
        with pytest.raises(TaskFailed, match=r"an actor 'mail': start a service with it .*, then redrive the task"):
            await handle.result(timeout=PATIENCE)


async def test_a_waiting_task_expires_and_can_be_canceled(make_runtime: Make, quick: None) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill):
        expiring, canceled = [await sender.send("acme", mail(n).options(expires=e)) for n, e in ((1, 0.5), (2, 99))]
        await until(lambda: waiting(canceled))
        assert await canceled.cancel() is TaskState.SCHEDULED
        with pytest.raises(TaskCanceled, match=r"it expired 0\.5 s after it was sent, before it could start"):
            await expiring.result(timeout=PATIENCE)


async def test_the_wait_begins_again_once_the_actor_was_registered(make_runtime: Make, quick: None) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill):
        handle = await sender.send("acme", mail(1))
        await until(lambda: waiting(handle))
        async with make_runtime(mail, assigned=["another tenant"]):

            async def is_forgotten() -> bool:
                return not (await handle.info()).history

            await until(is_forgotten)
        await until(lambda: waiting(handle))


async def test_many_unknown_tasks_starve_nobody(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(bill):
        handles = await sender.send_many(("acme", mail(n)) for n in range(1000))
        for n in range(20):
            assert await sender.ask("other", bill(n), timeout=PATIENCE) == n
        await until(lambda: waiting(handles[-1]))
        assert (await sender.stats()).scheduled > 900, "they are not claimed again and again"


async def test_another_runtime_gets_a_task_that_is_tried_again(make_runtime: Make, quick: None) -> None:
    """Whoever lacks the actor must not be the only one that knows when the task is due."""
    async with make_runtime(workers=0) as sender, make_runtime(bill, lease=300.0), make_runtime(mail, lease=300.0):
        for n in range(5):
            assert await sender.ask("acme", mail(n), timeout=PATIENCE) == n


async def test_a_handler_that_raises_the_same_error_has_not_waited() -> None:
    header, body = record.unpack(record.LIVE + record.NO_HEADER + b'["f",[],{}]')
    failed = record.Attempt(header.attempt, 5.0, 0.1, "r/1", "fairactor.errors.UnknownActor", "no actor 'x'")
    header, body = record.unpack(record.pack_retried(header, body, failed))
    last = record.last_attempt(body)
    assert last == failed
    assert failed.attempt != header.attempt
