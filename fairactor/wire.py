"""What goes to the scripts and comes back from them, and how it is packed."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import attrs
import msgspec

from .errors import FairactorError
from .states import Priority

_COUNTS: Final = struct.Struct(">5x8I3dI")
_LENGTH: Final = struct.Struct(">H")
_WINDOW: Final = struct.Struct(">d")
_OUTCOME: Final = struct.Struct(">8scddH")
_LONG: Final = struct.Struct(">I")
GROUP_MARK: Final = b"\xff".decode(errors="surrogateescape")
"""Before the name of a group where a tenant's could stand: no text begins with that byte."""

_MARK: Final = struct.Struct(">8sdBd40x")
_HOLD: Final = struct.calcsize(">Bd")  # where the tenant is
_NO_POLICY: Final = (b"", b"\x90")  # nothing, or an empty table, which Lua takes for a list

PackedPolicy = dict[str, Any]
"""A policy as it is stored: policy.py makes one, and reads it."""


class Mark(NamedTuple):
    """How a task was claimed."""

    turn: bytes
    ms: float
    """When, unix ms."""
    priority: int
    charged: float
    """What its tenant was charged: 1, or the seconds that it was thought to run."""
    tenant: bytes


def mark_of(packed: bytes) -> Mark:
    """The mark of a claim, as base.lua packs it."""
    turn, ms, priority, charged = _MARK.unpack_from(packed)
    return Mark(turn, ms, priority, charged, packed[_MARK.size :])


def holder_in(packed: bytes) -> bytes:
    """The plugin that holds a task back, in its field of HELD, as plugins.lua packs it."""
    length = _LENGTH.unpack_from(packed, _HOLD)[0]
    at = _HOLD + _LENGTH.size + length
    return packed[at + 1 : at + 1 + packed[at]]


class Assignment(NamedTuple):
    """The tenants that a runtime serves."""

    assigned: Sequence[str]
    """First."""
    steal: Sequence[str]
    """When the first have nothing; one name that is empty: all others."""


class Item(NamedTuple):
    """A task on its way to the server."""

    id: str
    tenant: str
    priority: int
    due: str  # '' now, '+N' in N ms, 'N' at unix ms N
    flag: str  # 'w': this runtime wants to hear of the outcome; '+': only together with the item before it
    body: bytes
    key: bytes = b""  # as `pack_key` makes it
    extra: bytes = b""  # what it has for plugins' scripts, by their names, packed


class Settlement(NamedTuple):
    """The outcome of a claimed task on its way to the server."""

    id: str
    turn: bytes
    state: str  # 'F', 'X', 'C', 'R' or 'B', as turn.lua has it
    ms: int  # for how long to keep the record, or when to try again
    record: bytes
    seconds: float = 0.0  # that it ran
    extra: bytes = b""  # what it has for plugins' scripts, by their names, packed


class Handed(NamedTuple):
    """A task that the server has handed to a runtime which slept, between two turns."""

    mark: bytes
    """As its claim has it."""
    now: float
    """The server's time, unix seconds."""
    id: bytes
    record: bytes


_HANDED: Final = struct.Struct(">8sdH")


def unpack_handed(message: bytes) -> Handed:
    """The message that brings a task, as hand.lua packs it."""
    mark, now, length = _HANDED.unpack_from(message)
    end = _HANDED.size + length
    return Handed(mark, now / 1e6, message[_HANDED.size : end], message[end:])


def handed_mark(turn: int) -> bytes:
    """What marks a claim that was handed over after a turn."""
    return turn_mark(turn | 1 << 63)


@attrs.frozen
class Turn:
    """The reply to a turn."""

    now: float
    """The server's time, unix seconds."""
    wait: float
    """Seconds until something is due; infinite if nothing is."""
    tend: bool
    refused: Sequence[bytes]
    claims: Sequence[bytes]
    """id, record, id, record, …"""
    cancels: Sequence[bytes]
    """What the runtime has claimed and is to be canceled."""
    more: bool
    """Whether there is more to claim than was wanted."""


@attrs.frozen
class Receipt:
    """What became of a batch that was sent."""

    ids: Sequence[str]
    """Of each task, its own id, or that of the earlier task that its key stands for."""
    refused: dict[int, FairactorError]
    """Why tasks were not accepted, by their places in the batch: TaskExists or MailboxFull."""
    replicas: int
    """How many replicas have confirmed it, as far as that was asked for."""


@attrs.frozen
class Letter:
    """A dead letter, as it is stored."""

    place: int
    id: str
    record: bytes


@attrs.frozen
class Counts:
    """How many tasks there are in each state; those that ended are counted as long as their records are kept."""

    queued: int
    started: int
    scheduled: int
    deferred: int
    finished: int
    failed: int
    canceled: int
    by_priority: dict[Priority, int]
    """Those queued or started."""

    @staticmethod
    def unpack(packed: bytes, *, queued: int | None = None, started: int = 0) -> Counts:
        """The counts as scripts store them, with the number queued or the number started, which they do not."""
        n = _COUNTS.unpack(packed) if packed else (0,) * 12
        by_priority = {priority: n[priority - 1] for priority in Priority}
        live = sum(by_priority.values())
        mailbox = live - started if queued is None else queued
        return Counts(mailbox, live - mailbox, n[6], n[7], int(n[8]), int(n[9]), int(n[10]), by_priority)


def unpack_policy(packed: bytes) -> PackedPolicy:
    """A policy as scripts store it; of nothing where there is none."""
    return msgspec.msgpack.decode(packed) if packed not in _NO_POLICY else {}


def pack_assignment(serves: Assignment | None) -> bytes:
    """The tenants that a runtime serves, as lib/assign.lua takes them; None: all alike."""
    return b"" if serves is None else msgspec.msgpack.encode(serves)


def pack_key(key: str, window: float) -> bytes:
    """A deduplication key as scripts take it, with the seconds for which it outlives its task."""
    return _WINDOW.pack(whole_ms(window)) + key.encode()


def pack_extra(by_plugin: Mapping[str, Any] | None) -> bytes:
    """What scripts of plugins get, by their names.

    The server's MessagePack is an old one: it has neither bytes nor times, so these go as text, as in JSON.

    Raises:
        TypeError: something has no form.
    """
    return msgspec.msgpack.encode(msgspec.to_builtins(by_plugin, str_keys=True)) if by_plugin else b""


def sized(part: bytes) -> bytes:
    """Bytes with their length before them."""
    return _LENGTH.pack(len(part)) + part


def pack_item(item: Item) -> bytes:
    """A task as send.lua takes it."""
    task_id, tenant, due = item.id.encode(), item.tenant.encode(), item.due.encode()
    return b"%c%c%c%b%b%b%b%b%b%b%b%b%b" % (
        item.priority, item.flag.encode() or b" ", len(due), due, _LENGTH.pack(len(task_id)), task_id,
        _LENGTH.pack(len(tenant)), tenant, _LENGTH.pack(len(item.key)), item.key,
        _LONG.pack(len(item.extra)), item.extra, item.body,
    )  # fmt: skip


def pack_settlement(settlement: Settlement) -> bytes:
    """An outcome as turn.lua takes it."""
    task_id, turn, state, ms, packed, seconds, extra = settlement
    name = task_id.encode()
    return _OUTCOME.pack(turn, state.encode(), ms, seconds, len(name)) + name + _LONG.pack(len(extra)) + extra + packed


def turn_mark(number: int) -> bytes:
    """The number of a turn as scripts compare it."""
    return number.to_bytes(8, "big")


def whole_ms(seconds: float) -> int:
    """Whole milliseconds; never 0 for a time that is not."""
    return max(1, round(seconds * 1000)) if seconds > 0 else 0
