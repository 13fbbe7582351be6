"""What the server tells a runtime: wake-ups for its dispatchers, cancellations, and outcomes that it waits for.

It comes by publish/subscribe, so nothing polls. What was published while the connection was down is lost, so each
time the subscription begins anew, everything that is waited for is asked for again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import anyio
import attrs
from redis.exceptions import ResponseError

from . import record
from .connection import AWAY, Server, passes
from .errors import Deadlock, ServerError, ServerUnavailable, TaskNotFound
from .shard import Shard
from .signals import Signal
from .wire import Handed, unpack_handed

logger: Final = logging.getLogger(__name__)

Outcome = tuple[record.Header, record.Outcome]


@attrs.define(eq=False)
class _Awaited:
    """A task whose outcome somebody here waits for."""

    shard: Shard
    waiters: dict[asyncio.Future[Outcome], str | None]
    """With the tenant of the running task that waits, or ''; None while the send is under way."""
    deaf: bool = False
    """Whether the outcome may have been told while nobody listened, and the send was under way."""


class Inbox:
    """The listener of one runtime, over all its shards."""

    def __init__(self, server: Server, runtime: str, *, beat: float, patience: float) -> None:
        self.runtime = runtime
        self._heard_by: dict[bytes, set[Signal]] = {}
        self._server = server
        self._beat = beat
        self._patience = patience
        self._channels: dict[bytes, Callable[[bytes], None]] = {}
        self._subscribed: dict[bytes, anyio.Event] = {}
        self._on_subscribe: list[Callable[[], None]] = []
        self._awaited: dict[str, _Awaited] = {}
        self._asked: deque[tuple[str, str]] = deque()
        self._ask = Signal()
        self._reading = anyio.CancelScope()  # while `run` waits for a message
        self._turned_away = False
        server.on_turn_away = self._turn_away
        self._closed: Exception | None = None

    def listen(
        self,
        shard: Shard,
        runtime: str,
        wake: Callable[[], None] = lambda: None,
        cancel: Callable[[str], None] = lambda _: None,
        back: Callable[[], None] = lambda: None,
        take: Callable[[Handed], None] = lambda _: None,
    ) -> None:
        """Hears what a shard has to say to ``runtime``; `ready` says from when on.

        Args:
            shard: the shard.
            runtime: the name under which it speaks to it.
            wake: is called when there may be work.
            cancel: is called with the id of a task that is to be canceled.
            back: is called each time a subscription begins: what was said before it is lost.
            take: is called with a task that was claimed for the runtime.
        """

        def deliver(message: bytes) -> None:
            kind, rest = message[:1], message[1:]
            if kind == b"k":
                take(unpack_handed(rest))
            elif kind == b"w":
                wake()
            elif kind == b"c":
                cancel(rest.decode())
            elif kind == b"o":
                length = int.from_bytes(rest[:2], "big")
                self._settle(rest[2 : 2 + length].decode(), rest[2 + length :])

        self._channels[shard.keys.inbox(runtime).encode()] = deliver
        self._channels[shard.keys.events.encode()] = self._event
        if back not in self._on_subscribe:
            self._on_subscribe.append(back)
        self._reading.cancel()

    def ignore(self, shard: Shard, runtime: str) -> None:
        """Hears no more of what a shard has to say to ``runtime``."""
        self._channels.pop(shard.keys.inbox(runtime).encode(), None)
        self._reading.cancel()

    async def ready(self, shard: Shard, runtime: str) -> None:
        """Returns when what a shard has to say to ``runtime`` is heard.

        Raises:
            ServerUnavailable: the server did not say so in time.
        """
        channel = shard.keys.inbox(runtime).encode()
        with anyio.move_on_after(self._patience):
            await self._subscribed.setdefault(channel, anyio.Event()).wait()
            return
        where, patience = self._server.where, self._patience
        raise ServerUnavailable(f"no answer from {where}: a subscription took longer than {patience:g} s")

    async def run(self) -> None:
        """Listens, until canceled. Nobody else uses the connection."""
        pubsub: Any = self._server.listener.pubsub()
        subscribed: set[bytes] = set()
        silent = away = False
        try:
            while True:
                try:
                    await self._subscribe(pubsub, subscribed)
                    with anyio.CancelScope() as self._reading:
                        message = await pubsub.get_message(timeout=self._beat)
                        if message is None:
                            await _probe(pubsub, silent=silent)
                        silent = message is None
                        if message is not None:
                            self._hear(message)
                            await asyncio.sleep(0)  # whom it woke comes before the next one
                        if away:
                            logger.warning("%s is back", self._server.where)
                            away = False
                except (*AWAY, ResponseError) as error:
                    if not isinstance(error, AWAY):
                        if not passes(error):
                            raise
                        subscribed.clear()  # a subscription may be what was refused
                    logger.log(logging.DEBUG if away else logging.WARNING, "%s is away: %s", self._server.where, error)
                    silent, away = False, True
                    await anyio.sleep(0.1)
        finally:
            with anyio.CancelScope(shield=True):
                await pubsub.aclose()

    def _turn_away(self) -> None:
        self._turned_away = True
        self._reading.cancel()

    async def _subscribe(self, pubsub: Any, subscribed: set[bytes]) -> None:
        """Subscribes to the channels that are listened to now, and leaves the others, until nothing has changed."""
        while self._turned_away or self._channels.keys() != subscribed:
            if self._turned_away:
                self._turned_away = False
                await pubsub.connection.disconnect()  # the next command connects, and so subscribes
            if new := self._channels.keys() - subscribed:
                await pubsub.subscribe(*new)
                subscribed |= new
            if old := subscribed - self._channels.keys():
                await pubsub.unsubscribe(*old)
                subscribed -= old
                for channel in old:
                    self._subscribed.pop(channel, None)

    async def ask(self) -> None:
        """Asks the server for the outcomes that are waited for, many at a time, until canceled."""
        while True:
            await self._ask.wait()
            while self._asked:
                asked = {self._asked.popleft() for _ in range(min(len(self._asked), 500))}
                await self._watch([(task_id, inside) for task_id, inside in asked if task_id in self._awaited])

    def expect(self, task_id: str, shard: Shard, *, inside: str = "", ask: bool = True) -> asyncio.Future[Outcome]:
        """A future of a task's outcome; canceling it ends the interest.

        Args:
            task_id: the task.
            shard: where it is.
            inside: the tenant of the running task that waits, if it is one.
            ask: False where the send itself says that the outcome is wanted; `sent` follows.

        Raises (from the future):
            TaskNotFound: there is no such task.
            Deadlock: ``inside`` runs one task at a time, and this is another one of it.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._closed is not None:
            future.set_exception(self._closed)
            return future
        awaited = self._awaited.setdefault(task_id, _Awaited(shard, {}))
        awaited.waiters[future] = inside if ask else None
        future.add_done_callback(lambda done: self._forget(task_id, done))
        if ask:
            self._asked.append((task_id, inside))
            self._ask.set()
        return future

    @contextmanager
    def hears(self, event: bytes) -> Iterator[Signal]:
        """A signal that is raised whenever a shard has said that to all, or may have.

        Args:
            event: what is published: ``d`` when a shard has drained, ``p`` and the name of a plugin for that.
        """
        signal = Signal()
        hearers = self._heard_by.setdefault(event, set())
        hearers.add(signal)
        try:
            yield signal
        finally:
            hearers.discard(signal)

    def _event(self, event: bytes) -> None:
        for signal in self._heard_by.get(event, ()):
            signal.set()

    def _missed_events(self) -> None:
        for event in self._heard_by:
            self._event(event)

    def sent(self, task_id: str, future: asyncio.Future[Outcome], *, ask: bool) -> None:
        """Learns that the server has the task.

        Args:
            task_id: the task.
            future: as `expect` made it.
            ask: whether the server may not know that the outcome is wanted: the task may be an older one.
        """
        awaited = self._awaited.get(task_id)
        if awaited is not None and future in awaited.waiters:
            awaited.waiters[future] = ""
            if ask or awaited.deaf:
                self._asked.append((task_id, ""))
                self._ask.set()

    def close(self, error: Exception) -> None:
        """Fails all that is waited for, now and from now on."""
        self._closed = error
        for task_id in tuple(self._awaited):
            self._fail(task_id, error)
        self._missed_events()

    def _forget(self, task_id: str, future: asyncio.Future[Outcome]) -> None:
        awaited = self._awaited.get(task_id)
        if awaited is not None:
            awaited.waiters.pop(future, None)
            if not awaited.waiters:
                del self._awaited[task_id]

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] == "message":
            deliver = self._channels.get(message["channel"])
            if deliver is not None:
                deliver(message["data"])
        elif message["type"] == "subscribe":
            self._subscribed.setdefault(message["channel"], anyio.Event()).set()
            for task_id, awaited in self._awaited.items():
                awaited.deaf = awaited.deaf or None in awaited.waiters.values()
                self._asked.extend((task_id, inside) for inside in set(awaited.waiters.values()) if inside is not None)
            self._ask.set()
            self._missed_events()
            for back in self._on_subscribe:
                back()

    async def _watch(self, asked: list[tuple[str, str]]) -> None:
        by_shard: dict[Shard, list[tuple[str, str]]] = {}
        for task_id, inside in asked:
            by_shard.setdefault(self._awaited[task_id].shard, []).append((task_id, inside))
        for shard, tasks in by_shard.items():
            replies = await _until_answered(partial(shard.watch, self.runtime, tasks))
            for (task_id, inside), reply in zip(tasks, replies, strict=True):
                if reply[0] == b"o":
                    self._settle(task_id, reply[1])
                elif reply[0] == b"n":
                    self._fail(
                        task_id, TaskNotFound(f"there is no task {task_id!r}: never sent, or its record expired")
                    )
                elif reply[0] == b"d":
                    self._fail(task_id, _deadlock(task_id, reply[1].decode()), inside)

    def _settle(self, task_id: str, packed: bytes) -> None:
        awaited = self._awaited.get(task_id)
        if awaited is not None:
            header, body = record.unpack(packed)
            outcome = header, record.outcome_in(body)
            for future in tuple(awaited.waiters):
                if not future.done():
                    future.set_result(outcome)

    def _fail(self, task_id: str, error: Exception, inside: str | None = None) -> None:
        """Tells all who wait for a task; or only those inside tasks of one tenant."""
        awaited = self._awaited.get(task_id)
        for future, waiter in tuple(awaited.waiters.items()) if awaited else ():
            if not future.done() and inside in (None, waiter):
                future.set_exception(error)


async def _probe(pubsub: Any, *, silent: bool) -> None:
    """Finds out whether a silent line is a dead one: the server answers a ping within a beat."""
    if silent:
        await pubsub.connection.disconnect()  # the next read connects again, and so subscribes
    else:
        await pubsub.ping()


def _deadlock(task_id: str, tenant: str) -> Deadlock:
    return Deadlock(
        f"task {task_id!r} of tenant {tenant!r} cannot start before the handler that waits for it has ended, because "
        "the tenant runs one task at a time. Send without waiting, call the handler in place, or raise its concurrency"
    )


async def _until_answered(call: Callable[[], Awaitable[list[list[bytes]]]]) -> list[list[bytes]]:
    pause = 0.05
    while True:
        try:
            return await call()
        except ServerError as error:
            logger.warning("%s", error)
        await anyio.sleep(pause)
        pause = min(2 * pause, 1.0)
