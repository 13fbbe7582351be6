"""Tests the main job through the public API: send a task, run it, get its result."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import redis

from fairactor import Handle, Priority, Retry, Runtime, TaskCanceled, TaskFailed, TaskState, actor, current_task
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until
from tests.support.servers import script_calls

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


@actor
async def fail() -> None:
    raise ValueError("as told")


async def test_a_sent_task_is_run_and_its_result_comes_back(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        handle = await runtime.send("user:1", double(21))
        assert await handle.result(timeout=10) == 42
        assert await handle.state() is TaskState.FINISHED


async def test_a_failure_comes_back_with_its_error_and_traceback(make_runtime: Make) -> None:
    async with make_runtime(fail) as runtime:
        with pytest.raises(TaskFailed, match="ValueError: as told") as caught:
            await runtime.ask("user:1", fail(), timeout=10)
    assert caught.value.error == "ValueError"
    assert "as told" in caught.value.traceback


async def test_the_handler_knows_its_task(make_runtime: Make) -> None:
    @actor
    async def who() -> tuple[str, str, int]:
        task = current_task()
        return task.id, task.tenant, task.attempt

    async with make_runtime(who) as runtime:
        handle = await runtime.send("a tenant: {with} *odd* 'name' ☃", who())
        assert await handle.result(timeout=10) == (handle.id, "a tenant: {with} *odd* 'name' ☃", 1)


# Sending


@actor
async def note(text: str = "") -> str:
    notes.append(text or current_task().tenant)
    return text


notes: list[str] = []


@pytest.fixture(autouse=True)
def no_notes() -> None:
    notes.clear()


async def test_many_are_sent_at_once_and_their_handles_are_in_order(make_runtime: Make) -> None:
    async with make_runtime(double, workers=50) as runtime:
        handles = await runtime.send_many((f"user:{n % 7}", double(n)) for n in range(1201))
        assert [handle.tenant for handle in handles[:8]] == [f"user:{n % 7}" for n in range(8)]
        assert len({handle.id for handle in handles}) == 1201
        results = await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles))
        assert results == [2 * n for n in range(1201)]
        assert await runtime.send_many([]) == []


async def test_many_are_sent_with_the_options_of_each(make_runtime: Make) -> None:
    async with make_runtime(note, workers=1) as runtime:
        first, second = await runtime.send_many(
            [("a", note().options(delay=3600, id="one")), ("b", note().options(id="two"))]
        )
        await second.result(timeout=PATIENCE)
        assert (await first.state(), first.id) == (TaskState.SCHEDULED, "one")


async def test_concurrent_sends_share_few_script_calls(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send("user:0", double(0))
        before = script_calls(db)
        await asyncio.gather(*(runtime.send(f"user:{n}", double(n)) for n in range(32)))
        assert script_calls(db) - before <= 3
        assert (await runtime.stats()).queued == 33


async def test_a_send_that_is_given_up_leaves_the_others_alone(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        sends = [asyncio.ensure_future(runtime.send("user:1", double(n))) for n in range(10)]
        await anyio.lowlevel.checkpoint()
        sends[3].cancel()
        found = await asyncio.gather(*sends, return_exceptions=True)
        assert [isinstance(each, BaseException) for each in found] == [n == 3 for n in range(10)]
        assert (await runtime.stats()).queued in (9, 10)


async def test_an_id_is_taken_once(make_runtime: Make) -> None:
    async with make_runtime(note) as runtime:
        handles = await asyncio.gather(*(runtime.send("user:1", note(str(n)), id="the id") for n in range(10)))
        results = [await handle.result(timeout=PATIENCE) for handle in handles]
        assert len(set(results)) == 1
        assert await runtime.ask("user:1", note("later"), id="the id", timeout=PATIENCE) == results[0]
        many = await runtime.send_many([("user:1", note("twice").options(id="other"))] * 2)
        assert [await handle.result(timeout=PATIENCE) for handle in many] == ["twice", "twice"]
    assert len(notes) == 2


async def test_asks_with_ids_of_their_own_never_miss_their_task(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        for n in range(100):
            assert await runtime.ask("user:1", double(n), id=f"id {n}", timeout=PATIENCE) == 2 * n


async def test_asks_get_their_results_while_the_listener_is_cut_off(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(double, workers=20) as runtime:
        for n in range(40):
            asked = asyncio.gather(*(runtime.ask(f"user:{m}", double(m), timeout=PATIENCE) for m in range(10)))
            if n % 2:
                await anyio.lowlevel.checkpoint()
            db.client_kill_filter(_type="pubsub")
            assert await asked == [2 * m for m in range(10)]


# When a task runs


async def test_a_delayed_task_waits_for_its_time(make_runtime: Make) -> None:
    async with make_runtime(note) as runtime:
        began = time.monotonic()
        handle = await runtime.send("user:1", note("late"), delay=0.5)
        info = await handle.info()
        assert info.state is TaskState.SCHEDULED
        assert info.due_at is not None
        assert 0 < (info.due_at - datetime.now(UTC)).total_seconds() <= 0.5
        await handle.result(timeout=PATIENCE)
        assert 0.5 <= time.monotonic() - began < 1.5


async def test_an_eta_is_a_moment_in_any_zone_and_one_that_is_past_is_now(make_runtime: Make) -> None:
    east = timezone(timedelta(hours=9))
    async with make_runtime(note) as runtime:
        began = time.monotonic()
        soon = await runtime.send("user:1", note("soon"), eta=datetime.now(east) + timedelta(seconds=0.5))
        past = await runtime.send("user:1", note("past"), eta=datetime(1969, 1, 1, tzinfo=east))
        await past.result(timeout=PATIENCE)
        assert await soon.state() is TaskState.SCHEDULED
        await soon.result(timeout=PATIENCE)
        assert 0.4 <= time.monotonic() - began < 1.5
    assert notes == ["past", "soon"]


async def test_a_sleeping_runtime_wakes_for_an_earlier_time(make_runtime: Make) -> None:
    async with make_runtime(note, lease=60) as runtime, make_runtime(workers=0) as sender:
        await runtime.ask("user:1", note("awake"), timeout=PATIENCE)
        later = await sender.send("user:1", note("late"), delay=100)
        began = time.monotonic()
        await sender.ask("user:1", note("soon"), delay=0.2, timeout=PATIENCE)
        assert time.monotonic() - began < 5, "it did not sleep until its next heartbeat"
        await later.cancel()


async def test_a_task_that_expired_is_not_started(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", note("too late"), expires=0.05)
        fresh = await sender.send("user:1", note("in time"), expires=PATIENCE)
        info = await handle.info()
        await until(lambda: datetime.now(UTC) > info.enqueued_at + timedelta(seconds=0.1))
        async with make_runtime(note):
            with pytest.raises(TaskCanceled, match=r"it expired 0.05 s after it was sent, before it could start"):
                await handle.result(timeout=PATIENCE)
            await fresh.result(timeout=PATIENCE)
    assert notes == ["in time"]


async def test_priorities_order_the_tasks_of_a_tenant(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        names = ["very_low", "normal", "critical", "high", "low", "critical", "very_high", "normal"]
        handles = await sender.send_many(
            ("user:1", note(f"{name} {n}").options(priority=name)) for n, name in enumerate(names)
        )
        assert (await handles[2].info()).priority is Priority.CRITICAL
        async with make_runtime(note, workers=1):
            await sender.drain(timeout=PATIENCE)
    assert notes == ["critical 2", "critical 5", "very_high 6", "high 3", "normal 1", "normal 7", "low 4", "very_low 0"]


# Attempts


async def test_a_timeout_ends_the_attempt_and_the_handler_can_clean_up(make_runtime: Make) -> None:
    @actor(timeout=0.1)
    async def slow() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            notes.append("cleaned")

    async with make_runtime(slow) as runtime:
        with pytest.raises(TaskFailed, match=r"TimeoutError: the attempt took longer than its timeout of 0.1 s"):
            await runtime.ask("user:1", slow(), timeout=PATIENCE)
    assert notes == ["cleaned"]


async def test_a_failed_attempt_is_repeated_as_often_as_was_said(make_runtime: Make) -> None:
    @actor(max_retries=2)
    async def flaky(fail: int) -> int:
        attempt = current_task().attempt
        notes.append(str(attempt))
        if attempt <= fail:
            raise Retry("not yet", delay=0)
        return attempt

    async with make_runtime(flaky) as runtime:
        handle = await runtime.send("user:1", flaky(2))
        assert await handle.result(timeout=PATIENCE) == 3
        assert (await handle.info()).attempt == 3
        with pytest.raises(TaskFailed, match=r"failed after 3 attempt\(s\): .*Retry: not yet"):
            await runtime.ask("user:1", flaky(3), timeout=PATIENCE)
        with pytest.raises(TaskFailed, match=r"failed after 1 attempt\(s\)"):
            await runtime.ask("user:1", flaky(1), max_retries=0, timeout=PATIENCE)
        stats = await runtime.stats()
        assert (stats.finished, stats.failed, stats.scheduled) == (1, 2, 0)
    assert notes == ["1", "2", "3", "1", "2", "3", "1"]


async def test_an_error_is_repeated_after_a_back_off(make_runtime: Make) -> None:
    @actor(max_retries=1)
    async def flaky() -> int:
        if current_task().attempt == 1:
            raise ValueError("once")
        return current_task().attempt

    async with make_runtime(flaky) as runtime:
        assert await runtime.ask("user:1", flaky(), timeout=PATIENCE) == 2


async def test_a_retry_waits_as_long_as_it_says(make_runtime: Make) -> None:
    @actor(max_retries=1)
    async def flaky() -> None:
        if current_task().attempt == 1:
            raise Retry(delay=timedelta(seconds=0.3))

    async with make_runtime(flaky) as runtime:
        began = time.monotonic()
        handle = await runtime.send("user:1", flaky())
        await until(partial(has_state, handle, TaskState.SCHEDULED))
        await handle.result(timeout=PATIENCE)
        assert time.monotonic() - began >= 0.3


async def has_state(handle: Handle[Any], state: TaskState) -> bool:
    return await handle.state() is state


# The runtime as a whole


async def test_drain_waits_for_what_is_queued_running_or_due(make_runtime: Make) -> None:
    begun, release = anyio.Event(), anyio.Event()

    @actor
    async def wait() -> None:
        begun.set()
        await release.wait()

    async with make_runtime(wait, lease=60) as runtime, make_runtime(workers=0, lease=60) as onlooker:
        await onlooker.drain(timeout=PATIENCE)
        later = await runtime.send("user:2", wait(), delay=3600)
        await runtime.send("user:1", wait())
        await begun.wait()
        with pytest.raises(TimeoutError, match=r"still waiting or running after 0.05 s"):
            await onlooker.drain(timeout=0.05)
        drained = [asyncio.ensure_future(r.drain()) for r in (runtime, onlooker, onlooker)]
        await anyio.wait_all_tasks_blocked()
        release.set()
        await asyncio.wait_for(asyncio.gather(*drained), 5)
        await later.cancel()


async def test_stats_count_by_state_and_priority(make_runtime: Make) -> None:
    begun, release = anyio.Event(), anyio.Event()

    @actor
    async def wait(fail: bool = False) -> None:
        begun.set()
        await release.wait()
        if fail:
            raise ValueError

    async with make_runtime(workers=0) as sender:
        for tenant in ("user:1", "user:2"):
            await sender.send_many((tenant, wait().options(priority=p)) for p in ("low", "high", "high"))
            await sender.send(tenant, wait(), delay=3600)
        stats, tenant_stats = await sender.stats(), await sender.tenant("user:1").stats()
        assert (stats.queued, stats.scheduled, stats.pending, stats.started) == (6, 2, 6, 0)
        assert (stats.waiting_tenants, stats.known_tenants) == (2, 2)
        assert (tenant_stats.queued, tenant_stats.scheduled, tenant_stats.started) == (3, 1, 0)
        assert {p: n for p, n in stats.by_priority.items() if n} == {Priority.LOW: 2, Priority.HIGH: 4}
        assert {p: n for p, n in tenant_stats.by_priority.items() if n} == {Priority.LOW: 1, Priority.HIGH: 2}
        failing = await sender.send("user:1", wait(fail=True), priority="critical")
        canceled = await sender.send("user:1", wait())
        await canceled.cancel()
        async with make_runtime(wait, workers=1):
            await begun.wait()
            tenant_stats = await sender.tenant("user:1").stats()
            stats = await sender.stats()
            assert stats.started == 1
            assert sum(t.started for t in [tenant_stats, await sender.tenant("user:2").stats()]) == 1
            release.set()
            await sender.drain(timeout=PATIENCE)
            with pytest.raises(TaskFailed):
                await failing.result(timeout=PATIENCE)
            stats, tenant_stats = await sender.stats(), await sender.tenant("user:1").stats()
            assert (stats.finished, stats.failed, stats.canceled, stats.pending) == (6, 1, 1, 0)
            assert (tenant_stats.finished, tenant_stats.failed, tenant_stats.canceled) == (3, 1, 1)
            assert (await sender.tenant("nobody").stats()).queued == 0
        await check_invariants(sender)


async def test_health_says_whether_somebody_serves(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as runtime:
        health = await runtime.health()
        assert (health.ok, health.problems) == (True, ())
        assert 0 < health.latency < 1
        handle = await runtime.send("user:1", double(1))
        health = await runtime.health()
        assert not health.ok
        assert "1 tasks wait, but no runtime with workers is running" in health.problems[0]
        async with make_runtime(double, without_plugins=True):
            await handle.result(timeout=PATIENCE)
            health = await runtime.health()
            assert health.ok
            assert [(r.pid, r.workers, tuple(r.actors)) for r in health.stats.runtimes] == [
                (os.getpid(), 10, ("double",))
            ]  # type: ignore[union-attr]
            db.zadd("{fairactor/0}:leases", {"a dead one": 5})
            assert any("a dead one has been silent for" in problem for problem in (await runtime.health()).problems)
            db.zrem("{fairactor/0}:leases", "a dead one")


async def test_a_runtime_without_workers_only_sends(make_runtime: Make) -> None:
    async with make_runtime(double, workers=0) as runtime:
        handle = await runtime.send("user:1", double(1))
        with pytest.raises(TimeoutError, match=r"has no outcome after 0\.1 s; the task goes on"):
            await handle.result(timeout=0.1)
        assert await handle.state() is TaskState.QUEUED
        assert (await runtime.stats()).runtimes == ()


async def test_namespaces_are_apart(make_runtime: Make) -> None:
    async with make_runtime(note, namespace="one") as one, make_runtime(workers=0, namespace="two") as two:
        handle = await two.send("user:1", note("in two"), id="the id")
        await one.ask("user:1", note("in one"), id="the id", timeout=PATIENCE)
        assert await handle.state() is TaskState.QUEUED
        assert (await one.stats()).finished == 1
        assert (await two.stats()).finished == 0
    assert notes == ["in one"]


async def test_a_tenant_is_a_shorter_way_to_say_it(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        tenant = runtime.tenant("user:1")
        assert await (await tenant.send(double(1), priority="high")).result(timeout=PATIENCE) == 2
        assert await tenant.ask(double(2), timeout=PATIENCE) == 4
        assert (await tenant.stats()).finished == 2
