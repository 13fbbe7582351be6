"""One shard of a namespace: every transition as a typed call. Nobody else speaks to the scripts."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import attrs

from .calls import Calls
from .connection import Server
from .errors import LeaseLost, NamespaceMismatch, TaskExists
from .keys import Keys
from .settings import Settings
from .states import Priority

MODEL: Final = 2
"""The version of the data model; a namespace written by another is refused."""

_COUNTS: Final = struct.Struct(">8I3dI")
_LENGTH: Final = struct.Struct(">H")
_WINDOW: Final = struct.Struct(">d")
_TAKEN: Final = 2  # send.lua: the id is another tenant's


class Item(NamedTuple):
    """A task on its way to the server."""

    id: str
    tenant: str
    priority: int
    due: str  # '' now, '+N' in N ms, 'N' at unix ms N
    watch: str  # 'w': this runtime wants to hear of the outcome
    body: bytes
    key: bytes = b""  # as `pack_key` makes it


class Settlement(NamedTuple):
    """The outcome of a claimed task on its way to the server."""

    id: str
    turn: bytes
    verdict: str  # state and ms, as turn.lua takes them
    record: bytes


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


@attrs.frozen
class Receipt:
    """What became of a batch that was sent."""

    ids: Sequence[str]
    """Of each task, its own id, or that of the earlier task that its key stands for."""
    taken: dict[int, TaskExists]
    """Of those that were not accepted, by their places in the batch: their ids are other tenants'."""
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


class Shard:
    """The transitions of one shard."""

    def __init__(self, server: Server, keys: Keys, *, patience: float) -> None:
        self.keys = keys
        self._server = server
        self._calls = Calls(server, keys.meta, patience=patience)
        self._run = self._calls.run

    async def open(self, *, shards: int | None, aging: float) -> int:
        """Opens the shard, creating it where it is new; returns into how many shards the namespace is cut.

        Raises:
            NamespaceMismatch: it was created otherwise.
        """
        step = int(aging * 1e6)
        wanted = shards or (16 if self._server.cluster else 1)
        version, found, found_step = map(int, await self._run("open", MODEL, wanted, step))
        self._calls.to_open = (version, found, found_step)
        where = f"the namespace of {self.keys.meta} at {self._server.where}"
        if version != MODEL:
            raise NamespaceMismatch(f"{where} has data model {version}, this fairactor has {MODEL}; use another one")
        if shards not in (None, found):
            raise NamespaceMismatch(f"{where} was created with shards={found}, not {shards}; leave shards= out")
        if found_step != step:
            raise NamespaceMismatch(f"{where} was created with aging={found_step / 1e6:g}, not {aging:g}")
        return found

    async def send(self, items: Sequence[Item], runtime: str, number: int, *, replicas: int = 0) -> Receipt:
        """Puts tasks into mailboxes, all in one step; repeats change nothing.

        Args:
            items: the tasks.
            runtime: who sends.
            number: of the batch; sent again under the same one it is recognised.
            replicas: wait until so many have confirmed it, for a while.
        """
        packed = [_pack_item(item) for item in items]
        reply, confirmed = await self._calls.run_replicated(replicas, "send", runtime, turn_mark(number), *packed)
        if reply == 0:
            return Receipt([item.id for item in items], {}, confirmed)
        ids = [
            verdict.decode() if isinstance(verdict, bytes) else item.id
            for item, verdict in zip(items, reply, strict=True)
        ]
        taken = {number: _taken(items[number]) for number, verdict in enumerate(reply) if verdict == _TAKEN}
        return Receipt(ids, taken, confirmed)

    async def join(self, runtime: str, *, lease: float, info: dict[str, Any]) -> None:
        """Gives a runtime its lease."""
        await self._run("join", runtime, _ms(lease), json.dumps(info))

    async def leave(self, runtime: str) -> int:
        """Ends a lease; returns how many claims there were."""
        return int(await self._run("leave", runtime))

    async def turn(
        self, runtime: str, number: int, *, lease: float, want: int, settle: Iterable[Settlement] = ()
    ) -> Turn:
        """Settles and claims. It is sent once: who takes turns decides what to do about an error.

        Raises:
            LeaseLost: nothing was done, and nothing of what the runtime has claimed is its own any more.
        """
        arguments = [_pack_settlement(settlement) for settlement in settle]
        reply = await self._run("turn", runtime, turn_mark(number), _ms(lease), want, *arguments, patience=0)
        if isinstance(reply, bytes):
            raise LeaseLost(f"{runtime} {_LOST[reply]}")
        now, wait, tend, refused, claims, cancels = reply
        return Turn(int(now) / 1e6, wait / 1000 if wait >= 0 else float("inf"), bool(tend), refused, claims, cancels)

    async def tend(self, *, deliveries: int, failed_ttl: float, body: bytes, limit: int = 500) -> bool:
        """Does what time asks for; returns whether there is more of it."""
        _, _, more = await self._run("tend", limit, deliveries, _ms(failed_ttl), body)
        return bool(more)

    async def watch(self, runtime: str, tasks: Sequence[tuple[str, str]]) -> list[list[bytes]]:
        """Asks for outcomes, of (task, tenant of who waits in a handler, or ''); see watch.lua."""
        reply: list[list[bytes]] = await self._run("watch", runtime, *[part for task in tasks for part in task])
        return reply

    async def inspect(self, task_id: str) -> list[Any]:
        """What is known of a task; see inspect.lua."""
        reply: list[Any] = await self._run("inspect", task_id)
        return reply

    async def cancel(self, task_id: str, *, ttl: float, body: bytes) -> str:
        """Cancels a task; returns the state in which it was found, or 'missing'."""
        state: bytes = await self._run("cancel", task_id, _ms(ttl), body)
        return state.decode()

    async def letters(
        self, place: int, limit: int, *, skip: int = 0, last: int | None = None
    ) -> tuple[int, list[Letter]]:
        """The place of the last dead letter, and those from a place on, in their order.

        Args:
            place: the first place.
            limit: how many at most.
            skip: how many of them to pass over.
            last: the last place; None: all there is.

        The record of one that is none any more is empty.
        """
        end, *rest = await self._run("letters", place, "+inf" if last is None else last, skip, limit)
        flat = iter(rest)
        found = [
            Letter(int(at), task_id.decode(), packed) for at, task_id, packed in zip(flat, flat, flat, strict=True)
        ]
        return int(end), found

    async def redrive(self, tasks: Sequence[tuple[str, bytes]]) -> list[bool | str]:
        """Sends dead letters again, of (task, key as `pack_key` makes it).

        Returns for each: whether it was one, or the id of the task that its key stands for.
        """
        packed = [_sized(task_id.encode()) + _sized(key) for task_id, key in tasks]
        reply: list[int | bytes] = await self._run("redrive", *packed)
        return [verdict.decode() if isinstance(verdict, bytes) else bool(verdict) for verdict in reply]

    async def discard(self, tasks: Sequence[str]) -> int:
        """Deletes dead letters; returns how many were some."""
        return int(await self._run("discard", *tasks))

    async def mend(self) -> None:
        """Puts the shard in order, whatever has happened to it; see mend.lua."""
        await self._run("mend", "all")

    async def progress(self, runtime: str, task_id: str, note: bytes) -> bool:
        """Notes the progress of a task that the runtime has claimed."""
        return bool(await self._run("progress", runtime, task_id, note))

    async def configure(self, tenant: str, changes: dict[str, float | None]) -> dict[str, float]:
        """Changes the policy of a tenant; returns it as it is now."""
        flat = [part for name, value in changes.items() for part in (name, "" if value is None else repr(value))]
        policy: dict[str, float] = json.loads(await self._run("configure", tenant, *flat))
        return policy

    async def tenant_stats(self, tenant: str) -> Counts:
        """The counts of a tenant."""
        counts, _policy, queued = await self._run("stats", tenant)
        return Counts.unpack(counts, queued=queued)

    async def stats(self, *, patience: float | None = None) -> list[Any]:
        """The counts of the shard; see stats.lua."""
        reply: list[Any] = await self._run("stats", patience=patience)
        return reply


async def open_shards(server: Server, settings: Settings) -> list[Shard]:
    """All shards of a namespace, opened.

    Raises:
        NamespaceMismatch: it was created otherwise.
    """
    patience = settings.connect_timeout
    first = Shard(server, Keys(settings.namespace, 0), patience=patience)
    shards = await first.open(shards=settings.shards, aging=settings.aging)
    others = [Shard(server, Keys(settings.namespace, number), patience=patience) for number in range(1, shards)]
    for shard in others:
        await shard.open(shards=shards, aging=settings.aging)
    return [first, *others]


_LOST: Final = {
    b"lapsed": "was silent for longer than its lease, so its tasks were given to others. Was the event loop blocked, "
    "the process stopped, or the network cut? Or else the server has lost its data",
    b"behind": "was told something that the server does not know any more: it has lost its latest data, as after a "
    "restart or a failover, so nobody can tell which claims stand",
}


def _taken(item: Item) -> TaskExists:
    return TaskExists(f"the id {item.id!r} is taken by a task of another tenant; ids are unique in a namespace")


def pack_key(key: str, window: float) -> bytes:
    """A deduplication key as scripts take it, with the seconds for which it outlives its task."""
    return _WINDOW.pack(_ms(window)) + key.encode()


def _sized(part: bytes) -> bytes:
    return _LENGTH.pack(len(part)) + part


def _pack_item(item: Item) -> bytes:
    task_id, tenant, due = item.id.encode(), item.tenant.encode(), item.due.encode()
    return b"%c%c%c%b%b%b%b%b%b%b%b" % (
        item.priority, item.watch.encode() or b" ", len(due), due, _LENGTH.pack(len(task_id)), task_id,
        _LENGTH.pack(len(tenant)), tenant, _LENGTH.pack(len(item.key)), item.key, item.body,
    )  # fmt: skip


def _pack_settlement(settlement: Settlement) -> bytes:
    task_id, verdict = settlement.id.encode(), settlement.verdict.encode()
    return b"%b%c%b%b%b%b" % (
        settlement.turn, len(verdict), verdict, _LENGTH.pack(len(task_id)), task_id, settlement.record
    )  # fmt: skip


def turn_mark(number: int) -> bytes:
    """The number of a turn as scripts compare it."""
    return number.to_bytes(4, "big")


def _ms(seconds: float) -> int:
    """Whole milliseconds; never 0 for a time that is not."""
    return max(1, round(seconds * 1000)) if seconds > 0 else 0
