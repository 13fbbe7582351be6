"""Direct handover: which tasks the scripts hand over, to which runtimes, and what happens if the scripts break off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fairactor._model.inbox import handed_mark, unpack_handed
from fairactor._model.wire import Assignment, Item, pack_key, turn_mark, unpack_mark
from tests.support import servers
from tests.support.shard.driver import ShardDriver, item, open_shard, outcome
from tests.support.shard.populated import PopulatedShard, Transition, stats

HOURLY = ("1/h", 3.6e9, 1)
KEY = pack_key("k", 60.0)


def idle(shard: ShardDriver, *runtimes: str, listening: bool = True) -> ShardDriver:
    """Joins runtimes that sleep after their first turn."""
    shard.join(*runtimes)
    if listening:
        shard.listen(*runtimes)
    for runtime in runtimes:
        assert shard.claim(runtime, 1, 1) == []
    return shard


def told(shard: ShardDriver) -> list[str]:
    """Returns the tasks that listening runtimes were notified of as handed over."""
    return [unpack_handed(said).id.decode() for _, said in shard.hear() if said[:1] == b"k"]


def marks(shard: ShardDriver, runtime: str = "r") -> dict[str, bytes]:
    return {task: unpack_mark(mark).turn for task, mark in shard.check().claims.get(runtime, {}).items()}


def brought(shard: ShardDriver, number: int, want: int = 1, settle: Any = (), *, heard: bool = False) -> list[str]:
    turn = shard.turn("r", number, want, settle, heard=heard)
    assert turn is not None
    return [task.decode() for task in turn.claims[::2]]


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    with open_shard(url) as made:
        yield made


def test_one_that_finds_a_sleeping_runtime_is_claimed_for_it_and_told(shard: ShardDriver) -> None:
    idle(shard, "r")
    shard.send(item("a", flag="w"))
    assert told(shard) == ["a"]
    assert marks(shard) == {"a": handed_mark(1)}
    assert shard.snapshot().fixed["IDLE"] == {}
    assert brought(shard, 2, heard=True, settle=[outcome("a", 1 | 1 << 63)]) == []
    assert shard.check().records["a"].state == b"F"


def test_who_has_not_heard_gets_it_with_the_next_turn_and_with_its_repeats(shard: ShardDriver) -> None:
    idle(shard, "r").send(item("a"))
    assert brought(shard, 2) == ["a"]
    assert brought(shard, 2) == ["a"]
    assert marks(shard) == {"a": turn_mark(2)}
    assert brought(shard, 3, settle=[outcome("a", 1 | 1 << 63), outcome("a", 2)]) == []
    assert shard.check().records["a"].state == b"F"


@pytest.mark.parametrize("want", [0, 1, 2])
def test_what_was_missed_is_one_of_those_that_are_wanted(shard: ShardDriver, want: int) -> None:
    idle(shard, "r").send(item("a"))
    shard.send(item("b"), item("c"))
    assert brought(shard, 2, want) == ["b", "a"][2 - max(want, 1) :]
    shard.check()


def test_what_was_missed_takes_a_slot_of_its_kind(shard: ShardDriver) -> None:
    idle(shard, "r").send(item("a", body=b'["f",[],{}]'))
    shard.send(item("b", body=b'["f",[],{}]'), item("c", body=b'["g",[],{}]'))
    turn = shard.turn("r", 2, 3, room=(2, 1))
    assert turn is not None
    assert {task.decode() for task in turn.claims[::2]} == {"a", "c"}
    shard.check()


def test_who_has_missed_one_and_wants_no_more_is_not_idle(shard: ShardDriver) -> None:
    idle(shard, "r").send(item("a"))
    brought(shard, 2)
    shard.send(item("b"))
    assert told(shard) == ["a"]
    assert shard.check().queues["t"].keys() == {"b"}


def test_one_whose_reply_was_lost_is_handed_over_once(shard: ShardDriver) -> None:
    idle(shard, "r", "s").send(item("a", key=KEY))
    assert shard.send_again(item("a", key=KEY)) == ["a"]
    assert shard.send(item("a", key=KEY)) == [""]
    assert shard.send(item("b", key=KEY)) == ["a"]
    assert shard.send(item("a", "other")) == [None]
    assert told(shard) == ["a"]
    assert sum(map(len, shard.check().claims.values())) == 1


@pytest.mark.parametrize("why", ["deaf", "lapsed", "gone"])
def test_who_cannot_hear_is_handed_nothing(shard: ShardDriver, why: str) -> None:
    idle(shard, "r", listening=why != "deaf")
    if why == "lapsed":
        shard.lapse("r")
    elif why == "gone":
        shard.run(shard.shard.leave("r"))
    shard.send(item("a"))
    assert told(shard) == []
    assert shard.check().queues["t"].keys() == {"a"}


HOLDS: dict[str, dict[str, Any]] = {
    "it is paused": {"paused": True}, "its rate": {"rate": HOURLY}, "its concurrency": {"concurrency": 1},
}  # fmt: skip


@pytest.mark.parametrize("policy", HOLDS.values(), ids=HOLDS)
def test_what_holds_a_tenant_back_holds_what_would_be_handed_over(shard: ShardDriver, policy: dict[str, Any]) -> None:
    shard.configure("t", **policy)
    idle(shard, "r", "s")
    shard.send(item("a"))
    assert told(shard) == ([] if "paused" in policy else ["a"])
    shard.send(item("b"))
    assert told(shard) == []
    assert "b" in shard.check().queues["t"]


def test_a_task_that_was_handed_over_does_not_fill_a_mailbox(shard: ShardDriver) -> None:
    shard.configure("t", backlog=1)
    idle(shard, "r").send(item("a"))
    assert shard.send(item("b")) == ["b"]
    assert shard.send(item("c")) != ["c"]
    assert told(shard) == ["a"]
    shard.check()


WAITS: dict[str, list[Item]] = {
    "another tenant waits": [item("first", "u")], "the tenant waits": [item("first", priority=1)],
}  # fmt: skip


@pytest.mark.parametrize("before", WAITS.values(), ids=WAITS)
def test_what_waits_is_not_jumped_not_even_by_what_is_critical(shard: ShardDriver, before: list[Item]) -> None:
    shard.join("r")
    shard.listen("r")
    shard.send(*before)
    shard.db.sadd(shard.keys.fixed("IDLE"), "r")
    shard.db.hset(shard.keys.fixed("SESSIONS"), "r", turn_mark(0) + b"\0\0\x90")
    shard.send(item("a", priority=6))
    assert told(shard) == []
    assert "a" in shard.check().queues["t"]


@pytest.mark.parametrize("how", ["two", "later", "by time", "homes"])
def test_what_is_not_one_that_is_due_among_equals_is_not_handed_over(shard: ShardDriver, how: str) -> None:
    if how == "by time":
        shard.open(fair_by="time")
    idle(shard, "r")
    if how == "homes":
        shard.join("h", serves=Assignment(["u"], []))
    shard.send(*[item("a", due="+1000" if how == "later" else ""), item("b")][: 2 if how == "two" else 1])
    assert told(shard) == []
    assert shard.check().claims == {}


def test_one_that_is_canceled_before_its_runtime_has_heard_comes_with_its_cancellation(shard: ShardDriver) -> None:
    idle(shard, "r").send(item("a"))
    assert shard.run(shard.shard.cancel("a", ttl=60.0, body=b"{}")) == "started"
    turn = shard.turn("r", 2, 1)
    assert turn is not None
    assert (list(turn.claims[::2]), list(turn.cancels)) == ([b"a"], [b"a"])
    shard.check()


@pytest.mark.parametrize("ends", ["leaves", "dies"])
def test_what_was_handed_to_one_that_is_gone_goes_back(shard: ShardDriver, ends: str) -> None:
    idle(shard, "r").send(item("a"))
    if ends == "leaves":
        assert shard.run(shard.shard.leave("r")) == 1
    else:
        shard.lapse("r")
        shard.maintain()
    snapshot = shard.check()
    assert (snapshot.queues if ends == "leaves" else snapshot.suspects)["t"].keys() == {"a"}
    assert shard.turn("r", 2, 1) is None


def test_a_runtime_whose_session_was_deleted_by_hand_breaks_no_send(shard: ShardDriver) -> None:
    idle(shard, "r")
    shard.db.delete(shard.keys.fixed("SESSIONS"))
    assert shard.send(item("a")) == ["a"]
    assert shard.turn("r", 2, 1) is None, "it is behind"
    shard.run(shard.shard.leave("r"))
    assert shard.check().queues["t"].keys() == {"a"}


def test_a_tenant_that_is_assigned_to_a_home_that_lags_behind_does_not_jump_all_others(shard: ShardDriver) -> None:
    shard.join("h", serves=Assignment(["nobody"], []))
    shard.join("r")
    shard.send(*[item(f"{tenant}{n}", tenant) for tenant in ("late", "other") for n in range(50)])
    shard.claim("r", 1, 60)
    shard.run(shard.shard.assign("h", Assignment(["nobody", "late"], [])))
    claimed = shard.claim("r", 2, 20)
    assert abs(sum(task.startswith("late") for task in claimed) - 10) <= 1
    shard.check()


# Scripts that break off


class Quiet(PopulatedShard):
    """A shard where nothing waits, with a runtime that sleeps and listens."""

    def __init__(self, url: str) -> None:
        ShardDriver.__init__(self, url)
        self.open()
        idle(self, "r")
        self.kept = self.dump()


def send_one(quiet: PopulatedShard) -> None:
    quiet.insist_on(item("a", key=KEY, flag="w"))


def miss(quiet: PopulatedShard) -> None:
    assert quiet.turn("r", 2, 3)


def hand_and_miss(quiet: PopulatedShard) -> None:
    if "a" not in quiet.snapshot().records:
        send_one(quiet)
    miss(quiet)


@pytest.fixture(scope="module")
def quiet(server_binary: str) -> Iterator[Quiet]:
    with servers.running(server_binary) as url:
        made = Quiet(url)
        yield made
        made.close()


@pytest.mark.parametrize(("script", "transition"), [("send", send_one), ("turn", hand_and_miss)])
def test_wherever_a_hand_over_breaks_off_the_task_is_there_and_comes_with_a_turn(
    quiet: Quiet, script: str, transition: Transition
) -> None:
    tore = 0
    for at in range(1, 100):
        quiet.restore()
        if quiet.breaks(script, at, transition) is None:
            break
        if quiet.torn:
            tore += 1
            quiet.insist(stats)
            quiet.check()
        quiet.insist(send_one)
        assert "a" in quiet.check().records, f"lost when it broke off at {at}"
        quiet.insist(miss)
        quiet.claim("r", 3, 3)
        assert quiet.check().claims["r"].keys() == {"a"}, f"it has not come when the {script} broke off at {at}"
        assert brought(quiet, 4, settle=[outcome("a", turn) for turn in (2, 3)]) == []
        assert quiet.check().records["a"].state == b"F"
    assert tore >= 5
