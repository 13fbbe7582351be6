"""Very many cancellations of tasks that have started: each turn handles some, and none is forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.shard.driver import ShardDriver, item, open_shard, outcome

AT_ONCE = 200
NUMBER = 450


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    """Yields a shard in which a runtime runs tasks that are all to be canceled. It has taken four turns."""
    with open_shard(url) as made:
        made.join("r")
        made.send(*[item(f"t{n}") for n in range(NUMBER)])
        claimed = [task for turn in (1, 2, 3) for task in made.claim("r", turn, AT_ONCE)]
        canceled = made.run(made.shard.cancel_many([(task, "") for task in claimed], ttl=60.0, body=b"{}"))
        assert canceled == ["started"] * NUMBER
        yield made
        made.check()


def test_turns_name_some_of_them_at_a_time_and_all_in_the_end(shard: ShardDriver) -> None:
    named: set[bytes] = set()
    for number in range(4, 100):
        turn = shard.turn("r", number, 0)
        assert turn is not None
        assert len(set(turn.cancels)) == len(turn.cancels) == AT_ONCE
        named |= set(turn.cancels)
        if len(named) == NUMBER:
            break
    assert len(named) == NUMBER
    again = shard.turn("r", number, 0)
    assert again is not None
    assert len(again.cancels) == AT_ONCE


def test_an_outcome_counts_as_that_of_a_canceled_task_whether_or_not_the_turn_names_it(shard: ShardDriver) -> None:
    ends = [outcome(f"t{n}", 1 + n // AT_ONCE, "R1000" if n % 2 else "F0") for n in range(AT_ONCE)]
    turn = shard.turn("r", 4, 0, ends)
    assert turn is not None
    assert turn.refused == []
    snapshot = shard.check()
    assert snapshot.counts["t"].canceled == AT_ONCE // 2
    assert snapshot.counts["t"].finished == AT_ONCE // 2
    assert len(snapshot.cancels["r"]) == NUMBER - AT_ONCE
