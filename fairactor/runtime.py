"""The runtime: what a service enters, sends with, and runs its actors in."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

import anyio
import attrs

from . import tracing
from .codec import Codec
from .connection import Server, connect
from .crew import Crew
from .dead_letters import DeadLetters
from .discovery import installed
from .embedded import embedded_server
from .errors import ConfigurationError, RuntimeNotRunning
from .handle import Handle
from .hosting import Hosting
from .inbox import Inbox
from .keys import Keys
from .message import Message
from .middleware import Plugins
from .plugins import Plugin, Sendable
from .policies import Policies
from .registry import Registrable, Registry
from .sending import Sender
from .settings import Settings, name
from .shard import Shard, open_shards
from .stats import Health, Stats, read_health, read_stats
from .supervisor import Supervisor
from .tenant import Tenant
from .tracking import Tracker, check_timeout

logger: Final = logging.getLogger(__name__)
R = TypeVar("R")


class Runtime(Hosting):
    """A process's part in a fleet: it sends tasks, and runs those that its workers claim.

    Use it as ``async with Runtime(...) as runtime``. Settings are the keywords of `Settings`; times are seconds.

    Args:
        url: the server: ``redis://``, ``rediss://``, ``unix://``. None: ``FAIRACTOR_URL``, else an embedded server.
        actors: what this process can run: functions and classes with ``@actor``, or modules of them.
        plugins: which plugins to use, see `fairactor.plugins`. None: those that are installed.
        settings: further settings, such as ``workers=``, ``namespace=``, ``path=``, ``lease=``.

    Raises:
        ConfigurationError: a setting cannot work.
        DuplicateActor: two actors have one name.
        (on entering)
        ServerUnavailable: no server answered within ``connect_timeout``.
        ServerError: the server refused the login, is too old, or may evict keys.
        NamespaceMismatch: the namespace was created with other shards, aging or data model.
        EmbeddedServerError: the embedded server cannot start.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        actors: Iterable[Registrable] = (),
        plugins: Iterable[Plugin] | None = None,
        **settings: Any,
    ) -> None:
        known = [field.name for field in attrs.fields(Settings)]
        for given in settings:
            if given not in known:
                raise ConfigurationError(
                    f"Runtime has no setting {given!r}; there are {', '.join(known)}, actors, plugins"
                )
        self.settings = Settings(url=url, **settings)
        Keys(self.settings.namespace)  # refuses a name that cannot work
        self.name = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        """Unlike that of any other runtime, ever."""
        self._tracker: Tracker
        self._plugins = Plugins(installed() if plugins is None else plugins)
        self._registry = Registry(actors, self._plugins.actors)
        for each in self._registry.actors.values():
            self._plugins.check(each.options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._used = False
        self._tracing = False
        self._shards: list[Shard] = []
        self._crew: Crew | None = None
        self._stack = AsyncExitStack()
        self._lifespans = AsyncExitStack()  # of plugins; they end while the runtime can still send

    # Entering and leaving

    async def __aenter__(self) -> Self:
        if self._used:
            raise RuntimeNotRunning("a Runtime is entered once; make a new one")
        self._used = True
        try:
            await self._start()
        except BaseException as error:
            try:
                await self._end_work(0, error)
            finally:
                self._loop = None
                await self._unwind(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._end_work(self.settings.grace if error is None else 0, error)
        finally:
            self._loop = None
            self._sender.close(RuntimeNotRunning("the runtime was left before this could be sent"))
            self.inbox.close(RuntimeNotRunning("the runtime was left; the task goes on"))
            await self._unwind(error)

    async def _end_work(self, grace: float, error: BaseException | None) -> None:
        """Stops the workers and then the plugins, which may use the runtime until they have stopped."""
        try:
            await self.stop(grace)
        finally:
            await self._lifespans.__aexit__(*_raised(error))

    async def _unwind(self, error: BaseException | None) -> None:
        """Ends the supervised actors and closes the connections; raises what took the runtime down, if anything did."""
        try:
            await self._stack.__aexit__(*_raised(error))
        except BaseExceptionGroup as group:
            failures = [each for each in group.exceptions if each is not error]
            if failures and error is not None and not isinstance(error, asyncio.CancelledError):
                raise
            if failures:
                failure = _only(group)
                raise failure from failure.__cause__

    async def _start(self) -> None:
        settings = self.settings
        self._tracing = tracing.has_sdk()
        server = await self._connect()
        self._shards = await open_shards(server, settings, self._plugins.extensions)
        self.inbox = Inbox(server, self.name, beat=settings.lease / 3, patience=settings.connect_timeout)
        self._tracker = Tracker(self._shards, self.inbox, self._codec, self.check, settings.canceled_ttl)
        for shard in self._shards:
            self.inbox.listen(shard, self.name)
        self._sender = Sender(
            self.name,
            self._shards,
            self.inbox,
            self._tracker,
            self._registry,
            settings,
            self._plugins,
            sdk=self._tracing,
        )
        if settings.workers and self._registry:
            self._crew = Crew(self._shards, self.inbox, self._registry, settings, self._plugins, self)
        group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(group.cancel_scope.cancel)
        supervisor, self._plugin_actors = Supervisor(group), Supervisor(group)
        supervisor.start("inbox", self.inbox.run)
        supervisor.start("inbox asking", self.inbox.ask)
        for number, mailbox in enumerate(self._sender.mailboxes):
            supervisor.start(f"mailbox {number}", mailbox.run)
        for shard in self._shards:
            await self.inbox.ready(shard, self.name)
        self._loop = asyncio.get_running_loop()
        await self._stack.enter_async_context(self._lifespans)
        self._lifespans.push_async_callback(self._plugin_actors.stop)
        for lifespan in self._plugins.lifespans(self):
            await self._lifespans.enter_async_context(lifespan)
        if self._crew is not None:
            self._stack.push_async_callback(_shielded, self._registry.stop)
            await self._crew.start(supervisor.start, sdk=self._tracing)

    async def _connect(self) -> Server:
        settings = self.settings
        url = os.environ.get("FAIRACTOR_URL") if settings.url is None and settings.path is None else settings.url
        if url is None:
            url = await self._stack.enter_async_context(embedded_server(settings.path))
        # A reply that was lost must cost neither all the time there is for a call, nor the lease.
        answer = min(settings.connect_timeout / 2, settings.lease / 3)
        server = await connect(url, timeout=settings.connect_timeout, answer=answer)
        self._stack.push_async_callback(_shielded, server.close)
        return server

    async def stop(self, grace: float) -> None:
        """Claims no more, lets running tasks end for ``grace`` seconds, and gives back what has not ended."""
        if self._crew is not None:
            await self._crew.stop(grace)

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then stops as `stop` with ``grace``; a second signal stops at once."""
        self.check()
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for received in signals:
                logger.info("%s: stopping, with %g s for running tasks", received.name, self.settings.grace)
                break
            async with anyio.create_task_group() as group:
                group.start_soon(self._stop_now_at, signals, group.cancel_scope)
                await self.stop(self.settings.grace)
                group.cancel_scope.cancel()

    # Sending

    @overload
    async def send(self, tenant: str, message: Message[R], **options: Any) -> Handle[R]: ...
    @overload
    async def send(self, tenant: str, message: Sendable[R]) -> R: ...

    async def send(self, tenant: str, message: Any, **options: Any) -> Any:
        """Puts a message into a tenant's mailbox. When it returns, the server has the task.

        Args:
            tenant: any text.
            message: a call to an actor; or what plugins have that is sent, which says what this returns.
            options: as `Message.options`.

        Raises:
            ServerUnavailable: the server did not answer, or could not serve, for ``connect_timeout`` seconds.
            ServerError: the server refused it, for example because its memory is full. All of these say in
                ``maybe_accepted`` whether the task may have been accepted, and in ``ids`` under which id: to send the
                message again with the same ``id=`` is safe.
            NotReplicated: the server has it, but too few replicas have confirmed it (``durability="replicated"``).
            UnknownActor: this runtime runs actors, and the message's is none of them.
            NotSerializable: an argument has no JSON form. PayloadTooLarge: they are too long.
            TaskExists: the id is taken by a task of another tenant.
            MailboxFull: the tenant's ``backlog`` is reached.
            ConfigurationError: a tenant, id or option that cannot be.
        """
        self.check()
        if not isinstance(message, Message) and hasattr(message, "send_to"):
            if options:
                raise ConfigurationError(f"{', '.join(options)}: options are of messages: give them to each of them")
            return await message.send_to(self, tenant)
        return await self._sender.send(tenant, message.options(**options) if options else message)

    async def send_many(self, messages: Iterable[tuple[str, Message[Any]]]) -> list[Handle[Any]]:
        """Sends many messages; the handles are in their order.

        All are checked before the first is sent. They go in batches of 500, each accepted as a whole. Where a tenant
        has a ``backlog``, all are accepted or none: room for them is reserved first.

        Raises:
            As `send`. After ServerUnavailable some batches may have been accepted.
        """
        self.check()
        return await self._sender.send_many(messages)

    async def ask(self, tenant: str, message: Message[R], *, timeout: float | None = None, **options: Any) -> R:  # noqa: ASYNC109
        """Sends a message and returns the handler's result. Inside a handler it lends the worker slot out.

        Args:
            tenant: as for `send`.
            message: as for `send`.
            timeout: in seconds for the wait; None: as long as it takes.
            options: as for `send`.

        Raises:
            What `send` and `Handle.result` raise. With Deadlock nothing was sent.
        """
        self.check()
        check_timeout(timeout)
        return await self._sender.ask(tenant, message.options(**options) if options else message, timeout)

    def handle(self, task_id: str, tenant: str | None = None) -> Handle[Any]:
        """A handle from an id. With the tenant it is found at once, without one every shard is asked."""
        self.check()
        return Handle(self._tracker, name("task id", task_id), None if tenant is None else name("tenant", tenant))

    def tenant(self, tenant: str) -> Tenant:
        """A tenant, to send to, configure and count.

        Raises:
            ConfigurationError: a name that is empty or too long.
        """
        return Tenant(self, name("tenant", tenant))

    @property
    def dead_letters(self) -> DeadLetters:
        """The tasks that have failed for good and are kept, to look at, send again or delete."""
        return DeadLetters(self._shards, self.check)

    @property
    def policies(self) -> Policies:
        """How tenants are served: the defaults, and who has settings of its own."""
        return Policies(self._shards, self.check)

    async def assign(self, assigned: Iterable[str] = (), steal: Iterable[str] | bool = ()) -> None:  # noqa: FBT001
        """Changes which tenants this runtime serves, at once. Without any it serves all alike.

        Args:
            assigned: those that it serves first.
            steal: those that it serves when the first have nothing to do; True: all others.

        Raises:
            ConfigurationError: a name that cannot be, or a text where names are expected.
            RuntimeNotRunning: it runs no tasks.
        """
        self.check()
        if self._crew is None:
            raise RuntimeNotRunning(
                "this Runtime runs no tasks, so none can be assigned to it: give it actors and workers"
            )
        await self._crew.assign(attrs.evolve(self.settings, assigned=assigned, steal=steal))

    # Looking

    async def stats(self) -> Stats:
        """How many tasks there are in each state, at a cost that does not depend on how many."""
        self.check()
        return await read_stats(self._shards)

    async def health(self) -> Health:
        """Whether the server answers and somebody runs what waits; says what is wrong, and does not raise."""
        self.check()
        return await read_health(self._shards)

    async def mend(self) -> None:
        """Puts a namespace in order whose keys somebody has damaged by hand.

        What a script that broke off has left is mended by itself. This reads everything that the namespace holds, and
        holds the server up meanwhile.
        """
        self.check()
        for shard in self._shards:
            await shard.mend()

    async def drain(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the promised signature
        """Returns when no task of the namespace is queued, started or due now.

        Raises:
            TimeoutError: that took longer than ``timeout`` seconds.
        """
        self.check()
        check_timeout(timeout)
        with anyio.move_on_after(timeout), self.inbox.hears(b"d") as drained:
            while (await self.stats()).pending:
                await drained.wait(self.settings.lease / 3)
            return
        raise TimeoutError(f"tasks are still waiting or running after {timeout:g} s")

    # What handles, tenants and workers call

    def check(self) -> None:
        """Refuses use from where it cannot work.

        Raises:
            RuntimeNotRunning: not entered, left, or another thread or event loop.
        """
        try:
            if self._loop is asyncio.get_running_loop():
                return
        except RuntimeError:
            pass
        if self._loop is not None:
            raise RuntimeNotRunning(
                "this Runtime belongs to another event loop or thread: enter one in each loop, and from a worker "
                "thread call it with anyio.from_thread.run"
            )
        state = "was left" if self._used else "was not entered yet"
        raise RuntimeNotRunning(f"this Runtime {state}: use it inside `async with Runtime(...) as runtime`")

    def shard(self, tenant: str) -> Shard:
        """The shard that keeps a tenant."""
        return self._tracker.shard(tenant)

    def _codec(self, actor: str) -> Codec | None:
        found = self._registry.actors.get(actor)
        return found.codec if found else None

    async def _stop_now_at(self, signals: Any, scope: anyio.CancelScope) -> None:
        async for received in signals:
            logger.warning("%s again: stopping at once", received.name)
            break
        scope.cancel()


def _raised(
    error: BaseException | None,
) -> tuple[type[BaseException] | None, BaseException | None, TracebackType | None]:
    """As ``__aexit__`` takes it."""
    return (None, None, None) if error is None else (type(error), error, error.__traceback__)


async def _shielded(close: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope(shield=True):
        await close()


def _only(error: BaseException) -> BaseException:
    """The one exception in nested groups, or the group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
