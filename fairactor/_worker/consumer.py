"""The consumer: the pool of workers of a runtime, and the dispatchers that supply it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import anyio

from fairactor._actors.actor import Actor
from fairactor._actors.host import Client
from fairactor._actors.process_pool import ProcessPool
from fairactor._actors.registry import Registry
from fairactor._actors.task import Task
from fairactor._model import record
from fairactor._model.lane import kind_of_runtime, text_in_json
from fairactor._model.limit import PackedLimit, parts_of
from fairactor._model.tally import Tally
from fairactor._model.wire import Assignment
from fairactor._plugin_chain import PluginChain
from fairactor._store.shards import Shards
from fairactor._store.subscriber import Subscriber
from fairactor._util.backoff import Backoff
from fairactor._util.meters import Meters
from fairactor._util.spans import Spans
from fairactor.errors import ConfigurationError, ServerError
from fairactor.settings import Settings

from .batch_executor import BatchExecutor
from .claim import described
from .dispatcher import Dispatcher
from .lease_keeper import LeaseKeeper
from .pools import Pools
from .pulse_reporter import PulseReporter
from .slots import Slots, kinds_of
from .suspects import Suspects
from .watchdog import Watchdog

logger: Final = logging.getLogger(__name__)

GOODBYE: Final = 2.0
"""Seconds to wait on leaving: for handlers that were canceled, and as long for the server."""


class Consumer:
    """The consuming half of a runtime: a pool of workers, and a dispatcher for each shard that supplies them.

    Args:
        name: the runtime's name.
        shards: the shards to consume from.
        subscriber: receives the messages of the shards.
        registry: the actors.
        settings: the runtime's settings.
        plugins: the wrappers and observers.
        runtime: the runtime that handlers get as ``current_task().runtime``.
    """

    def __init__(
        self,
        name: str,
        shards: Shards,
        subscriber: Subscriber,
        registry: Registry,
        settings: Settings,
        plugins: PluginChain,
        runtime: Client,
    ) -> None:
        self._name = name
        self._shards = shards
        self._subscriber = subscriber
        self._registry = registry
        self._settings = settings
        self._served = settings  # those with the tenants that are served now
        self._plugins = plugins
        self._runtime = runtime
        self._dispatchers: list[Dispatcher] = []
        self._pool: Pools | None = None
        self._keeper: LeaseKeeper | None = None
        self._processes = ProcessPool(settings.processes, max_result=settings.max_payload)
        self._patience = anyio.CancelScope()  # while it waits for running tasks

    async def start(
        self,
        start: Callable[[str, Callable[[], Awaitable[None]]], None],
        *,
        spans: Spans | None,
        meters: Meters | None = None,
        is_ending: Callable[[], bool],
        tally: Tally | None = None,
    ) -> None:
        """Starts the instances of actor classes, takes the leases, and starts to claim.

        Args:
            start: starts a supervised function, given its name.
            spans: makes spans; None without an OpenTelemetry SDK.
            meters: records metrics; likewise.
            is_ending: whether the event loop ends, and so cancels every asyncio task.
            tally: counts what runs here for the history; None if nobody wants to know.
        """
        handlers = await self._registry.start(self._processes.run)
        batchings = {
            name: handler.actor.batching for name, handler in handlers.items() if handler.actor.batching is not None
        }
        executor = BatchExecutor(
            handlers,
            self._settings,
            self._report,
            spans,
            self._plugins,
            self._runtime,
            is_ending,
            meters,
        )
        kinds = kinds_of(handlers, self._settings)
        if batchings:
            slots = Slots(kinds, executor.execute, executor.cancel, batchings)
        else:
            slots = Slots(
                kinds, executor.run if spans is None and meters is None else executor.run_traced, executor.canceled
            )
        pool = self._pool = slots.pools
        executor.slots, executor.charge = pool.first, self._charge
        if meters is not None:
            meters.slots = pool.slots
        suspects = Suspects(pool, self._settings.max_deliveries)
        settings = self._settings
        actors = self._registry.actors
        versions = {name: actor.version for name, actor in actors.items()}
        signatures = {name: actor.codec.signature for name, actor in actors.items()}
        kind = kind_of_runtime(versions, settings.queues, signatures)
        info: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "workers": self._settings.workers,
            "slots": {kind.name: kind.size for kind in slots.kinds},
            "actors": sorted(versions),
            "versions": {name: version for name, version in versions.items() if version != 1},
            "queues": settings.queues,
        }

        def make(number: int) -> Dispatcher:
            return Dispatcher(
                self._name,
                self._shards[number],
                slots,
                suspects,
                self._subscriber,
                settings,
                info,
                kind,
                self._limits(number),
                self._assignment(number, self._served),
                spans,
                tally,
            )

        self._dispatchers += [make(number) for number in range(len(self._shards))]
        for number, dispatcher in enumerate(self._dispatchers):  # all of them exist, so none takes the others' slots
            await dispatcher.join()
            self._run_dispatcher(start, number)
        reporter = PulseReporter(pool, self._dispatchers[0], self._shards[0], info, self._settings.lease)
        start("pulse", reporter.run)
        if tally is not None:
            tally.before_report = self._count_running
        self._keep_leases(pool)
        self._shards.on_layout(lambda: start("layout", partial(self._follow_layout, make, start)))

    def _run_dispatcher(self, start: Callable[[str, Callable[[], Awaitable[None]]], None], number: int) -> None:
        dispatcher = self._dispatchers[number]
        start(f"dispatcher {number}", dispatcher.run)
        start(f"reader {number}", dispatcher.reader.run)

    async def _follow_layout(
        self, make: Callable[[int], Dispatcher], start: Callable[[str, Callable[[], Awaitable[None]]], None]
    ) -> None:
        """Consumes from all shards after some were added. Those that had parts of limits get smaller ones first."""
        backoff = Backoff()
        for number, dispatcher in enumerate(tuple(self._dispatchers)):
            while self._pool is not None:
                try:
                    await dispatcher.declare_limits(self._limits(number))
                    await dispatcher.assign(self._assignment(number, self._served))
                except ServerError as error:
                    logger.log(logging.DEBUG if backoff.failures else logging.WARNING, "%s; trying again", error)
                    await anyio.sleep(backoff.next())
                else:
                    backoff.reset()
                    break
        while self._pool is not None and len(self._dispatchers) < len(self._shards):
            number = len(self._dispatchers)
            self._dispatchers.append(make(number))
            self._run_dispatcher(start, number)

    def _count_running(self) -> None:
        """Counts the starts of tasks that run for long, before they end."""
        running = [] if self._pool is None else [task for claim in self._pool.running() for task in claim.tasks]
        for dispatcher in self._dispatchers:
            if dispatcher.attempts is not None:
                dispatcher.attempts.note_running(claim for claim in running if claim.owner is dispatcher)

    def _limits(self, number: int) -> dict[str, PackedLimit]:
        """Returns the parts of a shard of the limits that the code gives its actors."""
        actors = self._registry.actors.items()
        return {name: _parts_of(actor, len(self._shards))[number] for name, actor in actors}

    def _keep_leases(self, pool: Pools) -> None:
        client = self._shards.server.blocking_client
        if client is not None:
            watchdog = Watchdog(pool, self._settings.lease, self._registry.is_plain)
            self._keeper = LeaseKeeper(self._dispatchers, self._settings.lease, watchdog, client)
            self._keeper.start()

    async def assign(self, settings: Settings) -> None:
        """Changes the tenants that are served here to those in the settings."""
        self._served = settings
        for number, dispatcher in enumerate(self._dispatchers):
            await dispatcher.assign(self._assignment(number, settings))

    def _assignment(self, number: int, settings: Settings) -> Assignment | None:
        """Returns the tenants of a shard that are served here; None means all tenants alike."""
        if not settings.assigned and not settings.steal:
            return None
        assigned, steal = (
            [tenant for tenant in names if number in self._shards.layout.places(tenant)]
            for names in (settings.assigned, () if isinstance(settings.steal, bool) else settings.steal)
        )
        return Assignment(assigned, [""] if settings.steal is True else steal)

    async def stop(self, grace: float, *, crashed: bool = False) -> None:
        """Stops claiming, waits ``grace`` seconds for running tasks, then returns the others to their mailboxes.

        Args:
            grace: the seconds.
            crashed: whether what ran here has ended the event loop. Then the running tasks count as delivered.
        """
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        for dispatcher in self._dispatchers:
            dispatcher.stop_claiming()
        for claim in pool.drop_ready():
            claim.owner.settle(claim, claim.given_back())
        if crashed:
            logger.critical(
                "the event loop was ended while these tasks ran: %s", described([*pool.interrupted, *pool.running()])
            )
        try:
            with self._patience:
                self._patience.deadline = anyio.current_time() + grace
                await pool.wait_until_idle()
        finally:
            try:
                await self._leave(pool, crashed=crashed)
            finally:
                if self._keeper is not None:
                    self._keeper.stop()

    def hurry(self) -> None:
        """Makes `stop` wait no longer for running tasks."""
        self._patience.cancel()

    async def _leave(self, pool: Pools, *, crashed: bool) -> None:
        """Cancels running tasks, reports outcomes, and gives up the leases."""
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(GOODBYE):
                for dispatcher in self._dispatchers:
                    pool.abandon(dispatcher)
                await pool.wait_until_idle()
            if stuck := pool.running():
                logger.error(
                    "these tasks ignored their cancellation for %g s, and are abandoned: %s", GOODBYE, described(stuck)
                )
            with anyio.move_on_after(GOODBYE) as patience:
                for dispatcher in self._dispatchers:
                    await self._give_up_lease(dispatcher, crashed=crashed)
            if patience.cancelled_caught:
                logger.warning(
                    "the server did not respond for %g s: tasks return to their mailboxes when the lease ends", GOODBYE
                )
            await pool.close()
            await self._processes.close()

    async def _give_up_lease(self, dispatcher: Dispatcher, *, crashed: bool) -> None:
        try:
            await dispatcher.leave(crashed=crashed)
        except ServerError as error:
            logger.warning("%s: its tasks return to their mailboxes when the lease ends: %s", dispatcher.runtime, error)

    async def _charge(self, task: Task, limit: str, used: float) -> None:
        number = await self._shards.find(task.tenant)
        runtime = self._dispatchers[number].runtime
        if await self._shards[number].charge(runtime, task.id, text_in_json(limit), used) < 0:
            raise ConfigurationError(
                f"charge({limit!r}, …): the start of task {task.id} took nothing of that limit; name it in limits= of "
                f"{task.actor}, or of the message"
            )

    async def _report(self, task: Task, fraction: float, note: str) -> None:
        number = await self._shards.find(task.tenant)
        await self._shards[number].progress(self._dispatchers[number].runtime, task.id, record.encode([fraction, note]))


def _parts_of(actor: Actor[..., Any], shards: int) -> list[PackedLimit]:
    """Divides the limit that the code of an actor gives it among shards."""
    try:
        return parts_of(actor.limit, shards, per=actor.limit.get("per"))
    except ConfigurationError as error:
        raise ConfigurationError(f"actor {actor.name!r}: {error}") from None
