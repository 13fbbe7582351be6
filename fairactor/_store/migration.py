"""The steps in which a tenant moves from one shard to another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import attrs

from fairactor._model.arrival import Arrival, pack_arrival
from fairactor._model.layout import Layout
from fairactor._model.wire import as_bytes, as_text, unpack_policy
from fairactor.errors import NotReplicated

from .script_runner import ScriptRunner

_GOES: Final = b"gone"
_LIMITS_AT_ONCE: Final = 200


@attrs.frozen
class Departure:
    """How far a tenant is that moves, and what its new shard has to know."""

    state: str
    """``here``, ``held``: none of its tasks is started any more, or ``gone``."""
    started: int = 0
    """The tasks that run."""
    deferred: int = 0
    """The deferred tasks."""
    policy: bytes = b""
    """Its settings, packed; b"" for none."""
    debts: Sequence[bytes] = (b"0",)
    """The µs that it has to wait by its rate; then for each limit that it has for itself name, settings, µs."""


def _departure(reply: Sequence[Any]) -> Departure:
    state, started, deferred, policy, *debts = reply
    return Departure(state.decode(), started, deferred, policy, debts)


class Migration:
    """The methods of `Shard` for the scripts that move tenants.

    Raises (from every method about a tenant):
        Elsewhere: the layout has changed, so nothing was done: what moved tenants was superseded meanwhile.
    """

    _runner: ScriptRunner
    _run: Any
    policies: Any
    change_limit: Any

    async def grow(self, layout: Layout, *, is_tidy: bool = False) -> Layout:
        """Sets the layout of the namespace here, unless a later one holds; returns the one that holds.

        Args:
            layout: the layout.
            is_tidy: whether the shard knows nothing of tenants any more that have gone.
        """
        return Layout.unpack(await self._run("grow", layout.pack(), "1" if is_tidy else ""))

    async def lead(self, runtime: str, seconds: float) -> bool:
        """Asks to be the one runtime that moves tenants away from here; returns whether it is."""
        return bool(await self._run("lead", runtime, round(seconds * 1000)))

    async def ask_to_go(self, tenant: str) -> bool:
        """Returns whether a tenant that should move has gone. It goes at once if nothing is known of it here."""
        return bool((await self._runner.run_for_tenant("depart", tenant, "ask"))[0] == _GOES)

    async def depart(self, tenant: str, wish: str, *, replicas: int = 0) -> Departure:
        """Takes a step of a tenant's departure: ``hold``, ``free``, ``go`` or ``forget``, see depart.lua.

        Raises:
            NotReplicated: fewer replicas have it. Repeating the call is safe.
        """
        return _departure(await self._run_replicated(replicas, "depart", tenant, wish))

    async def debts(self, tenant: str, departure: Departure, limits: Sequence[bytes]) -> Departure:
        """Returns the departure of a tenant that has gone, with what it has of limits for itself.

        Args:
            tenant: the tenant.
            departure: its departure.
            limits: the names of all limits, as JSON text without quotation marks.
        """
        found = list(departure.debts)
        for first in range(0, len(limits), _LIMITS_AT_ONCE):
            some = limits[first : first + _LIMITS_AT_ONCE]
            found += _departure(await self._runner.run_for_tenant("depart", tenant, "look", *some)).debts[1:]
        return attrs.evolve(departure, debts=found)

    async def welcome(self, tenant: str, wish: str, departure: Departure) -> str:
        """Prepares for a tenant that moves here, or serves it; returns the state, ``arriving`` or ``served``.

        Args:
            tenant: the tenant.
            wish: ``arriving``, ``late`` or ``served``, see welcome.lua.
            departure: its departure.
        """
        waits, *flat = departure.debts
        debts: list[bytes] = []
        parts = iter(flat)
        for name, settings, owed in zip(parts, parts, parts, strict=True):
            if settings and wish == "arriving":
                await self.change_limit(name.decode(), unpack_policy(settings), tenant=tenant)
            debts += (name, owed)
        reply: bytes = await self._runner.run_for_tenant("welcome", tenant, wish, departure.policy, waits, *debts)
        return reply.decode()

    async def serve(self, tenant: str) -> None:
        """Serves a tenant of which nothing more arrives."""
        await self._runner.run_for_tenant("welcome", tenant, "served", b"", 0)

    async def export(self, tenant: str) -> list[Arrival]:
        """Returns the next waiting tasks of a tenant that has gone."""
        parts = iter(await self._runner.run_for_tenant("export", tenant))
        return [Arrival(*some) for some in zip(parts, parts, parts, parts, strict=True)]

    async def exported(self, tenant: str, ids: Sequence[bytes]) -> int:
        """Deletes tasks that have arrived at the new shard; returns how many still wait here."""
        return int(await self._runner.run_for_tenant("exported", tenant, *ids))

    async def import_tasks(self, tenant: str, tasks: Sequence[Arrival], *, replicas: int = 0) -> list[bytes]:
        """Accepts tasks of a tenant that moves here; returns the ids that another tenant's tasks have here.

        Raises:
            NotReplicated: fewer replicas have them. Repeating the call is safe.
        """
        taken: list[bytes] = await self._run_replicated(replicas, "import", tenant, *map(pack_arrival, tasks))
        return taken

    async def _run_replicated(self, replicas: int, name: str, *arguments: Any) -> Any:
        reply, confirmed = await self._runner.run_replicated(replicas, name, *arguments)
        if confirmed < replicas:
            raise NotReplicated(f"only {confirmed} of {replicas} replicas confirmed {name}", maybe_accepted=True)
        return reply

    async def past(self, tenant: str, tasks: Sequence[tuple[str, bytes]]) -> list[str]:
        """Returns which tasks a tenant has left here when it moved.

        Args:
            tenant: the tenant.
            tasks: for each task its id, or '' if it does not matter, and its packed key.

        Returns:
            For each the id of a task here that has its id or its key; '' for none.
        """
        flat = [part for task_id, key in tasks for part in (as_bytes(task_id), key)]
        return [found.decode() for found in await self._run("past", tenant, *flat)]

    async def moving(self) -> dict[str, str]:
        """Returns the tenants that move, or have moved while others still do, and how far each is."""
        return {as_text(name): own["moving"] for name, own in (await self.policies()).items() if "moving" in own}

    async def residents(self) -> AsyncIterator[tuple[str, bool]]:
        """Yields the tenants of which something is known here, and have not gone, and whether each has live tasks.

        It may yield a tenant twice. A tenant of which something is known all the time is among them.
        """
        for where in ("counts", "settings"):
            cursor = b"0"
            while True:
                cursor, flat = await self._run("residents", where, cursor)
                parts = iter(flat)
                for name, lives in zip(parts, parts, strict=True):
                    yield as_text(name), bool(lives)
                if cursor == b"0":
                    break
