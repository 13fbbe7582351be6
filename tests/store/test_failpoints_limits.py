"""Scripts that break off at each of their calls to the server, in a shard with limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from fairactor._store import loader as scripts
from tests.support import servers
from tests.support.shard.driver import HOLDER, item
from tests.support.shard.failpoints import Case, break_everywhere, breaking_points
from tests.support.shard.populated import cancel_many, configure, purge, stats
from tests.support.shard.populated_lanes import lapse_first
from tests.support.shard.populated_limits import (
    LimitedShard,
    body,
    change,
    charge,
    claim_all_limited,
    settle_and_claim_limited,
    settle_limited,
)

REPAIR: Final = ("mend", "mend_places", "mend_rings")
CASES: Final[dict[str, Case]] = {
    "send": Case("send", lambda p: p.send_again(item("n1", "l", 6, body=body({"api": 2, "used": 3})))),
    "turn that settles": Case("turn", settle_limited, dropped=frozenset({"l.run"}), uncounted=1),
    "leave": Case("leave", lambda p: p.run(p.shard.leave("lim"))),
    "limit": Case("limit", change("api", concurrency=9, rate=None)),
    "limit that is new": Case("limit", change("g", concurrency=1)),
    "limit of a tenant": Case("limit", change("f", tenant="l2", pause="-1")),
    "limit that is resumed": Case("limit", change("f", tenant="l", resume=True)),
    "limit that is removed": Case("limit", lambda p: p.run(p.shard.reset_limit("own"))),
    "declare_limits": Case("declare_limits", lambda p: p.run(p.shard.declare_limits({"g": {"concurrency": 3}}))),
    "reopen": Case("reopen", change("g", concurrency=1), untidy=True),
    "charge": Case("charge", charge),
    "limits": Case("limits", lambda p: p.run(p.shard.limits("api"))),
    "cancel of several": Case("cancel", cancel_many("l-0", "l2-1", "l.run", "own-2")),
    "purge": Case("purge", purge("l", 60)),
    "configure a pause": Case("configure", configure("l", paused=True)),
    "configure into a group": Case("configure", configure("l2", group="lg")),
    **{name: Case(name, lambda p: p.run(p.shard.repair()), every=3) for name in REPAIR},
}
ANY_ORDER: Final[dict[str, Case]] = {
    "turn that claims": Case("turn", settle_and_claim_limited, claim_all_limited),
    "tend of a dead one": Case("tend", lapse_first("gone lim"), lambda p: p.claim("lim", 6, 100)),
}
"""After a repair tenants line up anew, so other tasks may start."""
TEARING: Final = [
    title
    for title, case in CASES.items()
    if title in REPAIR or "\nbegin_writing()" in scripts.load(case.script, flags=True, plugins=HOLDER).text
]


@pytest.fixture(scope="module")
def populated(server_binary: str) -> Iterator[LimitedShard]:
    with servers.running(server_binary) as url:
        made = LimitedShard(url)
        yield made
        made.close()


RARE: Final = {
    "leave", "limit that is new", "limit that is resumed", "declare_limits", "limits", "cancel of several", "purge",
    "configure a pause", "configure into a group", *REPAIR,
}  # fmt: skip
"""What the others cover in part, so that the default run stays short."""


@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=pytest.mark.slow) if title in RARE else title for title in CASES]
)
def test_wherever_a_script_breaks_off_limits_count_what_runs_afterwards(populated: LimitedShard, title: str) -> None:
    assert break_everywhere(populated, CASES[title]) is (title in TEARING)


@pytest.mark.parametrize("title", ANY_ORDER)
def test_wherever_a_script_breaks_off_no_limit_is_exceeded_afterwards(populated: LimitedShard, title: str) -> None:
    case = ANY_ORDER[title]
    for _ in breaking_points(populated, case):
        if populated.torn:
            populated.insist(stats)
            populated.check()
        populated.insist(case.transition)
        case.then(populated)
        populated.check()
