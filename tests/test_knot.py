"""Scripts that break off while tasks wait for others: at each of their calls, and what the next call makes of that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs
import pytest

from . import servers
from .crowd import cancel, purge, stats
from .knot import ARRIVING, Knot, call, claim_the_rest, send, send_behind_a_gate, turn
from .test_failpoints import Case, breaking_points, compare, wanted


def _die(knot: Any) -> None:
    knot.lapse("r")
    knot.tend(deliveries=1)


_OF: Final = "fairactor_dependencies"
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
    "arrive": Case(f"{_OF}/arrive", call("arrive", *ARRIVING)),
    "grow": Case(f"{_OF}/grow", call("grow", "to join", "a", "q", "done")),
    "gate": Case(f"{_OF}/gate", call("gate", "another", 1000, 1)),
}
FEW: Final = {"all at once": None, "few at once": (2, 2, 1, 1)}


def told(case: Case) -> Case:
    """With all that is left to be told."""

    def then(knot: Any) -> None:
        for run in knot.plugin.gates():  # one that has ended, and broke off, does so again when its time is over
            if knot.db.exists(f"{knot.plugin.prefix}gate:{run}"):
                knot.plugin.set_due(run)
        while knot.call("take", 1, 10_000_000)[0] == 0:
            pass
        case.then(knot)

    return attrs.evolve(case, then=then)


@pytest.fixture(scope="module", params=FEW)
def knot(request: pytest.FixtureRequest, server_binary: str) -> Iterator[Knot]:
    with servers.running(server_binary) as url:
        made = Knot(url, FEW[request.param])
        yield made
        made.close()


@pytest.mark.parametrize("title", CASES)
def test_wherever_a_script_breaks_off_those_that_wait_hear_as_if_it_had_not(knot: Knot, title: str) -> None:
    case = told(CASES[title])
    _, want = wanted(knot, case)
    for at, _ in breaking_points(knot, case):
        if knot.torn:
            knot.insist(stats)  # whichever script comes next has it mended
            assert knot.live <= knot.check().records.keys(), f"lost when it broke off at {at}"
        knot.insist(case.transition)
        case.then(knot)
        compare(knot.gather(), want, case)
