"""Tests runs whose previous run has not ended, whose tenant's backlog is full, or whose key is taken."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import redis
from fairactor_scheduling import Schedules, Scheduling, planned_time

from fairactor import Runtime, TaskState, actor, current_task
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until
from tests.support.scheduling.schedules import note, remaining_keys, server_time, wait_for_runs

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


class Gate:
    """An actor whose tasks wait until the test releases them one by one."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.running = self.most = 0
        self._open = anyio.Semaphore(0)

        @actor
        async def wait() -> None:
            self.order.append(current_task().id)
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self._open.acquire()
            finally:
                self.running -= 1

        self.wait = wait

    def let(self, many: int = 1) -> None:
        for _ in range(many):
            self._open.release()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def make(make_runtime: Make, gate: Gate) -> Make:
    return lambda **settings: make_runtime(note, gate.wait, plugins=[Scheduling()], **settings)


async def test_runs_may_overlap(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await schedules.add(0.1, "t", gate.wait(), id="s", budget=3)
        await until(lambda: gate.running == 3)
        gate.let(3)
        await runtime.drain(PATIENCE)


async def test_a_run_is_skipped_while_the_one_before_lives(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await schedules.add(0.1, "t", gate.wait(), id="s", overlap="skip")
        runs = await wait_for_runs(schedules, "t", "s", 4)
        assert [run.outcome for run in runs][-4:] == ["skipped", "skipped", "skipped", "sent"]
        assert {run.task for run in runs} == {gate.order[0]}
        gate.let()
        await until(lambda: len(gate.order) == 2)
        await schedules.remove("t", "s")
        gate.let()
        await runtime.drain(PATIENCE)
        assert gate.most == 1


async def test_runs_queue_up_and_go_one_after_another(make: Make, gate: Gate, db: redis.Redis) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        added = await schedules.add(0.1, "t", gate.wait(), id="s", overlap="queue", budget=5)

        async def waiting() -> bool:
            return (await schedules.get("t", "s")).waiting == 4

        await until(waiting)
        schedule = await schedules.get("t", "s")
        assert (schedule.state, schedule.runs, schedule.next_time, len(gate.order)) == ("active", 5, None, 1)
        for n in range(2, 6):
            gate.let()
            await until(lambda n=n: len(gate.order) == n)  # type: ignore[misc]
        gate.let()
        await runtime.drain(PATIENCE)
        assert gate.most == 1
        assert added.next_time is not None
        assert [planned_time(task) for task in gate.order] == [
            added.next_time + n * dt.timedelta(seconds=0.1) for n in range(5)
        ]
        done = await schedules.get("t", "s")
        assert (done.state, done.waiting) == ("finished", 0)
        assert b"{fairactor/0}:plugin:fairactor_scheduling:behind" not in remaining_keys(db)
        await check_invariants(runtime)


async def end_cancel(runtime: Runtime, gate: Gate) -> None:
    await runtime.handle(gate.order[0], "t").cancel()


async def end_by_purge(runtime: Runtime, gate: Gate) -> None:
    await runtime.tenant("t").purge()


async def end_by_hand(runtime: Runtime, gate: Gate) -> None:
    """Deletes the task's record, so that no notification is sent; the scheduler finds out when it next looks."""
    with redis.Redis.from_url(runtime.settings.url or "") as db:
        (task,) = list(db.scan_iter(match="*:task:schedule:*"))
        db.delete(task)
        db.zadd("{fairactor/0}:plugin:fairactor_scheduling:due", {"1:ts": 1}, xx=True)
        db.publish("{fairactor/0}:events", "pfairactor_scheduling")


@pytest.mark.parametrize("end", [end_cancel, end_by_purge, end_by_hand])
async def test_however_a_run_ends_the_next_one_goes(
    make: Make, make_runtime: Make, gate: Gate, end: Callable[[Runtime, Gate], Any]
) -> None:
    paused = end is not end_cancel
    async with make() as runtime:
        schedules = Schedules(runtime)
        if paused:
            await runtime.tenant("t").pause()
        await schedules.add(0.1, "t", gate.wait(), id="s", overlap="queue", budget=2)

        async def waiting() -> bool:
            return (await schedules.get("t", "s")).waiting == 1 and (paused or bool(gate.order))

        await until(waiting)
        await end(runtime, gate)
        runs = await wait_for_runs(schedules, "t", "s", 2)
        assert [run.outcome for run in runs] == ["sent", "sent"]
        await until(lambda: paused or len(gate.order) == 2)
        gate.let(2)
        if end is end_by_hand:
            await runtime.repair()
        if paused:
            await runtime.tenant("t").resume()
        await runtime.drain(PATIENCE)


async def test_a_run_waits_for_room_in_the_mailbox(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        tenant = runtime.tenant("t")
        await tenant.configure(backlog=2)
        await tenant.pause()
        added = await schedules.add(0.1, "t", note(), id="s", budget=5)

        async def waiting() -> bool:
            return (await schedules.get("t", "s")).waiting == 3

        await until(waiting)
        assert (await tenant.stats()).queued == 2
        await tenant.configure(backlog=None)
        await tenant.resume()
        db.zadd(
            "{fairactor/0}:plugin:fairactor_scheduling:due", {"1:ts": 1}, xx=True
        )  # without this it would look again only later
        db.publish("{fairactor/0}:events", "pfairactor_scheduling")
        runs = await wait_for_runs(schedules, "t", "s", 5)
        assert added.next_time is not None
        assert [run.planned for run in reversed(runs)] == [
            added.next_time + n * dt.timedelta(seconds=0.1) for n in range(5)
        ]
        assert {run.outcome for run in runs} == {"sent"}
        assert (await schedules.get("t", "s")).state == "finished"


async def test_a_run_whose_key_is_taken_is_a_duplicate(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        handle = await runtime.send("t", gate.wait(), key="one")
        await schedules.add(0.1, "t", note().options(key="one"), id="s", budget=2)
        runs = await wait_for_runs(schedules, "t", "s", 2)
        assert [(run.outcome, run.task) for run in runs] == [("duplicate", handle.id)] * 2
        gate.let()
        await handle.result(timeout=PATIENCE)


async def test_a_run_with_replace_changes_the_one_that_waits_or_follows_one_that_has_started(
    make: Make, gate: Gate
) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        handle = await runtime.send("t", gate.wait(), key="one")
        await until(lambda: gate.running == 1)
        await schedules.add(0.1, "t", note().options(key="one", replace=True), id="s", budget=3)
        runs = await wait_for_runs(schedules, "t", "s", 3)
        assert [run.outcome for run in runs] == ["duplicate", "duplicate", "sent"]
        assert len({run.task for run in runs}) == 1
        assert runs[0].task not in {handle.id, None}
        await check_invariants(runtime)
        gate.let()
        await handle.result(timeout=PATIENCE)
        await runtime.drain(PATIENCE)
        await check_invariants(runtime)


async def test_options_of_the_message_hold_for_each_run(make: Make) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await runtime.tenant("t").pause()
        await schedules.add(0.1, "t", note().options(priority="high", max_retries=7, timeout=9), id="s", budget=2)
        runs = await wait_for_runs(schedules, "t", "s", 2)
        for run in runs:
            assert run.task is not None
            info = await runtime.handle(run.task, "t").info()
            assert (info.state, info.priority.name) == (TaskState.QUEUED, "HIGH")
        await runtime.tenant("t").purge()


async def test_what_waits_for_room_is_bounded_and_goes_in_order(make: Make, db: redis.Redis) -> None:
    start = server_time(db) - dt.timedelta(seconds=1500)
    async with make() as runtime:
        schedules = Schedules(runtime)
        tenant = runtime.tenant("t")
        await tenant.configure(backlog=1)
        await tenant.pause()
        await schedules.add(1, "t", note(), id="s", start=start, catch_up="all", catch_up_limit=5000)

        async def waiting() -> bool:
            return (await schedules.get("t", "s")).waiting >= 1000

        await until(waiting)
        await schedules.pause("t", "s")
        schedule = await schedules.get("t", "s")
        assert schedule.waiting < 1600
        assert schedule.last_runs[0].outcome == "skipped"
        await tenant.configure(backlog=None)
        await schedules.resume("t", "s")

        async def sent() -> bool:
            return (await schedules.get("t", "s")).waiting == 0

        await until(sent)
        await schedules.remove("t", "s")
        tasks = [each.decode().rpartition("task:")[2] for each in db.scan_iter(match="*:task:schedule:*", count=1000)]
        order = [each.decode() for each in db.zrange("{fairactor/0}:queue:t", 0, -1)]
        assert set(order) == set(tasks)
        times = [planned_time(task) for task in order]
        assert times[:1000] == sorted(times[:1000])  # type: ignore[type-var]
        assert await tenant.purge() == len(order)
