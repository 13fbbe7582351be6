"""Tests retries: when the next attempt runs, and what the history keeps of earlier attempts."""

from __future__ import annotations

import random
import signal
import struct
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest
import redis

from fairactor import Handle, Retry, Runtime, TaskCanceled, TaskFailed, TaskInfo, TaskState, actor, current_task
from fairactor.testing import check_invariants
from tests.support import process_actors, service
from tests.support.polling import PATIENCE, pushed, until
from tests.support.worker_processes import Fleet

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

SCHEDULED, LEASES = "{fairactor/0}:scheduled", "{fairactor/0}:leases"
DELAYED = "{fairactor/0}:delayed:"  # and the name of a tenant
SLACK = 20.0
"""Seconds that an outcome may take to reach the server; far less than the differences between the tested delays."""


@actor
async def fail(text: str = "as told") -> None:
    raise ValueError(text)


async def comes_again(handle: Handle[Any], attempt: int = 2) -> TaskInfo | None:
    """Returns the info of a task if it waits for that attempt, else None."""
    info = await handle.info()
    return info if (info.state, info.attempt) == (TaskState.SCHEDULED, attempt) else None


def make_due(runtime: Runtime, db: redis.Redis, handle: Handle[Any]) -> None:
    db.zadd(DELAYED + handle.tenant, {handle.id: 1}, xx=True)
    db.zadd(SCHEDULED, {handle.tenant: 1}, xx=True)
    runtime._engine.consumer._dispatchers[0].wake()  # type: ignore[union-attr]


def make_older(db: redis.Redis, handle: Handle[Any], seconds: float) -> None:
    """Changes the record of a task as if it had been sent that many seconds earlier."""
    key = f"{{fairactor/0}}:task:{handle.id}"
    (stamp,) = struct.unpack(">d", db.getrange(key, 5, 12))  # type: ignore[arg-type]
    db.setrange(key, 5, struct.pack(">d", stamp - seconds * 1e6))  # type: ignore[arg-type]


def wait_of(info: TaskInfo) -> float:
    """Returns the seconds from the end of the last attempt to the start of the next one."""
    assert info.due_at is not None
    return info.due_at.timestamp() - info.history[-1].started_at - info.history[-1].seconds


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every random delay as long as it can be."""
    monkeypatch.setattr(random, "uniform", lambda _, most: most)


# With a server


async def test_the_back_off_doubles_until_its_cap(make_runtime: Make, db: redis.Redis, longest: None) -> None:
    @actor(max_retries=5, backoff=100, backoff_cap=timedelta(seconds=450))
    async def flaky() -> None:
        raise ValueError(current_task().attempt)

    async with make_runtime(flaky) as runtime:
        handle = await runtime.send("user:1", flaky())
        other = await runtime.send("user:1", flaky(), backoff=3000, backoff_cap=2000, max_retries=1)
        for attempt, wait in enumerate((100, 200, 400, 450, 450), 2):
            info = await until(partial(comes_again, handle, attempt))
            assert -0.01 <= wait_of(info) - wait < SLACK
            make_due(runtime, db, handle)
        with pytest.raises(TaskFailed, match=r"failed after 6 attempt\(s\): ValueError: 6"):
            await handle.result(timeout=PATIENCE)
        assert -0.01 <= wait_of(await until(partial(comes_again, other))) - 2000 < SLACK
        await check_invariants(runtime)


async def test_what_failed_together_does_not_come_back_together(make_runtime: Make) -> None:
    async with make_runtime(fail) as runtime:
        handles = await runtime.send_many([("user:1", fail().options(max_retries=1, backoff=200))] * 40)
        waits = sorted([wait_of(await until(partial(comes_again, handle))) for handle in handles])
        assert all(-0.01 <= wait < 200 + SLACK for wait in waits)
        assert waits[-1] - waits[0] > 60


@pytest.mark.parametrize("delay", [3600, timedelta(hours=1)])
async def test_a_retry_is_due_when_it_says(make_runtime: Make, delay: Any) -> None:
    @actor(max_retries=1, no_retry_on=Exception, backoff_cap=1)
    async def ask_for_it() -> None:
        raise Retry(delay=delay)

    async with make_runtime(ask_for_it) as runtime:
        info = await until(partial(comes_again, await runtime.send("user:1", ask_for_it())))
        assert -0.01 <= wait_of(info) - 3600 < SLACK


@pytest.mark.parametrize("kind", ["async", "thread", "process"])
async def test_an_attempt_that_does_not_count_keeps_its_number(make_runtime: Make, kind: str, tmp_path: Path) -> None:
    busy = process_actors.busy
    in_thread = actor(name="in thread", max_retries=0)(busy.function)

    @actor(max_retries=0)
    async def in_loop(path: str) -> int:
        return busy.function(path)

    used = {"async": in_loop, "thread": in_thread, "process": busy}[kind]
    async with make_runtime(used) as runtime:
        handle: Handle[int] = await runtime.send("user:1", used(str(tmp_path / "tries")))
        assert await handle.result(timeout=PATIENCE) == 1
        history = (await handle.info()).history
        assert [(line.attempt, line.message, line.uncounted) for line in history] == [(1, "busy", n) for n in (1, 2, 3)]
        await check_invariants(runtime)


async def test_such_attempts_are_bounded_by_expires_and_by_their_number(
    make_runtime: Make, db: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairactor._worker.executor.MOST_UNCOUNTED", 2)

    @actor
    async def busy(delay: float) -> None:
        raise Retry("busy", delay=delay, count=False)

    async with make_runtime(busy) as runtime:
        late = await runtime.send("user:1", busy(3600), expires=60)
        with pytest.raises(TaskFailed, match="busy"):
            await late.result(timeout=PATIENCE)
        endless = await runtime.send("user:1", busy(0))
        with pytest.raises(TaskFailed, match="busy"):
            await endless.result(timeout=PATIENCE)
        assert [line.uncounted for line in (await endless.info()).history] == [1, 2, 0]
        await check_invariants(runtime)
