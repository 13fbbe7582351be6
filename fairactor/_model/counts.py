"""How many tasks there are, by state and priority, and the reply of ``stats.lua``."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import attrs

from .states import Priority

_COUNTS: Final = struct.Struct(">5x8I3dI")
_RECENT: Final = 5
"""The bytes that say how many tasks have finished or failed of late; see lib/counts.lua."""
FADES: Final = 60.0
"""Seconds after which a task that has ended counts 1/e in `recent_tasks`."""
_FADES_SINCE: Final = 1_700_000_000
_FINE: Final = 65536
_FAR_AHEAD: Final = 25
INDEXED_FROM: Final = 32
"""So many live tasks a tenant has that stands in the index of backlogs."""


def rounded(live: int) -> int:
    """Returns a number of live tasks as the index of backlogs has it: with three binary digits, or 0: not at all."""
    return 0 if live < INDEXED_FROM else live >> (live.bit_length() - 3) << (live.bit_length() - 3)


def recent_tasks(packed: bytes, now: float) -> float:
    """Returns how many tasks have finished or failed of late: each counts less the longer ago it was.

    Args:
        packed: the counts.
        now: the time of the shard, unix seconds.
    """
    stored = int.from_bytes(packed[:_RECENT], "big") if len(packed) == _COUNTS.size else 0
    ahead = stored / _FINE - (now - _FADES_SINCE) / FADES
    return math.exp(ahead) if ahead < _FAR_AHEAD else 0.0


def written_before(packed: bytes) -> bool:
    """Whether the release before, which knows no index of backlogs, has written these counts."""
    return not any(packed[:_RECENT])


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

    def __add__(self, other: Counts) -> Counts:
        by_priority = {each: number + other.by_priority[each] for each, number in self.by_priority.items()}
        states = ("queued", "started", "scheduled", "deferred", "finished", "failed", "canceled")
        sums = {state: getattr(self, state) + getattr(other, state) for state in states}
        return Counts(**sums, by_priority=by_priority)

    @staticmethod
    def unpack(packed: bytes, *, queued: int | None = None, started: int = 0) -> Counts:
        """Unpacks stored counts. They have only the sum of queued and started tasks, so give the number of one kind."""
        n = _COUNTS.unpack(packed) if len(packed) == _COUNTS.size else (0,) * 12  # otherwise missing, or damaged
        by_priority = {priority: n[priority - 1] for priority in Priority}
        live = sum(by_priority.values())
        mailbox = max(0, live - started) if queued is None else queued
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
    claimed: Mapping[bytes, int] = MappingProxyType({})
    """By runtime, how many tasks it has claimed."""


def unpack_stats(reply: Sequence[Any], more: Sequence[Sequence[Any]] = ()) -> ShardStats:
    """Unpacks the reply of stats.lua for a shard, and those for more of its runtimes."""
    counts, waiting, known, due, dead, stolen, throttled, unassigned, behind, _, *flat = reply
    fleet: dict[bytes, tuple[bytes, int, int]] = {}
    for runtimes in (flat, *(page[1:] for page in more)):
        for i in range(0, len(runtimes), 4):
            fleet[runtimes[i]] = (runtimes[i + 1] or b"{}", runtimes[i + 2], runtimes[i + 3])
    ordered = sorted(fleet.items(), key=lambda each: (each[1][1], each[0]))
    unpacked = Counts.unpack(counts, started=sum(started for _, (_, _, started) in ordered))
    return ShardStats(
        unpacked,
        waiting,
        known,
        due,
        dead,
        stolen,
        throttled,
        unassigned,
        [(name, description, left) for name, (description, left, _) in ordered],
        len(counts) in (0, _COUNTS.size),
        behind / 1000,
        {name: started for name, (_, _, started) in ordered},
    )


def cursor_of(reply: Sequence[Any]) -> bytes:
    """Returns the cursor for more runtimes in a reply of stats.lua for a shard; b'0' if there are no more."""
    cursor: bytes = reply[9]
    return cursor
