"""The shards of a namespace, and how tenants and tasks are found in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fairactor._model.keys import Keys, shard_of
from fairactor._server.connection import Server
from fairactor._server.rights import ALONE, IN_CLUSTERS, IN_SCRIPTS, PROBE, REPLICATED, missing_right
from fairactor.errors import ServerError
from fairactor.settings import Settings

from .plugin_lua import NO_PLUGIN_LUA, PluginLua
from .script_runner import ScriptRunner
from .shard import Shard


class Shards:
    """All shards of a namespace, in the order of their numbers."""

    def __init__(self, shards: Sequence[Shard], server: Server) -> None:
        self._shards = shards
        self.server = server

    def __len__(self) -> int:
        return len(self._shards)

    def __iter__(self) -> Iterator[Shard]:
        return iter(self._shards)

    def __getitem__(self, number: int) -> Shard:
        return self._shards[number]

    def number_of(self, tenant: str) -> int:
        """Returns the number of a tenant's shard, from 0."""
        return shard_of(tenant, len(self._shards))

    def of(self, tenant: str) -> Shard:
        """Returns the shard of a tenant."""
        return self._shards[shard_of(tenant, len(self._shards))]

    async def locate(self, task_id: str, tenant: str | None) -> Shard | None:
        """Finds the shard of a task, by its tenant or else by asking all shards; None if no shard has the task.

        If the tenant is known, this does not check that the task exists.
        """
        if tenant is not None:
            return self.of(tenant)
        if len(self._shards) == 1:
            return self._shards[0]
        for shard in self._shards:
            if await shard.inspect(task_id):
                return shard
        return None


async def check_rights(server: Server, settings: Settings) -> None:
    """Checks that the user of the server may do all that a runtime does. Redis 6.2 cannot tell beforehand.

    Raises:
        ServerError: the user lacks rights; the message names them.
    """
    if not server.flags:
        return
    others = [*((REPLICATED,) if settings.durability == "replicated" else ()), *(IN_CLUSTERS if server.cluster else ())]
    meta = Keys(settings.namespace).meta
    runner = ScriptRunner(server, meta, patience=settings.connect_timeout)
    reply = await runner.evaluate("the check of rights", PROBE, *ALONE, *others, *IN_SCRIPTS)
    if problem := _problem([right.decode(errors="replace") for right in reply], server, settings.namespace):
        raise ServerError(problem)


def _problem(found: list[str], server: Server, namespace: str) -> str | None:
    """Says what the check of rights has found."""
    if unknown := [name[1:].upper().replace("|", " ") for name in found if name.startswith("-")]:
        return (
            f"{server.where} has no command {', '.join(unknown)}, which fairactor needs: it was renamed or switched off"
        )
    if found and found[0].startswith("!"):
        said = found[0][1:]
        right = missing_right(ServerError(said))
        if right is None:
            return (
                f"{server.where} lets scripts use only the keys that are named when they are called ({said}), but "
                "fairactor's scripts find theirs themselves: use another server, or let this one allow undeclared keys"
            )
        found = [right]
    return server.user.lacks(found, namespace) if found else None


async def open_shards(server: Server, settings: Settings, plugins: PluginLua = NO_PLUGIN_LUA) -> Shards:
    """Opens all shards of a namespace, or creates them.

    Raises:
        NamespaceMismatch: it was created with other fixed settings, or depends on a plugin that is missing.
        ServerError: the user lacks a right.
    """
    await check_rights(server, settings)

    def shard(number: int) -> Shard:
        return Shard(server, Keys(settings.namespace, number), patience=settings.connect_timeout, plugins=plugins)

    first = shard(0)
    count = await first.open(shards=settings.shards, aging=settings.aging, fair_by=settings.fair_by)
    others = [shard(number) for number in range(1, count)]
    for each in others:
        await each.open(shards=count, aging=settings.aging, fair_by=settings.fair_by)
    return Shards([first, *others], server)
