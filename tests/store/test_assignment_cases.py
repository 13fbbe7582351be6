"""Assigned tenants and stealing: regression cases that the state machine found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairactor._model.wire import Assignment
from tests.support.shard.driver import ShardDriver, item, open_shard, outcome

HOURLY = ("1/h", 3.6e9, 1)


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    with open_shard(url) as made:
        yield made


def test_a_tenant_that_its_rate_holds_back_stays_so_while_its_home_takes_turns(shard: ShardDriver) -> None:
    shard.configure("t", rate=HOURLY)
    shard.join("home", serves=Assignment(["t"], []))
    shard.send(item("a"), item("b"))
    assert shard.claim("home", 1, 5) == ["a"]
    assert shard.claim("home", 2, 5) == []
    assert list(shard.check().fixed["THROTTLED"]) == ["t"]
    shard.let_start("t")
    assert shard.claim("home", 3, 5) == ["b"]


def test_who_steals_from_all_gets_what_is_left_of_the_group_of_its_own_tenants(shard: ShardDriver) -> None:
    for tenant in "ab":
        shard.configure(tenant, group="g")
    shard.join("home", serves=Assignment(["a"], [""]))
    shard.send(item("a1", "a"), item("b1", "b"), item("c1", "c"), item("b2", "b"))
    claimed = shard.claim("home", 1, 9)
    assert claimed[0] == "a1"
    assert set(claimed) == {"a1", "b1", "b2", "c1"}
    shard.check()


def test_what_a_tenant_owes_is_not_forgiven_when_it_is_configured(shard: ShardDriver) -> None:
    shard.open(fair_by="time")
    shard.join("r")
    shard.send(item("a1", "a"), item("a2", "a"), item("b1", "b"), item("b2", "b"))
    shard.configure("a", paused=True)
    assert shard.claim("r", 1, 1) == ["b1"]
    shard.configure("b", paused=True)
    shard.configure("a", paused=None)
    shard.claim("r", 2, 0, [outcome("b1", 1, tenant="b", seconds=100.0)])
    shard.configure("b", paused=None)
    assert shard.check().ring["b"] > 100
