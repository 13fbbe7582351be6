"""Tests schedules: adding, changing, reading, pausing and removing them, and their runs."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
import redis
from fairactor_scheduling import ScheduleNotFound, Schedules, Scheduling, planned_time

from fairactor import Runtime, actor, current_task
from fairactor.errors import ConfigurationError, MailboxFull
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until
from tests.support.scheduling.schedules import list_schedules, note, remaining_keys, rewind, server_time, wait_for_runs

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
SECOND, DAY = dt.timedelta(seconds=1), dt.timedelta(days=1)


@pytest.fixture
def make(make_runtime: Make) -> Make:
    return lambda *more, **settings: make_runtime(note, *more, plugins=[Scheduling()], **settings)


async def test_an_interval_runs_again_and_again_until_it_is_removed(make: Make, db: redis.Redis) -> None:
    seen: list[str] = []

    @actor
    async def see() -> None:
        seen.append(current_task().id)

    async with make(see) as runtime:
        schedules = Schedules(runtime)
        added = await schedules.add(0.1, "t", see(), id="s", metadata={"by": "me"})
        assert (added.id, added.tenant, added.state, added.actor) == ("s", "t", "active", "see")
        assert (added.when, added.runs, added.metadata) == (SECOND / 10, 0, {"by": "me"})
        assert added.next_time == added.created_at + SECOND / 10
        await until(lambda: len(seen) >= 5)
        assert [planned_time(task) for task in seen[:5]] == [added.next_time + n * SECOND / 10 for n in range(5)]
        assert await schedules.remove("t", "s")
        assert not await schedules.remove("t", "s")
        await runtime.drain(PATIENCE)
        assert not remaining_keys(db)
        await check_invariants(runtime)


async def test_a_cron_expression_with_seconds_runs_each_second(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await schedules.add("* * * * * *", "t", note(), id="s")
        runs = await wait_for_runs(schedules, "t", "s", 2)
        assert runs[-2].planned - runs[-1].planned == SECOND
        for run in runs:
            assert run.outcome == "sent"
            assert dt.timedelta() <= run.at - run.planned < SECOND
            assert run.task is not None
            assert await runtime.handle(run.task, "t").result(timeout=PATIENCE) == run.task
            assert planned_time(run.task) == run.planned


async def test_a_moment_comes_once_and_is_known_for_a_while(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        at = (server_time(db) + SECOND / 5).astimezone(dt.timezone(dt.timedelta(hours=9)))
        added = await schedules.add(at, "t", note(), id="s", kept=1)
        assert added.next_time == added.when == at.replace(microsecond=at.microsecond // 1000 * 1000)
        await wait_for_runs(schedules, "t", "s")
        done = await schedules.get("t", "s")
        assert (done.state, done.next_time, done.runs) == ("finished", None, 1)
        assert await schedules.next_times("t", "s") == ()
        assert (await schedules.add(at, "t", note(), id="s", kept=1)).state == "finished"
        for change in (schedules.pause, schedules.resume):
            with pytest.raises(ConfigurationError, match="has finished"):
                await change("t", "s")
        await until(lambda: not remaining_keys(db))
        with pytest.raises(ScheduleNotFound, match="has no schedule 's'"):
            await schedules.get("t", "s")


async def test_a_budget_and_an_end_are_the_end_of_it(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await schedules.add(0.1, "t", note(), id="three", budget=3)
        await schedules.add(0.1, "t", note(), id="until", end=server_time(db) + 0.35 * SECOND)

        async def over() -> bool:
            return all(each.state == "finished" for each in await list_schedules(schedules))

        await until(over)
        assert [each.runs for each in await list_schedules(schedules)] == [3, 3]
        assert [run.outcome for run in await schedules.last_runs("t", "three")] == ["sent"] * 3
        with pytest.raises(ConfigurationError, match="has sent 3 runs, so with budget=2 it would never run again"):
            await schedules.update("t", "three", budget=2)
        assert (await schedules.update("t", "three", budget=5)).state == "active"
        await wait_for_runs(schedules, "t", "three", 5)
        await until(over)


async def test_the_same_definition_changes_nothing_and_another_one_keeps_what_was_done(make: Make) -> None:
    async with make() as runtime, make() as other:
        schedules = Schedules(runtime)
        results = await asyncio.gather(
            *(Schedules(each).add(0.1, "t", note("a"), id="s") for each in (runtime, other) * 5)
        )
        assert len({each.created_at for each in results}) == 1
        await wait_for_runs(schedules, "t", "s", 2)
        before = await schedules.get("t", "s")
        again = await schedules.add(0.1, "t", note("a"), id="s")
        assert again.created_at == before.created_at
        assert again.runs >= before.runs >= 2
        changed = await schedules.add("0 9 * * *", "t", note("b"), id="s", timezone="Europe/Berlin")
        assert changed.created_at == before.created_at
        assert changed.runs >= again.runs
        assert (changed.when, changed.timezone) == ("0 9 * * *", "Europe/Berlin")
        assert len(changed.last_runs) >= 2
        await schedules.pause("t", "s")
        paused = await schedules.add("0 10 * * *", "t", note("b"), id="s")
        assert (paused.state, paused.when, paused.timezone) == ("paused", "0 10 * * *", "UTC")


async def test_an_update_changes_what_it_names(make: Make) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        added = await schedules.add(
            3600, "t", note(1), id="s", jitter=5, metadata={"n": 1}, budget=7, overlap="queue", catch_up="all"
        )
        longer = await schedules.update("t", "s", metadata={"n": 2}, budget=8)
        assert (longer.metadata, longer.budget, longer.jitter, longer.overlap) == ({"n": 2}, 8, 5.0, "queue")
        assert longer.next_time == added.next_time
        moved = await schedules.update("t", "s", when="30 4 * * *", message=note(2))
        assert (moved.when, moved.catch_up, moved.metadata) == ("30 4 * * *", "all", {"n": 2})
        assert moved.next_time.strftime("%H:%M") == "04:30"
        with pytest.raises(ScheduleNotFound):
            await schedules.update("t", "other", budget=3)
        with pytest.raises(ConfigurationError, match="takes no cron=; there are budget, "):
            await schedules.update("t", "s", cron="* * * * *")  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError, match="out of range"):
            await schedules.update("t", "s", when="99 * * * *")
        assert (await schedules.get("t", "s")).when == "30 4 * * *"


async def test_a_time_that_is_due_is_not_lost_by_an_update(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await schedules.add("0 9 * * *", "t", note(), id="s", catch_up="once")
        await schedules.pause("t", "s")
        due = await rewind(db, runtime, "t", "s", DAY)
        await schedules.pause("t", "s")
        await schedules.update("t", "s", metadata={"x": 1})
        await schedules.resume("t", "s")
        (run,) = await wait_for_runs(schedules, "t", "s")
        assert (run.outcome, run.planned) == ("sent", due)


async def test_names_of_all_kinds_are_kept_apart_and_listed_in_pages(make: Make) -> None:
    names = ["a", "1:a", "a:1", "b", "{a}", "*", "[", "(a", "a\x00b", "Ünïcode ✓", "🦆", "'", '"\\', "x" * 512]
    async with make(shards=4) as runtime:
        schedules = Schedules(runtime)
        pairs = [(tenant, schedule) for tenant in names for schedule in names]
        await asyncio.gather(
            *(schedules.add("0 9 * * *", *pair[:1], note(), id=pair[1], metadata={"is": pair}) for pair in pairs)
        )
        found = await list_schedules(schedules)
        assert sorted((each.tenant, each.id) for each in found) == sorted(pairs)
        assert all(each.metadata == {"is": [each.tenant, each.id]} for each in found)
        for tenant in names:
            listed = [each.id for each in await list_schedules(schedules, tenant)]
            assert listed == sorted(names, key=str.encode)
        many = await asyncio.gather(*(schedules.add("0 9 * * *", "many", note(), id=f"{n:03}") for n in range(210)))
        assert [each.id for each in await list_schedules(schedules, "many")] == [each.id for each in many]
        for tenant, schedule in pairs:
            assert await schedules.remove(tenant, schedule)
        assert len(await list_schedules(schedules)) == 210


async def test_a_run_now_is_beside_all_others(make: Make) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await schedules.add("0 9 * * *", "t", note(), id="s", budget=3)
        handle = await schedules.run_now("t", "s")
        assert await handle.result(timeout=PATIENCE) == handle.id
        assert planned_time(handle.id) is None
        await schedules.pause("t", "s")
        second = await schedules.run_now("t", "s")
        assert [run.task for run in await schedules.last_runs("t", "s")] == [second.id, handle.id]
        assert (await schedules.get("t", "s")).runs == 0
        await runtime.tenant("t").pause()
        await runtime.tenant("t").configure(backlog=1)
        await runtime.send("t", note())
        with pytest.raises(MailboxFull):
            await schedules.run_now("t", "s")
        with pytest.raises(ScheduleNotFound):
            await schedules.run_now("t", "other")


async def test_the_next_times_are_told_in_the_zone_of_the_schedule(make: Make) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        start = dt.datetime(2030, 3, 29, tzinfo=dt.UTC)
        await schedules.add("30 2 * * *", "t", note(), id="s", timezone="Europe/Berlin", start=start, jitter=60)
        times = await schedules.next_times("t", "s", 4)
        assert [time.isoformat() for time in times] == [
            "2030-03-29T02:30:00+01:00", "2030-03-30T02:30:00+01:00", "2030-03-31T03:00:00+02:00",
            "2030-04-01T02:30:00+02:00",
        ]  # fmt: skip
        await schedules.update("t", "s", budget=3)
        assert await schedules.next_times("t", "s", 9) == times[:3]
        await schedules.update("t", "s", end=times[1])
        assert await schedules.next_times("t", "s", 9) == times[:2]
        for wrong in (0, -1, True, 1.5, 10**9):
            with pytest.raises(ConfigurationError, match=r"n=.*: give a whole number from 1 to 1000"):
                await schedules.next_times("t", "s", wrong)  # type: ignore[arg-type]


async def test_a_paused_schedule_sends_nothing_and_goes_on(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await schedules.add(0.1, "t", note(), id="s")
        await wait_for_runs(schedules, "t", "s")
        await schedules.pause("t", "s")
        runs = (await schedules.get("t", "s")).runs
        await schedules.add(0.1, "t", note(), id="other")
        await wait_for_runs(schedules, "t", "other", 3)
        paused = await schedules.get("t", "s")
        assert (paused.state, paused.runs) == ("paused", runs)
        await schedules.pause("t", "s")
        for _ in range(2):
            await schedules.resume("t", "s")
        await wait_for_runs(schedules, "t", "s", min(runs + 2, 10))
        for change in (schedules.pause, schedules.resume):
            with pytest.raises(ScheduleNotFound):
                await change("t", "nothing")


OUTCOMES: dict[str, list[tuple[str, int]]] = {  # each with its number of days after the first missed time
    "skip": [("missed", 0)],
    "once": [("sent", 2), ("missed", 0)],
    "all": [("sent", 2), ("sent", 1), ("sent", 0)],
}


@pytest.mark.parametrize("catch_up", OUTCOMES)
async def test_what_was_missed_while_everything_was_down(make: Make, db: redis.Redis, catch_up: Any) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        in_half_a_day = server_time(db) + DAY / 2
        added = await schedules.add(f"{in_half_a_day:%M %H} * * *", "t", note(), id="s", catch_up=catch_up)
        first = await rewind(db, runtime, "t", "s", 3 * DAY)
        runs = await wait_for_runs(schedules, "t", "s", len(OUTCOMES[catch_up]))
        days = [(run.outcome, round((run.planned - first) / DAY)) for run in runs]
        assert days == OUTCOMES[catch_up]
        assert (await schedules.get("t", "s")).next_time == added.next_time


async def test_a_removed_schedule_leaves_its_tasks_and_a_purged_tenant_its_schedules(make: Make) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await runtime.tenant("t").pause()
        await schedules.add(0.1, "t", note(), id="s")
        runs = await wait_for_runs(schedules, "t", "s", 2)
        await schedules.remove("t", "s")
        assert (await runtime.tenant("t").stats()).queued >= 2
        await schedules.add(0.1, "t", note(), id="s")
        await runtime.tenant("t").purge()
        await wait_for_runs(schedules, "t", "s", 2)
        assert runs[0].task != (await schedules.last_runs("t", "s"))[0].task
        await check_invariants(runtime)


def test_a_run_tells_its_time_by_its_id() -> None:
    assert planned_time("schedule:abc:1500") == dt.datetime.fromtimestamp(1.5, dt.UTC)
    for other in ("schedule:now:abc", "schedule:abc", "a", "", "schedule:abc:", "schedule:a:²", "x:a:5"):
        assert planned_time(other) is None
