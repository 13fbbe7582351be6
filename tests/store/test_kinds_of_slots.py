"""Slots of several kinds: what finds none is passed over, and keeps its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fairactor._model.wire import SlotKinds, Turn
from tests.support.shard.selection import SelectionDriver, open_selection


@pytest.fixture
def shard(url: str) -> Iterator[SelectionDriver]:
    with open_selection(url) as made:
        yield made


class Capped:
    """Takes turns in which the tasks of actor ``crunch`` are limited."""

    def __init__(self, shard: SelectionDriver, runtime: str = "r", actors: tuple[str, ...] = ("crunch",)) -> None:
        self._shard = shard
        self._runtime = runtime
        self._kinds = SlotKinds([("c", []), ("p", actors)])
        self._number = 0
        self.last: Turn | None = None

    def claim(self, want: int, room: int, others: int = 1000) -> list[str]:
        """Returns the tenants of the claimed tasks, in order."""
        self._number += 1
        behind = self.last.behind if self.last and not room else 0
        driver = self._shard.driver
        self.last = driver.run(
            driver.shard.turn(
                self._runtime, self._number, lease=3600.0, want=want, slots=self._kinds.pack([others, room], behind)
            )
        )
        return [task.decode().rpartition(":")[0] for task in self.last.claims[::2]]


@pytest.fixture
def capped(shard: SelectionDriver) -> Capped:
    return Capped(shard)


def test_no_more_are_claimed_than_there_is_room_for(shard: SelectionDriver, capped: Capped) -> None:
    shard.send({"a": 2, "b": 2, "c": 2}, actors=["crunch"])
    shard.send({"d": 2, "e": 2})
    assert sorted(capped.claim(20, 2)) == ["a", "b", "d", "d", "e", "e"]
    assert capped.last
    assert capped.last.more is False
    assert capped.claim(20, 0) == []
    assert capped.claim(20, 9) == ["c", "a", "b", "c"]


def ids(turn: Turn | None) -> list[str]:
    assert turn is not None
    return [task.decode() for task in turn.claims[::2]]


def test_a_task_without_a_slot_holds_up_no_other_of_its_tenant(shard: SelectionDriver, capped: Capped) -> None:
    shard.send({"a": 6}, actors=["work", "crunch"])
    assert capped.claim(9, 0) == ["a"] * 3
    assert capped.claim(9, 0) == []
    assert capped.claim(9, 2) == ["a"] * 2
    shard.send({"a": 2})
    assert capped.claim(9, 1) == ["a"] * 3
    shard.driver.check()


def test_each_kind_has_room_of_its_own(shard: SelectionDriver, capped: Capped) -> None:
    shard.send({"a": 9, "b": 9}, actors=["work", "crunch"])
    capped.claim(3, 1, others=2)
    assert len(ids(capped.last)) == 3
    capped.claim(2, 2, others=0)
    assert capped.claim(9, 0, others=0) == []
    records = capped.last and shard.driver.check().queues
    assert records
    assert sum(map(len, records.values())) == 13


def test_only_the_first_tasks_of_a_tenant_are_looked_at(shard: SelectionDriver, capped: Capped) -> None:
    shard.send({"a": 49}, actors=["crunch"])
    shard.send({"a": 2})
    assert capped.claim(9, 0) == ["a", "a"]
    shard.send({"a": 1}, actors=["crunch"])
    shard.send({"a": 2})
    assert capped.claim(9, 0) == []
    assert capped.claim(9, 1) == ["a"] * 3
    shard.driver.check()


def test_who_was_passed_over_is_first_and_does_not_catch_up(shard: SelectionDriver, capped: Capped) -> None:
    shard.send({"a": 20, "b": 20}, actors=["crunch"])
    shard.send({"c": 60})
    assert capped.claim(30, 0) == ["c"] * 30
    served = capped.claim(12, 20)
    assert sorted(served[:2]) == ["a", "b"]
    assert {tenant: served[2:].count(tenant) for tenant in "abc"} == {"a": 3, "b": 3, "c": 4}


@pytest.mark.parametrize("group", [False, True])
def test_the_next_ones_come_in_their_order(shard: SelectionDriver, capped: Capped, group: bool) -> None:
    """Of a ring only as many entries are read as are wanted, and others take the place of those passed over."""
    names = [f"t{n:03}" for n in range(90)]
    for name in [*names, "x", "y"] if group else []:
        shard.configure(name, group="g")
    shard.send(dict.fromkeys(names, 1), actors=["crunch"])
    shard.send({"x": 9, "y": 9})
    assert capped.claim(4, 0) == ["x", "y", "x", "y"]
    assert capped.claim(4, 2) == ["t000", "t001", "x", "y"]


def test_many_that_wait_do_not_hide_the_others(shard: SelectionDriver, capped: Capped) -> None:
    """A turn passes over 100 tenants. The next ones go on behind them."""
    shard.send({f"t{n:04}": 1 for n in range(900)}, actors=["crunch"])
    shard.send({"z": 1})
    turns = 0
    found: list[str] = []
    while not found:
        found = capped.claim(10, 0)
        turns += 1
        assert found or (capped.last and capped.last.unseen)
    assert (found, turns) == (["z"], 10)
    while capped.last and capped.last.unseen:
        assert capped.claim(10, 0) == []
        turns += 1
    assert turns < 12  # then it waits
    assert capped.claim(3, 2) == ["t0000", "t0001"]
    shard.driver.db.config_resetstat()
    shard.driver.db.slowlog_reset()
    shard.driver.db.config_set("slowlog-log-slower-than", 0)
    for _ in range(3):
        capped.claim(500, 0)
    lasted = [
        entry["duration"]
        for entry in shard.driver.db.slowlog_get(10)
        if entry["command"].startswith((b"EVALSHA", b"FCALL"))
    ]
    assert min(lasted) < 20_000  # µs; 1,500 on a quiet machine


def test_a_runtime_with_room_is_woken_for_what_another_passes_over(shard: SelectionDriver, capped: Capped) -> None:
    shard.join("idle")
    shard.join("full")
    shard.driver.listen("r", "idle", "full")
    Capped(shard, "idle").claim(5, 2)
    Capped(shard, "full").claim(5, 0)
    db, idle = shard.driver.db, shard.driver.keys.fixed("IDLE")
    sleepers = db.smembers(idle)
    db.delete(idle)  # so that the send hands it to nobody
    shard.send({"a": 1}, actors=["crunch"])
    assert shard.driver.hear() == []
    db.sadd(idle, *sleepers)
    assert capped.claim(5, 0) == []
    assert shard.driver.hear() == [("idle", b"w")]
    assert capped.claim(5, 0) == []
    assert shard.driver.hear() == [], "it is told once"


@pytest.mark.parametrize("name", ['a"b', "a\\", "żółć ☃", "\n", '"', '\\"', "a,b", '",['])
def test_names_of_actors(shard: SelectionDriver, name: str) -> None:
    from fairactor._model import record

    body: Any = record.encode(record.Call(name, ["x"], {}))
    encoded = record.encode(name)[1:-1].decode()
    assert record.actor_in(b"L" + record.NO_HEADER + body) == name
    capped = Capped(shard, actors=(name, "other"))
    shard.send({"a": 1}, actors=[encoded])
    shard.send({"b": 1}, actors=[encoded + "x"])
    assert capped.claim(5, 0) == ["b"]
    assert capped.claim(5, 1) == ["a"]
