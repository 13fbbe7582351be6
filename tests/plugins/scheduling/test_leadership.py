"""Tests that one runtime at a time sends due runs, at the right moment, even if it or the server fails."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis
from fairactor_scheduling import Schedules, Scheduling, _plugin, schedule

from fairactor import Handle, Runtime, actor
from fairactor.errors import TaskNotFound
from tests.support import servers
from tests.support.polling import until
from tests.support.scheduling.schedules import PREFIX, note, schedule_key, server_time, wait_for_runs

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
LEADER = PREFIX + "leader"
DAY = dt.timedelta(days=1)


@pytest.fixture
def make(make_runtime: Make) -> Make:
    return lambda *more, **settings: make_runtime(note, *more, plugins=[Scheduling()], **settings)


class Calls:
    """Counts the steps that the pollers of each runtime take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: dict[str, int] = {}
        self.waits: list[float] = []
        step = _plugin._Poller._send_due

        async def counting(poller: Any) -> float:
            name = poller._host.name
            self.asked[name] = self.asked.get(name, 0) + 1
            wait = await step(poller)
            self.waits.append(wait)
            return wait

        monkeypatch.setattr(_plugin._Poller, "_send_due", counting)


async def test_where_there_is_no_schedule_nobody_asks_again(make: Make, db: redis.Redis, monkeypatch: Any) -> None:
    calls = Calls(monkeypatch)
    async with make() as runtime, make() as other:
        await until(lambda: len(calls.waits) >= 2)
        assert set(calls.waits) == {_plugin.LONGEST_SLEEP}
        assert not db.exists(LEADER)
        assert calls.asked.keys() == {runtime.name, other.name}
        assert max(calls.asked.values()) <= 2  # one more when the subscription begins


async def test_one_runtime_does_the_work_and_the_others_sleep(make: Make, db: redis.Redis, monkeypatch: Any) -> None:
    calls = Calls(monkeypatch)
    async with make() as runtime, make(), make(), make():
        schedules = Schedules(runtime)
        await schedules.add(0.1, "t", note(), id="s", budget=20)
        await wait_for_runs(schedules, "t", "s", 10)
        await until(lambda: db.hget(schedule_key("t", "s"), "state") == b"finished")
        asked = sorted(calls.asked.values())
        assert asked[-1] >= 40  # two calls a tick: which runs are due, and how long to sleep
        assert all(number <= 6 for number in asked[:-1]), asked


async def test_a_schedule_that_comes_before_all_others_wakes_who_sleeps(make: Make) -> None:
    async with make() as runtime, make() as other:
        schedules = Schedules(runtime)
        await schedules.add("0 9 * * *", "t", note(), id="later")
        await schedules.add(0.1, "t", note(), id="soon")
        (run, *_) = await wait_for_runs(Schedules(other), "t", "soon")
        assert run.at - run.planned < dt.timedelta(seconds=2)


async def test_a_runtime_that_dies_has_a_successor_and_one_that_leaves_says_so(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        async with make():
            await schedules.add("0 9 * * *", "t", note(), id="s")
            await until(lambda: db.exists(LEADER))
        assert db.get(LEADER) in (None, runtime.name.encode())
        await until(lambda: db.get(LEADER) == runtime.name.encode())
        db.set(LEADER, "a runtime that is dead", px=50_000)
        await schedules.add(0.1, "t", note(), id="soon")  # this should wake the leader
        assert db.pttl(LEADER) <= 3_100 or db.get(LEADER) == runtime.name.encode()
        await wait_for_runs(schedules, "t", "soon")
    assert not db.exists(LEADER)


async def test_what_is_due_waits_for_a_server_that_is_away(server: servers.Instance, caplog: Any) -> None:
    with caplog.at_level(logging.CRITICAL):
        async with Runtime(
            server.url, actors=[note], plugins=[Scheduling()], workers=4, lease=1.0, connect_timeout=0.5
        ) as runtime:
            schedules = Schedules(runtime)
            await schedules.add(0.1, "t", note(), id="s")
            await wait_for_runs(schedules, "t", "s")
            server.kill()
            server.start()  # without any data
            await schedules.add(0.1, "t", note(), id="s")
            await wait_for_runs(schedules, "t", "s")


async def test_a_schedule_whose_times_cannot_be_told_here_keeps_no_other_waiting(
    make: Make, db: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await schedules.add("0 9 * * *", "t", note(), id="strange")
        db.hset(schedule_key("t", "strange"), "definition", '{"cron":"0 9 * * *","zone":"Mars/Olympus"}')
        db.zadd(PREFIX + "due", {"1:tstrange": 1})
        db.publish("{fairactor/0}:events", "pfairactor_scheduling")  # the leader may have looked already
        await schedules.add(0.1, "t", note(), id="s")
        await wait_for_runs(schedules, "t", "s")
        await until(lambda: "the times of schedule ('t', 'strange') cannot be computed here" in caplog.text)
        assert 50_000 < db.zscore(PREFIX + "due", "1:tstrange") - server_time(db).timestamp() * 1000 <= 60_000  # type: ignore[operator]
        assert db.hget(schedule_key("t", "strange"), "state") == b"active"


async def test_what_was_deleted_by_hand_is_forgotten(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await schedules.add("0 9 * * *", "t", note(), id="s")
        db.delete(schedule_key("t", "s"))
        db.zadd(PREFIX + "due", {"1:ts": 1})
        db.publish("{fairactor/0}:events", "pfairactor_scheduling")
        await until(lambda: not db.exists(PREFIX + "due", PREFIX + "all"))
        await schedules.add("0 9 * * *", "t", note(), id="broken")
        db.hset(schedule_key("t", "broken"), "planned", "tomorrow")
        db.zadd(PREFIX + "due", {"1:tbroken": 1})
        db.publish("{fairactor/0}:events", "pfairactor_scheduling")
        await schedules.add(0.1, "t", note(), id="s")
        await wait_for_runs(schedules, "t", "s", 2)
        assert db.zrange(PREFIX + "due", 0, -1) == [b"1:ts"]
        assert db.exists(schedule_key("t", "broken"))


async def test_many_that_are_due_at_once_are_sent_in_steps(make: Make, db: redis.Redis) -> None:
    async with make(shards=2) as runtime:
        schedules = Schedules(runtime)
        at = server_time(db) + dt.timedelta(seconds=4)
        tenants = [f"tenant {n}" for n in range(250)]
        await asyncio.gather(*[schedules.add(at, tenant, note(), id="once") for tenant in tenants])
        assert server_time(db) < at
        for tenant in tenants:
            (run,) = await wait_for_runs(schedules, tenant, "once")
            assert run.outcome == "sent"
        await runtime.drain(30)
        assert (await runtime.stats()).finished == 250


async def test_a_server_that_is_full_can_be_drained_and_then_gets_what_is_declared(server_binary: str) -> None:
    @schedule(0.1, tenant="t")
    @actor
    async def keep(text: str = "") -> None: ...

    with servers.running(server_binary) as url, servers.client(url) as db:
        async with Runtime(url, workers=0, plugins=[Scheduling()]) as sender:
            handles = await sender.send_many(("t", keep("x" * 100_000)) for _ in range(30))
            db.config_set("maxmemory", db.info("memory")["used_memory"] - 1_000_000)
            async with Runtime(url, actors=[keep], result_ttl=0, plugins=[Scheduling()]) as runtime:
                for handle in handles:
                    await until(handle_is_gone(handle))
                await until(lambda: db.exists(schedule_key("t", "@keep#0")))
                await wait_for_runs(Schedules(runtime), "t", "@keep#0")


def handle_is_gone(handle: Handle[Any]) -> Callable[[], Any]:
    async def gone() -> bool:
        try:
            await handle.info()
        except TaskNotFound:
            return True
        return False

    return gone
