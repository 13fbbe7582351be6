"""Scripts that break off at each of their calls to the server, in a shard with several kinds of runtimes and lanes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from fairactor._store import loader as scripts
from tests.store.test_failpoints import CASES as CASES_WITHOUT_LANES
from tests.support import servers
from tests.support.shard.driver import HOLDER
from tests.support.shard.failpoints import Case, break_everywhere
from tests.support.shard.populated import cancel_many, configure, lower_the_default, purge
from tests.support.shard.populated_lanes import (
    NEW,
    SLIM,
    LanedShard,
    claim_from_lanes,
    declare,
    expire,
    fill,
    fill_again,
    join_as,
    lapse_first,
    leave,
    refuse,
    refuse_and_claim,
    send_into_lanes,
    sort,
)

CASES: Final[dict[str, Case]] = {
    "send": Case("send", send_into_lanes),
    "turn that passes tasks on": Case("turn", refuse, uncounted=1),
    "turn that passes tasks on and claims": Case(
        "turn", refuse_and_claim, claim_from_lanes("slim", 3, 100), uncounted=1
    ),
    "turn that sorts the common lane": Case("turn", claim_from_lanes("slim2", 1, 5), claim_from_lanes("slim2", 2, 100)),
    "turn that claims from lanes": Case("turn", claim_from_lanes("s", 2, 100), claim_from_lanes("s", 3, 100)),
    "turn of those that serve one queue": Case(
        "turn", claim_from_lanes("gpu", 2, 100), claim_from_lanes("gpu", 3, 100)
    ),
    "join of a new kind": Case("join", join_as(NEW), fill_again),
    "join of a known kind": Case("join", join_as(SLIM)),
    "fill": Case("fill", fill, untidy=True),
    "declare": Case("declare", declare, untidy=True),
    "expire": Case("expire", expire),
    "sort": Case("sort", sort, untidy=True),
    "leave of some of a kind": Case("leave", leave("slim")),
    "leave of all of a kind": Case("leave", leave("gpu home", "gpu"), untidy=True),
    "leave of those that lack an actor": Case("leave", leave("slim2", "gone slim", "slim"), untidy=True),
    "tend of a dead one": Case("tend", lapse_first("gone slim"), deaths=1),
    "tend of the last of a kind": Case(
        "tend", lambda p: (leave("gpu home")(p), lapse_first("gpu")(p)), deaths=1, untidy=True
    ),
    "cancel of several": Case("cancel", cancel_many("l.g", "l.gpu", "early1", "lkeyed", "lf", "ldue", "t.lost")),
    "purge": Case("purge", purge("l", 60)),
    "reroute": Case(
        "reroute",
        lambda p: p.run(p.shard.reroute("gpu", [(t, "") for t in ("l.g", "l.gpu", "early1", "ldue", "llater", "no")])),
    ),
    "hasten": Case("hasten", lambda p: p.run(p.shard.hasten([("ldue", "l"), ("llater", ""), ("l.g", "")]))),
    "configure": Case("configure", configure("l", concurrency=1, weight=2.0)),
    "configure a pause": Case("configure", configure("lheld", paused=True)),
    "configure into a group": Case("configure", configure("l", group="lg")),
    "configure out of a group": Case("configure", configure("lheld", group=None)),
    "review": Case("review", lower_the_default, untidy=True),
}
TEARING: Final = [
    title
    for title, case in CASES.items()
    if "\nbegin_writing()" in scripts.load(case.script, flags=True, plugins=HOLDER).text
]


@pytest.fixture(scope="module")
def populated(server_binary: str) -> Iterator[LanedShard]:
    with servers.running(server_binary) as url:
        made = LanedShard(url)
        yield made
        made.close()


RARE: Final = {
    "turn that passes tasks on", "turn that claims from lanes", "turn of those that serve one queue", "review",
    "declare", "join of a known kind", "leave of some of a kind", "tend of a dead one", "cancel of several", "purge",
    "configure", "configure a pause", "configure out of a group", "leave of those that lack an actor",
}  # fmt: skip
"""What the others cover in part, so that the default run stays short."""


@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=pytest.mark.slow) if title in RARE else title for title in CASES]
)
def test_wherever_a_script_breaks_off_lanes_and_kinds_agree_afterwards(populated: LanedShard, title: str) -> None:
    assert break_everywhere(populated, CASES[title]) is (title in TEARING)


@pytest.mark.slow
@pytest.mark.parametrize("title", CASES_WITHOUT_LANES)
def test_what_holds_without_lanes_holds_beside_them(populated: LanedShard, title: str) -> None:
    break_everywhere(populated, CASES_WITHOUT_LANES[title])
