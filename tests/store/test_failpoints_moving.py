"""Scripts that break off at each of their calls to the server, in a shard from which and to which tenants move."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import pytest

from fairactor._store import loader as scripts
from tests.support import servers
from tests.support.shard.driver import HOLDER, item
from tests.support.shard.failpoints import Case, break_everywhere
from tests.support.shard.populated import cancel_many, configure, purge
from tests.support.shard.populated_moving import (
    LEAVES,
    MovingShard,
    arrivals,
    bring,
    depart,
    export,
    exported,
    grow,
    letter,
    welcome,
)

REPAIR: Final = ("mend", "mend_places", "mend_rings")
LEFT: Final = frozenset(LEAVES)
LETTER: Final = letter("ar.letter", "ar", time.time() + 3600)
WITH_KEY: Final = arrivals("ar.key", key=b"\x00" * 8 + b"2:ark")
CASES: Final[dict[str, Case]] = {
    "depart: hold": Case("depart", depart("lv", "hold")),
    "depart: free": Case("depart", depart("hd", "free")),
    "depart: go": Case("depart", depart("hd", "go")),
    "depart: forget": Case("depart", depart("tidy", "forget")),
    "depart: ask": Case("depart", lambda p: p.run(p.shard.ask_to_go("nobody"))),
    "welcome of a new one": Case("welcome", welcome("newcomer", "arriving")),
    "welcome: served": Case("welcome", welcome("ar", "served")),
    "export": Case("export", export),
    "import": Case("import", bring(*arrivals("ar.1", "ar.3", "ar.4"))),
    "import of delayed ones": Case("import", bring(*arrivals("ar.5", due=b"9999999999999"))),
    "import of a key": Case("import", bring(*WITH_KEY)),
    "import of a dead letter": Case("import", bring(LETTER)),
    "exported": Case("exported", exported(*LEAVES), dropped=LEFT),
    "exported in part": Case("exported", exported("mv.1", "mv.key"), dropped=LEFT),
    "exported dead letter": Case("exported", exported("mv.letter"), uncounted=1),
    "past": Case("past", lambda p: p.run(p.shard.past("mv", [("mv.1", b"")]))),
    "residents": Case("residents", lambda p: p.run(_residents(p))),
    "lead": Case("lead", lambda p: p.run(p.shard.lead("r", 3600.0))),
    "send": Case("send", lambda p: p.send_again(item("n1", "ar"), item("n2", "hd"), item("n3", "mv"), item("n4", "t"))),
    "cancel": Case("cancel", cancel_many("ar.1", "hd.1", "lv.1")),
    "purge": Case("purge", purge("ar", 60)),
    "configure": Case("configure", configure("ar", weight=3.0)),
    "configure of a held one": Case("configure", configure("hd", paused=True)),
    "tend": Case("tend", lambda p: p.maintain(deliveries=2), deaths=1),
    **{name: Case(name, lambda p: p.run(p.shard.repair()), every=7) for name in REPAIR},
}
TEARING: Final = [
    title
    for title, case in CASES.items()
    if title in REPAIR or "\nbegin_writing()" in scripts.load(case.script, flags=True, plugins=HOLDER).text
]


async def _residents(populated: MovingShard) -> dict[str, bool]:
    return {tenant: lives async for tenant, lives in populated.shard.residents()}


@pytest.fixture(scope="module")
def populated(server_binary: str) -> Iterator[MovingShard]:
    with servers.running(server_binary) as url:
        made = MovingShard(url)
        yield made
        made.close()


@pytest.mark.parametrize("title", CASES)
def test_wherever_a_script_breaks_off_a_move_can_go_on(populated: MovingShard, title: str) -> None:
    assert break_everywhere(populated, CASES[title]) is (title in TEARING)


def test_the_layout_is_set_in_one_step(populated: MovingShard) -> None:
    populated.restore()
    before = populated.db.hgetall(populated.keys.meta)
    for at in range(1, 9):
        populated.restore()
        if populated.breaks("grow", at, grow) is None:
            break
        assert populated.db.hget(populated.keys.meta, "layout") in (None, b"1:1,2")
    assert at > 1
    assert populated.db.hget(populated.keys.meta, "layout") == b"1:1,2"
    assert before.keys() <= populated.db.hgetall(populated.keys.meta).keys()  # type: ignore[union-attr]
    populated.restore()
    assert populated.db.hget(populated.keys.meta, "layout") is None
