"""Delayed tasks: they are queued when they are due, in order, fairly over tenants, and in bounded steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.shard.driver import HELD_BACK, ShardDriver, item, open_shard, outcome

TENANTS = 40
"""The most tenants whose due tasks a step queues, as in tend.lua."""


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    with open_shard(url) as made:
        made.join("r", "s")
        yield made


def delay(shard: ShardDriver, tenant: str, *dues: int | str, body: bytes = b"{}") -> None:
    """Sends a task for each due time in ms; its id is the tenant and the number."""
    shard.send(*[item(f"{tenant}{n}", tenant, due=str(due), body=body) for n, due in enumerate(dues)])


def queued(shard: ShardDriver) -> Counter[str]:
    """Returns the number of queued tasks by tenant."""
    return Counter({tenant: len(queue) for tenant, queue in shard.check().queues.items()})


def steps_until_queued(shard: ShardDriver, tenant: str) -> int:
    for step in range(1, 100):
        shard.maintain()
        if queued(shard)[tenant]:
            return step
    raise AssertionError(f"no task of {tenant!r} was queued")


def scheduled(shard: ShardDriver) -> dict[str, float]:
    """Returns when the next delayed task of each tenant is due, in ms."""
    return shard.check().fixed["SCHEDULED"]


# Fairness


def test_a_task_that_is_due_later_does_not_wait_for_another_tenants_backlog(shard: ShardDriver) -> None:
    delay(shard, "flood", *[1000] * 3000)
    shard.maintain()
    delay(shard, "other", 1001)
    assert steps_until_queued(shard, "other") <= 2
    assert queued(shard)["flood"] < 1000


def test_tenants_get_equal_shares_and_what_the_others_do_not_need(shard: ShardDriver) -> None:
    for tenant, number in {"a": 100, "b": 2, "c": 100}.items():
        delay(shard, tenant, *[1] * number)
    shard.maintain(limit=30)
    assert queued(shard) == {"a": 10, "b": 2, "c": 18}
    shard.maintain(limit=30)
    assert queued(shard) == {"a": 25, "b": 2, "c": 33}


def test_tenants_with_a_backlog_take_turns(shard: ShardDriver) -> None:
    names = [f"t{n:03}" for n in range(3 * TENANTS)]
    for name in names:
        delay(shard, name, *[1] * 20)
    seconds, micros = shard.db.time()
    while shard.db.time() < (seconds, micros + 2000):
        pass  # times are in ms; those that came in the same one are in the order of their names
    for step in range(1, 7):
        shard.maintain(limit=2 * TENANTS)
        got = queued(shard)
        assert len(got) == min(step, 3) * TENANTS
    assert set(got.values()) == {4}


def test_no_tenant_gets_before_the_others_by_times_that_have_long_passed(shard: ShardDriver) -> None:
    greedy = [f"greedy{n}" for n in range(TENANTS)]
    for name in greedy:
        delay(shard, name, *[1] * 9)
    delay(shard, "other", 1000)
    for step in range(3):
        shard.maintain()
        if queued(shard)["other"]:
            break
        shard.send(*[item(f"{name} again {step}", name, due="1") for name in greedy])
    else:
        raise AssertionError("the greedy tenants were first in each step")


def test_the_tasks_of_a_tenant_are_queued_in_the_order_in_which_they_are_due(shard: ShardDriver) -> None:
    dues = [500, 100, 900, 300, 700, 200, 800]
    delay(shard, "t", *dues)
    order = [f"t{n}" for n in sorted(range(len(dues)), key=dues.__getitem__)]
    for number in (3, 6, 7):
        shard.maintain(limit=3)
        assert list(shard.check().queues["t"]) == order[:number]


def test_a_retry_waits_like_any_delayed_task(shard: ShardDriver) -> None:
    shard.send(item("a"))
    assert shard.claim("r", 1, 1) == ["a"]
    shard.claim("r", 2, 0, [outcome("a", 1, "R99000")])
    snapshot = shard.check()
    assert snapshot.delayed == {"t": snapshot.due}
    assert snapshot.fixed["SCHEDULED"] == {"t": snapshot.due["a"]}
    shard.make_due("a")
    assert shard.maintain() is False
    assert queued(shard) == {"t": 1}
    assert scheduled(shard) == {}


# Bounded steps


def test_a_step_is_bounded_whatever_is_due(shard: ShardDriver) -> None:
    delay(shard, "one", *[1] * 1000)
    assert shard.maintain() is True
    assert queued(shard) == {"one": 150}
    for n in range(100):
        delay(shard, f"t{n}", 1, 2, 3, 4, 5, 6)
    before = queued(shard).total()
    assert shard.maintain() is True
    now = queued(shard)
    assert len(now) <= TENANTS + 1
    assert now.total() <= before + 150


def test_a_step_reads_only_the_headers_of_records(shard: ShardDriver) -> None:
    delay(shard, "t", *range(1, 20), body=b"x" * 100_000)
    shard.db.config_resetstat()
    assert shard.maintain() is False
    stats = shard.db.info("commandstats")
    assert not {"cmdstat_get", "cmdstat_mget"} & stats.keys()
    assert sum(len(shard.claim("r", turn, 20)) for turn in (1, 2)) == 19  # a turn brings 1 MB of records


def test_due_tasks_and_dead_runtimes_do_not_hold_each_other_up(shard: ShardDriver) -> None:
    shard.send(*[item(f"claimed{n}", "u") for n in range(5)])
    shard.claim("s", 1, 5)
    delay(shard, "flood", *[1] * 1000)
    shard.lapse("s")
    shard.maintain()
    snapshot = shard.check()
    assert {tenant: len(tasks) for tenant, tasks in snapshot.suspects.items()} == {"u": 5}
    assert len(snapshot.queues["flood"]) == 50


def test_one_runtime_at_a_time_is_asked_for_maintenance(shard: ShardDriver) -> None:
    delay(shard, "t", *[1] * 500)
    first, other = shard.turn("r", 1), shard.turn("s", 1)
    assert first is not None
    assert other is not None
    assert first.maintenance_due
    assert not other.maintenance_due
    assert 0 < other.wait <= 0.1  # then it looks again, in case the first has died
    assert shard.maintain() is True
    again = shard.turn("s", 2)
    assert again is not None
    assert again.maintenance_due  # whoever comes next does the next step
    shard.db.hset(shard.keys.meta, "tended", 1)  # as if the time had passed
    again = shard.turn("r", 2)
    assert again is not None
    assert again.maintenance_due
    while shard.maintain():
        pass
    for runtime in ("r", "s"):
        turn = shard.turn(runtime, 3)
        assert turn is not None
        assert not turn.maintenance_due
        assert turn.wait > 1


# What else happens to delayed tasks


def test_a_tenant_is_scheduled_for_its_next_task(shard: ShardDriver) -> None:
    soon, late, never = 3_000_000_000_000, 4_000_000_000_000, 9_000_000_000_000
    delay(shard, "t", late, soon, never)
    assert scheduled(shard) == {"t": soon}
    assert shard.run(shard.shard.inspect("t1"))[2] == str(soon).encode()
    assert shard.run(shard.shard.cancel("t1", ttl=0, body=b"{}")) == "scheduled"
    assert scheduled(shard) == {"t": late}
    assert shard.run(shard.shard.cancel("t2", ttl=0, body=b"{}")) == "scheduled"
    assert scheduled(shard) == {"t": late}
    assert shard.run(shard.shard.cancel("t0", ttl=0, body=b"{}")) == "scheduled"
    assert scheduled(shard) == {}


def test_a_purge_takes_the_delayed_tasks_of_one_tenant_only(shard: ShardDriver) -> None:
    delay(shard, "t", *range(3_000_000_000_000, 3_000_000_000_700))
    delay(shard, "u", 3_000_000_000_000)
    shard.send(*[item(f"now{n}", "t") for n in range(600)])
    assert shard.run(shard.shard.purge("t", ttl=0, body=b"{}")) == 1300
    snapshot = shard.check()
    assert snapshot.due.keys() == {"u0"}
    assert snapshot.fixed["SCHEDULED"].keys() == {"u"}


@pytest.mark.parametrize("extra", [b"", HELD_BACK])
def test_a_step_of_a_purge_is_bounded_in_bytes_too(shard: ShardDriver, extra: bytes) -> None:
    shard.send(*[item(f"t{n}", "t", body=b"x" * 100_000, extra=extra) for n in range(12)])
    shard.send(*[item(f"u{n}", "u", extra=extra) for n in range(12)])
    canceled, cursor = shard.run(shard.shard.call("purge", "t", 0, b"{}", "0"))
    assert canceled == 5
    while cursor:
        many, cursor = shard.run(shard.shard.call("purge", "t", 0, b"{}", cursor))
        canceled += many
    assert canceled == 12
    assert shard.check().records.keys() == {f"u{n}" for n in range(12)}


def test_the_number_of_due_tasks_is_exact_for_a_hundred_tenants_and_never_0_beyond(shard: ShardDriver) -> None:
    def due() -> int:
        return shard.run(shard.shard.stats()).due

    delay(shard, "later", 3_000_000_000_000)
    assert due() == 0
    for n in range(99):
        delay(shard, f"t{n}", 1, 2)
    assert due() == 198
    delay(shard, "z", 1, 2, 3_000_000_000_000)
    assert due() == 200
    for n in range(50):
        delay(shard, f"u{n}", 1, 2)
    assert due() == 250
    while shard.maintain():
        pass
    assert due() == 0
    assert scheduled(shard).keys() == {"later", "z"}


@pytest.mark.parametrize("damage", ["gone", "late", "early", "strange"])
def test_the_repair_rebuilds_when_tenants_are_due(shard: ShardDriver, damage: str) -> None:
    delay(shard, "t", 3_000_000_000_000, 4_000_000_000_000)
    delay(shard, "u", 5_000_000_000_000)
    before = scheduled(shard)
    key = shard.keys.fixed("SCHEDULED")
    if damage == "gone":
        shard.db.delete(key)
    elif damage == "strange":
        shard.db.zadd(key, {"nobody": 1})
    else:
        shard.db.zadd(key, {"t": 6e12 if damage == "late" else 1})
    shard.run(shard.shard.repair())
    assert scheduled(shard) == before


def test_the_repair_finds_delayed_tasks_without_a_place(shard: ShardDriver) -> None:
    delay(shard, "t", 3_000_000_000_000, 4_000_000_000_000)
    shard.db.delete(shard.keys.delayed("t"))
    shard.run(shard.shard.repair())
    assert shard.check().delayed == {"t": {"t0": 3_000_000_000_000, "t1": 4_000_000_000_000}}


@pytest.mark.parametrize("stored", [None, b"", b"garbage", b"L\0\0" + bytes(10) + b"\0\1t"])
def test_a_due_task_whose_record_cannot_be_read_goes_to_a_runtime_which_fails_it(
    shard: ShardDriver, stored: bytes | None
) -> None:
    delay(shard, "t", 1, 2)
    if stored is None:
        shard.db.delete(shard.keys.task("t0"))
    else:
        shard.db.set(shard.keys.task("t0"), stored)
    assert shard.maintain() is False
    assert set(shard.claim("r", 1, 5)) == {"t0", "t1"}
    shard.claim("r", 2, 0, [outcome("t0", 1, "X60000"), outcome("t1", 1)])
    counts = shard.check().counts["t"]
    assert (counts.failed, counts.finished, counts.scheduled, counts.queued) == (1, 1, 0, 0)
