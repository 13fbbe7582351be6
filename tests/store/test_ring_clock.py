"""Tests what the reply to a turn says of the clock of its ring, by which a runtime divides its slots among shards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fairactor._model.wire import RingClock
from tests.support.shard.selection import SelectionDriver, open_selection


@pytest.fixture
def shard(url: str) -> Iterator[SelectionDriver]:
    with open_selection(url) as made:
        yield made


def clock(shard: SelectionDriver, want: int, runtime: str = "r") -> RingClock:
    shard.turn(want, runtime)
    assert shard.last.clock is not None
    return shard.last.clock


def test_it_says_how_far_a_turn_has_moved_virtual_time_and_what_is_next(shard: SelectionDriver) -> None:
    shard.configure("light", weight=0.5)
    shard.send(heavy=3, light=2)
    assert clock(shard, 0) == RingClock(0, 0, 0, 1), "a turn without a task tells, too"
    assert clock(shard, 2) == RingClock(0, 0, 2, 2)
    assert clock(shard, 2) == RingClock(0, 2, 3, 4)
    assert clock(shard, 5) == RingClock(0, 3, 4, 0), "before virtual time restarts, because nobody waits"
    assert clock(shard, 5) == RingClock(1, 0, 0, 0)


def test_a_group_counts_once(shard: SelectionDriver) -> None:
    for name in ("a", "b", "c"):
        shard.configure(name, group="one")
    shard.send(a=2, b=2, c=2)
    assert clock(shard, 4)[1:] == (0, 4, 5)


def test_a_dedicated_runtime_has_a_clock_of_its_own(shard: SelectionDriver) -> None:
    shard.join("mine", ["own"], [""])
    shard.send(own=3, other=3)
    assert clock(shard, 2, "mine") == RingClock(0, 0, 2, 0), "the next tag is not known"
    assert clock(shard, 2, "mine").after > 2, "what it takes from others counts, too"
    assert clock(shard, 1) == RingClock(0, 1, 2, 3)


def test_a_repeated_turn_does_not_tell(shard: SelectionDriver) -> None:
    shard.send(a=2)
    shard.turn(1)
    again = shard.driver.turn("r", 1, 1, [])
    assert again is not None
    assert again.clock is None
