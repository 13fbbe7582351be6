"""The part of the model that defines a task."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import attrs

CRITICAL = 6
FULL = "\0full"
"""Stands for the id of a task that was refused because its mailbox is full."""
DIED = b"\0died\0"
"""Encloses how a runtime ended and its name, where the server has noted the time at which it was found dead."""
HANDED = 1 << 63
"""A flag in a claim's turn number: the task was handed over after that turn."""
LIVE = ("queued", "scheduled", "deferred", "started")
ENDED = {"F": "finished", "X": "failed", "C": "canceled"}
_LETTERS = {name: letter.encode() for letter, name in ENDED.items()}


Room = Sequence[int] | None
"""How many tasks a runtime could start: of other actors, and of actor ``f``; None: it has one kind of slots."""


@attrs.define
class Task:
    id: str
    tenant: str
    priority: int
    body: bytes
    state: str  # one of LIVE, or of the values of ENDED
    stamp: float = 0.0
    due: float = 0.0  # unix ms, while it is scheduled
    deliveries: int = 0
    runtime: str = ""
    turn: int = 0
    watchers: list[str] = attrs.Factory(list)
    progress: bytes | None = None
    attempt: int = 1
    key: str = ""
    window: bool = False  # whether its key outlives the task
    replaces: bool = False  # whether it was sent with replace=True
    takes_over: bool = False  # likewise, and another had its key: that takes longer than to hand a task over
    later: bool = False  # whether it has a due time, while it is deferred
    stored: bool = False  # whether it was sent in an earlier step
    canceling: tuple[bool, bytes] | None = None  # a requested cancellation: (whether to keep the record, the outcome)
    charged: float = 0.0  # what its tenant was charged for its claim
    since: float = math.nan  # unix ms, the time of the claim
    alone: bool = False  # whether its runtime runs nothing else

    lane: str | None = None  # the lane of its mailbox, while it is queued

    @property
    def suspect(self) -> bool:
        """Whether it is queued beside the mailbox."""
        return self.state == "queued" and self.deliveries > 0

    @property
    def letter(self) -> bytes:
        """The letter of the state in its record."""
        return _LETTERS.get(self.state, b"L")

    @property
    def record(self) -> bytes:
        """The record as it is stored."""
        return pack(self.letter, self)


@attrs.define
class Tenant:
    ended: Counter[str] = attrs.Factory(Counter)
    kept: bool = False  # whether a record may still exist: its totals last as long
    drained: bool = False  # whether it is listed to be forgotten; it may have new tasks since


class Verdict(NamedTuple):
    """How a claim ended."""

    id: str
    turn: int  # the turn that claimed it
    state: str  # 'F', 'X', 'C', 'R': retry, 'B': give back, 'U' or 'V': this runtime cannot run it
    keep: bool
    body: bytes
    seconds: float = 0.0


def pack(state: bytes, task: Task, body: bytes | None = None) -> bytes:
    """Makes a record: the header that scripts read, then the body."""
    tenant = task.tenant.encode()
    header = struct.pack(">cBBHdH", state, task.deliveries, task.priority, task.attempt, task.stamp, len(tenant))
    return header + tenant + (task.body if body is None else body)
