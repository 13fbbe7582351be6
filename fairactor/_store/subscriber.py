"""The subscriber: receives the messages that the server publishes to a runtime, over one connection.

With publish/subscribe nothing has to poll. Messages that are published while the connection is down are lost. So each
time a subscription begins, all callbacks run and all wake-ups are set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio
from redis.exceptions import ResponseError

from fairactor._model.keys import namespace_of
from fairactor._server.connection import AWAY, Server, is_temporary
from fairactor._server.rights import missing_right
from fairactor._util.wakeup import Wakeup
from fairactor.errors import ServerError, ServerUnavailable

from .shard import Shard

logger: Final = logging.getLogger(__name__)

DRAINED: Final = b"d"
"""The event that a shard publishes when its last task ends."""

REPAIRED: Final = b"m"
"""The event that a shard publishes when it was repaired: what was to be published may be lost."""

Deliver = Callable[[bytes], None]


def plugin_event(plugin: str) -> bytes:
    """Returns the event that the scripts of a plugin publish."""
    return b"p" + plugin.encode()


class Subscriber:
    """Receives the messages of all shards for one runtime.

    Args:
        server: the server to listen to.
        heartbeat: seconds of silence after which it checks the connection.
        patience: the longest time, in seconds, that a subscription may take.
    """

    def __init__(self, server: Server, *, heartbeat: float, patience: float) -> None:
        self._server = server
        self._heartbeat = heartbeat
        self._patience = patience
        self._channels: dict[bytes, Deliver] = {}
        self._subscribed: dict[bytes, anyio.Event] = {}
        self._callbacks: list[Callable[[], None]] = []
        self._wakeups: dict[bytes, set[Wakeup]] = {}  # by event
        self._malformed: set[tuple[bytes, bytes]] = set()  # channels and kinds of messages that were reported
        self._reading = anyio.CancelScope()  # while `run` waits for a message
        self._must_reconnect = False
        self._refusal = ""  # why the server refuses subscriptions
        server.on_drop = self._reconnect

    def listen(self, shard: Shard, runtime: str, deliver: Deliver) -> None:
        """Calls ``deliver`` with each message that a shard publishes to a runtime name. See `ready`."""
        self._channels[shard.keys.inbox(runtime).encode()] = deliver
        self._channels[shard.keys.events.encode()] = self._on_event
        self._reading.cancel()

    def ignore(self, shard: Shard, runtime: str) -> None:
        """Stops receiving the messages that a shard publishes to a runtime name."""
        self._channels.pop(shard.keys.inbox(runtime).encode(), None)
        self._reading.cancel()

    async def ready(self, shard: Shard, runtime: str) -> None:
        """Waits until the messages of a shard to a runtime name arrive here.

        Raises:
            ServerUnavailable: the server did not confirm the subscription in time.
            ServerError: the user lacks the right to subscribe.
        """
        channel = shard.keys.inbox(runtime).encode()
        with anyio.move_on_after(self._patience):
            await self._subscribed.setdefault(channel, anyio.Event()).wait()
            if self._refusal:
                raise ServerError(self._refusal)
            return
        where, patience = self._server.where, self._patience
        raise ServerUnavailable(f"no answer from {where}: a subscription took longer than {patience:g} s")

    def on_subscribe(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` each time a subscription begins or a shard was repaired: earlier messages may be lost."""
        self._callbacks.append(callback)

    @contextmanager
    def subscribe(self, event: bytes) -> Iterator[Wakeup]:
        """Returns a wake-up that is set when a shard has published an event to all runtimes, or may have.

        Args:
            event: `DRAINED`, or a `plugin_event`.
        """
        wakeup = Wakeup()
        wakeups = self._wakeups.setdefault(event, set())
        wakeups.add(wakeup)
        try:
            yield wakeup
        finally:
            wakeups.discard(wakeup)

    def wake_all(self) -> None:
        """Sets the wake-ups of all events, because any event may have been lost."""
        for event in self._wakeups:
            self._publish(event)

    async def run(self) -> None:
        """Receives messages until canceled. Nothing else uses the connection."""
        pubsub: Any = self._server.listener.pubsub()
        subscribed: set[bytes] = set()
        silent = away = False
        try:
            while True:
                try:
                    await self._subscribe(pubsub, subscribed)
                    with anyio.CancelScope() as self._reading:
                        message = await pubsub.get_message(timeout=self._heartbeat)
                        if message is None:
                            await _probe(pubsub, silent=silent)
                        silent = message is None
                        if message is not None:
                            self._receive(message)
                            await asyncio.sleep(0)  # let the receiver run before the next message
                        if away:
                            logger.warning("%s is back", self._server.where)
                            away = False
                except (*AWAY, ResponseError) as error:
                    if not isinstance(error, AWAY):
                        if right := missing_right(error):
                            await self._refuse(right)
                        elif not is_temporary(error):
                            raise
                        subscribed.clear()  # the server may have refused a subscription
                    logger.log(logging.DEBUG if away else logging.WARNING, "%s is away: %s", self._server.where, error)
                    silent, away = False, True
                    await anyio.sleep(0.1)
        finally:
            with anyio.CancelScope(shield=True):
                await pubsub.aclose()

    async def _refuse(self, right: str) -> None:
        """Tells all who wait for a subscription that the user lacks a right; waits before the next try."""
        channel = next(iter(self._channels)).decode()
        message = self._server.user.lacks([right], namespace_of(channel.partition("}")[0]))
        if self._refusal != message:
            logger.error("%s", message)
            self._refusal = message
        for ready in self._subscribed.values():
            ready.set()
        self._subscribed.clear()
        await anyio.sleep(1)

    def _reconnect(self) -> None:
        self._must_reconnect = True
        self._reading.cancel()

    async def _subscribe(self, pubsub: Any, subscribed: set[bytes]) -> None:
        """Subscribes to the current channels and unsubscribes from the others, until nothing changes."""
        while self._must_reconnect or self._channels.keys() != subscribed:
            if self._must_reconnect:
                self._must_reconnect = False
                await pubsub.connection.disconnect()  # the next command connects and subscribes again
            if new := self._channels.keys() - subscribed:
                await pubsub.subscribe(*new)
                subscribed |= new
            if old := subscribed - self._channels.keys():
                await pubsub.unsubscribe(*old)
                subscribed -= old
                for channel in old:
                    self._subscribed.pop(channel, None)

    def _receive(self, message: dict[str, Any]) -> None:
        if message["type"] == "message":
            self._pass_on(message["channel"], message["data"])
        elif message["type"] == "subscribe":
            self._refusal = ""
            self._subscribed.setdefault(message["channel"], anyio.Event()).set()
            self.wake_all()
            for callback in self._callbacks:
                callback()

    def _pass_on(self, channel: bytes, message: bytes) -> None:
        """Passes a message on. Anybody may publish anything, so one that nobody understands is logged and dropped."""
        deliver = self._channels.get(channel)
        if deliver is None:
            return
        try:
            deliver(message)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not stop the messages that follow
            kind = channel, message[:1]
            level = logging.DEBUG if kind in self._malformed else logging.WARNING
            self._malformed.add(kind)
            logger.log(
                level,
                "a message on channel %s is dropped (%s; %d bytes, %r); others of this kind are logged at DEBUG only",
                channel.decode(errors="replace"), error, len(message), message[:40],
            )  # fmt: skip

    def _on_event(self, event: bytes) -> None:
        self._publish(event)
        if event == REPAIRED:
            for callback in self._callbacks:
                callback()

    def _publish(self, event: bytes) -> None:
        for wakeup in self._wakeups.get(event, ()):
            wakeup.set()


async def _probe(pubsub: Any, *, silent: bool) -> None:
    """Checks a silent connection: pings the server, and reconnects if it stays silent for another heartbeat."""
    if silent:
        await pubsub.connection.disconnect()  # the next read connects and subscribes again
    else:
        await pubsub.ping()
