"""How many tasks there are, by state and priority, and the reply of ``stats.lua``."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import attrs

from .states import Priority

_COUNTS: Final = struct.Struct(">5x8I3dI")


@attrs.frozen
class Counts:
    """The number of tasks in each state. For a tenant, ended tasks are counted until its counts expire."""

    queued: int
    started: int
    scheduled: int
    deferred: int
    finished: int
    failed: int
    canceled: int
    by_priority: dict[Priority, int]
    """The queued and started tasks by priority."""

    @staticmethod
    def unpack(packed: bytes, *, queued: int | None = None, started: int = 0) -> Counts:
        """Unpacks stored counts. They have only the sum of queued and started tasks, so give the number of one kind."""
        n = _COUNTS.unpack(packed) if len(packed) == _COUNTS.size else (0,) * 12  # otherwise missing, or damaged
        by_priority = {priority: n[priority - 1] for priority in Priority}
        live = sum(by_priority.values())
        mailbox = live - started if queued is None else queued
        finished, failed, canceled = (int(total) if math.isfinite(total) else 0 for total in n[8:11])
        return Counts(mailbox, live - mailbox, n[6], n[7], finished, failed, canceled, by_priority)


class ShardStats(NamedTuple):
    """The reply of stats.lua for a shard."""

    counts: Counts
    waiting: int
    """The tenants and groups that can be served now."""
    known: int
    """The tenants with counts."""
    due: int
    """The scheduled tasks whose time has come."""
    dead: int
    stolen: int
    throttled: int
    """The tenants that only their rate holds back."""
    unassigned: Sequence[bytes]
    """Some tenants with work that no runtime serves."""
    runtimes: Sequence[tuple[bytes, bytes, int]]
    """(name, the JSON with which the runtime joined, ms until its lease expires)."""
    counted: bool = True
    """Whether the counts could be read; otherwise they are 0."""
    set_back: float = 0.0
    """The seconds by which the server's clock was set back."""


def unpack_stats(reply: Sequence[Any]) -> ShardStats:
    """Unpacks the reply of stats.lua for a shard."""
    counts, started, waiting, known, due, dead, stolen, throttled, unassigned, behind, *flat = reply
    runtimes = [(flat[i], flat[i + 1] or b"{}", flat[i + 2]) for i in range(0, len(flat), 3)]
    unpacked, counted = Counts.unpack(counts, started=started), len(counts) in (0, _COUNTS.size)
    return ShardStats(
        unpacked, waiting, known, due, dead, stolen, throttled, unassigned, runtimes, counted, behind / 1000
    )
