"""Batches in turns: one slot takes up to so many tasks of a tenant, which are charged like all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest

from fairactor._model.wire import SlotKinds, Turn
from tests.support.shard.selection import SelectionDriver, open_selection

KINDS = SlotKinds([("c", ["embed", "work"])], {"embed": 10})


@pytest.fixture
def shard(url: str) -> Iterator[SelectionDriver]:
    with open_selection(url) as made:
        yield made


class Runtime:
    """Takes turns for a runtime whose actor ``embed`` has batches of 10."""

    def __init__(self, shard: SelectionDriver, kinds: SlotKinds = KINDS) -> None:
        self._driver = shard.driver
        self._kinds = kinds
        self._number = 0
        self.last: Turn

    def claim(self, slots: int, open_batches: Iterable[tuple[str, str, int]] = (), ahead: int = 0) -> list[str]:
        """Returns the ids of the claimed tasks, in order."""
        self._number += 1
        packed = self._kinds.pack([slots], 0, open_batches)
        self.last = self._driver.run(
            self._driver.shard.turn("r", self._number, lease=3600.0, want=slots, ahead=ahead, slots=packed)
        )
        return [task.decode() for task in self.last.claims[::2]]

    def serve(self, slots: int, open_batches: Iterable[tuple[str, str, int]] = ()) -> Counter[str]:
        """Returns how many tasks of each tenant a turn claims."""
        return Counter(task.rpartition(":")[0] for task in self.claim(slots, open_batches))


@pytest.fixture
def runtime(shard: SelectionDriver) -> Runtime:
    return Runtime(shard)


def test_a_slot_takes_a_batch_of_one_tenant(shard: SelectionDriver, runtime: Runtime) -> None:
    ids = shard.send({"a": 25}, actors=["embed"])
    assert runtime.claim(1) == ids[:10]
    assert runtime.last.more
    assert sorted(runtime.claim(2)) == ids[10:25]


def test_other_actors_take_a_slot_each(shard: SelectionDriver, runtime: Runtime) -> None:
    shard.send({"a": 5})
    assert runtime.serve(2) == {"a": 2}


def test_what_joins_a_batch_goes_past_other_actors(shard: SelectionDriver, runtime: Runtime) -> None:
    ids = shard.send({"a": 20}, actors=["embed", "work"])
    assert runtime.claim(1) == ids[::2]
    assert runtime.claim(3) == ids[1:6:2]


def test_a_batch_is_charged_for_each_of_its_tasks(shard: SelectionDriver, runtime: Runtime) -> None:
    shard.send({"a": 1000}, actors=["embed"])
    shard.send({"b": 1000, "c": 1000})
    served = sum((runtime.serve(1) for _ in range(121)), Counter[str]())
    assert served["a"] == pytest.approx(served["b"], abs=10)
    assert served["b"] == pytest.approx(served["c"], abs=1)


def test_the_weights_hold_for_batches(shard: SelectionDriver, runtime: Runtime) -> None:
    shard.configure("a", weight=3.0)
    shard.send({"a": 1000, "b": 1000}, actors=["embed"])
    served = sum((runtime.serve(1) for _ in range(40)), Counter[str]())
    assert served == {"a": 300, "b": 100}


def test_a_newcomer_does_not_wait_for_all_of_a_batch(shard: SelectionDriver, runtime: Runtime) -> None:
    shard.send({"a": 100}, actors=["embed"])
    assert runtime.serve(1) == {"a": 10}
    shard.send({"new": 20})
    assert runtime.serve(5) == {"new": 5}


def test_groups_are_charged_for_batches_too(shard: SelectionDriver, runtime: Runtime) -> None:
    shard.configure("a", group="g")
    shard.configure("b", group="g")
    shard.send({"a": 200, "b": 200, "c": 200}, actors=["embed"])
    served = sum((runtime.serve(1) for _ in range(20)), Counter[str]())
    assert served == {"a": 50, "b": 50, "c": 100}


def test_a_batch_exceeds_no_limit(shard: SelectionDriver, runtime: Runtime) -> None:
    shard.configure("a", concurrency=4)
    shard.configure("b", rate="1/day", burst=3)
    shard.send({"a": 20, "b": 20}, actors=["embed"])
    assert runtime.serve(5) == {"a": 4, "b": 3}


def test_a_batch_that_is_gathered_takes_more_without_a_slot(shard: SelectionDriver, runtime: Runtime) -> None:
    shard.send({"a": 2, "b": 3}, actors=["embed"])
    assert runtime.serve(1) == {"a": 2}
    shard.send({"a": 20}, actors=["embed", "work"])
    assert runtime.serve(0, [("a", "embed", 8)]) == {"a": 8}
    assert runtime.serve(0, [("a", "embed", 9)]) == {"a": 2}
    assert runtime.serve(0, [("nobody", "embed", 9)]) == {}
    assert runtime.serve(3) == {"b": 3, "a": 2}


def test_what_joins_later_is_charged_too(shard: SelectionDriver, runtime: Runtime) -> None:
    shard.send({"a": 1}, actors=["embed"])
    runtime.claim(1)
    shard.send({"a": 50}, actors=["embed"])
    shard.send({"b": 50})
    assert runtime.serve(9, [("a", "embed", 9)]) == {"a": 9, "b": 9}


def test_a_runtime_rests_if_a_slot_is_left(shard: SelectionDriver, runtime: Runtime) -> None:
    def rests() -> bool:
        return bool(shard.driver.db.sismember(shard.driver.keys.fixed("IDLE"), "r"))

    shard.send({"a": 10}, actors=["embed"])
    runtime.claim(2)
    assert rests()
    shard.send({"a": 10}, actors=["embed"])
    runtime.claim(1)
    assert not rests()
    runtime.claim(0, [("a", "embed", 9)])
    assert not rests()


def test_no_batch_is_claimed_ahead(shard: SelectionDriver, runtime: Runtime) -> None:
    ids = shard.send({"a": 4}, actors=["embed", "work"])
    assert runtime.claim(0, ahead=2) == ids[1::2]
    assert runtime.claim(1, ahead=2) == ids[::2]


def test_a_name_with_quotation_marks(shard: SelectionDriver) -> None:
    shard.send({"a": 3}, actors=['say \\"hi\\"'])
    quoted = 'say "hi"'
    assert len(Runtime(shard, SlotKinds([("c", [quoted])], {quoted: 10})).claim(1)) == 3
