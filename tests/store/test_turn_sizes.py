"""Large turns: each takes so many outcomes and claims in any case, and more while it is fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from fairactor._model.wire import Assignment, Settlement, Turn, turn_mark
from fairactor._util.link import Link
from fairactor._worker.outbox import Outbox
from fairactor._worker.pace import PER_TURN
from fairactor._worker.pace import SURE as SURE_OF_RUNTIMES
from tests.support.shard.driver import ShardDriver, item, open_shard, outcome

SURE: Final = 20
WANT: Final = 150
ENOUGH: Final = 3600.0
"""Seconds that no turn takes."""


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    with open_shard(url) as made:
        made.join("r", "other")
        yield made


def turn(shard: ShardDriver, number: int, want: int = WANT, settle: list[Settlement] | None = None, **how: Any) -> Turn:
    given: dict[str, Any] = {"sure": SURE, "most_time": ENOUGH} | how
    found: Turn = shard.run(shard.shard.turn("r", number, lease=3600.0, want=want, settle=settle or [], **given))
    return found


def claimed(found: Turn) -> list[str]:
    return [task.decode() for task in found.claims[::2]]


def outcomes(found: Turn, number: int) -> list[Settlement]:
    return [Settlement(task, turn_mark(number), "F", 0, b"") for task in claimed(found)]


def fill(shard: ShardDriver, tenants: int = WANT, each: int = 2) -> None:
    shard.send(*[item(f"{n:03}.{k}", f"t{n:03}") for k in range(each) for n in range(tenants)])


def test_a_fast_turn_takes_all(shard: ShardDriver) -> None:
    fill(shard)
    first = turn(shard, 1)
    assert (len(first.claims), first.more) == (2 * WANT, True)
    shard.check()
    second = turn(shard, 2, WANT, outcomes(first, 1))
    assert (second.had, len(second.claims), second.more) == (WANT, 2 * WANT, False)
    shard.check()


def test_a_turn_without_time_takes_what_is_sure(shard: ShardDriver) -> None:
    fill(shard)
    shard.listen("other")
    ended = outcomes(turn(shard, 1), 1)
    found = turn(shard, 2, settle=ended, most_time=0.0)
    assert (found.had, len(claimed(found)), found.more, found.refused) == (SURE, SURE, True, [])
    shard.check()
    assert shard.db.hlen(shard.keys.claims("r")) == WANT, "the other outcomes have not been taken"
    found = turn(shard, 3, 0, ended[SURE:])
    assert (found.had, found.refused) == (WANT - SURE, [])
    shard.check()


def test_a_turn_that_was_cut_short_is_repeated_with_the_same_reply(shard: ShardDriver) -> None:
    fill(shard)
    ended = outcomes(turn(shard, 1), 1)
    first = turn(shard, 2, settle=ended, most_time=0.0)
    for again in (ended, ended[:3]):
        repeated = turn(shard, 2, settle=again)
        assert (repeated.had, sorted(claimed(repeated))) == (SURE, sorted(claimed(first)))


def test_a_large_turn_claims_in_the_order_of_the_ring(shard: ShardDriver) -> None:
    fill(shard, tenants=100)
    ids = claimed(turn(shard, 1))
    assert ids == [f"{n:03}.{k}" for k in range(2) for n in range(100)][:WANT]
    shard.check()


def test_a_large_turn_merges_what_arrives_meanwhile_into_the_ring(shard: ShardDriver) -> None:
    fill(shard, tenants=120)
    first = turn(shard, 1, 70)
    gone = [each._replace(state="B") for each in outcomes(first, 1)[::2]]
    turn(shard, 2, 0, gone)
    shard.send(item("new", "t000x"))
    shard.check()
    assert len(claimed(turn(shard, 3, 240))) == 240 + 1 - 35
    shard.check()


def set_policy(shard: ShardDriver) -> None:
    shard.configure("t001", weight=2.0)


def set_limit(shard: ShardDriver) -> None:
    shard.run(shard.shard.change_limit("a", {"concurrency": 1000}))


def add_kind(shard: ShardDriver) -> None:
    shard.db.hset(shard.keys.meta, "lanes", "1")


def dedicate(shard: ShardDriver) -> None:
    shard.run(shard.shard.assign("r", Assignment(["t001"], [""])))


@pytest.mark.parametrize("make_dear", [set_policy, set_limit, add_kind, dedicate])
def test_a_turn_is_small_where_each_task_needs_more_work(
    shard: ShardDriver, make_dear: Callable[[ShardDriver], None]
) -> None:
    fill(shard)
    ended = outcomes(turn(shard, 1), 1)
    make_dear(shard)
    found = turn(shard, 2, settle=ended)
    assert (found.had, len(claimed(found)), found.more) == (SURE, SURE, True)


def test_a_turn_is_as_large_as_its_records_are_sure_to_fit(shard: ShardDriver) -> None:
    body = b'["a",["' + b"x" * 3000 + b'"],{}]'
    shard.send(*[item(f"{n:03}", f"t{n % 7}", body=body) for n in range(WANT)])
    shard.db.config_resetstat()
    found = turn(shard, 1, most_bytes=100 * 4096)
    assert (len(claimed(found)), found.cut) == (98, {})
    measured: Any = shard.db.info("commandstats")
    shard.check()
    assert len(claimed(turn(shard, 2, most_bytes=10 * 4096))) < SURE, (
        "records are measured if those that are sure are too many"
    )
    assert "cmdstat_strlen" not in measured


# The outbox


def settled(numbers: range) -> list[Settlement]:
    return [outcome(f"{n}", 1) for n in numbers]


def test_the_outbox_sends_more_while_the_server_takes_all_and_less_once_it_does_not() -> None:
    outbox = Outbox(Link(2.0))
    for each in settled(range(10_000)):
        outbox.add(each)
    sizes = []
    for _ in range(8):
        taken = outbox.take()
        sizes.append(len(taken))
        assert outbox.reported(taken, len(taken), 0.001) == taken
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (SURE_OF_RUNTIMES, PER_TURN)
    taken = outbox.take()
    assert outbox.reported(taken, 310, 0.001) == taken[:310], "the server had no time for the others"
    again = outbox.take()
    assert again == taken[310:] + settled(range(int(taken[-1].id) + 1, int(taken[-1].id) + 121))
    assert len(again) == 310
    outbox.reported(again, 150, 0.001)
    assert len(outbox.take()) == SURE_OF_RUNTIMES, "so many it takes in any case"


def test_the_outbox_does_not_grow_while_few_tasks_end() -> None:
    outbox = Outbox(Link(2.0))
    for _ in range(5):
        for each in settled(range(50)):
            outbox.add(each)
        outbox.reported(outbox.take(), 50, 0.001)
    assert outbox.most == SURE_OF_RUNTIMES
