"""The index of backlogs follows its rule whatever happens: random walks over large mailboxes, audited at each step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import Final

import pytest

from fairactor._model.counts import INDEXED_FROM, rounded
from fairactor._model.wire import Settlement
from tests.support.shard.driver import ShardDriver, item, open_shard, outcome

TENANTS: Final = ("a", "b", "c", "d")
ENDS: Final = ("F60000", "F0", "X60000", "C0", "R0", "R99000", "B0")


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    with open_shard(url) as made:
        made.join("r", "s")
        yield made


class Walk:
    """A walk over one shard."""

    def __init__(self, shard: ShardDriver, seed: int) -> None:
        self._shard = shard
        self._draw = random.Random(seed)
        self._ids = count()
        self._turns = 0
        self._held: list[tuple[str, str, int]] = []  # task, tenant, number of the turn

    def step(self) -> None:
        self._draw.choice([self._send, self._send, self._turn, self._turn, self._purge, self._cancel, self._rest])()
        self._shard.check(lowered=TENANTS)

    def _send(self) -> None:
        tenants = self._draw.choices(TENANTS, [8, 4, 2, 1], k=self._draw.choice([1, 7, 40, 100]))
        due = self._draw.choice(["", "", "+3600000", "1"])
        self._shard.send(*[item(f"{tenant}-{next(self._ids)}", tenant, due=due) for tenant in tenants])

    def _turn(self) -> None:
        self._draw.shuffle(self._held)
        number = self._draw.randint(0, len(self._held))
        ending, self._held = self._held[:number], self._held[number:]
        settled = [self._outcome(*each) for each in ending]
        self._turns += 1
        claimed = self._shard.claim("r", self._turns, self._draw.choice([0, 1, 20, 90]), settled)
        self._held += [(task, task[0], self._turns) for task in claimed]

    def _outcome(self, task: str, tenant: str, turn: int) -> Settlement:
        return outcome(task, turn, self._draw.choice(ENDS), tenant)

    def _purge(self) -> None:
        self._shard.run(self._shard.shard.purge(self._draw.choice(TENANTS), ttl=0, body=b"{}"))

    def _cancel(self) -> None:
        some = [f"{tenant}-{n}" for tenant in TENANTS for n in range(0, next(self._ids), 3)]
        self._shard.run(self._shard.shard.cancel_many([(task, "") for task in some[:50]], ttl=60, body=b"{}"))

    def _rest(self) -> None:
        """Does maintenance, a repair, or what comes with a pause."""
        if self._draw.random() < 0.3:
            self._shard.run(self._shard.shard.repair())
        elif self._draw.random() < 0.5:
            self._shard.configure(self._draw.choice(TENANTS), concurrency=self._draw.choice([None, 5, 50]))
        else:
            while self._shard.maintain():
                pass


@pytest.mark.parametrize("seed", range(6))
def test_the_index_follows_its_rule(shard: ShardDriver, seed: int) -> None:
    walk = Walk(shard, seed)
    for _ in range(40):
        walk.step()


def test_what_a_dead_runtime_had_is_in_the_index_until_it_ends(shard: ShardDriver) -> None:
    shard.send(*[item(f"t{n}", "t") for n in range(50)])
    assert len(shard.claim("s", 1, 50)) == 50
    shard.lapse("s")
    while shard.maintain(deliveries=1):
        pass
    shard.check()
    while shard.maintain(deliveries=1):
        pass
    snapshot = shard.check()
    live = sum(snapshot.counts_of("t").by_priority.values())
    assert snapshot.fixed["BACKLOG"] == ({"t": rounded(live)} if live >= INDEXED_FROM else {})


def test_a_repair_makes_the_index_anew(shard: ShardDriver) -> None:
    shard.send(*[item(f"t{n}", "t") for n in range(100)], *[item(f"u{n}", "u") for n in range(31)])
    assert shard.check().fixed["BACKLOG"] == {"t": 96}
    shard.db.delete(shard.keys.fixed("BACKLOG"))
    shard.db.zadd(shard.keys.fixed("BACKLOG"), {"u": 5, "gone": 64})
    shard.db.hdel(shard.keys.meta, "indexed")
    shard.run(shard.shard.repair())
    assert shard.check().fixed["BACKLOG"] == {"t": 96}
    assert shard.run(shard.shard.sizes()).has_index
