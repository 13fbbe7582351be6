"""The shards of a namespace, and how tenants and tasks are found in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Final, TypeVar

import anyio

from fairactor._model.keys import Keys
from fairactor._model.layout import Layout
from fairactor._server.connection import Server
from fairactor._server.rights import ALONE, IN_CLUSTERS, IN_SCRIPTS, PROBE, REPLICATED, missing_right
from fairactor.errors import ServerError
from fairactor.settings import Settings

from .plugin_lua import NO_PLUGIN_LUA, PluginLua
from .script_runner import Elsewhere, KnownLayout, ScriptRunner
from .shard import Shard

T = TypeVar("T")
Opener = Callable[[int, Layout | None, int | None], tuple[Shard, Callable[[], Awaitable[Layout]]]]
"""Returns a shard, given its number, the layout and the number of shards, if they are known, and what opens it and
returns the layout of the namespace."""


_ATTEMPTS: Final = 20
"""The most times that a call looks for the shard of its tenant."""


class Shards:
    """All shards of a namespace, in the order of their numbers. There may get more of them while this runs."""

    def __init__(
        self, shards: Sequence[Shard], server: Server, layout: Layout, known: KnownLayout, opened: Opener
    ) -> None:
        self._shards = list(shards)
        self.server = server
        self.layout = layout
        """How many there are, and which tenants are on which."""
        self._known = known
        self._opened = opened
        self._renewing = anyio.Lock()
        self._gone: set[str] = set()  # tenants that have moved, while others still do
        self._added: list[Callable[[int, Shard], None]] = []
        self._changed: list[Callable[[], None]] = []
        known.epoch, known.renew = layout.epoch, self.renew

    def __len__(self) -> int:
        return len(self._shards)

    def __iter__(self) -> Iterator[Shard]:
        """Yields all shards, also those that are added meanwhile: the first call may tell that there are more."""
        number = 0
        while number < len(self._shards):
            yield self._shards[number]
            number += 1

    def __getitem__(self, number: int) -> Shard:
        return self._shards[number]

    def on_added(self, callback: Callable[[int, Shard], None]) -> None:
        """Has a function called with the number of each shard that is added, and the shard."""
        self._added.append(callback)

    def on_layout(self, callback: Callable[[], None]) -> None:
        """Has a function called when the layout has changed."""
        self._changed.append(callback)

    async def renew(self) -> None:
        """Reads the layout again, and opens the shards that are new."""
        async with self._renewing:
            layout = await self._opened(0, None, None)[1]()
            if layout.epoch <= self.layout.epoch:
                return
            new = [self._opened(number, layout, None) for number in range(len(self._shards), layout.shards)]
            for _, opening in new:
                await opening()
            self._gone.clear()
            self.layout, self._known.epoch = layout, layout.epoch
            for shard in self._shards:
                shard.note_layout(layout)
            for shard, _ in new:
                self._shards.append(shard)
                for callback in self._added:
                    callback(len(self._shards) - 1, shard)
            for changed in self._changed:
                changed()

    async def begin_growth(self, count: int, prepare: Callable[[Sequence[Shard]], Awaitable[None]]) -> None:
        """Adds shards to the namespace. Tenants move to them as long as the layout says that it grows.

        Args:
            count: how many shards there shall be.
            prepare: gives the new shards what they have to know; it gets all shards.
        """
        await self.renew()
        if self.layout.growing or count == self.layout.shards:
            return
        layout = self.layout.grown(count)
        # The new shards get the layout with all others, when it holds: so this runtime may already use them.
        first = self.layout.counts[0]  # as in the others
        new = [self._opened(number, None, first) for number in range(len(self._shards), count)]
        for _, opening in new:
            await opening()
        await prepare([*self._shards, *(shard for shard, _ in new)])
        await self._shards[0].grow(layout)
        await self.renew()

    def number_of(self, tenant: str) -> int:
        """Returns the number of a tenant's shard, from 0, as far as it is known; see `find`."""
        layout = self.layout
        if layout.growing and tenant not in self._gone:
            return layout.source(tenant)
        return layout.place(tenant)

    def placement(self) -> Callable[[str], int]:
        """Returns a function as `number_of`, which does not change its mind when a tenant moves."""
        return cache(self.number_of) if self.layout.growing else self.layout.place

    async def find(self, tenant: str) -> int:
        """Returns the number of a tenant's shard. While tenants move, it asks for those that should.

        Raises:
            ServerUnavailable: as `ScriptRunner.run`.
        """
        while self._may_move(tenant):
            with suppress(Elsewhere):  # the layout has changed
                if await self._shards[self.layout.source(tenant)].ask_to_go(tenant):
                    self._gone.add(tenant)
                break
        return self.number_of(tenant)

    def _may_move(self, tenant: str) -> bool:
        layout = self.layout
        return layout.growing and tenant not in self._gone and layout.source(tenant) != layout.place(tenant)

    async def at_home(self, tenant: str, call: Callable[[Shard], Awaitable[T]]) -> T:
        """Calls a function with the shard of a tenant, again if the tenant has moved meanwhile.

        Raises:
            ServerError: the shard of the tenant is not found, because somebody has changed what is stored.
        """
        for _ in range(_ATTEMPTS):
            try:
                return await call(self._shards[await self.find(tenant)])
            except Elsewhere:
                await self.renew()  # the shard may know more than this runtime
        raise ServerError(f"the shard of tenant {tenant!r} is not found: it is not {self.number_of(tenant)}")

    def likely(self, tenant: str) -> list[Shard]:
        """Returns what `places` does, as far as it is known."""
        numbers = [self.number_of(tenant), *self.layout.places(tenant)]
        return [self._shards[number] for number in dict.fromkeys(numbers)]

    async def places(self, tenant: str) -> list[Shard]:
        """Returns the shards on which tasks of a tenant may be, the most likely first."""
        await self.find(tenant)
        return self.likely(tenant)

    def in_order_of_moves(self, places: Sequence[Shard]) -> list[Shard]:
        """Returns shards in the order in which tasks move over them: what ends one on its way must look so."""
        return sorted(places, key=self._shards.index) if self.layout.growing else list(places)

    async def locate(self, task_id: str, tenant: str | None) -> Shard | None:
        """Finds the shard of a task, by asking the shards that may have it; None if none has.

        If there is only one such shard, this does not check that the task exists.
        """
        for _ in range(2 if self.layout.growing else 1):  # it may be on its way to one that was asked before
            places = None if tenant is None else await self.places(tenant)
            if len(self if places is None else places) == 1:
                return self._shards[0] if places is None else places[0]
            for shard in self if places is None else places:
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

    known = KnownLayout()

    def opened(number: int, layout: Layout | None, count: int | None) -> tuple[Shard, Callable[[], Awaitable[Layout]]]:
        keys = Keys(settings.namespace, number)
        shard = Shard(server, keys, patience=settings.connect_timeout, plugins=plugins, layout=known)
        if count is None:
            count = settings.shards if layout is None else layout.shards
        return shard, partial(shard.open, shards=count, aging=settings.aging, fair_by=settings.fair_by, layout=layout)

    first, opening = opened(0, None, None)
    layout = await opening()
    others = [opened(number, layout, None) for number in range(1, layout.shards)]
    for _, each in others:
        await each()
    return Shards([first, *(shard for shard, _ in others)], server, layout, known, opened)
