"""A tenant: sending to it, configuring it, and counting its tasks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import attrs

from fairactor._actors.graph import Graph
from fairactor._actors.handle import Handle
from fairactor._actors.host import Client, Sendable
from fairactor._actors.message import Message
from fairactor._actors.options import AskOptions, TaskOptions
from fairactor._actors.plugin_options import OptionValue
from fairactor._model.policy import SETTINGS, Policy, TenantPolicy, changes_of
from fairactor._util.checks import check_seconds

if TYPE_CHECKING:
    from fairactor._model.counts import Counts
    from fairactor._store.shard import Shard
    from fairactor._store.shards import Shards
    from fairactor._util.spans import Spans

R = TypeVar("R")
S = TypeVar("S")


@attrs.frozen
class Tenant:
    """One tenant of a runtime's namespace."""

    name: str
    """The name of the tenant."""
    _runtime: Client
    _shards: Callable[[], Shards]
    """Returns the shards, or raises RuntimeNotRunning."""
    _canceled_ttl: float
    _spans: Callable[[], Spans | None]
    """Returns what makes spans, None without an OpenTelemetry SDK; raises RuntimeNotRunning, too."""

    @overload
    async def send(self, message: Message[R], *values: OptionValue, **options: Unpack[TaskOptions]) -> Handle[R]: ...
    @overload
    async def send(self, message: Sendable[S]) -> S: ...

    async def send(self, message: Any, *values: OptionValue, **options: Unpack[TaskOptions]) -> Any:
        """Sends a message to this tenant; see `Runtime.send`."""
        return await self._runtime.send(self.name, message, *values, **options)

    @overload
    async def ask(self, message: Graph[R], *, timeout: float | None = None) -> R: ...  # noqa: ASYNC109 - as in Runtime.ask
    @overload
    async def ask(
        self,
        message: Message[R],
        *values: OptionValue,
        timeout: float | None = None,  # noqa: ASYNC109 - as in Runtime.ask
        **options: Unpack[AskOptions],
    ) -> R: ...

    async def ask(
        self,
        message: Any,
        *values: OptionValue,
        timeout: float | None = None,  # noqa: ASYNC109 - as in Runtime
        **options: Unpack[AskOptions],
    ) -> Any:
        """Sends a message to this tenant and returns the result; see `Runtime.ask`."""
        return await self._runtime.ask(self.name, message, *values, timeout=timeout, **options)

    async def configure(self, **settings: Unpack[TenantPolicy]) -> Policy:
        """Changes how the tenant is served, for the whole fleet at once; returns the new policy.

        Settings that are not given stay as they are. None resets a setting to the default (see `Policies`).
        ``math.inf`` means no limit, whatever the default is.

        Args:
            settings: any of these. ``weight=``: the tenant's share relative to tenants of weight 1, from 0.001 to a
                million. ``concurrency=``: the most tasks that run at once; 1 makes the tenant a classic actor.
                ``rate=``: the most tasks that start per unit of time, such as ``"10/s"`` or ``"1000/h"``. ``burst=``:
                the most tasks that start at once; by default as many as the rate allows in a tenth of a second, at
                least 1. ``backlog=``: the most tasks that wait. ``group=``: the group that the tenant belongs to.

        Raises:
            ConfigurationError: a setting is invalid. Nothing has changed.
            ServerUnavailable: as `Runtime.send`.
            ServerError: as `Runtime.send`.
        """
        changes = changes_of(settings, *SETTINGS)
        if not changes:
            return await self.policy()
        return await self._change(changes)

    async def policy(self) -> Policy:
        """Returns the policy of the tenant: its own settings, and the defaults for all others."""
        return Policy.read(*await self._shards().at_home(self.name, lambda shard: shard.policy(self.name)))

    async def pause(self) -> None:
        """Starts no more tasks of the tenant until `resume`. Running tasks go on, and new ones wait."""
        await self._change({"paused": True})

    async def resume(self) -> None:
        """Ends a pause."""
        await self._change({"paused": None})

    async def purge(self, *, canceled_ttl: float | None = None) -> int:
        """Cancels all waiting tasks of the tenant: queued, scheduled and deferred ones. Running tasks go on.

        Args:
            canceled_ttl: the seconds to keep the records of these tasks; 0 frees their memory at once. None uses the
                runtime's ``canceled_ttl``.

        Returns:
            The number of tasks that it has canceled.

        Raises:
            ConfigurationError: ``canceled_ttl`` is invalid.
            ServerUnavailable: as `Runtime.send`. Some tasks may have been canceled.
            ServerError: likewise.
        """
        from fairactor._model import record

        ttl = self._canceled_ttl if canceled_ttl is None else check_seconds("canceled_ttl", canceled_ttl)
        body = record.encode(record.Outcome(error=record.Error("TaskCanceled", "by tenant.purge()")))
        spans, meters = self._spans(), self._shards().server.meters
        purging: AbstractContextManager[Any] = nullcontext() if spans is None else spans.purging(self.name)
        with purging if meters is None else meters.operation(purging, "purge", "settle") as span:
            number = await self._purge(ttl, body)
            if span is not None:
                span.set_attribute("messaging.batch.message_count", number)
            return number

    async def _purge(self, ttl: float, body: bytes) -> int:
        """Cancels the waiting tasks: where the tenant comes from, if it moves, and then where it is."""
        shards, number = self._shards(), 0
        while True:
            layout = shards.layout
            for shard in shards.in_order_of_moves(await shards.places(self.name)):
                number += await shard.purge(self.name, ttl=ttl, body=body)
            if shards.layout is layout:
                return number

    async def stats(self) -> Counts:
        """Returns the number of the tenant's tasks in each state. The cost does not depend on the number of tasks."""
        shards = self._shards()
        while True:
            layout = shards.layout
            first, *others = [await shard.tenant_stats(self.name) for shard in await shards.places(self.name)]
            if shards.layout is layout:  # otherwise the tenant may have been elsewhere
                return sum(others, first)

    async def _change(self, changes: dict[str, Any]) -> Policy:
        async def change(shard: Shard) -> Policy:
            await shard.configure(self.name.encode(), changes)
            return Policy.read(*await shard.policy(self.name))

        return await self._shards().at_home(self.name, change)
