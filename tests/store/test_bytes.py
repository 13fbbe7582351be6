"""How many bytes one call carries: turns, outcomes, dead letters and claims that are taken back, with large records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fairactor._model.inbox import HANDED, OUTCOME, WORK, unpack_outcome
from fairactor._model.wire import Settlement, turn_mark
from fairactor._util.link import FIRST, LEAST, MOST, Link
from fairactor._worker.outbox import Outbox
from tests.support.shard.driver import ShardDriver, item, open_shard, outcome, settlement
from tests.support.shard.model_tasks import Task, pack

SIZE = 100_000
LARGE = b'["a",["' + b"x" * SIZE + b'"],{}]'
BUDGET = 250_000
"""Two large records fit into it."""


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    with open_shard(url) as made:
        made.join("r", "other")
        yield made


def claimed(turn: Any) -> list[str]:
    return [task.decode() for task in turn.claims[::2]]


def large_outcome(task: str, turn: int, verdict: str = "F60000") -> Settlement:
    return settlement(task, turn, verdict, pack(verdict[:1].encode(), Task(task, "t", 3, LARGE, "")))


def commands(shard: ShardDriver, name: str) -> int:
    found: Any = shard.db.info("commandstats")
    return int(found.get(f"cmdstat_{name}", {"calls": 0})["calls"])


def test_a_turn_stops_claiming_once_its_bytes_are_used_and_goes_on_with_the_next_tenant(shard: ShardDriver) -> None:
    shard.send(*[item(f"{tenant}{n}", tenant, body=LARGE) for tenant in "abcd" for n in range(2)])
    first = shard.turn("r", 1, 8, most_bytes=BUDGET)
    assert first is not None
    assert (claimed(first), first.more) == (["a0", "b0", "c0"], True)
    assert first.cut.keys() == {b"c0"}, "the third does not fit any more"
    assert sum(map(len, first.claims)) < BUDGET
    shard.check()
    second = shard.turn("other", 1, 8, most_bytes=MOST)
    assert second is not None
    assert claimed(second) == ["d0", "a1", "b1", "c1", "d1"]
    assert not second.cut
    assert not second.more
    shard.check()


def test_a_runtime_that_stopped_for_its_bytes_does_not_rest_and_wakes_another(shard: ShardDriver) -> None:
    shard.listen("other")
    shard.turn("other", 1, 8)
    shard.send(*[item(f"{n}", f"{n}", body=LARGE) for n in range(4)])
    assert [message[:1] for _, message in shard.hear()] == [WORK]
    shard.turn("other", 2, 0)
    shard.turn("r", 1, 8, most_bytes=BUDGET)
    assert b"r" not in shard.db.smembers(shard.keys.fixed("IDLE"))


def test_a_record_is_read_in_pieces_by_the_holder_of_its_claim_only(shard: ShardDriver) -> None:
    shard.send(item("a", body=LARGE), item("b"))
    turn = shard.turn("r", 1, 2, most_bytes=LEAST)
    assert turn is not None
    stored: Any = shard.db.get(shard.keys.task("a"))
    assert turn.cut == {b"a": len(stored)}
    assert stored.startswith(turn.claims[1])
    parts: list[bytes] = []
    while sum(map(len, parts)) < len(stored):
        piece, other = shard.run(
            shard.shard.read_pieces("r", LEAST, [("a", turn_mark(1), sum(map(len, parts))), ("b", turn_mark(1), 0)])
        )
        assert piece
        assert not other or sum(map(len, parts)) + len(piece) == len(stored), "what is asked for first comes first"
        assert len(piece) + len(other or b"") <= LEAST
        parts.append(piece)
    assert b"".join(parts) == stored
    for runtime, mark in (("other", turn_mark(1)), ("r", turn_mark(2))):
        assert shard.run(shard.shard.read_pieces(runtime, LEAST, [("a", mark, 0)])) == [None]


def test_a_repeated_turn_keeps_to_the_bytes_of_the_repeated_call(shard: ShardDriver) -> None:
    shard.send(*[item(f"{n}", body=LARGE) for n in range(5)], item("small"))
    first = shard.turn("r", 1, 6)
    again = shard.turn("r", 1, 6, most_bytes=LEAST)
    assert first is not None
    assert again is not None
    assert sorted(claimed(again)) == sorted(claimed(first))
    assert sum(map(len, again.claims)) < LEAST
    assert again.cut.keys() == {b"%d" % n for n in range(5)}


def test_a_repeated_turn_may_have_fewer_outcomes_and_learns_how_many_counted(shard: ShardDriver) -> None:
    shard.send(*[item(f"{n}") for n in range(4)])
    shard.turn("r", 1, 4)
    ended = [outcome(f"{n}", 1) for n in range(4)]
    shard.turn("r", 2, 0, ended)
    again = shard.turn("r", 2, 0, ended[:1])
    assert again is not None
    assert (again.had, again.refused) == (4, [])
    last = shard.turn("r", 3, 0)
    assert last is not None
    assert last.had == 0


def test_records_of_ordinary_size_are_not_measured(shard: ShardDriver) -> None:
    shard.send(*[item(f"{n}", body=b'["a",["%s"],{}]' % (b"x" * 1500)) for n in range(300)])
    before = commands(shard, "strlen")
    assert len(shard.claim("r", 1, 300)) == 300
    assert commands(shard, "strlen") == before


def test_a_turn_notes_a_large_record_that_it_did_not_expect(shard: ShardDriver) -> None:
    shard.send(item("a", body=LARGE))
    shard.db.hdel(shard.keys.meta, "largest")  # as if a runtime of the release before had sent it
    assert shard.claim("r", 1, 1) == ["a"]
    assert int(shard.db.hget(shard.keys.meta, "largest") or 0) >= SIZE
    shard.check()


def test_a_large_task_is_claimed_and_not_handed_over(shard: ShardDriver) -> None:
    shard.listen("r")
    shard.turn("r", 1, 1)
    shard.send(item("a", body=LARGE))
    assert [message[:1] for _, message in shard.hear()] == [WORK]
    assert shard.claim("r", 2, 1) == ["a"]
    shard.turn("r", 3, 1, [outcome("a", 2)])
    shard.send(item("b"))
    assert [message[:1] for _, message in shard.hear()] == [HANDED]


def test_a_large_outcome_is_announced_and_asked_for(shard: ShardDriver) -> None:
    shard.send(*[item(task, flag="w") for task in "abcdefgh"])
    shard.turn("r", 1, 8)
    shard.listen("sender")
    ended = [large_outcome(task, 1, "F0") for task in "abcdefg"]
    shard.turn("r", 2, 0, [*ended, outcome("h", 1)])
    said = dict(unpack_outcome(message) for _, message in shard.hear() if message[:1] == OUTCOME)
    assert [task for task, record in said.items() if record] == ["h"]
    replies = shard.run(shard.shard.watch("sender", [(task, "", "") for task in "abcdefg"]))
    assert [reply[0] for reply in replies] == [b"o"] * 5 + [b"l"] * 2
    assert [reply[0] for reply in shard.run(shard.shard.watch("sender", [("f", "", ""), ("g", "", "")]))] == [b"o"] * 2


def test_pages_of_large_dead_letters_are_shorter_and_all_are_redriven(shard: ShardDriver) -> None:
    shard.send(*[item(f"{n}", body=LARGE) for n in range(10)])
    shard.turn("r", 1, 10)
    shard.turn("r", 2, 0, [large_outcome(f"{n}", 1, "X60000") for n in range(10)])
    _, page, more = shard.run(shard.shard.list_dead_letters(0, 200))
    assert more
    assert len(page) == 5
    verdicts = shard.run(shard.shard.redrive([(f"{n}", b"") for n in range(10)]))
    assert verdicts == [True] * 10
    assert shard.run(shard.shard.list_dead_letters(0, 200))[1:] == ([], False)
    shard.check()


def test_large_claims_of_a_dead_runtime_are_taken_back_in_steps(shard: ShardDriver) -> None:
    shard.send(*[item(f"{n}", body=LARGE) for n in range(10)])
    shard.turn("r", 1, 10)
    shard.lapse("r")
    steps = 1
    while shard.maintain():
        steps += 1
    assert 2 <= steps <= 3
    assert shard.check().counts["t"].queued == 10


def test_a_task_that_is_given_back_keeps_its_place_and_its_record(shard: ShardDriver) -> None:
    shard.send(item("a", body=LARGE), item("b"))
    shard.turn("r", 1, 1, most_bytes=LEAST)
    before = shard.db.get(shard.keys.task("a"))
    shard.turn("r", 2, 0, [Settlement("a", turn_mark(1), "B", 0, b"")])
    assert shard.db.get(shard.keys.task("a")) == before
    assert shard.claim("r", 3, 2) == ["a", "b"]


def test_the_bytes_of_a_call_follow_the_link() -> None:
    link = Link(2.0)
    assert link.budget == FIRST
    for _ in range(5):
        link.note(link.budget, 0.1)
    assert link.budget == MOST
    link.note(1000, 1.5)
    assert link.budget == MOST, "a small call that took long says nothing of the link"
    for _ in range(10):
        link.late(link.budget)
    assert link.budget == LEAST
    link.note(LEAST, 0.5)
    assert link.budget == LEAST, "twice as many bytes would take too long"
    link.note(LEAST // 8, 0.001)
    assert link.budget == 2 * LEAST, "a small call that was fast says that the link is"


def test_a_turn_that_was_late_is_repeated_with_fewer_outcomes() -> None:
    outbox = Outbox(Link(2.0))
    ended = [large_outcome(f"{n}", 1) for n in range(4)]
    for each in ended:
        outbox.add(each)
    first = outbox.take()
    assert first == ended[:2], "that is what the first call may carry"
    second = outbox.late(first)
    assert second == ended[:1]
    outbox.add(outcome("new", 1))
    assert outbox.reported(second, 2, 0.5) == ended[:2], "the server had carried out the first call"
    assert outbox.take() == ended[2:3]
    assert outbox.reported(ended[2:3], 1, 0.5) == ended[2:3]
    assert outbox.take() == ended[3:]
    assert [each.id for each in outbox.take()] == ["new"]
    assert not outbox
