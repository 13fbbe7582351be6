"""Tests that many schedulers with wrong clocks, killed at random, run each time of a schedule exactly once."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
import redis
from fairactor_dependencies import Dependencies
from fairactor_scheduling import Schedules, Scheduling, planned_time

from fairactor import Runtime, actor, current_task
from fairactor.testing import check_invariants
from tests.support.polling import until
from tests.support.scheduling.scheduler_process import SchedulerProcess
from tests.support.scheduling.schedules import server_time

pytestmark = [pytest.mark.anyio, pytest.mark.long]
Make = Callable[..., Runtime]
SKEWS = [0, 3600, -3600, 86400, -86400, 40, -40, 1e8]
HOUR, TICK = dt.timedelta(hours=1), dt.timedelta(seconds=1)


class Crew:
    """Eight scheduler processes; each killed one is replaced."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._random = random.Random(7)
        self.members = [SchedulerProcess(url, skew) for skew in SKEWS]
        self.killed = 0

    async def ready(self) -> None:
        for each in self.members:
            await each.ready()

    async def kill(self) -> None:
        """Kills one process and starts another, which may be killed before it is ready."""
        await anyio.sleep(self._random.uniform(0, 0.05))  # the random moment is the point of the test
        number = self._random.randrange(len(self.members))
        self.members[number].kill()
        self.members[number] = SchedulerProcess(self._url, SKEWS[number])
        self.killed += 1

    def end(self) -> list[str]:
        return [each.kill() for each in self.members]


@pytest.fixture
def crew(url: str, nothing_left_behind: None) -> Iterator[Crew]:
    made = Crew(url)
    try:
        yield made
    finally:
        made.end()


class Ticks:
    """Counts runs by tenant and planned time."""

    def __init__(self, name: str = "tick") -> None:
        self.seen: Counter[tuple[str, dt.datetime]] = Counter()

        @actor(name=name, result_ttl=0)
        async def tick() -> None:
            task = current_task()
            planned = planned_time(task.id)
            assert planned is not None
            self.seen[task.tenant, planned] += 1

        self.tick: Any = tick


async def run_virtual_seconds(
    seconds: int, runtime: Runtime, ticks: Ticks, crew: Crew, start: dt.datetime, tenants: list[str]
) -> None:
    schedules = Schedules(runtime)
    await crew.ready()
    for n, tenant in enumerate(tenants):
        when: Any = 1 if n % 2 else "* * * * * *"
        await schedules.add(
            when,
            tenant,
            ticks.tick(),
            id="s",
            start=start,
            end=start + (seconds - 1) * TICK,
            catch_up="all",
            catch_up_limit=9999,
        )
    while not all([each.state == "finished" async for each in schedules.list()]):
        await crew.kill()
    assert [each.runs async for each in schedules.list()] == [seconds] * len(tenants)
    await runtime.drain(60)
    assert ticks.seen == Counter((tenant, start + n * TICK) for tenant in tenants for n in range(seconds))


async def test_virtual_minutes_of_ticks_are_run_by_eight_schedulers_that_are_killed(
    make_runtime: Make, crew: Crew, db: redis.Redis
) -> None:
    ticks = Ticks()
    async with (
        make_runtime(ticks.tick, without_plugins=True) as runtime,
        make_runtime(ticks.tick, workers=0, plugins=[Scheduling()]) as adding,
    ):
        start = server_time(db).replace(microsecond=0) - 2 * HOUR
        await run_virtual_seconds(1000, adding, ticks, crew, start, ["a", "b"])
        await check_invariants(runtime)
    assert crew.killed > 3


async def test_each_run_of_a_graph_is_sent_once_and_as_a_whole_while_schedulers_are_killed(
    make_runtime: Make, crew: Crew, db: redis.Redis
) -> None:
    first, second = Ticks("first"), Ticks("second")
    plugins = [Dependencies(), Scheduling()]
    async with make_runtime(first.tick, second.tick, plugins=plugins) as runtime:
        await crew.ready()
        start, schedules = server_time(db).replace(microsecond=0) - HOUR, Schedules(runtime)
        graph = first.tick() >> second.tick()
        await schedules.add(
            1, "t", graph, id="s", start=start, end=start + 599 * TICK, catch_up="all", catch_up_limit=999
        )
        while (await schedules.get("t", "s")).state != "finished":
            await crew.kill()
        await runtime.drain(60)
        assert first.seen == second.seen == Counter(("t", start + n * TICK) for n in range(600))
        await check_invariants(runtime)
    assert crew.killed > 3


@pytest.mark.slow
async def test_many_virtual_hours_are_run_by_schedulers_that_are_killed(
    make_runtime: Make, crew: Crew, db: redis.Redis
) -> None:
    ticks = Ticks()
    async with (
        make_runtime(ticks.tick, without_plugins=True) as runtime,
        make_runtime(ticks.tick, workers=0, plugins=[Scheduling()]) as adding,
    ):
        start = server_time(db).replace(microsecond=0) - 2 * HOUR
        await run_virtual_seconds(3600, adding, ticks, crew, start, [f"tenant {n}" for n in range(16)])
        await check_invariants(runtime)
    assert crew.killed > 20


async def test_ten_ticks_a_second_are_sent_in_time_while_schedulers_are_killed(
    make_runtime: Make, crew: Crew, db: redis.Redis
) -> None:
    ticks = Ticks()
    async with (
        make_runtime(ticks.tick, without_plugins=True) as runtime,
        make_runtime(ticks.tick, workers=0, plugins=[Scheduling()]) as adding,
    ):
        await crew.ready()
        schedules = Schedules(adding)
        added = await schedules.add(0.1, "t", ticks.tick(), id="s", budget=30, catch_up="all")
        while (await schedules.get("t", "s")).state != "finished":
            await crew.kill()
        await until(lambda: ticks.seen.total() == 30)
        assert added.next_time is not None
        assert ticks.seen == Counter(("t", added.next_time + n * dt.timedelta(seconds=0.1)) for n in range(30))
        assert all(run.at >= run.planned for run in await schedules.last_runs("t", "s"))
        await runtime.drain(60)
    assert crew.killed > 3
