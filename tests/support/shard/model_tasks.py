"""The part of the model that says what a task is."""

from __future__ import annotations

import math
import struct
from collections import Counter
from typing import NamedTuple

import attrs

CRITICAL = 6
FULL = "\0full"
"""In the place of the id of a task that was refused since its mailbox is full."""
DIED = b"\0died\0"
"""Around the name of a runtime: where the server has noted when that was found dead."""
HANDED = 1 << 63
"""In the number of the turn of a claim that was handed over after that turn."""
LIVE = ("queued", "scheduled", "started")
ENDED = {"F": "finished", "X": "failed", "C": "canceled"}
_LETTERS = {name: letter.encode() for letter, name in ENDED.items()}


@attrs.define
class Task:
    id: str
    tenant: str
    priority: int
    body: bytes
    state: str  # one of LIVE, or of ENDED's values
    stamp: float = 0.0
    due: float = 0.0  # unix ms, while it is scheduled
    deliveries: int = 0
    runtime: str = ""
    turn: int = 0
    watchers: list[str] = attrs.Factory(list)
    progress: bytes | None = None
    attempt: int = 1
    key: str = ""
    window: bool = False  # whether its key outlives it
    canceling: tuple[bool, bytes] | None = None  # to be canceled: whether to keep its record, and its outcome
    charged: float = 0.0  # what its tenant was charged for its claim
    since: float = math.nan  # unix ms: when it was claimed

    @property
    def letter(self) -> bytes:
        """The state that its record gives."""
        return _LETTERS.get(self.state, b"L")

    @property
    def record(self) -> bytes:
        """As it is stored."""
        return pack(self.letter, self)


@attrs.define
class Tenant:
    ended: Counter[str] = attrs.Factory(Counter)
    kept: bool = False  # whether a record of it may still be there: so long its totals are
    drained: bool = False  # whether it is listed to be forgotten; it may live again since


class Verdict(NamedTuple):
    """How a claim ended."""

    id: str
    turn: int  # that claimed it
    state: str  # 'F', 'X', 'C', 'R': again, or 'B': back
    keep: bool
    body: bytes
    seconds: float = 0.0


def pack(state: bytes, task: Task, body: bytes | None = None) -> bytes:
    """A record: the header that scripts read, then the body."""
    tenant = task.tenant.encode()
    header = struct.pack(">cBBHdH", state, task.deliveries, task.priority, task.attempt, task.stamp, len(tenant))
    return header + tenant + (task.body if body is None else body)
