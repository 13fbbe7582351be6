"""Fairness among the tenants assigned to a runtime, however far the virtual time of other tenants has advanced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.shard.selection import SelectionDriver, open_selection


@pytest.fixture
def shard(url: str) -> Iterator[SelectionDriver]:
    with open_selection(url) as made:
        yield made


@pytest.mark.parametrize("want", [1, 30])
def test_weights_hold_among_the_assigned_and_among_those_that_are_stolen_from(
    shard: SelectionDriver, want: int
) -> None:
    shard.join("h", ["a", "b"], ["c", "d"])
    shard.configure("b", weight=2)
    shard.configure("d", weight=4)
    shard.send(a=100, b=100, c=100, d=100, other=100)
    served = shard.serve(120 // want, want, "h")
    assert abs(served["b"] - 80) <= 2
    assert abs(served["a"] - 40) <= 2
    shard.serve(80 // want + 1, want, "h")
    served = shard.serve(90 // want, want, "h")
    assert served.keys() == {"c", "d"}
    assert abs(served["d"] / served.total() - 0.8) <= 0.05


def test_who_steals_from_all_is_as_fair_as_who_serves_all(shard: SelectionDriver) -> None:
    shard.join("h", ["a"], [""])
    shard.send(a=10, b=100, c=100)
    served = shard.serve(110, 1, "h")
    assert served == {"a": 10, "b": 50, "c": 50}
    served = shard.serve(10, 5, "h")
    assert abs(served["b"] - 25) <= 1


@pytest.mark.parametrize("others", [0, 900])
@pytest.mark.parametrize("before", [10, 300])
def test_one_that_arrives_among_the_assigned_neither_waits_nor_gains(
    shard: SelectionDriver, before: int, others: int
) -> None:
    """However far the tenants of this and of other runtimes have advanced."""
    shard.join("h", ["a", "b", "new"])
    shard.send(a=400, b=400, x=500, y=500)
    shard.serve(before, 1, "h")
    if others:
        shard.join("g", ["x", "y"], [""])
        shard.serve(others // 10, 10, "g")
    shard.send(new=100)
    served = shard.serve(90, 1, "h")
    assert all(abs(served[name] - 30) <= 2 for name in ("a", "b", "new"))
    shard.driver.check()


def test_one_that_was_idle_gains_nothing_with_runtimes_on_all_tenants(shard: SelectionDriver) -> None:
    shard.join("h", ["idle"])
    shard.send(x=300, y=300)
    shard.serve(400)
    shard.send(idle=100)
    assert abs(shard.serve(60)["idle"] - 20) <= 2


def test_one_that_is_assigned_while_it_waits_does_not_starve(shard: SelectionDriver) -> None:
    shard.join("h", ["a"])
    shard.send(a=400, x=200, late=200)
    shard.join("g", ["x", "late"], [""])
    shard.serve(20, 10, "g")
    shard.assign("h", ["a", "late"])
    assert abs(shard.serve(60, 1, "h")["late"] - 30) <= 2


def test_one_that_is_assigned_while_it_waits_gains_nothing(shard: SelectionDriver) -> None:
    shard.join("h", ["a"])
    shard.send(a=400, late=200)
    shard.serve(200, 1, "h")
    shard.assign("h", ["a", "late"])
    assert abs(shard.serve(60, 1, "h")["late"] - 30) <= 2


@pytest.mark.parametrize("arrives", ["while it is away", "when it is back"])
def test_one_that_arrives_as_a_runtime_is_replaced_gains_nothing(shard: SelectionDriver, arrives: str) -> None:
    shard.join("h", ["a", "b", "new"])
    shard.send(a=300, b=300)
    shard.serve(200, 1, "h")
    shard.driver.run(shard.driver.shard.leave("h"))
    if arrives == "while it is away":
        shard.send(new=100)
    shard.join("its successor", ["a", "b", "new"])
    if arrives == "when it is back":
        shard.send(new=100)
    assert abs(shard.serve(60, 1, "its successor")["new"] - 20) <= 2
