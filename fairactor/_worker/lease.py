"""The lease of a runtime on one shard, and what the shard knows of the runtime: what it can run, and whom it serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from fairactor._model.lane import RuntimeKind
from fairactor._model.limit import PackedLimit
from fairactor._model.wire import Assignment
from fairactor._store.shard import Shard
from fairactor._store.subscriber import Subscriber
from fairactor.errors import ServerError
from fairactor.settings import Settings

from .upkeep import when_given_up


class Lease:
    """A lease, which is taken anew under a new name each time it was lost.

    Args:
        name: the runtime's name.
        shard: the shard.
        subscriber: receives the messages of the shard.
        settings: the runtime's settings.
        info: its description of itself.
        kind: what it can run.
        limits: what the code of each actor says.
        serves: the tenants that it serves; None means all alike.
    """

    def __init__(
        self,
        name: str,
        shard: Shard,
        subscriber: Subscriber,
        settings: Settings,
        info: dict[str, Any],
        kind: RuntimeKind,
        limits: Mapping[str, PackedLimit],
        serves: Assignment | None,
    ) -> None:
        self._name = name
        self._shard = shard
        self._subscriber = subscriber
        self._settings = settings
        self._info = info
        self._kind = kind
        self._limits = limits
        self._serves = serves
        self._joined = 0
        self.runtime = ""
        """The name under which it is held, or ''."""
        self.renewed = time.monotonic()
        """When the last call began that has renewed it."""
        self.declares = True
        """Whether the shard may have lost what the code says of limits."""

    async def join(self, deliver: Callable[[bytes], None]) -> None:
        """Takes a new lease.

        Args:
            deliver: called with each message that the shard publishes to the new name.
        """
        self._joined += 1
        name = f"{self._name}/{self._joined}"
        self._subscriber.listen(self._shard, name, deliver)
        try:
            await self._subscriber.ready(self._shard, name)
            serves = self._serves
            renewed = time.monotonic()
            await self.declare_limits()
            fills = await self._shard.join(
                name,
                lease=self._settings.lease,
                info=self._info,
                serves=serves,
                kind=self._kind,
                unknown_ttl=self._settings.unknown_ttl,
                ended_index=self._settings.ended_index,
            )
            if fills:
                await self._fill(name)
            if serves is not self._serves:  # it was changed meanwhile
                await self._shard.assign(name, self._serves)
        except BaseException:
            self._subscriber.ignore(self._shard, name)
            raise
        self.renewed = renewed
        self.runtime = name

    async def declare_limits(self, limits: Mapping[str, PackedLimit] | None = None) -> None:
        """Says which limits the code gives its actors; None: the same as before."""
        if limits is not None:
            self._limits = limits
        self.declares = False
        try:
            await self._shard.declare_limits(self._limits)
        except BaseException:
            self.declares = True
            raise

    async def declare(self) -> None:
        """Says what the runtime can run, because it joined while runtimes of an older release were there."""
        if await self._shard.declare(self.runtime, self._kind, unknown_ttl=self._settings.unknown_ttl):
            await self._fill(self.runtime)

    async def _fill(self, name: str) -> None:
        """Puts the tenants with tasks that can run here where its turns find them."""
        while await self._shard.fill(name):
            pass

    async def assign(self, serves: Assignment | None) -> None:
        """Changes the tenants that are served; None means all tenants alike."""
        self._serves = serves
        if self.runtime:
            await self._shard.assign(self.runtime, serves)

    def renew(self, client: Any) -> bool:
        """Renews the lease from a thread, because the event loop is blocked; returns whether there is a lease."""
        return self._shard.renew(client, self.runtime, lease=self._settings.lease)

    async def leave(self, *, crashed: bool) -> None:
        """Gives up the lease and the claims that are left. If ``crashed``, they count as delivered."""
        given: dict[str, Any] = when_given_up(self._settings) if crashed else {}
        await self._shard.leave(self.runtime, crashed=crashed, **given)

    async def forget(self, lost: str) -> None:
        """Forgets a lease that was lost, given its name."""
        self._subscriber.ignore(self._shard, lost)
        with suppress(ServerError):  # a server that has lost data may still have claims under that name
            await self._shard.leave(lost)
