"""One shard of a namespace: a typed method for each script. Nothing else runs scripts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import anyio

from fairactor._model.counts import ShardStats, cursor_of, unpack_stats
from fairactor._model.keys import Keys
from fairactor._model.layout import Layout
from fairactor._model.wire import (
    ANY_SUSPECT,
    FULL,
    GONE,
    MORE,
    REPEATED,
    TAKEN,
    UNSEEN,
    Item,
    Maintained,
    Receipt,
    Settlement,
    Turn,
    Waits,
    as_bytes,
    as_text,
    pack_item,
    pack_settlement,
    turn_mark,
    unpack_clock,
    whole_ms,
)
from fairactor._server.connection import Server
from fairactor._util.link import MOST
from fairactor.errors import LeaseLost, MailboxFull, NamespaceMismatch, ServerError, TaskExists
from fairactor.settings import FairBy

from .damage import Repairs
from .fleet import Fleet
from .letters import Letters
from .limits import Limits
from .migration import Migration
from .pages import Pages
from .plugin_lua import NO_PLUGIN_LUA, PluginLua
from .reservations import Reservations
from .script_runner import Elsewhere, KnownLayout, ScriptRunner
from .tenants import Tenants

MODEL: Final = 6
"""The version of the data model. A namespace of a later version is refused."""
OLDEST: Final = 5
"""The oldest version that is opened. It becomes `MODEL` when no runtime of an older release is left."""
ALL: Final = 1_000_000
"""More outcomes, and claims, than any turn has."""
LOOKED_AT: Final = 100
"""How many mailboxes `Shard.load` looks at, and how many policies."""
_MOVING: Final = "moving"
_MOVES: Final = 0.01
"""Seconds after which to look again at a task that is on its way to another shard."""
_CANCELED_AT_ONCE: Final = 200
"""The most tasks that one call cancels."""


class Undeclared(Exception):
    """The shard does not know what the runtime can run: it joined while runtimes of an older release were there."""


class Shard(Fleet, Letters, Limits, Migration, Pages, Reservations, Tenants):
    """One shard, with a method for each script."""

    def __init__(
        self,
        server: Server,
        keys: Keys,
        *,
        patience: float,
        plugins: PluginLua = NO_PLUGIN_LUA,
        layout: KnownLayout | None = None,
    ) -> None:
        super().__init__(ScriptRunner(server, keys.meta, patience=patience, plugins=plugins, layout=layout))
        self.keys = keys
        self._server = server
        self.untidy = False
        """Whether the shard still knew tenants that have gone to other shards, when it was opened."""
        self.answer = server.answer
        """Seconds after which a call without an answer fails."""
        self.call = self._runner.run
        """Runs a script of a plugin."""
        self.call_for_tenant = self._runner.run_for_tenant
        """Runs a script of a plugin about a tenant."""

    async def open(
        self, *, shards: int | None, aging: float, fair_by: FairBy | None = None, layout: Layout | None = None
    ) -> Layout:
        """Opens the shard, or creates it; returns the layout of the namespace.

        Args:
            shards: the number of shards with which the namespace is created; None for the usual one.
            aging: the seconds of waiting that make up for a priority.
            fair_by: what tenants share.
            layout: the layout, if shard 0 knows one.

        Raises:
            NamespaceMismatch: the shard was created with other fixed settings, or by another release.
        """
        step = int(aging * 1e6)
        wanted = shards or (16 if self._server.cluster else 1)
        packed = layout.pack() if layout is not None and layout.epoch else ""
        reply = await self._run("open", MODEL, wanted, step, fair_by or "tasks", packed)
        where = f"the namespace of {self.keys.meta} at {self._server.where}"
        try:
            version, found, found_step = map(int, reply[:3])
            known = Layout.unpack(reply[4]) if reply[4] else Layout((found,))
            self.untidy = bool(reply[5])
        except ValueError:
            names = ", ".join(f"{name}={value!r}" for name, value in zip(_FIXED, reply, strict=True))
            raise ServerError(
                f"{where} was damaged, its fixed settings are {names}: a runtime that still runs can repair it with "
                f"`await runtime.repair()`, or set them by hand (HSET {self.keys.meta} …)"
            ) from None
        shared = "time" if reply[3] == b"time" else "tasks"
        # A repair must not let older releases in again, so it does not restore the version of an older one.
        self._runner.open_arguments = (MODEL, found, found_step, shared, known.pack() if known.epoch else "")
        if version > MODEL:
            raise NamespaceMismatch(
                f"{where} has data model {version}, written by a later fairactor than this one, which knows {MODEL}: "
                "install that release here, or use another namespace"
            )
        if version < OLDEST:
            raise NamespaceMismatch(
                f"{where} has data model {version}, and this fairactor reads {OLDEST} and {MODEL}: run its tasks with "
                "the release that wrote it until none is left (await runtime.drain()), then delete its keys, or use "
                "another namespace"
            )
        if shards not in (None, found, *known.counts, *(layout.counts if layout else ())):
            grown = f", and has {known.shards} now" if known.epoch else ""
            raise NamespaceMismatch(f"{where} was created with shards={found}{grown}, not {shards}; leave shards= out")
        if found_step != step:
            raise NamespaceMismatch(f"{where} was created with aging={found_step / 1e6:g}, not {aging:g}")
        if fair_by not in (None, shared):
            raise NamespaceMismatch(f"{where} was created with fair_by={shared!r}; leave fair_by= out")
        return known

    def note_layout(self, layout: Layout) -> None:
        """Notes the layout, for the case that the server loses the shard."""
        if self._runner.open_arguments is not None:
            self._runner.open_arguments = (*self._runner.open_arguments[:-1], layout.pack())

    async def send(
        self, items: Sequence[Item], runtime: str, number: int, *, replicas: int = 0, reservation: str = ""
    ) -> Receipt:
        """Puts tasks into mailboxes, in one atomic step. Repeating the call changes nothing.

        Args:
            items: the tasks.
            runtime: the runtime that sends.
            number: the number of the batch, by which the server recognizes a repeated call.
            replicas: how many replicas to wait for.
            reservation: the name of the reservation for these tasks, or ''; see `reserve`.
        """
        packed = [pack_item(item) for item in items]
        reply, confirmed = await self._runner.run_replicated(
            replicas, "send", runtime, turn_mark(number), reservation, *packed
        )
        if reply == 0:
            return Receipt([item.id for item in items], {}, confirmed)
        ids = [
            as_text(verdict) if isinstance(verdict, bytes) else "" if verdict == REPEATED else item.id
            for item, verdict in zip(items, reply, strict=True)
        ]
        refused = {
            number: _refusal(verdict, items[number])
            for number, verdict in enumerate(reply)
            if verdict in (TAKEN, FULL, GONE)
        }
        return Receipt(ids, refused, confirmed)

    async def turn(
        self,
        runtime: str,
        number: int,
        *,
        lease: float,
        want: int,
        ahead: int = 0,
        received: bool = False,
        permit: bytes = ANY_SUSPECT,
        slots: bytes = b"",
        most_bytes: int = MOST,
        sure: int = ALL,
        most_time: float = 0.0,
        settle: Iterable[Settlement] = (),
    ) -> Turn:
        """Settles and claims tasks. It tries once: the dispatcher decides what to do about an error.

        Args:
            runtime: the runtime that takes the turn.
            number: the number of the turn, by which the server recognizes a repeated call.
            lease: the seconds for which to renew the lease.
            want: how many tasks could start here now.
            ahead: how many more could start soon. They are claimed only if no other runtime could start them now.
            received: whether the runtime has received the task that the server handed to it since its last turn.
            permit: how it may claim suspects, from `pack_permit`.
            slots: how many tasks of each kind could start now, from `SlotKinds`; empty if there is one kind.
            most_bytes: the most bytes of records in the reply; those that are cut off are for `read_pieces`.
            sure: so many outcomes, and so many claims, the server takes in any case.
            most_time: for how many seconds it may choose what it takes beyond these.
            settle: the outcomes of tasks that have ended. The turn takes the first ones, and says how many.

        Raises:
            LeaseLost: nothing was done, and the runtime has lost all its claims.
            Undeclared: nothing was done; `declare` must come first.
        """
        arguments = [pack_settlement(settlement) for settlement in settle]
        reply = await self._run(
            "turn",
            runtime,
            turn_mark(number),
            whole_ms(lease),
            want,
            ahead,
            int(received),
            permit,
            slots,
            most_bytes,
            sure,
            round(most_time * 1e6),
            *arguments,
            patience=0,
        )
        if reply == b"declare":
            raise Undeclared
        if isinstance(reply, bytes):
            raise LeaseLost(f"{runtime} {_LOST[reply]}")
        now, wait, maintenance_due, refused, claims, cancels, more, suspects, behind, clock, cut, had = reply
        rest = wait / 1000 if wait >= 0 else float("inf")
        left: dict[str, Any] = {
            "more": more == MORE,
            "unseen": more == UNSEEN,
            "suspects": Waits(suspects),
            "behind": behind,
            "clock": unpack_clock(clock),
            "cut": dict(zip(cut[::2], cut[1::2], strict=True)),
            "had": had,
        }
        return Turn(int(now) / 1e6, rest, bool(maintenance_due), refused, claims, cancels, **left)

    async def read_pieces(
        self, runtime: str, most_bytes: int, tasks: Sequence[tuple[str, bytes, int]]
    ) -> list[bytes | None]:
        """Reads the records of claimed tasks in pieces.

        Args:
            runtime: the runtime that has the claims.
            most_bytes: the most bytes in all.
            tasks: (task, mark of the turn that claimed it, from which byte on).

        Returns:
            For each task its next piece, b"" if there is no room for it, or None if the runtime has lost the claim.
        """
        flat = [part for task_id, turn, start in tasks for part in (as_bytes(task_id), turn, start)]
        pieces: list[bytes | None] = await self._run("pieces", runtime, most_bytes, *flat)
        return pieces

    async def maintain(
        self, *, deliveries: int, failed_ttl: float, body: bytes, silent_body: bytes = b"", limit: int = 150
    ) -> Maintained:
        """Does a step of the maintenance.

        It queues due tasks, takes back the claims of a dead runtime, and deletes what has expired.

        Args:
            deliveries: the deliveries after which a task fails.
            failed_ttl: the seconds for which to keep the record of such a task.
            body: the outcome of such a task if its runtime died.
            silent_body: its outcome if its runtime lives, but has lost its lease.
            limit: the most tasks to queue, and the most entries of each kind to delete.
        """
        reply = await self._run("tend", limit, deliveries, whole_ms(failed_ttl), body, silent_body or body)
        return Maintained(bool(reply[2]), reply[3], reply[4][::2])

    async def expire(
        self, lane: bytes, *, unknown_ttl: float, failed_ttl: float, body: bytes
    ) -> tuple[list[bytes], bool]:
        """Ends tasks of a lane that have waited for too long while no runtime could run them.

        Args:
            lane: the lane.
            unknown_ttl: the seconds for which they wait.
            failed_ttl: the seconds for which to keep their records.
            body: their outcome.

        Returns:
            The ids of the tasks, and whether there are more.
        """
        ended, more = await self._run("expire", lane, whole_ms(unknown_ttl), whole_ms(failed_ttl), body)
        return ended, bool(more)

    async def sort(self, limit: int = 100) -> bool:
        """Moves up to ``limit`` tasks of the common lane, which no runtime serves, to lanes of their own.

        Returns:
            Whether there may be more.
        """
        return bool(await self._run("sort", limit))

    async def watch(self, runtime: str, tasks: Sequence[tuple[str, str, str]]) -> list[list[bytes]]:
        """Asks for the outcomes of tasks; see watch.lua.

        Args:
            runtime: the runtime that asks.
            tasks: (task, its tenant or '' for any, tenant of the waiting handler or '').
        """
        reply: list[list[bytes]] = await self._run("watch", runtime, *[part for task in tasks for part in task])
        return reply

    async def inspect(self, task_id: str, tenant: str = "") -> list[Any]:
        """Returns the stored data of a task of a tenant, '' for any; see inspect.lua."""
        reply: list[Any] = await self._run("inspect", task_id, tenant)
        return reply

    async def cancel(self, task_id: str, tenant: str = "", *, ttl: float, body: bytes) -> str:
        """Cancels a task of a tenant, '' for any; returns the state in which it was, or 'missing'."""
        (state,) = await self.cancel_many([(task_id, tenant)], ttl=ttl, body=body)
        return state

    async def cancel_many(self, tasks: Sequence[tuple[str, str]], *, ttl: float, body: bytes) -> list[str]:
        """Cancels tasks, given as pairs (task, tenant or '' for any); returns for each what `cancel` returns."""
        states = [""] * len(tasks)
        left = list(range(len(tasks)))
        while left:
            some = left[:_CANCELED_AT_ONCE]
            flat = [part for index in some for part in (as_bytes(tasks[index][0]), tasks[index][1])]
            found = [state.decode() for state in await self._run("cancel", whole_ms(ttl), body, *flat)]
            for index, state in zip(some, found, strict=False):  # the reply may end early
                states[index] = state
            moving = [index for index in some[: len(found)] if states[index] == _MOVING]
            left = moving + left[len(found) :]
            if moving:
                await anyio.sleep(_MOVES)
        return states

    async def repair(self) -> Repairs:
        """Rebuilds the shard from its records; see mend.lua. Returns what was done."""
        return await self._runner.repair()

    async def progress(self, runtime: str, task_id: str, note: bytes) -> bool:
        """Stores the progress of a task that the runtime has claimed."""
        return bool(await self._run("progress", runtime, task_id, note))

    async def stats(self, *, patience: float | None = None) -> ShardStats:
        """Returns the counts of the shard, and its runtimes. ``patience`` is as in `ScriptRunner.run`."""
        reply = await self._run("stats", patience=patience)
        more: list[list[Any]] = []
        cursor = cursor_of(reply)
        while cursor != b"0":
            more.append(await self._run("stats", "", cursor, patience=patience))
            cursor = more[-1][0]
        return unpack_stats(reply, more)

    async def load(self, *, patience: float | None = None) -> list[Any]:
        """Returns how the tasks of the shard fare; see health.lua. ``patience`` is as in `ScriptRunner.run`."""
        reply: list[Any] = await self._run("health", LOOKED_AT, patience=patience)
        return reply


_FIXED: Final = ("version", "shards", "step", "fair_by", "layout")
_LOST: Final = {
    b"lapsed": "has lost its lease, so other runtimes run its tasks. It was silent for longer than the lease: was the "
    "event loop blocked, the process stopped, or the network cut? Or the server has lost its data",
    b"behind": "is ahead of the server, which has lost its latest data, for example in a restart or a failover. So it "
    "is unknown which claims are still valid",
}


def _refusal(verdict: int, item: Item) -> Exception:
    if verdict == GONE:
        return Elsewhere()
    if verdict == FULL:
        return MailboxFull(item.tenant)
    return TaskExists(f"the id {item.id!r} is taken by a task of another tenant; ids are unique in a namespace")
