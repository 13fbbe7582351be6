"""The crew of a runtime: its pool of workers, and a dispatcher for each shard that keeps them supplied."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import anyio

from . import record
from .context import Task
from .dispatcher import Dispatcher
from .errors import ServerError
from .execution import Executor
from .inbox import Inbox
from .keys import shard_of
from .middleware import Plugins
from .registry import Registry
from .settings import Settings
from .shard import Shard
from .stats import read_stats
from .wire import Assignment
from .worker import Pool

if TYPE_CHECKING:
    from .runtime import Runtime

logger: Final = logging.getLogger(__name__)

GOODBYE: Final = 5.0
"""Seconds that leaving waits for a server that is away; its lease ends by itself."""


class Crew:
    """What runs tasks in this process."""

    def __init__(
        self,
        shards: Sequence[Shard],
        inbox: Inbox,
        registry: Registry,
        settings: Settings,
        plugins: Plugins,
        runtime: Runtime,
    ) -> None:
        self._shards = shards
        self._inbox = inbox
        self._registry = registry
        self._settings = settings
        self._plugins = plugins
        self._runtime = runtime
        self._dispatchers: list[Dispatcher] = []
        self._pool: Pool | None = None

    async def start(self, start: Callable[[str, Callable[[], Awaitable[None]]], None], *, sdk: bool) -> None:
        """Starts the actors' instances, takes the leases, and begins to claim."""
        handlers = await self._registry.start()
        executor = Executor(
            handlers, self._settings, self._is_known_elsewhere, self._report, sdk, self._plugins, self._runtime
        )
        pool = self._pool = executor.pool = Pool(self._settings.workers, executor.run, executor.canceled, start)
        info = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "workers": self._settings.workers,
            "actors": sorted(self._registry.actors),
        }
        for number, shard in enumerate(self._shards):
            serves = self._assignment(number, self._settings)
            dispatcher = Dispatcher(shard, pool, self._inbox, self._settings, info, serves)
            self._dispatchers.append(dispatcher)
            await dispatcher.join()
            start(f"dispatcher {number}", dispatcher.run)

    async def assign(self, settings: Settings) -> None:
        """Changes which tenants are served here, to those that these settings name."""
        for number, dispatcher in enumerate(self._dispatchers):
            await dispatcher.assign(self._assignment(number, settings))

    def _assignment(self, number: int, settings: Settings) -> Assignment | None:
        """Which tenants of a shard are served here; None: all alike."""
        if not settings.assigned and not settings.steal:
            return None
        assigned, steal = (
            [tenant for tenant in names if shard_of(tenant, len(self._shards)) == number]
            for names in (settings.assigned, () if isinstance(settings.steal, bool) else settings.steal)
        )
        return Assignment(assigned, [""] if settings.steal is True else steal)

    async def stop(self, grace: float) -> None:
        """Claims no more, lets running tasks end for ``grace`` seconds, and gives back what has not ended."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        for dispatcher in self._dispatchers:
            dispatcher.stop_claiming()
        for claim in pool.drop_ready():
            claim.owner.settled(claim, claim.given_back())
        try:
            if grace > 0:
                with anyio.move_on_after(grace):
                    await pool.quiet()
        finally:
            await self._leave(pool)

    async def _leave(self, pool: Pool) -> None:
        """Cancels what still runs, reports what has ended, and gives up the leases."""
        with anyio.move_on_after(GOODBYE, shield=True) as patience:
            for dispatcher in self._dispatchers:
                pool.abandon(dispatcher)
            await pool.quiet()
            for dispatcher in self._dispatchers:
                try:
                    await dispatcher.leave()
                except ServerError as error:
                    logger.warning("%s: its tasks go back when the lease ends: %s", dispatcher.runtime, error)
        if patience.cancelled_caught:
            logger.warning("a handler or the server did not let go for %g s: tasks go back as the lease ends", GOODBYE)

    async def _is_known_elsewhere(self, actor: str) -> bool:
        try:
            stats = await read_stats(self._shards, patience=0)
        except ServerError:  # it may be: to find out the next time is better than to fail the task
            return True
        return any(actor in runtime.actors for runtime in stats.runtimes)

    async def _report(self, task: Task, fraction: float, note: str) -> None:
        number = shard_of(task.tenant, len(self._shards))
        await self._shards[number].progress(self._dispatchers[number].runtime, task.id, record.encode([fraction, note]))
