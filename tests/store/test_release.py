"""The claims of a runtime that has died or leaves are taken back in bounded steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairactor._model.wire import Assignment
from tests.support.shard.driver import ShardDriver, item, open_shard, outcome

MANY = 130
STEP = 25  # claims that one script takes back


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    """A shard on which the runtime ``r`` has claimed many tasks."""
    with open_shard(url) as driver:
        driver.join("r", "s", serves=Assignment(["t"], []))
        driver.send(*[item(f"i{n}") for n in range(MANY)])
        assert len(driver.claim("r", 1, MANY)) == MANY
        yield driver


def started(shard: ShardDriver) -> int:
    return len(shard.check().claims.get("r", {}))


def deliveries(shard: ShardDriver) -> set[int]:
    return {header.deliveries for header in shard.snapshot().records.values()}


def test_a_dead_runtime_loses_its_lease_at_once_and_its_claims_step_by_step(shard: ShardDriver) -> None:
    shard.lapse("r")
    assert shard.maintain()
    assert started(shard) == MANY - STEP
    held = next(iter(shard.snapshot().claims["r"]))
    assert shard.turn("r", 2, 1, [outcome(held, 1)]) is None
    assert not shard.shard.renew(shard.db, "r", lease=3600.0)
    assert not shard.run(shard.shard.assign("r", None))
    assert shard.turn("s", 1) is not None
    assert started(shard) == MANY - STEP, "no turn renews the lease"
    assert shard.maintain()
    assert started(shard) == MANY - 2 * STEP
    while shard.maintain():
        pass
    assert started(shard) == 0
    assert deliveries(shard) == {1}
    assert "r" not in shard.snapshot().fixed["LEASES"]


def test_a_task_is_canceled_while_the_claims_of_its_dead_runtime_are_taken_back(shard: ShardDriver) -> None:
    shard.lapse("r")
    shard.maintain()
    held = next(iter(shard.snapshot().claims["r"]))
    assert shard.run(shard.shard.cancel(held, ttl=60.0, body=b"{}")) == "started"
    while shard.maintain():
        pass
    shard.check()
    assert shard.snapshot().records[held].state == b"C"


def test_a_runtime_that_leaves_gives_back_all_claims(shard: ShardDriver) -> None:
    assert shard.run(shard.shard.leave("r")) == MANY
    assert started(shard) == 0
    assert deliveries(shard) == {0}


@pytest.mark.parametrize(("crashed", "counted"), [(False, {0}), (True, {1})])
def test_maintenance_goes_on_if_a_runtime_dies_while_it_leaves(
    shard: ShardDriver, crashed: bool, counted: set[int]
) -> None:
    first_step = shard.shard._run("leave", "r", int(crashed), 5, 60_000, b"{}")
    assert shard.run(first_step) == [STEP, MANY - STEP]
    assert started(shard) == MANY - STEP
    while shard.maintain():
        pass
    assert started(shard) == 0
    assert deliveries(shard) == counted


def test_why_a_runtime_lost_its_lease_stays_when_it_leaves_later(shard: ShardDriver) -> None:
    shard.lapse("r")
    shard.maintain()
    shard.run(shard.shard.leave("r"))
    assert started(shard) == 0
    assert deliveries(shard) == {1}
