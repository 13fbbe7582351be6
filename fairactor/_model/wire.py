"""The arguments and replies of scripts, and the messages that scripts publish: types and packing."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import attrs
import msgspec

from .lane import text_in_json
from .route import FIRST, PACKED_SEPARATOR, has_route

BATCH: Final = 200
"""The most tasks in one call of send.lua, which takes the server some milliseconds."""
USUAL_BATCH: Final = 120
"""The most tasks in one call if they need not go together: tenants with limits cost more."""
MOST_ROUTES: Final = 50
"""The most routes in one call: actors, with their queues, versions, limits. Each may open a lane, which costs more."""
BATCH_WITH_DATA: Final = 100
"""The most tasks in one call if plugins' scripts get data with each, or each may replace another, which costs more."""
_PLACES_WITH_MORE: Final = BATCH // BATCH_WITH_DATA
_FROM_REPLACING: Final = b"\x80"
"""Packed keys from here on have ``replace=True``."""
REPEATED: Final = 1
"""The verdict of ``lib/accept.lua`` for a task whose id the tenant has sent before."""
TAKEN: Final = 2
"""The verdict of ``lib/accept.lua`` for a task whose id belongs to a task of another tenant."""
FULL: Final = 3
"""The verdict of ``lib/accept.lua`` for a task whose mailbox is full."""
GONE: Final = 5
"""The verdict of ``lib/accept.lua`` for a task whose tenant has moved to another shard."""

ROUTED: Final = 0x80
"""Added to the priority of a packed task whose route has more than the actor."""

MORE: Final = 1
"""In the reply to a turn: more tasks wait than the runtime wanted."""
UNSEEN: Final = 2
"""In the reply to a turn: tasks may wait behind tenants that were passed over."""

_LENGTH: Final = struct.Struct(">H")
_WINDOW: Final = struct.Struct(">d")
_OUTCOME: Final = struct.Struct(">8scddH")
_LONG: Final = struct.Struct(">I")
GROUP_MARK: Final = b"\xff".decode(errors="surrogateescape")
"""Precedes the name of a group in places that also hold names of tenants. No UTF-8 string begins with this byte."""

_MARK: Final = struct.Struct(">8sdBdBH37x")
_HOLD: Final = struct.calcsize(">Bd")  # the position of the tenant
_NO_POLICY: Final = (b"", b"\x90")  # nothing, or an empty table, which Lua packs as a list


def as_text(stored: bytes) -> str:
    """Decodes a stored name, even if somebody has damaged it so that it is not valid UTF-8; see `as_bytes`."""
    return stored.decode("utf-8", "surrogateescape")


def as_bytes(name: str) -> bytes:
    """Encodes a name as it is stored, also one from `as_text`."""
    return name.encode("utf-8", "surrogateescape")


PackedPolicy = dict[str, Any]
"""A policy as it is stored; policy.py packs and unpacks it."""


class Mark(NamedTuple):
    """The mark of a claim."""

    turn: bytes
    """The turn that claimed the task, from `turn_mark` or `handed_mark`."""
    ms: float
    """The time of the claim, unix ms."""
    priority: int
    charged: float
    """What the tenant was charged: 1, or the estimated seconds of the run."""
    alone: bool
    """Whether its process runs nothing else."""
    tenant: bytes
    taken: Mapping[bytes, float] = {}
    """What its start took, by limit; in the instance of a tenant, U+001F and the tenant follow the name."""


def unpack_mark(packed: bytes) -> Mark:
    """Unpacks the mark of a claim, which base.lua packs."""
    turn, ms, priority, charged, alone, length = _MARK.unpack_from(packed)
    end = len(packed) - length
    flat = iter(msgspec.msgpack.decode(packed[end:], type=list[Any]) if length else ())
    taken = {as_bytes(name) if isinstance(name, str) else name: cost for name, cost in zip(flat, flat, strict=True)}
    return Mark(turn, ms, priority, charged, bool(alone), packed[_MARK.size : end], taken)


def unpack_cancel(packed: bytes) -> tuple[float, bytes]:
    """Unpacks a task's field in CANCELS, which ending.lua packs: ms for which to keep its record, and its outcome."""
    return _WINDOW.unpack_from(packed)[0], packed[_WINDOW.size :]


def unpack_holder(packed: bytes) -> bytes:
    """Returns the plugin that holds a task back, from the task's field in HELD, which plugins.lua packs."""
    length = _LENGTH.unpack_from(packed, _HOLD)[0]
    at = _HOLD + _LENGTH.size + length
    return packed[at + 1 : at + 1 + packed[at]]


class Assignment(NamedTuple):
    """The tenants that a runtime serves."""

    assigned: Sequence[str]
    """The tenants that it serves first."""
    steal: Sequence[str]
    """The tenants that it serves while the first have nothing to do. A single empty name means all others."""


class Item(NamedTuple):
    """A task on its way to the server."""

    id: str
    tenant: str
    priority: int
    due: str  # '' for now, '+N' for in N ms, 'N' for at unix ms N
    flag: str  # 'w': the sender waits for the outcome; '+': accept it only together with the item before it
    body: bytes
    key: bytes = b""  # from `pack_key`
    extra: bytes = b""  # data for plugins' scripts, from `pack_extra`
    chosen: bool = False  # whether the sender has chosen the id, so that it may have been sent before
    called: str = ""  # the route in its body, for the history

    @property
    def replaces(self) -> bool:
        """Whether it replaces a waiting task with its key, see `pack_key`."""
        return self.key >= b"\x80"

    @property
    def places(self) -> int:
        """How many of the `BATCH` places in a batch it takes."""
        return _PLACES_WITH_MORE if self.extra or self.key >= _FROM_REPLACING else 1

    @property
    def route(self) -> bytes:
        """The beginning of its body: its actor, and what else says where it can run."""
        return self.body[: self.body.find(b'"', 2)]

    @property
    def size(self) -> int:
        """Its bytes in a call, about."""
        return len(self.body) + len(self.extra)


class Settlement(NamedTuple):
    """The outcome of a claimed task on its way to the server."""

    id: str
    turn: bytes
    state: str  # 'F', 'X', 'C', 'R', 'B', 'U' or 'V', see turn.lua
    ms: int  # how long to keep the record, or the delay of the next attempt
    record: bytes
    seconds: float = 0.0  # how long it ran
    extra: bytes = b""  # data for plugins' scripts, from `pack_extra`
    kind: int = 0  # the number of the kind of slot that it took

    @property
    def size(self) -> int:
        """Its bytes in a call, about."""
        return len(self.record) + len(self.extra)


class Permit(IntEnum):
    """How a turn may claim a suspect: a task whose runtime died, or lost its lease, while it was claimed."""

    NONE = 0
    APART = 1
    """One may run here, with no other suspect beside it."""
    ALONE = 2
    """Nothing runs here, so one that has to run alone may run here too."""
    SHARED = 3
    """None; and the one that runs alone here waits for another task, so others will run beside it."""


class Emptying(IntEnum):
    """Whether a process would claim nothing until it has run all its tasks, so that a suspect can run alone."""

    NO = 0
    YES = 1
    RESTS = 2
    """It runs nothing now."""


class Waits(IntEnum):
    """Which suspects wait for a runtime."""

    NONE = 0
    SOME = 1
    TO_RUN_ALONE = 2
    """One has to run alone, and this process should run it."""


_PERMIT: Final = struct.Struct(">BBB")


def pack_permit(permit: Permit, most: int, emptying: Emptying) -> bytes:
    """Packs what a process permits suspects, for turn.lua; ``most`` are the deliveries after which a task fails."""
    return _PERMIT.pack(permit, most, emptying)


ANY_SUSPECT: Final = pack_permit(Permit.ALONE, 255, Emptying.NO)


class RingClock(NamedTuple):
    """The virtual time of the ring from which a turn has claimed."""

    period: float
    """How often it has restarted."""
    before: float
    """Virtual time before the turn."""
    after: float
    """Virtual time after it, before it restarted if nobody waits any more."""
    head: float
    """The lowest tag on the ring, that of the next task; 0 if nobody waits, or if that is not known."""


_CLOCK: Final = struct.Struct(">dddd")


def unpack_clock(packed: bytes) -> RingClock | None:
    """Unpacks a ring's clock, which turn.lua packs; None if it is not known."""
    return RingClock(*_CLOCK.unpack(packed)) if packed else None


@attrs.frozen
class Turn:
    """The reply to a turn."""

    now: float
    """The server's time, unix seconds."""
    wait: float
    """Seconds until something is due; infinite if nothing is."""
    maintenance_due: bool
    """Whether the runtime has to call `Shard.maintain`. The server asks one at a time."""
    refused: Sequence[bytes]
    """The ids of tasks whose outcomes were refused."""
    claims: Sequence[bytes]
    """id, record, id, record, …"""
    cancels: Sequence[bytes]
    """The ids of claimed tasks to cancel."""
    more: bool
    """Whether more tasks wait than the runtime wanted."""
    unseen: bool = False
    """Whether tasks may wait behind tenants that were passed over; the next turn looks there."""
    suspects: Waits = Waits.NONE
    """Whether suspects wait for this runtime."""
    behind: int = 0
    """The rank on the ring behind the tenants that were passed over."""
    clock: RingClock | None = None
    """The clock of the ring; None if the turn was repeated."""
    cut: Mapping[bytes, int] = MappingProxyType({})
    """The claimed tasks whose records are not complete in ``claims``, and the bytes of each."""
    had: int = 0
    """How many outcomes the turn had when the server carried it out."""


@attrs.frozen
class Maintained:
    """The reply to a step of the maintenance."""

    more: bool
    """Whether there is more to do."""
    given_up: Sequence[bytes]
    """The ids of tasks that failed because too many runtimes died while they ran them."""
    unserved: Sequence[bytes] = ()
    """The lanes that no runtime has served for too long."""


@attrs.frozen
class Receipt:
    """The reply to a batch that was sent."""

    ids: Sequence[str]
    """For each task its id; the id of the earlier task that has its key; '' if its own id was sent before."""
    refused: dict[int, Exception]
    """The errors of tasks that were not accepted, by position in the batch: TaskExists, MailboxFull or
    Elsewhere."""
    replicas: int
    """How many replicas have confirmed the batch, up to the requested number."""
    is_whole: bool = False
    """Whether all tasks were accepted as they were sent."""


@attrs.frozen
class DeadLetter:
    """A dead letter, as it is stored."""

    place: int
    """Its place in the list of dead letters of the shard."""
    id: str
    record: bytes


def unpack_policy(packed: bytes) -> PackedPolicy:
    """Unpacks a stored policy; returns an empty one if there is none."""
    return msgspec.msgpack.decode(packed) if packed not in _NO_POLICY else {}


def pack_assignment(serves: Assignment | None) -> bytes:
    """Packs the tenants that a runtime serves, for lib/assign.lua; None means all tenants alike."""
    return b"" if serves is None else msgspec.msgpack.encode(serves)


class SlotKinds:
    """Packs for turn.lua how many more tasks a runtime with several kinds of slots can start.

    Args:
        kinds: for each kind a letter for each sort of actors that use it, and the names of these actors. The first kind
            takes all other actors, too.
        batches: the most tasks in a batch, by actor. A batch takes one slot.
    """

    def __init__(self, kinds: Sequence[tuple[str, Iterable[str]]], batches: Mapping[str, int] | None = None) -> None:
        encode, sizes = msgspec.msgpack.encode, batches or {}
        capped = {
            text_in_json(name): number
            for number, (_, names) in enumerate(kinds, 1)
            for name in names
            if number > 1 or name in sizes
        }
        self._fixed = encode([letters for letters, _ in kinds]) + encode(capped)
        self._fixed += encode({text_in_json(name): size for name, size in sizes.items()})

    def pack(self, room: Sequence[int], behind: int = 0, open_batches: Iterable[tuple[str, str, int]] = ()) -> bytes:
        """Packs how many tasks a runtime may claim.

        Args:
            room: how many of each kind could start.
            behind: the rank on the ring from which on to look for them.
            open_batches: the tenant, the actor, and how many more tasks may join, of batches that have their slots.
        """
        encode = msgspec.msgpack.encode
        joining = [each for tenant, actor, most in open_batches for each in (tenant, text_in_json(actor), most)]
        return b"\x96" + encode(room) + encode(behind) + self._fixed + encode(joining)


def pack_key(key: str, window: float, *, replace: bool = False) -> bytes:
    """Packs a deduplication key, with the seconds for which it stays in use after its task.

    With ``replace`` the window is packed as -1 - window: the task replaces one with the key that waits.
    """
    ms = whole_ms(window)
    return _WINDOW.pack(-1 - ms if replace else ms) + key.encode()


def pack_extra(by_plugin: Mapping[str, Any] | None) -> bytes:
    """Packs data for the scripts of plugins, by plugin.

    The MessagePack of the server is an old version without bytes and times, so these are packed as strings as in JSON.

    Raises:
        TypeError: a value cannot be packed.
    """
    return msgspec.msgpack.encode(msgspec.to_builtins(by_plugin, str_keys=True)) if by_plugin else b""


def sized(part: bytes) -> bytes:
    """Returns bytes with their length before them."""
    return _LENGTH.pack(len(part)) + part


def pack_item(item: Item) -> bytes:
    """Packs a task, for send.lua."""
    task_id, tenant, due = item.id.encode(), item.tenant.encode(), item.due.encode()
    priority, body = item.priority, item.body
    if body.find(PACKED_SEPARATOR, 0, FIRST) >= 0 and has_route(body):
        priority |= ROUTED
    return b"%c%c%c%b%b%b%b%b%b%b%b%b%b" % (
        priority, item.flag.encode() or b" ", len(due), due, _LENGTH.pack(len(task_id)), task_id,
        _LENGTH.pack(len(tenant)), tenant, _LENGTH.pack(len(item.key)), item.key,
        _LONG.pack(len(item.extra)), item.extra, body,
    )  # fmt: skip


def pack_settlement(settlement: Settlement) -> bytes:
    """Packs an outcome, for turn.lua."""
    task_id, turn, state, ms, packed, seconds, extra, _ = settlement
    name = as_bytes(task_id)
    return _OUTCOME.pack(turn, state.encode(), ms, seconds, len(name)) + name + _LONG.pack(len(extra)) + extra + packed


def turn_mark(number: int) -> bytes:
    """Packs the number of a turn or a batch in the form that scripts compare."""
    return number.to_bytes(8, "big")


def whole_ms(seconds: float) -> int:
    """Converts seconds to whole milliseconds, at least 1 unless the seconds are 0."""
    return max(1, round(seconds * 1000)) if seconds > 0 else 0
