"""Plans what happens to the servers of a group: they die, stall, hand over, their slots move."""

from __future__ import annotations

import random
from enum import StrEnum
from typing import Final

import attrs


class Setup(StrEnum):
    """What serves."""

    SERVER = "server"
    """One server."""
    CLUSTER = "cluster"
    """Three primaries with a replica each."""
    GROWING = "growing"
    """One server, on which the namespace gets more shards."""
    SENTINEL = "sentinel"
    """A primary, two replicas, and three sentinels."""


class DisturbanceKind(StrEnum):
    """What happens to a primary that serves a shard."""

    DIE = "kill a primary; start it again as a replica"
    RESTART = "kill a primary and start it again at once"
    STALL = "stop a primary until another one serves, and let it go on"
    PAUSE = "stop a primary for less than the others wait for it"
    LOSE_REPLICA = "kill a replica and start it again"
    FAIL_OVER = "make a replica take over"
    MOVE_BY_KEY = "move a slot, key by key"
    MOVE_AT_ONCE = "move a slot at once"


LOSSY: Final = {DisturbanceKind.DIE, DisturbanceKind.RESTART, DisturbanceKind.STALL}
"""Kinds with which a primary may take with it what its replicas have not received."""
SENTINELS_LOSE: Final = {DisturbanceKind.FAIL_OVER}
"""Likewise with sentinels, which let the old primary go on until it is told. Nodes of a cluster hand over."""
MOVES: Final = {DisturbanceKind.MOVE_BY_KEY, DisturbanceKind.MOVE_AT_ONCE}
_IN_TURN: Final = (
    DisturbanceKind.MOVE_BY_KEY, DisturbanceKind.FAIL_OVER, DisturbanceKind.MOVE_AT_ONCE, DisturbanceKind.RESTART,
    DisturbanceKind.STALL, DisturbanceKind.MOVE_BY_KEY, DisturbanceKind.LOSE_REPLICA, DisturbanceKind.PAUSE,
)  # fmt: skip
"""What happens in a seed, in turn, beside the death of a primary."""


@attrs.frozen
class Disturbance:
    """Something that happens to the servers."""

    kind: DisturbanceKind
    after: float
    """Seconds of peace before it."""
    shard: int
    """The shard whose primary it happens to."""
    seconds: float = 0.0
    """`PAUSE`: how long."""
    pick: int = 0
    """`MOVES`: the number of the other primary to which the slot moves."""
    back: bool = False
    """`MOVES`: whether the slot moves back afterwards."""

    def __str__(self) -> str:
        return f"{self.kind}: shard {self.shard}{', and back' if self.kind in MOVES and self.back else ''}"


def disturbances(seed: int, setup: Setup) -> list[Disturbance]:
    """Returns what happens in a seed; at least one primary dies."""
    rng = random.Random(f"{seed} disturbances")
    kinds = [kind for kind in _IN_TURN if setup is Setup.CLUSTER or kind not in MOVES]
    chosen = [kinds[seed % len(kinds)], DisturbanceKind.DIE, *rng.choices(kinds, k=rng.choice([0, 0, 0, 1, 2]))]
    rng.shuffle(chosen)
    return [
        Disturbance(
            kind,
            rng.uniform(0.1, 0.5),
            rng.randrange(4),
            rng.uniform(0.1, 0.6),
            rng.randrange(2),
            rng.random() < 0.5,
        )
        for kind in chosen
    ]
