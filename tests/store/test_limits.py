"""Limits beside the tenant's: what they let start, in what order, and that nothing else waits for them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from fairactor._model.wire import Assignment
from tests.support.polling import PATIENCE
from tests.support.shard.limits import LimitDriver, conforms
from tests.support.shard.model_lanes import Kind


@pytest.fixture
def shard(url: str) -> Iterator[LimitDriver]:
    made = LimitDriver(url)
    made.join("r")
    try:
        yield made
        made.driver.check()
    finally:
        made.close()


# Concurrency


def test_no_more_run_than_the_concurrency_and_all_run_in_the_end(shard: LimitDriver) -> None:
    shard.limit("db", concurrency=3)
    shard.send(["a", "b"], {"db": 1}, number=5)
    assert len(shard.claim(20)) == 3
    assert shard.claim(20) == []
    assert shard.last.more is False
    assert len(shard.turn(20, ends=2)) == 2
    shard.driver.check()
    assert shard.drain() == 5
    assert shard.started("db") == 0


def test_what_needs_no_limit_goes_on_beside_what_waits(shard: LimitDriver) -> None:
    shard.limit("db", concurrency=1)
    shard.send(["a"], {"db": 1}, number=5)
    free = shard.send(["a", "b"], number=3)
    assert len(shard.claim(1)) == 1
    assert sorted(shard.claim(10)) >= sorted(free)[:6]
    shard.driver.check()


def test_a_limit_that_nobody_configured_holds_nothing_back_but_counts(shard: LimitDriver) -> None:
    shard.send(["a"], {"db": 1}, number=5)
    assert len(shard.claim(4)) == 4
    shard.limit("db", concurrency=2)
    assert shard.turn(4, ends=2) == []
    assert len(shard.turn(4, ends=1)) == 1


def test_a_limit_that_is_lowered_lets_nothing_start_until_enough_has_ended(shard: LimitDriver) -> None:
    shard.limit("db", concurrency=4)
    shard.send(["a"], {"db": 1}, number=9)
    shard.claim(9)
    shard.limit("db", concurrency=2)
    assert shard.turn(9, ends=2) == []
    assert len(shard.turn(9, ends=1)) == 1
    shard.limit("db", concurrency=5)
    assert len(shard.claim(9)) == 3


def test_a_task_with_several_limits_needs_all(shard: LimitDriver) -> None:
    shard.limit("db", concurrency=2)
    shard.limit("mail", concurrency=5)
    shard.send(["a"], {"db": 1, "mail": 1}, number=4)
    assert len(shard.claim(9)) == 2
    shard.limit("db", concurrency=9)
    shard.limit("mail", concurrency=3)
    assert len(shard.claim(9)) == 1
    assert shard.drain() == 1


def test_a_task_that_did_not_start_gives_its_start_back(shard: LimitDriver) -> None:
    shard.limit("api", concurrency=2, rate="1/h", burst=2)
    shard.send(["a"], {"api": 1}, number=3)
    assert len(shard.claim(9)) == 2
    shard.turn(0, verdict="B0")
    assert shard.started("api") == 0
    assert len(shard.claim(9)) == 2


def test_a_dead_runtime_gives_its_starts_back(shard: LimitDriver) -> None:
    shard.join("s")
    shard.limit("db", concurrency=2)
    shard.send(["a"], {"db": 1}, number=3)
    assert len(shard.claim(9, "s")) == 2
    assert shard.claim(9) == []
    shard.driver.lapse("s")
    while shard.driver.maintain():
        pass
    del shard.held["s"]
    assert shard.started("db") == 0
    shard.driver.check()
    assert len(shard.claim(9)) == 2, "suspects count as others do"
    assert shard.claim(9) == []
    assert shard.drain() == 1


def test_a_retry_is_a_start(shard: LimitDriver) -> None:
    shard.limit("api", rate="1/h", burst=2)
    (task,) = shard.send(["a"], {"api": 1})
    shard.claim(1)
    shard.turn(0, verdict="R0")
    shard.driver.make_due(task)
    shard.driver.maintain()
    assert shard.claim(5) == [task]
    shard.turn(0, verdict="R0")
    shard.driver.make_due(task)
    shard.driver.maintain()
    assert shard.claim(5) == []


# Rates


@pytest.mark.parametrize(("rate", "burst", "per_second"), [("40/s", 1.0, 40), ("6000/min", 7.5, 100), ("3/h", 2.0, 0)])
def test_no_stretch_of_time_takes_more_than_burst_and_rate(
    shard: LimitDriver, rate: str, burst: float, per_second: float
) -> None:
    shard.limit("api", rate=rate, burst=burst)
    for cost in (1, 0.25, 12, 3):
        shard.send(["a", "b"], {"api": cost}, number=10)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        shard.turn(7)
    assert conforms([(at, costs["api"]) for at, _, costs in shard.starts], burst, per_second)
    assert shard.starts


def test_a_turn_says_when_a_limit_gives_way(shard: LimitDriver) -> None:
    shard.limit("api", rate="60/h", burst=1)
    shard.send(["a"], {"api": 1}, number=2)
    assert len(shard.claim(5)) == 1
    assert shard.claim(5) == []
    assert 50 < shard.last.wait < 60.1


def test_a_start_that_takes_more_than_the_burst_waits_until_nothing_is_owed(shard: LimitDriver) -> None:
    shard.limit("api", rate="10/s", burst=2)
    shard.send(["a"], {"api": 1})
    large = shard.send(["a"], {"api": 10})
    shard.send(["a"], {"api": 1})
    shard.claim(1)
    assert shard.claim(5) == []
    time.sleep(0.15)
    assert shard.claim(5) == large
    assert 0.6 < shard.last.wait < 1.2


def test_a_changed_rate_holds_at_once(shard: LimitDriver) -> None:
    shard.limit("api", rate="1/h", burst=1)
    shard.send(["a"], {"api": 1}, number=3)
    shard.claim(1)
    assert shard.claim(1) == []
    shard.limit("api", rate="100000/s", burst=1)
    time.sleep(0.001)
    assert len(shard.claim(1)) == 1
    shard.limit("api", rate=None)
    assert len(shard.claim(1)) == 1


# Charges


def test_what_a_task_used_replaces_what_its_start_took(shard: LimitDriver) -> None:
    shard.limit("api", rate="10/h", burst=10)
    first, *_ = shard.send(["a"], {"api": 10}, number=3)
    assert shard.claim(5) == [first]
    assert shard.charge("r", first, "api", 2) == 1
    assert shard.charge("r", first, "api", 0) == 1
    assert len(shard.claim(5)) == 1
    assert shard.charge("r", first, "api", 10) == 1, "the total, so it takes 10 again"
    assert shard.charge("r", first, "other", 10) == -1
    assert shard.charge("s", first, "api", 10) == 0
    _, found = shard.driver.run(shard.driver.shard.limits("api"))
    assert 19 * 360e6 < next(iter(found.values()))[2] <= 20 * 360e6


def test_what_a_task_used_counts_for_the_share_of_its_tenant(shard: LimitDriver) -> None:
    shard.limit("api", concurrency=1)
    shard.send(["a", "b"], {"api": 1}, number=100)
    served: Counter[str] = Counter()
    for _ in range(40):
        (task,) = shard.turn(1)
        tenant = task.partition(":")[0]
        served[tenant] += 1
        assert shard.charge("r", task, "api", 3 if tenant == "a" else 1) == 1
    assert abs(served["b"] - 3 * served["a"]) <= 4, served


# Fairness


def test_tenants_share_a_limit_by_weight_in_what_it_counts(shard: LimitDriver) -> None:
    shard.limit("api", concurrency=2)
    shard.configure("heavy", weight=3.0)
    shard.send(["heavy", "plain"], {"api": 10}, number=60)
    shard.send(["dear"], {"api": 100}, number=60)
    taken: Counter[str] = Counter()
    for _ in range(60):
        for task in shard.turn(2):
            tenant = task.partition(":")[0]
            taken[tenant] += 100 if tenant == "dear" else 10
        if taken["heavy"] >= 590:
            break
    assert abs(taken["heavy"] - 3 * taken["plain"]) <= 60, taken
    assert abs(taken["dear"] - taken["plain"]) <= 110, taken


def test_a_tenant_gets_one_share_not_one_for_each_lane(shard: LimitDriver) -> None:
    shard.limit("api", concurrency=1)
    shard.send(["a", "b"], {"api": 1}, number=50)
    shard.send(["a"], {"api": 1}, actor="mail", number=50)
    shard.send(["a"], {"api": 1, "other": 1}, number=50)
    served: Counter[str] = Counter(task.partition(":")[0] for _ in range(40) for task in shard.turn(1))
    assert abs(served["a"] - served["b"]) <= 2, served


def test_groups_share_a_limit_as_one(shard: LimitDriver) -> None:
    shard.limit("api", concurrency=1)
    for n in range(4):
        shard.configure(f"g{n}", group="g")
    shard.send(["alone", *(f"g{n}" for n in range(4))], {"api": 1}, number=30)
    served: Counter[str] = Counter(task.partition(":")[0] for _ in range(48) for task in shard.turn(1))
    assert abs(served["alone"] - 24) <= 2, served
    assert all(abs(served[f"g{n}"] - 6) <= 2 for n in range(4)), served
    shard.driver.check()


def test_one_that_waits_for_a_limit_gets_its_share_of_workers_and_no_more(shard: LimitDriver) -> None:
    shard.limit("api", concurrency=1000)
    shard.send(["limited"], {"api": 1}, number=100)
    shard.send(["a", "b", "c"], number=100)
    served: Counter[str] = Counter(task.partition(":")[0] for _ in range(40) for task in shard.turn(2))
    assert all(abs(number - 20) <= 2 for number in served.values()), served


def test_a_tenant_with_limited_and_free_work_gets_one_share_of_workers(shard: LimitDriver) -> None:
    shard.limit("api", concurrency=1000)
    shard.send(["both"], {"api": 1}, number=100)
    shard.send(["both", "a"], number=100)
    served: Counter[str] = Counter(task.partition(":")[0] for _ in range(40) for task in shard.turn(1))
    assert abs(served["both"] - 20) <= 2, served


def test_the_more_urgent_goes_first_also_over_lanes(shard: LimitDriver) -> None:
    shard.limit("api", concurrency=10)
    shard.send(["a"], number=3)
    urgent = shard.send(["a"], {"api": 1}, priority=5)
    assert shard.claim(1) == urgent


# Pauses, actors, tenants


def test_a_pause_holds_back_until_it_ends(shard: LimitDriver) -> None:
    shard.send(["a", "b"], {"api": 1}, number=2)
    free = shard.send(["a"])
    shard.limit("api", pause="40")
    assert shard.claim(9) == free
    assert 0 < shard.last.wait <= 0.04
    shard.limit("api", pause="-1")
    time.sleep(0.05)
    assert shard.claim(9) == []
    shard.limit("api", resume=True)
    assert len(shard.claim(9)) == 4


def test_a_paused_actor_is_skipped_wherever_its_tasks_stand(shard: LimitDriver) -> None:
    poison = shard.send(["a", "b"], actor="mail", number=3)
    others = shard.send(["a", "b"], number=3)
    shard.limit("mail", pause="-1")
    found: list[str] = []
    for _ in range(5):
        found += shard.claim(4)
    assert sorted(found) == sorted(others)
    shard.driver.check()
    more = shard.send(["c"], actor="mail")
    assert shard.claim(5) == []
    shard.limit("mail", resume=True)
    assert sorted(shard.claim(9)) == sorted(poison + more)


def test_an_actor_is_paused_for_one_tenant(shard: LimitDriver) -> None:
    shard.send(["a", "b"], actor="mail", number=2)
    shard.limit("mail", tenant="a", pause="-1")
    free = shard.send(["a"])
    found = [task for _ in range(3) for task in shard.claim(9)]
    assert shard.tenants_of(found) == {"b": 2, "a": 1}
    assert free[0] in found
    shard.driver.check()
    shard.limit("mail", tenant="a", resume=True)
    assert shard.tenants_of(shard.claim(9)) == {"a": 2}


def test_a_pause_of_one_tenant_ends_by_itself(shard: LimitDriver) -> None:
    shard.send(["a"], actor="mail")
    shard.limit("mail", tenant="a", pause="40")
    assert shard.claim(9) == []
    assert shard.claim(9) == []
    assert 0 < shard.last.wait <= 0.04
    deadline = time.monotonic() + PATIENCE
    while not shard.claim(9) and time.monotonic() < deadline:
        pass
    assert time.monotonic() < deadline


def test_a_removed_limit_lets_all_start(shard: LimitDriver) -> None:
    shard.limit("mail", concurrency=1)
    shard.limit("mail", tenant="b", pause="-1")
    shard.send(["a", "b"], actor="mail", number=4)
    assert len(shard.claim(9)) == 1
    shard.remove("mail")
    assert sum(len(shard.claim(9)) for _ in range(4)) == 7


def test_a_limit_per_tenant_is_for_each_alone(shard: LimitDriver) -> None:
    shard.limit("mail", concurrency=2, per="tenant")
    shard.send(["a", "b", "c"], actor="mail", number=4)
    free = shard.send(["a"])
    assert shard.tenants_of(shard.claim(20)) == {"a": 3, "b": 2, "c": 2}
    assert free[0] in shard.held["r"]
    assert shard.claim(20) == []
    shard.driver.check()
    assert sum(shard.tenants_of(shard.turn(20, ends=3)).values()) >= 2
    assert shard.drain() >= 3


def test_a_rate_per_tenant_says_when_it_gives_way(shard: LimitDriver) -> None:
    shard.limit("mail", rate="60/h", burst=2, per="tenant")
    shard.send(["a", "b"], actor="mail", number=3)
    assert shard.tenants_of(shard.claim(20)) == {"a": 2, "b": 2}
    assert shard.claim(20) == []
    assert 50 < shard.last.wait < 60.1


# Kinds of runtimes, dedicated ones


def test_kinds_of_runtimes_share_a_limit(shard: LimitDriver) -> None:
    shard.join("m", kind=Kind({"mail": "1"}))
    shard.limit("db", concurrency=3)
    shard.send(["a", "b"], {"db": 1}, actor="work", number=5)
    shard.send(["a", "b"], {"db": 1}, actor="mail", number=5)
    assert len(shard.claim(2, "m")) == 2
    assert len(shard.claim(9, "r")) == 1
    assert shard.claim(9, "m") == []
    shard.driver.check()
    assert shard.drain() == 17


def test_a_dedicated_runtime_starts_only_tasks_of_its_tenants(shard: LimitDriver) -> None:
    shard.join("d", serves=Assignment(["a"], []))
    shard.limit("db", concurrency=3)
    shard.send(["b", "a"], {"db": 1}, number=5)
    assert shard.tenants_of(shard.claim(9, "d")) == {"a": 3}
    assert shard.claim(9) == []
    shard.driver.check()
    assert shard.drain() == 7


def test_a_kind_that_leaves_takes_its_lines_with_it(shard: LimitDriver) -> None:
    shard.join("m", kind=Kind({"mail": "1"}))
    shard.limit("db", concurrency=1)
    shard.send(["a", "b"], {"db": 1}, actor="mail", number=2)
    shard.claim(1, "m")
    shard.driver.run(shard.driver.shard.leave("m"))
    del shard.held["m"]
    shard.driver.check()
    assert shard.drain() == 4
