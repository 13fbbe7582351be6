"""A tenant, as a runtime sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

import attrs

from . import record
from .handle import Handle
from .message import Message
from .plugins import Sendable
from .policies import SETTINGS
from .policy import Policy, changes_of
from .settings import seconds
from .wire import Counts

if TYPE_CHECKING:
    from .runtime import Runtime

R = TypeVar("R")


@attrs.frozen
class Tenant:
    """One tenant of a runtime's namespace."""

    _runtime: Runtime
    name: str

    @overload
    async def send(self, message: Message[R], **options: Any) -> Handle[R]: ...
    @overload
    async def send(self, message: Sendable[R]) -> R: ...

    async def send(self, message: Any, **options: Any) -> Any:
        """As `Runtime.send`, to this tenant."""
        return await self._runtime.send(self.name, message, **options)

    async def ask(self, message: Message[R], *, timeout: float | None = None, **options: Any) -> R:  # noqa: ASYNC109
        """As `Runtime.ask`, to this tenant."""
        return await self._runtime.ask(self.name, message, timeout=timeout, **options)

    async def configure(self, **settings: Any) -> Policy:
        """Changes how the tenant is served, for the whole fleet at once; returns the policy as it is now.

        What is left out stays as it is; None takes a setting back, so that the default holds (`Policies`), and
        ``math.inf`` is no limit, whatever the default.

        Args:
            settings: ``weight=``, its share beside tenants of weight 1, from 0.001 to a million; ``concurrency=``, how
                many of its tasks run at once (1 is a classic actor); ``rate=``, how many start in a time, such as
                ``"10/s"`` or ``"1000/h"``, with ``burst=``, how many at once (by default as many as come in a tenth of
                a second, 1 at least); ``backlog=``, how many wait at most; ``group=``, the group whose turns it shares.

        Raises:
            ConfigurationError: a setting cannot work; nothing is changed.
        """
        changes = changes_of(settings, *SETTINGS)
        if not changes:
            return await self.policy()
        return await self._change(changes)

    async def policy(self) -> Policy:
        """How the tenant is served: by its own settings, or else by the defaults."""
        self._runtime.check()
        return Policy.read(*await self._runtime.shard(self.name).policy(self.name))

    async def pause(self) -> None:
        """Starts no more of its tasks until `resume`. What runs goes on, and what is sent waits."""
        await self._change({"paused": True})

    async def resume(self) -> None:
        """Ends a pause."""
        await self._change({"paused": None})

    async def purge(self, *, canceled_ttl: float | None = None) -> int:
        """Cancels all of its tasks that wait, for whatever; those that run go on. Returns how many.

        Args:
            canceled_ttl: for how many seconds to keep their records; 0 frees their memory at once. None: as the
                runtime's ``canceled_ttl``.

        Raises:
            ConfigurationError: the time cannot be.
        """
        self._runtime.check()
        ttl = self._runtime.settings.canceled_ttl if canceled_ttl is None else seconds("canceled_ttl", canceled_ttl)
        outcome = record.Outcome(error=record.Error("TaskCanceled", "by tenant.purge()"))
        return await self._runtime.shard(self.name).purge(self.name, ttl=ttl, body=record.encode(outcome))

    async def stats(self) -> Counts:
        """How many tasks it has in each state, at a cost that does not depend on how many."""
        self._runtime.check()
        return await self._runtime.shard(self.name).tenant_stats(self.name)

    async def _change(self, changes: dict[str, Any]) -> Policy:
        self._runtime.check()
        shard = self._runtime.shard(self.name)
        await shard.configure(self.name.encode(), changes)
        return Policy.read(*await shard.policy(self.name))
