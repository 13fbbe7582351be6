"""Scripts that break off at each of their calls to the server, and how the next call recovers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Final

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairactor._model.wire import Assignment, Permit, turn_mark
from fairactor._store import loader as scripts
from tests.support import servers
from tests.support.shard.driver import HOLDER
from tests.support.shard.failpoints import Case, break_everywhere, breaking_points, compare, wanted
from tests.support.shard.populated import (
    HOURLY,
    KEY,
    PopulatedShard,
    admit,
    assign,
    cancel,
    cancel_many,
    claim_the_rest,
    claim_the_rest_and_suspects,
    claim_with,
    configure,
    crash,
    lower_the_default,
    purge,
    reserve,
    send,
    send_to_hold_back,
    send_to_replace,
    send_too_many,
    send_what_was_reserved,
    settle,
    settle_and_admit,
    settle_and_claim,
    share,
    stats,
    turn_of_two_kinds,
)


def index_letters_of_before(populated: PopulatedShard) -> bool:
    """Completes the indexes of a shard that an earlier release has written."""
    if populated.db.hdel(populated.keys.meta, "letters"):
        keys = [*populated.db.scan_iter("*:dead-of:*"), *populated.db.scan_iter("*:dead-by:*")]
        populated.db.delete(*keys)
    return populated.run(populated.shard.index_letters())


REPAIR: Final = ("mend", "mend_places", "mend_rings")
"""The scripts of the repair, in order."""
CASES: dict[str, Case] = {
    "open": Case("open", lambda populated: populated.run(populated.shard.open(shards=None, aging=60.0))),
    "send": Case("send", send),
    "send of what is held back": Case("send", send_to_hold_back),
    "send that replaces": Case("send", send_to_replace),
    "holder/admit": Case("holder/admit", admit),
    "turn that lets go": Case("turn", settle_and_admit, claim_the_rest),
    "cancel of a deferred one": Case("cancel", cancel("waits", 60)),
    "send that a backlog refuses": Case("send", send_too_many),
    "send of what was reserved": Case("send", send_what_was_reserved),
    "reserve": Case("reserve", reserve),
    "join": Case("join", lambda populated: populated.join("new")),
    "join of a home": Case("join", lambda populated: populated.join("new", serves=Assignment(["t", "m1"], [""]))),
    "assign": Case("assign", assign("r", Assignment(["t", "held"], ["u", "m1"]))),
    "assign otherwise": Case("assign", assign("home", Assignment(["m2"], []))),
    "assign to all": Case("assign", assign("home", None)),
    "turn that settles": Case("turn", settle, dropped=frozenset({"f0", "x0"}), uncounted=1),
    "turn that claims": Case("turn", settle_and_claim, claim_the_rest),
    "turn that passes over threads": Case("turn", turn_of_two_kinds((90, 1)), claim_the_rest),
    "turn that finds no room": Case("turn", turn_of_two_kinds((0, 1)), claim_the_rest),
    "turn that claims a suspect": Case("turn", claim_with(Permit.APART, 5), claim_the_rest_and_suspects),
    "turn that claims a suspect alone": Case("turn", claim_with(Permit.ALONE, 2), claim_the_rest_and_suspects),
    "turn that empties its process": Case("turn", claim_with(Permit.APART, 2), claim_the_rest),
    "turn that shares": Case("turn", share),
    "cancel of what follows": Case("cancel", cancel("again", 60)),
    "cancel of a suspect": Case("cancel", cancel("suspect", 60)),
    "purge of a suspect": Case("purge", purge("w", 60)),
    "leave after a crash": Case("leave", crash, deaths=1),
    "leave": Case("leave", lambda populated: populated.run(populated.shard.leave("r"))),
    "leave of a home": Case("leave", lambda populated: populated.run(populated.shard.leave("home"))),
    "tend": Case("tend", lambda populated: populated.maintain(deliveries=2), deaths=1),
    "cancel of a queued one": Case("cancel", cancel("keyed", 60)),
    "cancel of a scheduled one": Case("cancel", cancel("later", 0), dropped=frozenset({"later"}), uncounted=1),
    "cancel of several": Case("cancel", cancel_many("f", "keyed", "waits", "suspect", "later", "t1", "no")),
    "cancel of a started one": Case("cancel", cancel("f", 60)),
    "purge": Case("purge", purge("t", 60)),
    "purge without a trace": Case("purge", purge("small", 0), dropped=frozenset({"small.0", "small.1"}), uncounted=2),
    "configure": Case("configure", configure("u", concurrency=9, weight=None)),
    "configure into a group": Case("configure", configure("t", group="g")),
    "configure out of a group": Case("configure", configure("m1", group=None)),
    "configure into another group": Case("configure", configure("m1", group="h", weight=2.0)),
    "configure a rate": Case("configure", configure("v", rate=HOURLY)),
    "configure no rate": Case("configure", configure("held", rate=None)),
    "configure a pause": Case("configure", configure("t", paused=True)),
    "configure no pause": Case("configure", configure("off", paused=None)),
    "configure a group": Case("configure", configure(b"\xffg", weight=None)),
    "review": Case("review", lower_the_default, untidy=True),  # a separate call has changed the defaults before
    "policies": Case("policies", lambda populated: populated.run(populated.shard.policies())),
    "watch": Case(
        "watch",
        lambda populated: populated.run(
            populated.shard.watch("q", [("t1", "", ""), ("no", "", ""), ("dead1", "", "u")])
        ),
    ),
    "progress": Case("progress", lambda populated: populated.run(populated.shard.progress("r", "f", b"[1]"))),
    "inspect": Case("inspect", lambda populated: populated.run(populated.shard.inspect("f"))),
    "pieces": Case("pieces", lambda c: c.run(c.shard.read_pieces("r", 9, [("f", turn_mark(1), 0)]))),
    "redrive": Case("redrive", lambda c: c.run(c.shard.redrive([("dead1", b""), ("dead2", KEY)])), uncounted=2),
    "letters": Case("letters", lambda populated: populated.run(populated.shard.list_dead_letters(0, 9))),
    "tasks": Case("tasks", lambda populated: populated.run(populated.shard.list_tasks("started", 9))),
    "details": Case("details", lambda populated: populated.run(populated.shard.details("t1"))),
    "hasten": Case("hasten", lambda populated: populated.run(populated.shard.hasten([("later", ""), ("t1", "")]))),
    "forget": Case("forget", lambda populated: populated.run(populated.shard.forget(["t1", "dead1"]))),
    "index_letters": Case("index_letters", index_letters_of_before),
    "discard": Case("discard", lambda populated: populated.run(populated.shard.discard(["dead1", "t1"]))),
    **{name: Case(name, lambda populated: populated.run(populated.shard.repair()), every=5) for name in REPAIR},
    "stats": Case("stats", stats),
    "health": Case("health", lambda populated: populated.run(populated.shard.load())),
    "describe": Case("describe", lambda populated: populated.run(populated.shard.describe("r", {"workers": 5}))),
}
TEARING: Final = [
    title
    for title, case in CASES.items()
    if title in REPAIR or "\nbegin_writing()" in scripts.load(case.script, flags=True, plugins=HOLDER).text
]
TEARING.remove("cancel of a started one")  # it makes a single write


@pytest.fixture(scope="module")
def populated(server_binary: str) -> Iterator[PopulatedShard]:
    with servers.running(server_binary) as url:
        made = PopulatedShard(url)
        yield made
        made.close()


def test_every_script_is_there() -> None:
    writes_once = {"renew"}
    elsewhere = {"declare", "expire", "fill", "sort", "reroute"}  # test_failpoints_lanes.py
    elsewhere |= {"limit", "limits", "declare_limits", "reopen", "charge"}  # test_failpoints_limits.py
    elsewhere |= {
        "depart",
        "welcome",
        "export",
        "import",
        "exported",
        "past",
        "residents",
        "lead",
        "grow",
    }  # ..._moving.py
    assert {case.script for case in CASES.values()} == {*scripts.NAMES, "holder/admit"} - writes_once - elsewhere


@pytest.mark.parametrize("title", CASES)
def test_wherever_a_script_breaks_off_nothing_is_lost_and_it_can_be_sent_again(
    populated: PopulatedShard, title: str
) -> None:
    assert break_everywhere(populated, CASES[title]) is (title in TEARING)


@pytest.mark.parametrize("title", ["send", "turn that settles", "tend"])
def test_wherever_a_repair_breaks_off_the_next_one_goes_on(populated: PopulatedShard, title: str) -> None:
    case = CASES[title]
    _, want = wanted(populated, case)
    torn = [at for at, _ in breaking_points(populated, case) if populated.torn]
    populated.restore()
    assert populated.breaks(case.script, torn[len(torn) // 2], case.transition)
    left = populated.dump()
    for script in REPAIR:
        for at in count(1, 7):
            populated.restore(left)
            if not populated.breaks(script, at, stats):
                break
            populated.insist(case.transition)
            case.then(populated)
            compare(populated.gather(), want, case)
        assert at > 50, script


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_a_script_and_its_repair_and_that_one_again_may_break_off_anywhere(
    populated: PopulatedShard, data: st.DataObject
) -> None:
    case = CASES[data.draw(st.sampled_from(TEARING))]
    _, want = wanted(populated, case)
    populated.restore()
    populated.breaks(case.script, data.draw(st.integers(1, 60)), case.transition)
    again = data.draw(st.lists(st.sampled_from([*REPAIR, case.script]), max_size=3))
    for name in again:
        populated.breaks(name, data.draw(st.integers(1, 120)), case.transition)
    populated.insist(case.transition)
    case.then(populated)
    compare(populated.gather(), want, attrs.evolve(case, deaths=case.deaths * (1 + len(again))))


def test_what_was_sent_when_the_clock_had_been_set_back_is_mended_into_its_mailbox(populated: PopulatedShard) -> None:
    for at in range(1, 30):
        populated.restore()
        ahead = int(populated.db.hget(populated.keys.meta, "stamp") or 0) + 3_600_000_000  # type: ignore[arg-type]
        populated.db.hset(populated.keys.meta, "stamp", str(ahead))
        populated.breaks("send", at, send)
        populated.insist(send)
        assert populated.gather()["places"]["n1"] == "queued"


def test_a_send_that_broke_off_may_have_been_accepted_and_says_so(populated: PopulatedShard) -> None:
    for at, error in breaking_points(populated, CASES["send"]):
        populated.insist(stats)
        accepted = {"n1", "n2", "n4", "n5"} & populated.check().records.keys()
        assert error.maybe_accepted or not accepted, f"it broke off at {at}"
