"""Tests what happens when the server's clock is set back: the shard's own clock goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.shard.driver import ShardDriver, item, open_shard, outcome

HOUR = 3600.0


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    with open_shard(url) as opened:
        opened.join("r", "s", lease=HOUR)
        yield opened


def set_back(shard: ShardDriver, seconds: float = HOUR) -> None:
    """Sets the server's clock back: everything that the shard has stored is ahead of it."""
    shard.set_back(seconds)
    for name, unit in (("leases", 1000), ("scheduled", 1000), ("delayed:t", 1000), ("rates", 1e6), ("throttled", 1000)):
        key = f"{shard.keys.meta}:{name}"
        members: Any = shard.db.zrange(key, 0, -1)
        for member in members:
            shard.db.zincrby(key, seconds * unit, member)


def lease_left(shard: ShardDriver, runtime: str = "r") -> float:
    return {name.decode(): ms / 1000 for name, _, ms in shard.run(shard.shard.stats()).runtimes}[runtime]


def test_leases_run_on_at_their_pace(shard: ShardDriver) -> None:
    set_back(shard)
    assert lease_left(shard) == pytest.approx(HOUR, abs=5)
    shard.join("new", lease=10.0)
    assert 5 < lease_left(shard, "new") <= 10
    assert lease_left(shard) == pytest.approx(HOUR, abs=5)


def test_a_claim_of_a_dead_runtime_is_taken_back_in_time(shard: ShardDriver) -> None:
    shard.join("dead", lease=0.05)
    shard.send(item("a"))
    assert shard.turn("dead", 1, 1)
    set_back(shard)
    shard.db.zadd(shard.keys.fixed("LEASES"), {"dead": int(shard.now() * 1000) + 50})  # its turn made it longer
    deadline = time.monotonic() + 5
    while not shard.snapshot().suspects and not shard.snapshot().queues:
        shard.maintain()
        assert time.monotonic() < deadline


def test_a_delay_is_as_long_as_it_was(shard: ShardDriver) -> None:
    shard.send(item("a", due="+60000"))
    set_back(shard)
    shard.send(item("b", due="+60000"))
    due = shard.snapshot().delayed["t"]
    assert due["b"] - due["a"] == pytest.approx(0, abs=5000)


def test_a_time_is_the_servers(shard: ShardDriver) -> None:
    set_back(shard)
    at = int((time.time() + 60) * 1000)
    shard.send(item("a", due=str(at)))
    assert float(shard.run(shard.shard.inspect("a"))[2]) == at
    assert shard.snapshot().delayed["t"]["a"] == pytest.approx(at + HOUR * 1000, abs=5000)
    assert not shard.maintain()
    assert not shard.snapshot().queues


def test_tasks_stay_in_order(shard: ShardDriver) -> None:
    shard.send(item("a"))
    set_back(shard)
    shard.send(item("b"), item("c"))
    assert shard.claim("r", 1, 3) == ["a", "b", "c"]
    turn = shard.turn("r", 2, 0, [outcome(task, 1) for task in "abc"])
    assert turn is not None
    assert not turn.refused


def test_a_clock_that_is_set_right_again_is_followed_again(shard: ShardDriver) -> None:
    set_back(shard)
    shard.send(item("a"))
    assert shard.behind == pytest.approx(HOUR * 1000, abs=5000)
    assert shard.run(shard.shard.stats()).set_back == pytest.approx(HOUR, abs=5)
    shard.db.hset(shard.keys.meta, "stamp", int(time.time() * 1e6) - 1000)  # the server's clock has caught up with it
    shard.send(item("b"))
    assert shard.behind == 0
    assert shard.now() == pytest.approx(time.time(), abs=5)


def test_it_may_be_set_back_again_and_again(shard: ShardDriver) -> None:
    for n in range(1, 4):
        before = shard.now()
        shard.db.hincrby(shard.keys.meta, "stamp", int(HOUR * 1e6))
        shard.send(item(f"a{n}"))
        assert shard.now() == pytest.approx(before + HOUR, abs=5)
    assert shard.behind == pytest.approx(3 * HOUR * 1000, abs=5000)


def test_a_stamp_that_is_a_little_ahead_is_no_step(shard: ShardDriver) -> None:
    shard.set_back(0.9)
    shard.send(item("a"))
    assert shard.behind == 0
    assert shard.snapshot().records["a"].stamp / 1e6 > shard.now()


@pytest.mark.parametrize("stamp", ["9e15", "inf", "nan", "-5", "garbage", "9" * 300])
@pytest.mark.parametrize("field", ["stamp", "behind"])
def test_a_damaged_value_does_not_make_the_clock_jump(shard: ShardDriver, field: str, stamp: str) -> None:
    shard.db.hset(shard.keys.meta, field, stamp)
    shard.send(item("a"))
    assert shard.snapshot().records["a"].stamp / 1e6 == pytest.approx(time.time(), abs=5)
    shard.send(item("b"))
    assert shard.claim("r", 1, 2) == ["a", "b"]
    assert lease_left(shard) == pytest.approx(HOUR, abs=5)
