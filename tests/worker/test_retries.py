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
async def test_filters_hold_wherever_the_handler_runs(make_runtime: Make, kind: str) -> None:
    def in_thread(how: str) -> None:
        raise Retry(delay=0) if how == "retry" else ValueError(how)

    async def in_loop(how: str) -> None:
        in_thread(how)

    made: Any = {"async": actor(in_loop), "thread": actor(in_thread), "process": service.crunch_and_fail}[kind]
    again: dict[str, Any] = {"max_retries": 1, "backoff": 0}
    async with make_runtime(made) as runtime:
        for how, options, attempts in [
            ("value", {}, 2),
            ("value", {"retry_on": (KeyError, ArithmeticError)}, 1),
            ("value", {"retry_on": [KeyError, Exception]}, 2),
            ("value", {"no_retry_on": ValueError}, 1),
            ("value", {"retry_on": ValueError, "no_retry_on": {UnicodeError}}, 2),
            ("retry", {"retry_on": KeyError, "no_retry_on": Exception}, 2),
        ]:
            with pytest.raises(TaskFailed, match=rf"failed after {attempts} attempt\(s\)"):
                await runtime.ask("user:1", made(how), timeout=PATIENCE, **again | options)


async def test_filters_know_errors_that_are_not_carried_from_a_process_as_they_are(make_runtime: Make) -> None:
    filters: dict[str, Any] = {"max_retries": 1, "backoff": 0, "retry_on": service.NotCarried}
    async with make_runtime(service.crunch_and_fail) as runtime:
        with pytest.raises(TaskFailed, match=r"failed after 2 attempt\(s\)"):
            await runtime.ask("user:1", service.crunch_and_fail("custom"), timeout=PATIENCE, **filters)


async def test_a_retry_keeps_the_place_that_the_task_had(make_runtime: Make) -> None:
    order: list[str] = []

    @actor(max_retries=1)
    async def run(name: str) -> None:
        order.append(name)
        if name == "old" and current_task().attempt == 1:
            raise Retry(delay=0.001)

    async with make_runtime(workers=0) as sender:
        old = await sender.send("user:1", run("old"))
        async with make_runtime(run, workers=1) as runtime:
            runtime._engine.consumer._dispatchers[0]._maintain = anyio.lowlevel.checkpoint  # type: ignore[union-attr, method-assign]
            await until(partial(comes_again, old))
        await sender.send_many(("user:1", run(f"young {n}")) for n in range(3))
        (shard,) = sender._shards()

        async def is_queued() -> bool:
            await shard.maintain(deliveries=5, failed_ttl=1, body=b"{}")
            return await old.state() is TaskState.QUEUED

        await until(is_queued)
        async with make_runtime(run, workers=1) as runtime:
            await runtime.drain(timeout=PATIENCE)
    assert order == ["old", "old", "young 0", "young 1", "young 2"]


async def test_an_attempt_that_would_come_too_late_is_not_made(make_runtime: Make, db: redis.Redis) -> None:
    @actor(max_retries=5, expires=100)
    async def flaky(delay: float) -> None:
        raise Retry(f"in {delay} s", delay=delay)

    async with make_runtime(workers=0) as sender:
        late, later, in_time = await sender.send_many([("user:1", flaky(delay)) for delay in (101, 50, 20)])
        make_older(db, later, 60)
        make_older(db, in_time, 60)
        async with make_runtime(flaky) as runtime:
            for handle, delay in ((late, 101.0), (later, 50.0)):
                with pytest.raises(TaskFailed, match=rf"failed after 1 attempt\(s\): .*Retry: in {delay} s"):
                    await handle.result(timeout=PATIENCE)
                assert [attempt.message for attempt in (await handle.info()).history] == [f"in {delay} s"]
            assert await until(partial(comes_again, in_time))
            make_older(db, in_time, 60)  # as if it waited in its mailbox for longer than expected
            make_due(runtime, db, in_time)
            with pytest.raises((TaskFailed, TaskCanceled)):
                await in_time.result(timeout=PATIENCE)
            assert [attempt.attempt for attempt in (await in_time.info()).history] == [1], "it was not made"


# History


async def test_the_history_tells_of_every_attempt_that_did_not_end_well(make_runtime: Make, db: redis.Redis) -> None:
    seen = []

    @actor(max_retries=2, backoff=0)
    async def flaky(last: str, wait: float = 0) -> str:
        attempt = current_task().attempt
        seen.append(attempt)
        if attempt == 2 and wait:
            raise Retry("later", delay=wait)
        if attempt < 3 or last == "fails":
            raise service.NotCarried(attempt, "x" * 600)
        return last

    began = db.time()[0]
    async with make_runtime(flaky) as runtime:
        finished, failed, waiting = await runtime.send_many(
            [("user:1", flaky("ends well")), ("user:1", flaky("fails")), ("user:1", flaky("waits", wait=3600))]
        )
        assert await finished.result(timeout=PATIENCE) == "ends well"
        with pytest.raises(TaskFailed):
            await failed.result(timeout=PATIENCE)
        assert await until(partial(comes_again, waiting, 3))
        (here,) = (await runtime.stats()).runtimes
        infos = [await handle.info() for handle in (finished, failed, waiting)]
    ended = db.time()[0] + 1
    assert sorted(seen) == [1, 1, 1, 2, 2, 2, 3, 3]
    assert [[attempt.attempt for attempt in info.history] for info in infos] == [[1, 2], [1, 2, 3], [1, 2]]
    assert [info.attempt for info in infos] == [3, 3, 3]
    for info in infos:
        times = [time for a in info.history for time in (a.started_at, a.started_at + a.seconds)]
        assert times == sorted(times)
        assert began - 1 <= times[0] <= times[-1] <= ended + 1
        assert {attempt.runtime for attempt in info.history} == {here.name}
        first = info.history[0]
        assert (first.error, first.message[:10], len(first.message)) == (
            "tests.support.service.NotCarried",
            "x" * 10,
            500,
        )
    error, last = infos[1].error, infos[1].history[-1]
    assert error is not None
    assert (error.type, error.message[:500]) == (last.error, last.message)
    assert (infos[2].history[1].error, infos[2].history[1].message) == ("fairactor.Retry", "later")


async def test_the_history_holds_the_last_twenty_attempts(make_runtime: Make) -> None:
    seen = []

    @actor(max_retries=24, backoff=0)
    async def flaky() -> None:
        seen.append(current_task().attempt)
        raise ValueError(str(current_task().attempt))

    async with make_runtime(flaky) as runtime:
        handle = await runtime.send("user:1", flaky())
        with pytest.raises(TaskFailed, match=r"failed after 25 attempt\(s\)"):
            await handle.result(timeout=PATIENCE)
        history = (await handle.info()).history
    assert seen == list(range(1, 26))
    assert [(attempt.attempt, attempt.message) for attempt in history] == [(n, str(n)) for n in range(6, 26)]


async def test_the_history_holds_the_last_twenty_deaths(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as sender:
        (shard,) = sender._shards()
        handle = await sender.send("user:1", fail())
        for n in range(25):
            await shard.join(f"doomed {n}", lease=60, info={})
            assert (await shard.turn(f"doomed {n}", 1, lease=60, want=1)).claims
            db.zadd(LEASES, {f"doomed {n}": 1_000})
            await shard.maintain(deliveries=100, failed_ttl=60, body=b"{}")
        died = [f"doomed {n}" for n in range(5, 25)]
        assert [attempt.runtime for attempt in (await handle.info()).history] == died


async def test_the_history_tells_of_a_killed_process(make_runtime: Make, processes: Fleet, db: redis.Redis) -> None:
    (victim,) = await processes.start(lease=0.5)
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", service.hold())
        await pushed(db, "runs")
        (dead,) = (await sender.stats()).runtimes
        victim.signal(signal.SIGKILL)
        (heir,) = await processes.start(lease=0.5)
        await pushed(db, "runs")
        for state in (TaskState.STARTED, TaskState.FINISHED):
            info = await handle.info()
            assert (info.state, info.attempt) == (state, 1), "a death is no attempt of the handler's"
            (death,) = info.history
            assert (death.attempt, death.runtime, death.error) == (1, dead.name, "WorkerDied")
            assert abs(death.started_at - db.time()[0]) < PATIENCE
            db.rpush("gate", 1)
            assert await handle.result(timeout=PATIENCE) == heir.pid
    await processes.stop()


# Attempts that do not count


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
