"""Rates: no interval has more starts than they allow, and throttled tenants return by the passing of time alone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from fairactor import Runtime, actor
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until
from tests.support.shard.selection import SelectionDriver, open_selection

Make = Callable[..., Runtime]
ASLEEP = 60.0
"""A lease whose heartbeats are 20 s apart: whatever starts sooner was not found by polling."""
SOON = 10.0
IDLE, IDLE_HOMES, RATES = "{fairactor/0}:idle", "{fairactor/0}:idle-homes", "{test/0}:rates"


@pytest.fixture
def shard(url: str) -> Iterator[SelectionDriver]:
    with open_selection(url) as made:
        yield made


@actor
async def stamp() -> float:
    return time.monotonic()


def conforms(times: list[float], burst: int, per_second: float) -> bool:
    """Whether no interval has more starts than the burst plus what the rate allows."""
    return all(
        later - first + 1 <= burst + per_second * (times[later] - times[first]) + 1e-6
        for first in range(len(times))
        for later in range(first, len(times))
    )


# Limits at turns


@pytest.mark.parametrize(
    ("rate", "burst", "expected_burst", "per_second"),
    [("40/s", 1, 1, 40), ("40/s", 7, 7, 40), ("200/s", None, 20, 200), ("6000/min", None, 10, 100), ("3/h", 2, 2, 0)],
)
def test_no_stretch_of_time_has_more_starts_than_burst_and_rate(
    shard: SelectionDriver, rate: str, burst: int | None, expected_burst: int, per_second: float
) -> None:
    shard.join("s")
    shard.configure("t", rate=rate, **({"burst": burst} if burst else {}))
    shard.send(t=300)
    interval = 1e6 / per_second if per_second else 3600e6
    times: list[float] = []
    due = 0.0  # the due time of the next start at an even rate
    for n, want in enumerate([1, 5, 30] * 100):
        claimed = shard.turn(want, "rs"[n % 2])
        now = shard.last.now * 1e6
        least, most = (_ready(due, at, interval, expected_burst) for at in (now - 1000, now + 1))
        assert min(want, least) <= len(claimed) <= most, "nor is it held back for more than a millisecond"
        if claimed:
            due = max(due, now) + interval * len(claimed)
        times += [shard.last.now] * len(claimed)
    assert conforms(times, expected_burst, per_second)
    shard.driver.check()


def _ready(due: float, now: float, interval: float, burst: int) -> int:
    """Returns how many tasks could start."""
    return burst if due <= now else max(0, math.floor((now - due) / interval + burst))


def test_one_that_was_below_its_rate_has_its_burst_again(shard: SelectionDriver) -> None:
    shard.configure("t", rate="100/s", burst=4)
    shard.send(t=8)
    assert len(shard.turn(20)) == 4
    time.sleep(0.06)  # enough for 4 tasks at 100/s
    assert len(shard.turn(20)) == 4


def test_a_turn_says_when_a_rate_gives_way(shard: SelectionDriver) -> None:
    shard.configure("t", rate="1/min")
    shard.send(t=2)
    assert shard.claim(5) == ["t"]
    assert 50 < shard.last.wait < 60.1
    assert shard.driver.check().fixed["THROTTLED"].keys() == {"t"}


def test_others_go_on_while_one_is_held_back(shard: SelectionDriver) -> None:
    shard.configure("slow", rate="1/min", burst=2)
    shard.send(slow=20, free=20)
    assert shard.serve(10, 2) == {"slow": 2, "free": 18}


def test_of_two_that_are_held_back_each_has_its_rate(shard: SelectionDriver) -> None:
    shard.configure("a", rate="50/s", burst=1)
    shard.configure("b", rate="100/s", burst=2)
    shard.send(a=200, b=200)
    found: dict[str, list[float]] = {"a": [], "b": []}
    began = time.monotonic()
    while time.monotonic() < began + 0.4:
        for tenant in shard.turn(7):
            found[tenant].append(shard.last.now)
    assert conforms(found["a"], 1, 50)
    assert conforms(found["b"], 2, 100)
    assert len(found["b"]) > len(found["a"])


def test_a_rate_and_a_concurrency_hold_together(shard: SelectionDriver) -> None:
    shard.configure("t", rate="100/s", burst=5, concurrency=2)
    shard.send(t=100)
    assert shard.claim(10) == ["t", "t"]
    found = [shard.last.now] * 2
    assert shard.claim(10) == []
    assert shard.driver.check().fixed["THROTTLED"] == {}, "its concurrency holds it back, and no time will change that"
    began = time.monotonic()
    while time.monotonic() < began + 0.3:
        claimed = shard.turn(10)
        assert len(claimed) <= 2
        found += [shard.last.now] * len(claimed)
        shard.driver.check()
    assert conforms(found, 5, 100)


def test_the_more_urgent_goes_first_when_a_rate_gives_way(shard: SelectionDriver) -> None:
    shard.configure("t", rate="50/s", burst=1)
    (first, second) = shard.send(t=2)
    shard.claim(5)
    (urgent,) = shard.send(t=1, priority=5)
    deadline = time.monotonic() + PATIENCE
    while len(shard.held["r"]) < 3 and time.monotonic() < deadline:
        shard.claim(5)
    assert [held.task for held in shard.held["r"]] == [first, urgent, second]


def test_one_that_is_held_back_and_freed_gains_nothing(shard: SelectionDriver) -> None:
    shard.configure("slow", rate="200/s", burst=1)
    shard.send(slow=50, a=3000, b=3000)
    deadline, served = time.monotonic() + 0.3, []
    while time.monotonic() < deadline:
        served += shard.turn(1)
    between = [after - before for before, after in zip(*_pairs(served, "slow"), strict=True)]
    assert min(between, default=2) >= 2, "the others have a turn each between two of its own"


def _pairs(served: list[str], tenant: str) -> tuple[list[int], list[int]]:
    places = [place for place, name in enumerate(served) if name == tenant]
    return places[:-1], places[1:]


def test_a_task_that_is_canceled_is_waited_for_no_more(shard: SelectionDriver) -> None:
    shard.configure("t", rate="1/min")
    _, second = shard.send(t=2)
    shard.claim(5)
    shard.driver.run(shard.driver.shard.cancel(second, ttl=0, body=b"{}"))
    assert shard.driver.check().fixed["THROTTLED"] == {}


@pytest.mark.parametrize(("rate", "claims"), [("100000/s", 4), (None, 4), (math.inf, 4), ("2/min", 0)])
def test_a_changed_rate_holds_at_once(shard: SelectionDriver, rate: str | None, claims: int) -> None:
    shard.configure("t", rate="1/h")
    shard.send(t=5)
    shard.turn(5)
    shard.configure("t", rate=rate)
    time.sleep(0.001)
    assert len(shard.turn(5)) == claims
    assert claims or shard.last.wait < 30.1
    if rate == math.inf:
        shard.driver.db.delete(RATES)  # the audit would misread it, see below


def test_what_is_known_of_a_rate_is_tidied_away_after_a_minute(shard: SelectionDriver) -> None:
    for tenant in "ab":
        shard.configure(tenant, rate="1000/s")
    shard.send(a=1, b=1)
    shard.turn(2)
    shard.turn(2)
    assert shard.driver.snapshot().fixed["RATES"].keys() == {"a", "b"}
    shard.turn(2)
    assert not shard.last.maintenance_due
    shard.driver.db.zadd(RATES, {"a": time.time() * 1e6 - 61e6})
    shard.turn(2)
    assert shard.last.maintenance_due
    shard.driver.maintain()
    assert shard.driver.check().fixed["RATES"].keys() == {"b"}
    shard.turn(2)
    assert not shard.last.maintenance_due


def test_what_is_known_of_a_rate_is_tidied_away_also_when_the_last_policy_is_gone(shard: SelectionDriver) -> None:
    shard.configure("t", rate="1/h")
    shard.send(t=1)
    shard.turn(1)
    shard.turn(1)
    shard.configure("t", rate=None)
    if shard.driver.db.exists(RATES):
        shard.driver.db.zadd(RATES, {"t": time.time() * 1e6 - 61e6})
        shard.turn(1)
        assert shard.last.maintenance_due
        shard.driver.maintain()
    assert shard.driver.check().fixed["RATES"] == {}


@pytest.mark.parametrize("rate", [math.inf, "1000/s"])
def test_the_audit_understands_a_rate_that_was_raised(url: str, rate: str) -> None:
    with open_selection(url) as shard:
        shard.configure_defaults(rate="1/h")
        shard.configure("own", rate="1/h")
        shard.send(own=1, t=1)
        shard.turn(2)
        shard.turn(2)
        shard.configure("own", rate=rate)
        shard.configure_defaults(rate=rate)
        shard.driver.check()


# With runtimes


@pytest.mark.anyio
async def test_a_rate_holds_over_two_runtimes_that_nobody_wakes(make_runtime: Make) -> None:
    async with make_runtime(stamp, lease=ASLEEP) as one, make_runtime(stamp, lease=ASLEEP):
        await one.tenant("t").configure(rate="50/s", burst=5)
        began = time.monotonic()
        handles = await one.send_many(("t", stamp()) for _ in range(40))
        times = await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles))
        assert max(times) - began >= 35 / 50 - 0.01
        await check_invariants(one)


@pytest.mark.anyio
async def test_a_runtime_that_sleeps_starts_what_was_held_back_when_its_time_has_come(
    make_runtime: Make, db: redis.Redis
) -> None:
    async with make_runtime(stamp, lease=ASLEEP) as one, make_runtime(stamp, lease=ASLEEP):
        await one.tenant("t").configure(rate="2/s")
        late, before = [], await one.ask("t", stamp(), timeout=SOON)
        for _ in range(2):
            await until(lambda: db.scard(IDLE) == 2)
            handle = await one.send("t", stamp())  # all runtimes sleep, and the task has to wait
            assert (await one.stats()).throttled_tenants == 1
            began = await handle.result(timeout=SOON)
            late.append(began - before - 0.5)
            before = began
        assert min(late) < 0.3, "by time, and not by chance"
        await check_invariants(one)


def test_who_is_held_back_is_not_forgotten_by_turns_of_the_runtime_that_serves_it(url: str) -> None:
    with open_selection(url) as shard:
        shard.join("h", ["t"])
        shard.configure("t", rate="1/min")
        shard.send(t=3)
        for _ in range(3):
            shard.turn(1, "h")
        assert shard.driver.check().fixed["THROTTLED"].keys() == {"t"}


@pytest.mark.anyio
async def test_runtimes_that_serve_nobody_else_start_what_was_held_back(make_runtime: Make) -> None:
    async with make_runtime(stamp, lease=ASLEEP, assigned=["t"]) as runtime:
        await runtime.tenant("t").configure(rate="20/s", burst=1)
        handles = await runtime.send_many(("t", stamp()) for _ in range(10))
        await asyncio.gather(*(handle.result(timeout=3) for handle in handles))
        await check_invariants(runtime)


@pytest.mark.anyio
async def test_runtimes_that_serve_nobody_else_learn_of_one_that_is_held_back(
    make_runtime: Make, db: redis.Redis
) -> None:
    async with make_runtime(stamp, lease=ASLEEP, assigned=["t"]) as runtime:
        await runtime.tenant("t").configure(rate="5/s")
        await runtime.ask("t", stamp(), timeout=SOON)
        await until(lambda: db.scard(IDLE_HOMES) == 1)
        await runtime.ask("t", stamp(), timeout=2)


@pytest.mark.anyio
async def test_runtimes_that_serve_nobody_else_learn_of_one_that_is_scheduled(
    make_runtime: Make, db: redis.Redis
) -> None:
    async with make_runtime(stamp, lease=ASLEEP, assigned=["t"]) as runtime:
        await until(lambda: db.scard(IDLE_HOMES) == 1)
        await runtime.ask("t", stamp(), delay=0.1, timeout=2)


@pytest.mark.anyio
async def test_a_faster_rate_wakes_who_sleeps(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(stamp, lease=ASLEEP) as runtime:
        await runtime.tenant("t").configure(rate="1/h")
        first, second = await runtime.send_many(("t", stamp()) for _ in range(2))
        await first.result(timeout=SOON)
        await until(lambda: db.scard(IDLE) == 1)
        await runtime.tenant("t").configure(rate="10/s")
        await second.result(timeout=2)


@pytest.mark.anyio
async def test_a_rate_that_is_removed_wakes_who_sleeps(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(stamp, lease=ASLEEP) as runtime:
        await runtime.policies.configure_defaults(rate="1/h")
        first, *rest = await runtime.send_many(("t", stamp()) for _ in range(5))
        await first.result(timeout=SOON)
        await until(lambda: db.scard(IDLE) == 1)
        await runtime.policies.configure_defaults(rate=None)
        await asyncio.gather(*(handle.result(timeout=SOON) for handle in rest))
        await check_invariants(runtime)


@pytest.mark.anyio
async def test_one_that_is_held_back_outlives_the_runtime_that_knew_of_it(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(stamp, lease=ASLEEP):
        await until(lambda: db.scard(IDLE) == 1)
        other = db.spop(IDLE)  # so that the next runtime is notified
        async with make_runtime(stamp, lease=ASLEEP):
            await until(lambda: db.scard(IDLE) == 1)
            await sender.tenant("t").configure(rate="1/s")
            await sender.ask("t", stamp(), timeout=SOON)
            await until(lambda: db.scard(IDLE) == 1)
            handle = await sender.send("t", stamp())
            await until(lambda: db.scard(IDLE) == 1)
            db.sadd(IDLE, other)
        await handle.result(timeout=3)


@pytest.mark.anyio
async def test_a_rate_counts_attempts(make_runtime: Make) -> None:
    began: list[float] = []

    @actor(max_retries=4, backoff=0.001)
    async def fail_first() -> None:
        began.append(time.monotonic())
        if len(began) < 5:
            raise ValueError

    async with make_runtime(fail_first, lease=ASLEEP) as runtime:
        await runtime.tenant("t").configure(rate="20/s", burst=1)
        before = time.monotonic()
        await runtime.ask("t", fail_first(), timeout=SOON)
        assert time.monotonic() - before >= 4 / 20 - 0.01
        await check_invariants(runtime)
