"""Interrupts scripts at each of their calls while tasks wait for others, and checks that the next call recovers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import msgspec
import pytest

from tests.support import servers
from tests.support.dependencies.populated import (
    ARRIVING,
    WaitingShard,
    call,
    claim_the_rest,
    send,
    send_behind_a_gate,
    send_items,
    turn,
)
from tests.support.shard.failpoints import Case, breaking_points, compare, wanted
from tests.support.shard.populated import cancel, purge, stats


def _die(populated: Any) -> None:
    populated.lapse("r")
    populated.maintain(deliveries=1)


_OF: Final = "fairactor_dependencies"


def fill(populated: Any) -> None:
    """Sends the parents of tasks that were sent without them."""
    left = [msgspec.msgpack.encode(awaited) for each in populated.in_parts for awaited in each.awaited]
    while left:
        del left[: populated.call("fill", "in parts", 0, *left)]


def arrive(populated: Any) -> None:
    """Delivers messages of the other shard."""
    left = [*ARRIVING]
    while left:
        del left[: populated.call("arrive", *left)]


CASES: Final[dict[str, Case]] = {
    "send": Case("send", send),
    "send behind a gate": Case("send", send_behind_a_gate),
    "turn that lets go": Case("turn", turn(0, a="F")),
    "turn that lets go and claims": Case("turn", turn(3, a="F", y="R"), claim_the_rest),
    "turn that cancels": Case("turn", turn(0, x="X", y="F")),
    "turn that ends all": Case("turn", turn(2, a="F", b="X", x="F", y="X"), claim_the_rest),
    "tend of a runtime that has died": Case("tend", _die, deaths=1),
    "cancel of one before others": Case("cancel", cancel("q", 60)),
    "cancel of one that waits": Case("cancel", cancel("not x", 60)),
    "cancel of one that has heard": Case("cancel", cancel("hears", 60)),
    "purge": Case("purge", purge("p", 60)),
    "purge of those that wait": Case("purge", purge("u", 60)),
    "take": Case(f"{_OF}/take", call("take", 100, 5000)),
    "open": Case(f"{_OF}/open", call("open", "run", "F")),
    "shut": Case(f"{_OF}/open", call("open", "run", "C")),
    "arrive": Case(f"{_OF}/arrive", arrive),
    "map": Case(f"{_OF}/map", call("map", "to join", 3)),
    "map, again": Case(f"{_OF}/map", call("map", "joins", 3)),
    "items": Case("send", send_items),
    "adopt": Case(f"{_OF}/adopt", call("adopt", "joins", "", 1, "before", 0, 1)),
    "known": Case(f"{_OF}/known", call("known", 1, "a", "", "done", "", "q", "")),
    "fill": Case(f"{_OF}/fill", fill),
    "gate": Case(f"{_OF}/gate", call("gate", "another", 1000, 1)),
}
FEW: Final = {"all at once": None, "few at once": (2, 2, 1, 1)}


def told(case: Case) -> Case:
    """Extends a case: delivers all remaining notifications afterwards."""

    def then(populated: Any) -> None:
        for run in populated.plugin.gates():  # an interrupted end of a gate is repeated once the gate's time is over
            if populated.db.exists(f"{populated.plugin.prefix}gate:{run}"):
                populated.plugin.set_due(run)
        while populated.call("take", 1, 10_000_000)[0] == 0:
            pass
        case.then(populated)

    return attrs.evolve(case, then=then)


@pytest.fixture(scope="module", params=FEW)
def populated(request: pytest.FixtureRequest, server_binary: str) -> Iterator[WaitingShard]:
    with servers.running(server_binary) as url:
        made = WaitingShard(url, FEW[request.param])
        yield made
        made.close()


@pytest.mark.parametrize("title", CASES)
def test_wherever_a_script_breaks_off_those_that_wait_hear_as_if_it_had_not(
    populated: WaitingShard, title: str
) -> None:
    case = told(CASES[title])
    _, want = wanted(populated, case)
    for at, _ in breaking_points(populated, case):
        if populated.torn:
            populated.insist(stats)  # the next script triggers the repair
            assert populated.live <= populated.check().records.keys(), f"lost when it broke off at {at}"
        populated.insist(case.transition)
        case.then(populated)
        compare(populated.gather(), want, case)
