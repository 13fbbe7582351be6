"""Tests the history: what runtimes send and run, by minutes and by ten minutes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import anyio
import pytest
import redis

from fairactor import Retry, Runtime, TaskFailed, actor
from fairactor._model.history import BOUNDS, KINDS, MOST, SENT, no_series, pack_report, short_name
from fairactor.errors import ConfigurationError
from fairactor.testing import check_invariants
from fairactor.views import Bucket, Histogram
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
HOSTILE = ("\u202egnp.exe", "a\nb\x1b[31m", "0", "\x00", "ü" * 200, "x" * 500)


@actor
async def double(n: int) -> int:
    return 2 * n


@actor(queue="slow")
async def fail(n: int) -> int:
    raise ValueError(n)


@actor(max_retries=1, backoff=0)
async def second_time(n: int) -> int:
    raise ValueError(n)


@actor
def in_a_thread(n: int) -> int:
    return n


async def reported(*runtimes: Runtime) -> None:
    """Makes runtimes report what they have counted."""
    for runtime in runtimes:
        history = runtime._running()._history
        assert history is not None
        await history.report()


def sums(buckets: Sequence[Bucket]) -> tuple[int, int, int, int]:
    """Returns how many tasks were sent, started, finished and failed."""
    whole: Any = [sum(getattr(b, what) for b in buckets) for what in ("sent", "started", "finished", "failed")]
    for histogram in ("wait", "run"):
        assert sum(getattr(b, histogram).total for b in buckets) in (whole[1], 0)
    return tuple(whole)  # type: ignore[return-value]  # there are four


async def sums_by(runtime: Runtime, **which: Any) -> Mapping[str, tuple[int, int, int, int]]:
    return {name: sums(buckets) for name, buckets in (await runtime.history(**which)).series.items()}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("days", [False, True])
async def test_every_task_of_a_fleet_counts_once(make_runtime: Make, shards: int, days: bool) -> None:
    async with make_runtime(workers=0, shards=shards) as sender, make_runtime(double, shards=shards) as one:
        async with make_runtime(fail, second_time, shards=shards):
            await sender.send_many((f"t{n % 3}", double(n)) for n in range(30))
            await one.send("t0", double(1))
            await sender.send_many(("t1", fail(n)) for n in range(4))
            await sender.send("t2", second_time(1))
            for _ in range(2):  # the second one is a duplicate
                await sender.send("t2", double(1).options(key="k", delay=3600))
            await until(lambda: has_ended(sender, 36))
        await reported(sender, one)
        assert await sums_by(sender, days=days) == {"": (37, 37, 31, 5)}
        by_tenant = await sums_by(sender, by="tenant", days=days)
        assert {name: each[1:] for name, each in by_tenant.items()} == {
            "t0": (11, 11, 0), "t1": (14, 10, 4), "t2": (12, 10, 1),
        }  # fmt: skip
        by_actor = await sums_by(one, by="actor", days=days)
        assert by_actor["fail"] == (4, 4, 0, 4)
        assert by_actor["second_time"] == (1, 2, 0, 1)
        assert by_actor["double"][1:] == (31, 31, 0)
        by_queue = await sums_by(one, by="queue", days=days)
        assert by_queue["slow"] == (4, 4, 0, 4)
        assert by_queue["default"][1:] == (33, 31, 1)
        assert await sums_by(one, by="queue", name="slow", days=days) == {"slow": (4, 4, 0, 4)}
        assert await sums_by(one, by="queue", name="none", days=days) == {"none": (0, 0, 0, 0)}
        await check_invariants(sender)


async def has_ended(runtime: Runtime, number: int) -> bool:
    stats = await runtime.stats()
    return stats.finished + stats.failed == number


async def test_the_buckets_have_no_gaps_and_end_now(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send("t", double(1))
        await reported(runtime)
        for days, seconds, number in ((False, 60, 60), (True, 600, 432)):
            (key,) = db.scan_iter(f"*:history:{seconds}:*:all")
            minute = int(key.split(b":")[-2])
            assert abs(minute * seconds - time.time()) < seconds + PATIENCE
            ttl: Any = db.ttl(key)
            assert number * seconds <= ttl <= (number + 3) * seconds, "it is kept while it is read"
            db.rename(key, key.replace(str(minute).encode(), str(minute - number // 2).encode()))
            (buckets,) = (await runtime.history(days=days)).series.values()
            assert len(buckets) == number
            starts = [each.start for each in buckets]
            assert {later - earlier for earlier, later in pairwise(starts)} == {timedelta(seconds=seconds)}
            assert starts[-1] <= datetime.now(UTC) + timedelta(seconds=1)
            (found,) = [each for each in buckets if each.sent]
            assert found.start == datetime.fromtimestamp((minute - number // 2) * seconds, UTC)


async def test_a_report_that_arrives_twice_or_late_counts_once(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        shard = runtime._shards()[0]
        one, two = ({"": no_series()} for _ in range(2))
        one[""][SENT], two[""][SENT] = 1, 10
        packed = [pack_report([each] * len(KINDS)) for each in (one, two)]
        assert await shard.count("r", 1, packed[0])
        assert not await shard.count("r", 1, packed[0])
        assert await shard.count("r", 2, packed[1])
        assert not await shard.count("r", 1, packed[0])
        assert await shard.count("s", 1, packed[0])
        assert await sums_by(runtime) == {"": (12, 0, 0, 0)}


async def test_what_the_server_refuses_is_reported_later(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send("t", double(1))
        damaged = "{fairactor/0}:counted:" + runtime.name
        db.hset(damaged, "a", "b")
        with pytest.raises(Exception, match=r"await runtime\.repair"):
            await reported(runtime)
        await runtime.send("t", double(2))
        with pytest.raises(Exception, match=r"await runtime\.repair"):
            await reported(runtime)
        db.delete(damaged)
        await reported(runtime)
        assert await sums_by(runtime, by="tenant") == {"t": (2, 0, 0, 0)}


async def test_a_runtime_that_is_left_reports_what_it_has_counted(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        async with make_runtime(double) as worker:
            assert await worker.ask("t", double(1), timeout=PATIENCE) == 2
        assert await sums_by(sender) == {"": (1, 1, 1, 0)}


async def test_a_task_that_runs_for_long_counts_as_started_before_it_ends(make_runtime: Make) -> None:
    began, may_end = anyio.Event(), anyio.Event()

    @actor
    async def long() -> None:
        began.set()
        await may_end.wait()

    async with make_runtime(long) as runtime:
        handle = await runtime.send("t", long())
        await began.wait()
        for _ in range(2):
            await reported(runtime)
            assert sum_of(await runtime.history(), "started", "finished") == [1, 0]
        may_end.set()
        await handle.result(timeout=PATIENCE)
        await reported(runtime)
        assert sum_of(await runtime.history(), "started", "finished") == [1, 1]
        (buckets,) = (await runtime.history()).series.values()
        assert sum(each.wait.total for each in buckets) == sum(each.run.total for each in buckets) == 1


def sum_of(history: Any, *which: str) -> list[int]:
    (buckets,) = history.series.values()
    return [sum(getattr(each, what) for each in buckets) for what in which]


async def test_tasks_that_scripts_end_count_as_failed(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as sender:
        (shard,) = sender._shards()
        await shard.join("doomed", lease=60, info={})
        poison = await sender.send("t", double(1))
        await shard.turn("doomed", 1, lease=60, want=1)
        db.zadd("{fairactor/0}:leases", {"doomed": 1})
        async with make_runtime(fail, max_deliveries=1, unknown_ttl=0):
            with pytest.raises(TaskFailed):
                await poison.result(timeout=PATIENCE)
            with pytest.raises(TaskFailed):
                await (await sender.send("t", double(2))).result(timeout=PATIENCE)
        assert (await sums_by(sender, by="actor"))["double"][1:] == (0, 0, 2)


async def test_a_runtime_that_counts_nothing_writes_nothing_and_reads_all(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(double, history=False) as runtime:
        assert await runtime.ask("t", double(1), timeout=PATIENCE) == 2
        assert runtime._running()._history is None
    assert not list(db.scan_iter("*:history:*"))
    async with make_runtime(double) as one, make_runtime(workers=0, history=False) as other:
        assert await other.ask("t", double(1), timeout=PATIENCE) == 2
        await until(lambda: has_ended(one, 2))
        await reported(one)
        assert await sums_by(other) == {"": (0, 1, 1, 0)}


async def test_a_bucket_keeps_the_most_active_names(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as runtime:
        shard = runtime._shards()[0]
        for number in range(1, 6):
            names = [f"{number}.{n}" for n in range(40)] + ["busy"]
            series = {name: no_series() for name in names}
            for name in names:
                series[name][SENT] = 1000 if name == "busy" else number
            everything = {"": no_series()}
            everything[""][SENT] = sum(each[SENT] for each in series.values())
            assert await shard.count("r", number, pack_report([everything, {}, {}, series]))
        by_tenant = await sums_by(runtime, by="tenant")
        assert len(by_tenant) == MOST
        assert next(iter(by_tenant.items())) == ("busy", (5000, 0, 0, 0))
        assert {f"5.{n}" for n in range(40)} < by_tenant.keys(), "what is active now is there"
        assert await sums_by(runtime) == {"": (5000 + 40 * 15, 0, 0, 0)}
        largest = max(len(db.get(key)) for key in db.scan_iter("*:history:*"))  # type: ignore[arg-type]  # synchronous
        assert largest < 200 * MOST


async def test_names_may_be_anything(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        for name in HOSTILE:
            assert await runtime.ask(name, double(1), timeout=PATIENCE) == 2
        await reported(runtime)
        found = await sums_by(runtime, by="tenant")
        assert found == {short_name(name): (1, 1, 1, 0) for name in HOSTILE}
        assert all(len(name.encode()) <= 110 for name in found)
        for name in HOSTILE:
            assert await sums_by(runtime, by="tenant", name=name) == {name: (1, 1, 1, 0)}


async def test_a_damaged_bucket_begins_again(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as runtime:
        for garbage in (
            b"\xff",
            b"\x81\xa1t\x01",
            b"\x81\xa1t\x91\xa1x",
            b"",
            b"\x81\xa1t\xdc\x00\x27" + b"\xa1x" * 39,
        ):
            await runtime.send("t", double(1))
            await reported(runtime)
            for key in db.scan_iter("*:history:*"):
                db.set(key, garbage, keepttl=True)
            assert sum(each[0] for each in (await sums_by(runtime, by="tenant")).values()) == 0
            await runtime.send("t", double(1))
            await reported(runtime)
            assert await sums_by(runtime, by="tenant") == {"t": (1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"by": "color"}, "by='color'"),
        ({"name": "t"}, "needs by="),
        ({"by": "tenant", "name": ""}, "not empty"),
        ({"by": "tenant", "name": 5}, "give a string"),
        ({"days": 3}, "True or False"),
    ],
)
async def test_wrong_arguments_are_refused(make_runtime: Make, wrong: dict[str, Any], message: str) -> None:
    async with make_runtime(workers=0) as runtime:
        with pytest.raises(ConfigurationError, match=message):
            await runtime.history(**wrong)


def test_a_quantile_is_the_upper_bound_of_its_range() -> None:
    histogram = Histogram(BOUNDS, (2, 1, *[0] * (len(BOUNDS) - 2), 1))
    assert [histogram.quantile(share) for share in (0.0, 0.5, 0.75, 1.0)] == [0.001, 0.001, 0.0025, float("inf")]
    assert Histogram(BOUNDS, [0] * (len(BOUNDS) + 1)).quantile(0.5) is None


# Durations


async def test_a_task_says_how_long_it_waited_and_ran(make_runtime: Make, db: redis.Redis) -> None:
    began, may_end = anyio.Event(), anyio.Event()

    @actor
    async def long() -> None:
        began.set()
        await may_end.wait()

    async with make_runtime(workers=0) as sender:
        handle = await sender.send("t", long())
        first = await handle.info()
        second = await handle.info()
        assert first.waited is not None
        assert second.waited is not None
        assert 0 <= first.waited <= second.waited < PATIENCE
        assert first.ran is None
        later = await sender.send("t", double(1).options(delay=3600))
        assert ((await later.info()).waited, (await later.info()).ran) == (None, None)
        async with make_runtime(long):
            await began.wait()
            running = await handle.info()
            assert running.waited is not None
            assert running.ran is not None
            assert second.waited <= running.waited
            may_end.set()
            await handle.result(timeout=PATIENCE)
        ended = await handle.info()
        assert ended.waited is not None
        assert ended.ran is not None
        assert running.waited <= ended.waited + 0.1
        assert running.ran <= ended.ran + 0.1
        await later.cancel()
        assert ((await later.info()).waited, (await later.info()).ran) == (None, None)


async def test_the_wait_of_an_attempt_begins_when_it_is_due(make_runtime: Make) -> None:
    """Neither the attempts before it nor the pauses between them are part of it."""
    seen: list[tuple[float, float]] = []
    attempts: list[int] = []

    class Observer:
        name = "observer"

        def failed(self, task: Any, error: BaseException) -> None:
            seen.append((task.waited, task.seconds))

    @actor(max_retries=1)
    async def fails() -> None:
        attempts.append(1)
        raise Retry(delay=0.2, count=len(attempts) > 1)

    async with make_runtime(fails, plugins=[Observer()]) as runtime:
        handle = await runtime.send("t", fails())
        with pytest.raises(TaskFailed):
            await handle.result(timeout=PATIENCE)
        info = await handle.info()
        (dead,) = [letter async for letter in runtime.dead_letters.find()]
    assert [round(attempt.delay, 3) for attempt in info.history] == [0.2, 0.2, 0.0]
    assert info.started_at is not None
    assert info.waited is not None
    since_sent = (info.started_at - info.enqueued_at).total_seconds()
    assert 0 <= info.waited <= since_sent - 0.399
    assert info.waited == pytest.approx(seen[-1][0], abs=0.01)
    assert info.ran == pytest.approx(seen[-1][1], abs=0.1)
    assert (dead.waited, dead.ran) == (info.waited, info.ran)


@pytest.mark.parametrize("handler", [double, in_a_thread], ids=["coroutine", "thread"])
async def test_durations_are_right_for_each_kind_of_handler(make_runtime: Make, handler: Any) -> None:
    async with make_runtime(handler) as runtime:
        handle = await runtime.send("t", handler(1))
        await handle.result(timeout=PATIENCE)
        info = await handle.info()
    assert info.waited is not None
    assert info.ran is not None
    assert 0 <= info.waited < PATIENCE
    assert 0 <= info.ran < PATIENCE
