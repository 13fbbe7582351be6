"""The runtime: the object with which a service sends messages and runs its actors."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack

import anyio
import attrs

from ._actors.host import Host, RegisteredActor
from ._actors.registry import Registrable, Registry
from ._client.task_client import TaskClient
from ._client.tenant import Tenant
from ._configured import Configured
from ._model.keys import Keys
from ._operate.operator_client import OperatorClient
from ._store.stats import Health, Stats, read_health, read_stats
from ._util.checks import check_name, check_route_name, check_seconds, check_timeout, shown
from .errors import ConfigurationError, RuntimeNotRunning
from .settings import RuntimeSettings, Settings

if TYPE_CHECKING:
    from ._client.dead_letters import DeadLetters
    from ._client.limit import Limit
    from ._client.policies import Policies
    from ._engine import Engine
    from ._lifetime import Lifetime
    from ._model.limit import LimitPolicy
    from ._store.damage import Repairs
    from ._store.shards import Shards
    from .plugins import Plugin

logger: Final = logging.getLogger(__name__)
R = TypeVar("R")
S = TypeVar("S")


class Runtime(TaskClient, OperatorClient, Configured):
    """Sends messages to tenants, and runs tasks with the workers of this process.

    Use it as ``async with Runtime(...) as runtime``. The runtimes of a namespace share its tasks. Times are in seconds.

    Args:
        url: the server, such as ``redis://localhost``. None uses the environment variable ``FAIRACTOR_URL``, or else
            an embedded server.
        actors: the actors that this process runs: functions with ``@actor``, instances or classes with such methods,
            or modules of these.
        plugins: plugins to use in addition to those that are installed, see `fairactor.plugins`. One with the name of
            an installed plugin replaces it, for example to give it other settings.
        without_plugins: the names of installed plugins to leave out; True for all.
        settings: ``workers=``, ``namespace=``, ``path=``, ``lease=`` and more, see `Settings`.

    Raises:
        ConfigurationError: a setting, an actor or a plugin is invalid.
        DuplicateActor: two actors have the same name.
        ServerUnavailable: (on entering) no server answered within ``connect_timeout``.
        ServerError: (on entering) the server refused the login, is too old, or may evict keys.
        NamespaceMismatch: (on entering) the namespace was created with other fixed settings, or depends on a plugin
            that is missing here.
        EmbeddedServerError: (on entering) the embedded server could not be started.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        actors: Iterable[Registrable] = (),
        plugins: Iterable[Plugin] = (),
        without_plugins: Iterable[str] | bool = (),
        **settings: Unpack[RuntimeSettings],
    ) -> None:
        from ._plugin_chain import PluginChain, plugins_in_use

        known = [field.name for field in attrs.fields(Settings)]
        for given in settings:
            if given not in known:
                raise ConfigurationError(
                    f"Runtime has no setting {shown(given)}; its settings are {', '.join(known)}, actors, plugins, "
                    "without_plugins"
                )
        self.settings: Final = Settings(url=url, **settings)
        Keys(self.settings.namespace)  # raises if the name is invalid
        self.name: Final = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        """The name of this runtime, which is unique."""
        self._plugins: Final = PluginChain(plugins_in_use(plugins, without_plugins))
        self._registry: Final = Registry(actors, self._plugins.actors)
        for each in self._registry.actors.values():
            self._plugins.check(each.options)
        self._engine: Engine | None = None
        self._lifetime: Lifetime | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # while the runtime can be used

    # Entering and leaving

    async def __aenter__(self) -> Self:
        if self._engine is not None:
            raise RuntimeNotRunning("a Runtime can be entered once; make a new one")
        from ._engine import Engine  # imports everything that needs a server
        from ._lifetime import Lifetime

        self._engine = Engine(self.name, self.settings, self._registry, self._plugins, self, self.check)
        self._lifetime = Lifetime(self._engine, self._allow_use, self._forbid_use)
        await self._lifetime.start()
        try:
            await self._apply_if_asked()
        except BaseException as error:
            await self._lifetime.end(0, error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._lifetime is not None  # noqa: S101 - it was entered
        await self._lifetime.end(self.settings.grace if error is None else 0, error)

    def _allow_use(self) -> None:
        self._loop = asyncio.get_running_loop()

    def _forbid_use(self) -> None:
        self._loop = None

    async def stop(self, grace: float) -> None:
        """Stops claiming, waits ``grace`` seconds for running tasks, then returns the others to their mailboxes."""
        if self._engine is not None:
            await self._engine.stop(check_seconds("grace", grace))

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT, then calls `stop` with the setting ``grace``. A second signal stops at once.

        Raises:
            RuntimeNotRunning: the runtime was not entered, or this is not the main thread of the process.
        """
        self.check()
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeNotRunning(
                "run() waits for signals, which only the main thread receives: call it there. In another thread, wait "
                "for an event of your own, and then call `await runtime.stop(grace)`"
            )
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for received in signals:
                logger.info("%s: stopping, with %g s for running tasks", received.name, self.settings.grace)
                break
            async with anyio.create_task_group() as group:
                group.start_soon(self._stop_now_at, signals, group.cancel_scope)
                await self.stop(self.settings.grace)
                group.cancel_scope.cancel()

    async def _stop_now_at(self, signals: Any, scope: anyio.CancelScope) -> None:
        async for received in signals:
            logger.warning("%s again: stopping at once", received.name)
            break
        scope.cancel()

    def tenant(self, tenant: str) -> Tenant:
        """Returns a tenant, to send to it, configure it, and count its tasks.

        Raises:
            ConfigurationError: the name is empty or too long.
        """
        checked = check_name("tenant", tenant)
        return Tenant(checked, self, self._shards, self.settings.canceled_ttl, lambda: self._running().spans)

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters: tasks that have failed for good. They can be listed, sent again or deleted."""
        from ._client.dead_letters import DeadLetters

        return DeadLetters(self._shards)

    @property
    def policies(self) -> Policies:
        """The policies: the defaults, and the settings of groups and tenants."""
        from ._client.policies import Policies

        return Policies(self._shards)

    def limit(self, limit: str | RegisteredActor[Any]) -> Limit:
        """Returns a limit, to configure, read or pause it: one that tenants share, or that of an actor.

        Args:
            limit: the name of the limit; or an actor, or its name.

        Raises:
            ConfigurationError: the name is empty or too long.
        """
        from ._client.limit import Limit

        name: Any = limit if isinstance(limit, str) else getattr(limit, "name", limit)
        return Limit(check_route_name("limit", name), self._shards)

    async def limits(self) -> dict[str, LimitPolicy]:
        """Returns the settings of all limits that were configured, or that actors declare, by name.

        Raises:
            ServerUnavailable: as `send`.
            ServerError: as `send`.
        """
        from ._client.limit import all_limits

        return await all_limits(self._shards())

    @property
    def host(self) -> Host:
        """The part of this runtime that plugins may use."""
        return self._running().host

    async def assign(self, assigned: Iterable[str] = (), steal: Iterable[str] | bool = ()) -> None:  # noqa: FBT001 - as in Settings
        """Changes the tenants that this runtime serves. Without arguments it serves all tenants alike.

        Args:
            assigned: the tenants that it serves first.
            steal: the tenants that it serves while the first have nothing to do; True for all others.

        Raises:
            ConfigurationError: a name is invalid, or a string was given instead of a list.
            RuntimeNotRunning: this runtime runs no tasks.
            ServerUnavailable: as `send`.
            ServerError: as `send`.
        """
        consumer = self._running().consumer
        if consumer is None:
            raise RuntimeNotRunning(
                "this Runtime runs no tasks, so no tenants can be assigned to it: give it actors and workers"
            )
        await consumer.assign(attrs.evolve(self.settings, assigned=assigned, steal=steal))

    # Inspecting and repairing

    async def stats(self) -> Stats:
        """Returns the number of tasks in each state. The cost does not depend on the number of tasks.

        Raises:
            ServerUnavailable: as `send`.
            ServerError: as `send`.
        """
        return await read_stats(self._shards())

    async def health(self) -> Health:
        """Checks whether the server answers, and runtimes run the waiting tasks.

        Errors of the server are part of the report; it does not raise them.
        """
        return await read_health(self._shards(), self._running().subscriber.deaf())

    async def repair(self) -> Repairs:
        """Repairs a namespace whose keys somebody has damaged by hand; returns and logs what it has done.

        It rebuilds everything that follows from the records of the tasks. What it can neither rebuild nor use, it keeps
        under keys with ``:aside:`` in their names, which nothing reads; delete them when you have looked at them.

        It reads the whole namespace in short steps, so the server goes on answering others. Until it is done, sends and
        turns of this namespace wait. The damage of a script that failed half-way does not need this: it is repaired
        automatically.

        Raises:
            ServerUnavailable: as `send`.
            ServerError: as `send`.
        """
        from ._store.damage import Repairs

        found = [await shard.repair() for shard in self._shards()]
        repaired = tuple(line for repairs in found for line in repairs.repaired)
        set_aside = tuple(line for repairs in found for line in repairs.set_aside)
        for line in repaired:
            logger.warning("repaired: %s", line)
        for line in set_aside:
            logger.warning("set aside: %s", line)
        return Repairs(repaired, set_aside)

    async def grow(self, shards: int) -> None:
        """Adds shards to the namespace while it runs, and returns once all tenants have moved that should.

        Tenants move one by one, and only to new shards: of a namespace with 4 shards that gets 6, a third of them.
        While a tenant moves, its tasks are accepted, and none is started. Nothing is lost, and the order stays. A
        tenant moves once none of its tasks runs or is deferred. One that is never at rest is held up for 5 seconds at
        most, and tried again later, so this may take long. All runtimes of the namespace go on with it, also if this
        call is canceled, or its process dies. Calling it again waits for the rest.

        Args:
            shards: the number of all shards, at least as many as before.

        Raises:
            ConfigurationError: the namespace has more shards already, or a limit is too small to be divided among so
                many.
            ServerUnavailable: as `send`.
            ServerError: as `send`.
        """
        from ._client.growth import grow

        await grow(self._running().shards, shards)

    async def drain(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the promised signature
        """Waits until no task of the namespace is queued, started or due now.

        Raises:
            TimeoutError: it took longer than ``timeout`` seconds.
        """
        from ._store.subscriber import DRAINED

        engine = self._running()
        check_timeout(timeout)
        with anyio.move_on_after(timeout), engine.subscriber.subscribe(DRAINED) as drained:
            while (await self.stats()).pending:
                await drained.wait(self.settings.lease / 3)
            return
        raise TimeoutError(f"tasks are still waiting or running after {timeout:g} s")

    def check(self) -> None:
        """Checks that the runtime can be used by the calling code.

        Raises:
            RuntimeNotRunning: the runtime was not entered, was left, or belongs to another thread or event loop.
        """
        try:
            if self._loop is asyncio.get_running_loop():
                return
        except RuntimeError:
            pass
        if self._loop is not None:
            raise RuntimeNotRunning(
                "this Runtime belongs to another event loop or thread: enter one in each loop, and in a worker thread "
                "call it with anyio.from_thread.run"
            )
        state = "was left" if self._engine is not None else "was not entered yet"
        raise RuntimeNotRunning(f"this Runtime {state}: use it inside `async with Runtime(...) as runtime`")

    def _running(self) -> Engine:
        self.check()
        assert self._engine is not None  # noqa: S101 - otherwise `check` has raised
        return self._engine

    def _shards(self) -> Shards:
        return self._running().shards
