"""One shard of a namespace: every transition as a typed call. Nobody else speaks to the scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from .calls import Calls
from .connection import Server
from .errors import FairactorError, LeaseLost, MailboxFull, NamespaceMismatch, TaskExists
from .extensions import NONE, Extensions
from .keys import Keys
from .settings import FairBy, Settings
from .wire import (
    Assignment,
    Counts,
    Item,
    Letter,
    PackedPolicy,
    Receipt,
    Settlement,
    Turn,
    pack_assignment,
    pack_item,
    pack_settlement,
    sized,
    turn_mark,
    unpack_policy,
    whole_ms,
)

MODEL: Final = 4
"""The version of the data model; a namespace written by another is refused."""

_TAKEN, _FULL = 2, 3  # send.lua: the id is another tenant's; the mailbox is full


class Shard:
    """The transitions of one shard."""

    def __init__(self, server: Server, keys: Keys, *, patience: float, plugins: Extensions = NONE) -> None:
        self.keys = keys
        self._server = server
        self._calls = Calls(server, keys.meta, patience=patience, plugins=plugins)
        self._run = self._calls.run
        self.call = self._calls.run
        """Runs a script of a plugin."""

    async def open(self, *, shards: int | None, aging: float, fair_by: FairBy | None = None) -> int:
        """Opens the shard, creating it where it is new; returns into how many shards the namespace is cut.

        Raises:
            NamespaceMismatch: it was created otherwise.
        """
        step = int(aging * 1e6)
        wanted = shards or (16 if self._server.cluster else 1)
        reply = await self._run("open", MODEL, wanted, step, fair_by or "tasks")
        version, found, found_step = map(int, reply[:3])
        self._calls.to_open = tuple(reply)
        where = f"the namespace of {self.keys.meta} at {self._server.where}"
        if version != MODEL:
            raise NamespaceMismatch(f"{where} has data model {version}, this fairactor has {MODEL}; use another one")
        if shards not in (None, found):
            raise NamespaceMismatch(f"{where} was created with shards={found}, not {shards}; leave shards= out")
        if found_step != step:
            raise NamespaceMismatch(f"{where} was created with aging={found_step / 1e6:g}, not {aging:g}")
        if fair_by not in (None, reply[3].decode()):
            raise NamespaceMismatch(f"{where} was created with fair_by={reply[3].decode()!r}; leave fair_by= out")
        return found

    async def send(
        self, items: Sequence[Item], runtime: str, number: int, *, replicas: int = 0, reservation: str = ""
    ) -> Receipt:
        """Puts tasks into mailboxes, all in one step; repeats change nothing.

        Args:
            items: the tasks.
            runtime: who sends.
            number: of the batch; sent again under the same one it is recognised.
            replicas: wait until so many have confirmed it, for a while.
            reservation: what `reserve` has kept room under.
        """
        packed = [pack_item(item) for item in items]
        reply, confirmed = await self._calls.run_replicated(
            replicas, "send", runtime, turn_mark(number), reservation, *packed
        )
        if reply == 0:
            return Receipt([item.id for item in items], {}, confirmed)
        ids = [
            verdict.decode() if isinstance(verdict, bytes) else item.id
            for item, verdict in zip(items, reply, strict=True)
        ]
        refused = {
            number: _refusal(verdict, items[number])
            for number, verdict in enumerate(reply)
            if verdict in (_TAKEN, _FULL)
        }
        return Receipt(ids, refused, confirmed)

    async def reserve(
        self, name: str, rooms: Mapping[str, int], ids: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> str | None:
        """Keeps room in mailboxes for a minute; returns a tenant whose mailbox is too full, and then keeps none.

        Args:
            name: of the reservation.
            rooms: for how many tasks of each tenant.
            ids: those of them that were chosen by who sends, and so may be there already.
        """
        flat: list[Any] = []
        for tenant, many in rooms.items():
            flat += (tenant, many, msgspec.msgpack.encode(ids.get(tenant, ())))
        full: bytes | None = await self._run("reserve", name, *flat)
        return None if full is None else full.decode()

    async def join(self, runtime: str, *, lease: float, info: dict[str, Any], serves: Assignment | None = None) -> None:
        """Gives a runtime its lease, on all tenants or on certain ones."""
        await self._run("join", runtime, whole_ms(lease), json.dumps(info), pack_assignment(serves))

    async def assign(self, runtime: str, serves: Assignment | None) -> bool:
        """Changes which tenants a runtime serves; returns whether it has a lease."""
        return bool(await self._run("assign", runtime, pack_assignment(serves)))

    async def leave(self, runtime: str) -> int:
        """Ends a lease; returns how many claims there were."""
        return int(await self._run("leave", runtime))

    async def turn(
        self,
        runtime: str,
        number: int,
        *,
        lease: float,
        want: int,
        ahead: int = 0,
        heard: bool = False,
        settle: Iterable[Settlement] = (),
    ) -> Turn:
        """Settles and claims. It is sent once: who takes turns decides what to do about an error.

        Args:
            runtime: whose turn it is.
            number: of the turn; sent again under the same one it is recognised.
            lease: for how long to renew its lease.
            want: how many tasks could start here at once.
            ahead: how many more would soon; they are claimed only where nobody else could start them at once.
            heard: whether it has heard of a task that was handed to it since its last turn.
            settle: what has ended.

        Raises:
            LeaseLost: nothing was done, and nothing of what the runtime has claimed is its own any more.
        """
        arguments = [pack_settlement(settlement) for settlement in settle]
        reply = await self._run(
            "turn", runtime, turn_mark(number), whole_ms(lease), want, ahead, int(heard), *arguments, patience=0
        )
        if isinstance(reply, bytes):
            raise LeaseLost(f"{runtime} {_LOST[reply]}")
        now, wait, tend, refused, claims, cancels, more = reply
        rest = wait / 1000 if wait >= 0 else float("inf")
        return Turn(int(now) / 1e6, rest, bool(tend), refused, claims, cancels, bool(more))

    async def tend(self, *, deliveries: int, failed_ttl: float, body: bytes, limit: int = 500) -> bool:
        """Does what time asks for; returns whether there is more of it."""
        _, _, more = await self._run("tend", limit, deliveries, whole_ms(failed_ttl), body)
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
        state: bytes = await self._run("cancel", task_id, whole_ms(ttl), body)
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
        packed = [sized(task_id.encode()) + sized(key) for task_id, key in tasks]
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

    async def configure(self, whose: str | bytes, changes: Mapping[str, Any]) -> PackedPolicy:
        """Changes the policy of a tenant, a group or the defaults, as configure.lua has it; None: the default's.

        Returns it as it is now.
        """
        given = msgspec.msgpack.encode({name: value for name, value in changes.items() if value is not None})
        back = [name for name, value in changes.items() if value is None]
        return unpack_policy(await self._run("configure", whose, given, *back))

    async def review(self) -> None:
        """Looks anew at which tenants can be served, after the defaults have changed."""
        cursor = b"0"
        while (cursor := await self._run("review", cursor)) != b"0":
            pass

    async def policies(self) -> dict[bytes, PackedPolicy]:
        """All policies that were set, as `configure` names them."""
        found, cursor = {}, b"0"
        while True:
            cursor, flat = await self._run("policies", cursor)
            names = iter(flat)
            found.update({name: unpack_policy(packed) for name, packed in zip(names, names, strict=True)})
            if cursor == b"0":
                return found

    async def policy(self, tenant: str) -> tuple[PackedPolicy, PackedPolicy]:
        """The policy of a tenant, and the defaults."""
        _, own, defaults, _ = await self._run("stats", tenant)
        return unpack_policy(own), unpack_policy(defaults)

    async def purge(self, tenant: str, *, ttl: float, body: bytes) -> int:
        """Cancels what waits for a tenant; returns how many tasks."""
        number, cursor = 0, b"s0"
        while cursor:
            canceled, cursor = await self._run("purge", tenant, whole_ms(ttl), body, cursor)
            number += canceled
        return number

    async def tenant_stats(self, tenant: str) -> Counts:
        """The counts of a tenant."""
        counts, _, _, queued = await self._run("stats", tenant)
        return Counts.unpack(counts, queued=queued)

    async def stats(self, *, patience: float | None = None) -> list[Any]:
        """The counts of the shard; see stats.lua."""
        reply: list[Any] = await self._run("stats", patience=patience)
        return reply


async def open_shards(server: Server, settings: Settings, plugins: Extensions = NONE) -> list[Shard]:
    """All shards of a namespace, opened.

    Raises:
        NamespaceMismatch: it was created otherwise, or depends on another plugin.
    """
    patience = settings.connect_timeout
    first = Shard(server, Keys(settings.namespace, 0), patience=patience, plugins=plugins)
    shards = await first.open(shards=settings.shards, aging=settings.aging, fair_by=settings.fair_by)
    others = [
        Shard(server, Keys(settings.namespace, number), patience=patience, plugins=plugins)
        for number in range(1, shards)
    ]
    for shard in others:
        await shard.open(shards=shards, aging=settings.aging, fair_by=settings.fair_by)
    return [first, *others]


_LOST: Final = {
    b"lapsed": "was silent for longer than its lease, so its tasks were given to others. Was the event loop blocked, "
    "the process stopped, or the network cut? Or else the server has lost its data",
    b"behind": "was told something that the server does not know any more: it has lost its latest data, as after a "
    "restart or a failover, so nobody can tell which claims stand",
}


def _refusal(verdict: int, item: Item) -> FairactorError:
    if verdict == _FULL:
        return MailboxFull(item.tenant)
    return TaskExists(f"the id {item.id!r} is taken by a task of another tenant; ids are unique in a namespace")
