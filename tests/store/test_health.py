"""`Runtime.health`: what it sees, from which number on that is a problem, and what it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import attrs
import pytest
import redis

from fairactor import Priority, Runtime, actor
from fairactor._store import load as thresholds
from fairactor._store.load import HeldTenant, Load, UnservedTasks
from fairactor._store.runtimes import Pulse, RuntimeInfo, read_pulse
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
META = "{fairactor/0}"


@actor
async def fail() -> None:
    raise ValueError


@actor
async def nothing() -> None: ...


@actor
async def hold() -> None:
    await anyio.sleep_forever()


# What is a problem


QUIET = Load(
    queued=0, started=0, workers=5, oldest_wait=None, oldest_run=None, stuck=(), recent=90.0, recent_finished=0,
    recent_failed=0, held=(), dedicated=False,
)  # fmt: skip


def problems(**changes: Any) -> list[str]:
    return list(attrs.evolve(QUIET, **changes).problems())


def test_failures_of_late() -> None:
    assert problems(recent_failed=200) == ["200 of the 200 tasks that ended in the last 90 s have failed"]
    assert problems(recent_failed=10, recent_finished=10) == [
        "10 of the 20 tasks that ended in the last 90 s have failed"
    ]
    assert not problems(recent_failed=9, recent_finished=11)
    assert not problems(recent_failed=19), "too few to tell"
    assert not problems(recent_failed=200, recent=700.0), "they may have failed long ago"


def test_waiting_while_workers_are_free() -> None:
    waiting = {"queued": 1000, "started": 2}
    assert problems(**waiting, oldest_wait=61.0) == [
        "1000 tasks wait, the first for 61 s, although 3 of 5 workers are free"
    ]
    assert not problems(**waiting, oldest_wait=59.0)
    assert not problems(**waiting, oldest_wait=61.0, dedicated=True), "the free workers may be for other tenants"


def test_waiting_while_a_pool_is_busy_and_another_is_not() -> None:
    waiting = {"queued": 1000, "started": 2, "busy_pool": True}
    assert not problems(**waiting, oldest_wait=61.0), "the free workers may lack the actors of what waits"
    (problem,) = problems(**waiting, oldest_wait=601.0)
    assert problem.startswith("1000 tasks wait, the first for 601 s, and workers that can run them do not keep up")


def test_what_nobody_can_run() -> None:
    unserved = [UnservedTasks("mail", "default", 1, "", "acme", 5.2), UnservedTasks("train", "gpu", 2, "", "t", 99.0)]
    assert problems(unserved=unserved) == [
        (
            "no running process has registered an actor 'train' of version 2 or later and serves the queue 'gpu', and "
            "tasks of tenant 't' have waited 99 s for one: start one, or they fail after unknown_ttl="
        ),
        (
            "no running process has registered an actor 'mail', and tasks of tenant 'acme' have waited 5 s for one: "
            "start one, or they fail after unknown_ttl="
        ),
    ]
    again = UnservedTasks("mail", "default", 1, "", "another", 4.0)  # of another shard
    assert problems(unserved=[again, *unserved]) == problems(unserved=unserved)
    assert len(problems(unserved=[attrs.evolve(again, actor=f"mail {n}") for n in range(20)])) == 10
    (refused,) = problems(unserved=[UnservedTasks("mail", "default", 1, "ab12", "acme", 5.2)])
    assert "an actor 'mail' that takes their arguments, and" in refused


def runtime_with(*, queues: tuple[str, ...] | None, busy: int) -> RuntimeInfo:
    pulse = Pulse(busy, 0, 1.0, 1.0, None)
    return RuntimeInfo("r", "h", 1, 2, ("a",), 10.0, pulse, {"workers": 2}, queues)


def test_a_pool_is_busy_if_all_that_run_the_same_are() -> None:
    busy, free = (runtime_with(queues=("gpu",), busy=many) for many in (2, 1))
    other = runtime_with(queues=None, busy=0)
    assert thresholds._has_busy_pool([busy, other])
    assert not thresholds._has_busy_pool([busy, free, other])
    assert not thresholds._has_busy_pool([busy, busy]), "there is one pool"
    assert not thresholds._has_busy_pool([])


def test_workers_that_do_not_keep_up() -> None:
    waiting = {"queued": 1000, "started": 5}
    (problem,) = problems(**waiting, oldest_wait=601.0)
    assert problem.startswith("1000 tasks wait, the first for 601 s: 5 workers do not keep up")
    assert not problems(**waiting, oldest_wait=599.0)
    (note,) = attrs.evolve(QUIET, **waiting, oldest_wait=0.52).notes()
    assert note == "all 5 workers are busy, and 1000 tasks wait, the first for 0.5 s"


def test_a_pause_that_was_forgotten() -> None:
    forgotten = HeldTenant("p", 100, 3601.0, paused=True)
    assert problems(held=[forgotten]) == [
        "tenant 'p' is paused, and 100 of its tasks wait, the first for 3601 s: resume or purge it"
    ]
    recent = attrs.evolve(forgotten, waited=5.0)
    capped = HeldTenant("c", 7, 9999.0, paused=False)
    assert not problems(held=[recent, capped])
    assert list(attrs.evolve(QUIET, held=[recent, capped, forgotten]).notes()) == [
        "tenant 'p' is paused, and 100 of its tasks wait",
        "tenant 'c' runs as many tasks as its concurrency allows, and 7 of its tasks wait",
    ]


BUSY = Pulse(busy=5, ready=0, oldest_run=60.0, newest_run=30.0, usual_run=0.5)


@pytest.mark.parametrize(
    ("changes", "more", "stuck"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"ready": 1}, False, True),
        ({"busy": 4}, True, False),
        ({"newest_run": 9.0}, True, False),
        ({"usual_run": 3.1}, True, False),
        ({"usual_run": None}, True, False),
        ({"usual_run": None, "newest_run": 601.0}, True, True),
    ],
)
def test_workers_that_are_stuck(changes: dict[str, Any], more: bool, stuck: bool) -> None:
    runtime = RuntimeInfo("r", "host", 1, 5, (), 10.0, attrs.evolve(BUSY, **changes))
    assert any(thresholds._stuck_kinds(runtime, more=more)) is stuck


def test_a_stuck_runtime_is_described_and_is_the_reason_of_the_wait() -> None:
    (problem,) = problems(queued=1000, stuck=[RuntimeInfo("r", "host", 1, 5, (), 10.0, BUSY)], oldest_wait=9999.0)
    assert problem.startswith(
        "r: all 5 workers are busy, and none has taken a task for 30 s (a task usually takes 0.5 s), while 1000 tasks"
    )


@pytest.mark.parametrize(
    "damaged", [None, 5, [], {}, {"busy": "x"}, {"busy": 1, "ready": 1, "oldest": 1, "newest": None}]
)
def test_a_damaged_report_is_none(damaged: object) -> None:
    assert read_pulse(damaged) is None


# What it sees


async def test_it_sees_that_tasks_fail(make_runtime: Make) -> None:
    async with make_runtime(fail, nothing, workers=5) as runtime:
        await runtime.send_many([("u", fail())] * 200)
        await runtime.drain(PATIENCE)
        health = await runtime.health()
        assert not health.ok
        assert any(problem.startswith("200 of the 200 tasks that ended in the last") for problem in health.problems)
        await runtime.send_many([("u", nothing())] * 201)
        await runtime.drain(PATIENCE)
        health = await runtime.health()
        assert health.ok
        assert health.load is not None
        assert (health.load.recent_failed, health.load.recent_finished) == (200, 201)


async def test_failures_are_forgotten_after_two_samples(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(fail, lease=0.3) as runtime:
        await runtime.send_many([("u", fail())] * 30)
        await runtime.drain(PATIENCE)
        for _ in range(2):
            sample = db.hget(META, "sample")
            assert sample is not None
            at, *counts = sample.split()
            db.hset(META, "sample", b" ".join([b"%d" % (int(at) - 60_000), *counts]))  # as if a minute had passed
            await until(lambda at=at: int(db.hget(META, "sample").split()[0]) >= int(at))  # type: ignore[misc, union-attr]
        health = await runtime.health()
        assert health.ok, health.problems
        assert health.load is not None
        assert health.load.recent_failed == 0


async def test_it_sees_stuck_workers(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thresholds, "STUCK", 0.2)
    async with make_runtime(nothing, hold, workers=2, lease=0.3, grace=0.0) as runtime:
        await runtime.send_many([("s", nothing())] * 5)
        await runtime.drain(PATIENCE)
        await runtime.send_many([("s", hold())] * 2)
        await runtime.send_many([("t", nothing())] * 1000)

        async def problems() -> tuple[str, ...]:
            return tuple((await runtime.health()).problems)

        (problem,) = await until(problems)
        assert "all 2 workers are busy, and none has taken a task for" in problem
        assert "(a task usually takes" in problem
        health = await runtime.health()
        assert health.load is not None
        assert health.load.oldest_run is not None
        assert health.load.stuck[0].pulse is not None


async def test_it_sees_how_long_tasks_have_waited(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0, aging=60) as runtime:
        for name, priority in (("a", Priority.NORMAL), ("b", Priority.CRITICAL), ("c", Priority.VERY_LOW)):
            await runtime.send(name, nothing().options(priority=priority))
        await runtime.tenant("grouped").configure(group="g")
        await runtime.send("grouped", nothing())
        for name, seconds in (("a", 10), ("b", 20), ("c", 30), ("grouped", 40)):
            db.zincrby(f"{META}:queue:{name}", -seconds * 1e6, db.zrange(f"{META}:queue:{name}", 0, 0)[0])
            health = await runtime.health()
            assert health.load is not None
            assert health.load.oldest_wait == pytest.approx(seconds, abs=5)


async def test_it_sees_tenants_that_are_held(make_runtime: Make) -> None:
    async with make_runtime(nothing, hold, workers=5, grace=0.0) as runtime:
        await runtime.tenant("paused").pause()
        await runtime.tenant("paused too").pause()
        await runtime.tenant("idle").configure(concurrency=1)
        await runtime.tenant("capped").configure(concurrency=1)
        await runtime.send_many([("paused", nothing())] * 100)
        await runtime.send_many([("capped", hold())] * 3)
        await until(lambda: _started(runtime, "capped"))
        health = await runtime.health()
        assert health.ok
        assert sorted(health.notes) == [
            "tenant 'capped' runs as many tasks as its concurrency allows, and 2 of its tasks wait",
            "tenant 'paused' is paused, and 100 of its tasks wait",
        ]
        await runtime.tenant("capped").purge()
        await runtime.tenant("paused").purge()


async def _started(runtime: Runtime, tenant: str) -> int:
    return (await runtime.tenant(tenant).stats()).started


async def test_it_is_cheap_whatever_waits(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send_many([(f"user:{n % 5000}", nothing()) for n in range(10_000)])
        for n in range(300):
            await runtime.tenant(f"user:{n}").pause()
        taken: list[int] = []
        for _ in range(5):
            db.config_resetstat()
            await runtime.health()
            taken.append(db.info("commandstats")["cmdstat_evalsha"]["usec"])
        assert min(taken) < 5_000, "µs of both scripts; the machine may be busy, so the fastest counts"


async def test_a_damaged_count_is_a_problem_in_the_report(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send("t", nothing())
        db.hset(META, mapping={"sample": "garbage", "sample_before": b"\xff 1"})
        assert (await runtime.health()).load is not None


async def test_a_runtime_reports_how_its_workers_fare(make_runtime: Make) -> None:
    began = time.monotonic()
    async with make_runtime(hold, workers=3, lease=0.3, grace=0.0, shards=4) as runtime:
        await runtime.send_many([(f"user:{n}", hold()) for n in range(2)])

        async def pulse() -> Pulse | None:
            (found,) = (await runtime.stats()).runtimes
            return found.pulse

        found = await until(pulse)
        assert found.busy == 2
        assert 0 <= found.newest_run <= found.oldest_run <= time.monotonic() - began
        for n in range(2):
            await runtime.tenant(f"user:{n}").purge()
