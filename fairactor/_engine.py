"""The engine: the parts of an entered runtime, and the order in which they start and stop.

`Runtime` imports this module when it is entered. The module imports the client library and everything else that needs a
server, so programs that only define actors and build messages start fast.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Final

import anyio
from anyio.abc import TaskGroup

from ._actors.codec import Codec
from ._actors.host import Client
from ._actors.process_pool import refuse_in_set_up
from ._actors.registry import Registry
from ._actors.task_log import task_log_handler
from ._client.batcher import Batcher
from ._client.history_reporter import HistoryReporter
from ._client.mover import Mover
from ._client.plugin_host import PluginHost
from ._client.sender import Sender
from ._client.tracker import Tracker
from ._model.tally import Tally
from ._plugin_chain import PluginChain
from ._server.connection import Server, connect
from ._server.embedded import allow_private_server, embedded_server
from ._store.outcomes import Outcomes
from ._store.shard import Shard
from ._store.shards import Shards, open_shards
from ._store.subscriber import Subscriber
from ._util.meters import Meters, has_meter_sdk
from ._util.spans import Spans, has_sdk
from ._util.supervisor import Supervisor
from ._worker.consumer import Consumer
from .errors import RuntimeNotRunning
from .settings import Settings


class Engine:
    """Everything behind an entered runtime.

    Args:
        name: the runtime's name.
        settings: its settings.
        registry: its actors.
        plugins: its plugins.
        runtime: the runtime that handlers and plugins get.
        check: raises RuntimeNotRunning if the calling code cannot use the runtime.
        observe: keeps the gauges of the namespace up to date, if there is an OpenTelemetry SDK.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        registry: Registry,
        plugins: PluginChain,
        runtime: Client,
        check: Callable[[], None],
        observe: Callable[[Meters], Awaitable[None]],
    ) -> None:
        self._name = name
        self._settings = settings
        self._registry = registry
        self._plugins = plugins
        self._runtime = runtime
        self._check = check
        self._observe = observe
        self._stack: Final = AsyncExitStack()
        self._lifespans: Final = AsyncExitStack()  # of plugins; they end while the runtime can still send
        self._group: TaskGroup | None = None
        self._tally = Tally() if settings.history else None
        self._history: HistoryReporter | None = None
        self.consumer: Consumer | None = None
        """None if this runtime runs no tasks."""
        self.spans: Spans | None = None
        """Makes spans; None without an OpenTelemetry SDK."""
        self.meters: Meters | None = None
        """Records metrics; likewise."""
        self.shards: Shards
        self._batchers: list[Batcher]
        self.subscriber: Subscriber
        self.tracker: Tracker
        self.sender: Sender
        self.host: PluginHost
        self._outcomes: Outcomes

    @property
    def failed(self) -> bool:
        """Whether a supervised part keeps failing, so the engine has to end."""
        return self._group is not None and self._group.cancel_scope.cancel_called

    async def start(self, on_connected: Callable[[], None], is_ending: Callable[[], bool]) -> None:
        """Connects, starts the supervised parts, enters the plugins' lifespans, and starts the workers.

        Args:
            on_connected: called once the runtime can send, before plugins and workers start.
            is_ending: whether the event loop ends, and so cancels every asyncio task.
        """
        refuse_in_set_up()
        server = await self._connect()
        if has_sdk():
            self.spans = Spans(server.address, server.port, as_children=self._settings.tracing == "parent")
        if has_meter_sdk():
            self.meters = server.meters = Meters(server.address, server.port, self._settings.namespace)
            self._stack.callback(self.meters.close)
        self.shards = await open_shards(server, self._settings, self._plugins.lua)
        batchers = self._make_client(server)
        group = self._group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(group.cancel_scope.cancel)
        supervisor = Supervisor(group)
        await self._start_client(supervisor, batchers)
        if self._tally is not None:
            self._history = HistoryReporter(self._tally, self._name, self.shards[0])
            supervisor.start("history", self._history.run)
        on_connected()
        await self._enter_plugins(Supervisor(group))
        await self._start_consumer(supervisor, is_ending)
        plugins = self._plugins
        mover = Mover(
            self.shards,
            self._name,
            partial(plugins.move_tenant, self.host),
            partial(plugins.tenants_on, self.host),
            self._settings.replicas if self._settings.durability == "replicated" else 0,
        )
        supervisor.start("mover", mover.run)
        if self.meters is not None:
            supervisor.start("gauges", partial(self._observe, self.meters))

    def _make_client(self, server: Server) -> Sequence[Batcher]:
        """Makes the parts that send tasks and follow them; returns the batchers."""
        settings = self._settings
        self.subscriber = Subscriber(server, heartbeat=settings.lease / 3, patience=settings.connect_timeout)
        self._outcomes = Outcomes(self.subscriber, self._name)
        self.tracker = Tracker(
            self.shards, self._outcomes, self._codec, self._check, settings.canceled_ttl, self.spans, self.meters
        )
        batchers = self._batchers = [Batcher(shard, self._name, server.answer, self._tally) for shard in self.shards]
        self.sender = Sender(
            shards=self.shards,
            batchers=batchers,
            outcomes=self._outcomes,
            tracker=self.tracker,
            registry=self._registry,
            settings=settings,
            plugins=self._plugins,
            spans=self.spans,
            meters=self.meters,
        )
        return batchers

    async def _enter_plugins(self, supervisor: Supervisor) -> None:
        """Enters the plugins' lifespans. The supervisor is for the plugins' actors."""
        self.host = PluginHost(
            runtime=self._runtime,
            name=self._name,
            settings=self._settings,
            plugins=self._plugins.by_name,
            shards=self.shards,
            subscriber=self.subscriber,
            sender=self.sender,
            spans=self.spans,
            meters=self.meters,
            registry=self._registry,
            supervisor=supervisor,
            check=self._check,
        )
        await self._stack.enter_async_context(self._lifespans)
        self._lifespans.push_async_callback(supervisor.stop)
        for lifespan in self._plugins.lifespans(self.host):
            await self._lifespans.enter_async_context(lifespan)

    async def _start_client(self, supervisor: Supervisor, batchers: Sequence[Batcher]) -> None:
        """Starts the parts that send tasks and receive outcomes; returns once outcomes arrive here."""
        for shard in self.shards:
            self._outcomes.listen(shard)
        supervisor.start("subscriber", self.subscriber.run)
        for number, shard in enumerate(self.shards):
            supervisor.start(f"outcomes {number}", partial(self._outcomes.run, shard))
        for number, batcher in enumerate(batchers):
            supervisor.start(f"batcher {number}", batcher.run)
        for shard in self.shards:
            await self._outcomes.ready(shard)
        self.shards.on_added(partial(self._add_shard, supervisor))

    def _add_shard(self, supervisor: Supervisor, number: int, shard: Shard) -> None:
        """Sends to a shard that was added, and receives outcomes from it, too."""
        batcher = Batcher(shard, self._name, shard.answer, self._tally)
        self._batchers.append(batcher)
        self._outcomes.listen(shard)
        supervisor.start(f"outcomes {number}", partial(self._outcomes.run, shard))
        supervisor.start(f"batcher {number}", batcher.run)

    async def _start_consumer(self, supervisor: Supervisor, is_ending: Callable[[], bool]) -> None:
        settings, registry = self._settings, self._registry
        if settings.workers and registry:
            if settings.task_logs:
                task_log_handler.install()
                self._stack.callback(task_log_handler.remove)
            self.consumer = Consumer(
                self._name, self.shards, self.subscriber, registry, settings, self._plugins, self._runtime
            )
            self._stack.push_async_callback(_shielded, registry.stop)
            await self.consumer.start(
                supervisor.start, spans=self.spans, meters=self.meters, is_ending=is_ending, tally=self._tally
            )

    async def _connect(self) -> Server:
        settings = self._settings
        url, source = settings.url, "url="
        if url is None and settings.path is None:
            url, source = os.environ.get("FAIRACTOR_URL"), "FAIRACTOR_URL"
        if url is None:
            if settings.path is None:
                allow_private_server()
            url = await self._stack.enter_async_context(embedded_server(settings.path))
        # Waiting for a lost reply must not use up the time for the call, or the lease.
        answer = min(settings.connect_timeout / 2, settings.lease / 3)
        server = await connect(url, timeout=settings.connect_timeout, answer=answer, source=source)
        self._stack.push_async_callback(_shielded, server.close)
        return server

    async def stop(self, grace: float, *, crashed: bool = False) -> None:
        """Stops the workers, if there are any; the arguments are those of `Consumer.stop`."""
        if self.consumer is not None:
            await self.consumer.stop(grace, crashed=crashed)

    def hurry(self) -> None:
        """Makes `stop` wait no longer for running tasks."""
        if self.consumer is not None:
            self.consumer.hurry()

    async def end_work(self, grace: float, error: BaseException | None, *, crashed: bool = False) -> None:
        """Stops the workers, then the plugins, which may use the runtime until they have stopped.

        Args:
            grace: the seconds that running tasks may still take.
            error: why the engine ends; None if it was left.
            crashed: whether what ran here has ended the event loop.
        """
        try:
            await self.stop(grace, crashed=crashed)
        finally:
            await self._lifespans.__aexit__(*_raised(error))
            if self._history is not None:
                await self._history.end()

    def close(self) -> None:
        """Raises an error in all callers that still wait."""
        self.sender.close(RuntimeNotRunning("the runtime was left before this could be sent"))
        self._outcomes.close(RuntimeNotRunning("the runtime was left; the task goes on"))
        self.subscriber.wake_all()

    async def unwind(self, error: BaseException | None) -> None:
        """Ends the supervised parts and closes the connections. Raises the error that stopped the runtime, if any."""
        try:
            await self._stack.__aexit__(*_raised(error))
        except BaseExceptionGroup as group:
            failures = [each for each in group.exceptions if each is not error]
            if failures and error is not None and not isinstance(error, asyncio.CancelledError):
                raise
            if failures:
                failure = _only(group)
                raise failure from failure.__cause__

    def _codec(self, actor: str) -> Codec | None:
        found = self._registry.actors.get(actor)
        return found.codec if found else None


def _raised(
    error: BaseException | None,
) -> tuple[type[BaseException] | None, BaseException | None, TracebackType | None]:
    """Returns the arguments for ``__aexit__``."""
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


async def _shielded(close: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope(shield=True):
        await close()


def _only(error: BaseException) -> BaseException:
    """Returns the single exception in nested groups, or the group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
