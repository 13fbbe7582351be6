"""The runtime: what a service enters, sends with, and runs its actors in."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.lowlevel
import attrs

from . import tracing
from .codec import Codec
from .connection import Server, connect
from .context import running_task
from .crew import Crew
from .dead_letters import DeadLetters
from .embedded import embedded_server
from .envelope import seal
from .errors import ConfigurationError, Deadlock, RuntimeNotRunning, ServerError
from .handle import Handle
from .inbox import Inbox
from .keys import Keys, shard_of
from .mailbox import BATCH, Mailbox
from .message import Message
from .registry import Registrable, Registry
from .settings import Settings, name
from .shard import Item, Shard, open_shards
from .stats import Health, Stats, read_health, read_stats
from .supervisor import Supervisor
from .tenant import Tenant
from .tracking import Tracker, check_timeout

logger: Final = logging.getLogger(__name__)
R = TypeVar("R")


class Runtime:
    """A process's part in a fleet: it sends tasks, and runs those that its workers claim.

    Use it as ``async with Runtime(...) as runtime``. Settings are the keywords of `Settings`; times are seconds.

    Args:
        url: the server: ``redis://``, ``rediss://``, ``unix://``. None: ``FAIRACTOR_URL``, else an embedded server.
        actors: what this process can run: functions and classes with ``@actor``, or modules of them.
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

    def __init__(self, url: str | None = None, *, actors: Iterable[Registrable] = (), **settings: Any) -> None:
        known = [field.name for field in attrs.fields(Settings)]
        for given in settings:
            if given not in known:
                raise ConfigurationError(f"Runtime has no setting {given!r}; there are {', '.join(known)}, actors")
        self.settings = Settings(url=url, **settings)
        Keys(self.settings.namespace)  # refuses a name that cannot work
        self.name = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        """Unlike that of any other runtime, ever."""
        self.inbox: Inbox
        self._tracker: Tracker
        self._registry = Registry(actors)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._used = False
        self._tracing = False
        self._shards: list[Shard] = []
        self._mailboxes: list[Mailbox] = []
        self._crew: Crew | None = None
        self._stack = AsyncExitStack()

    # Entering and leaving

    async def __aenter__(self) -> Self:
        if self._used:
            raise RuntimeNotRunning("a Runtime is entered once; make a new one")
        self._used = True
        try:
            await self._start()
        except BaseException as error:
            await self.stop(grace=0)
            await self._unwind(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.stop(grace=self.settings.grace if error is None else 0)
        finally:
            self._loop = None
            for mailbox in self._mailboxes:
                mailbox.close(RuntimeNotRunning("the runtime was left before this could be sent"))
            self.inbox.close(RuntimeNotRunning("the runtime was left; the task goes on"))
            await self._unwind(error)

    async def _unwind(self, error: BaseException | None) -> None:
        """Ends the supervised actors and closes the connections; raises what took the runtime down, if anything did."""
        try:
            await self._stack.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)
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
        self._shards = await open_shards(server, settings)
        self.inbox = Inbox(server, self.name, beat=settings.lease / 3, patience=settings.connect_timeout)
        self._tracker = Tracker(self._shards, self.inbox, self._codec, self.check, settings.canceled_ttl)
        for shard in self._shards:
            self.inbox.listen(shard, self.name)
            self._mailboxes.append(Mailbox(shard, self.name))
        if settings.workers and self._registry:
            self._crew = Crew(self._shards, self.inbox, self._registry, settings)
            self._stack.push_async_callback(_shielded, self._registry.stop)
        group = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(group.cancel_scope.cancel)
        supervisor = Supervisor(group)
        supervisor.start("inbox", self.inbox.run)
        supervisor.start("inbox asking", self.inbox.ask)
        for number, mailbox in enumerate(self._mailboxes):
            supervisor.start(f"mailbox {number}", mailbox.run)
        for shard in self._shards:
            await self.inbox.ready(shard, self.name)
        self._loop = asyncio.get_running_loop()
        if self._crew is not None:
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

    async def send(self, tenant: str, message: Message[R], **options: Any) -> Handle[R]:
        """Puts a message into a tenant's mailbox. When it returns, the server has the task.

        Args:
            tenant: any text.
            message: a call to an actor.
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
            ConfigurationError: a tenant, id or option that cannot be.
        """
        self.check()
        if options:
            message = message.options(**options)
        number, item = self._item(tenant, message)
        (task_id,) = await self._post(number, [item], self._replicas(message))
        return self._handle(message, number, item, task_id)

    async def send_many(self, messages: Iterable[tuple[str, Message[Any]]]) -> list[Handle[Any]]:
        """Sends many messages; the handles are in their order.

        All are checked before the first is sent. They go in batches of 500, each accepted as a whole.

        Raises:
            As `send`. After ServerUnavailable some batches may have been accepted.
        """
        self.check()
        sent: list[tuple[Message[Any], int, Item]] = []
        batches: list[list[list[Item]]] = [[[]] for _ in self._shards]
        replicas = 0
        for tenant, message in messages:
            number, item = self._item(tenant, message)
            if len(batches[number][-1]) == BATCH:
                batches[number].append([])
                await anyio.lowlevel.checkpoint()  # encoding many must not hold up the event loop
            batches[number][-1].append(item)
            sent.append((message, number, item))
            replicas = max(replicas, self._replicas(message))
        posts = [(number, batch) for number, of_shard in enumerate(batches) for batch in of_shard if batch]
        outcomes = await asyncio.gather(*(self._post(*post, replicas) for post in posts), return_exceptions=True)
        ids: dict[str, str] = {}
        for (_, batch), outcome in zip(posts, outcomes, strict=True):
            if isinstance(outcome, ServerError):  # of one batch; others may have been accepted
                raise outcome.about(
                    [item.id for *_, item in sent], maybe_accepted=len(posts) > 1 or outcome.maybe_accepted
                )
            if isinstance(outcome, BaseException):
                raise outcome
            ids.update(zip((item.id for item in batch), outcome, strict=True))
        return [self._handle(*each, ids[each[-1].id]) for each in sent]

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
        task = running_task()
        if task is not None and task.tenant == tenant:
            await self._check_deadlock(tenant)
        if options:
            message = message.options(**options)
        number, item = self._item(tenant, message, watch=True)
        outcome = self.inbox.expect(item.id, self._shards[number], ask=False)
        try:
            (task_id,) = await self._post(number, [item], self._replicas(message))
        except BaseException:
            outcome.cancel()
            raise
        handle: Handle[R] = self._handle(message, number, item, task_id)
        if handle.duplicate:
            outcome.cancel()
            return await handle.result(timeout)
        self.inbox.sent(item.id, outcome, ask=item.id == message.how.id)
        return handle.unfold(*await self._tracker.wait(outcome, item.id, timeout))

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
        with anyio.move_on_after(timeout), self.inbox.drains() as drained:
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

    def _item(self, tenant: str, message: Message[Any], *, watch: bool = False) -> tuple[int, Item]:
        """A message as it goes to the server, and to which shard."""
        item = seal(tenant, message, watch=watch, max_payload=self.settings.max_payload, sdk=self._tracing)
        if self._registry:
            self._registry.get(message.actor.name)  # raises where it is not registered
        return shard_of(tenant, len(self._shards)), item

    async def _post(self, number: int, items: Sequence[Item], replicas: int) -> Sequence[str]:
        try:
            return await self._mailboxes[number].post(items, replicas=replicas)
        except ServerError as error:
            raise error.about([item.id for item in items]) from error

    def _handle(self, message: Message[Any], number: int, item: Item, task_id: str) -> Handle[Any]:
        """A handle of what was sent, or of the task that stands for it: that may be another actor's."""
        own = task_id == item.id
        codec = message.actor.codec if own else None
        return Handle(self._tracker, task_id, item.tenant, codec, self._shards[number], duplicate=not own)

    def _replicas(self, message: Message[Any]) -> int:
        """How many replicas have to confirm that a message was sent."""
        durability = message.how.durability or self.settings.durability
        return self.settings.replicas if durability == "replicated" else 0

    async def _check_deadlock(self, tenant: str) -> None:
        policy = await self.shard(tenant).configure(tenant, {})
        if policy.get("concurrency") == 1:
            raise Deadlock(
                f"a handler of tenant {tenant!r} asks for a task of the same tenant, which runs one task at a time: it "
                "could never start. Send without waiting, call the handler in place, or raise the tenant's concurrency"
            )

    async def _stop_now_at(self, signals: Any, scope: anyio.CancelScope) -> None:
        async for received in signals:
            logger.warning("%s again: stopping at once", received.name)
            break
        scope.cancel()


async def _shielded(close: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope(shield=True):
        await close()


def _only(error: BaseException) -> BaseException:
    """The one exception in nested groups, or the group."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
