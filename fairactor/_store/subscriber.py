"""The subscriber: receives the messages that the server publishes to a runtime, over one connection to each node.

With publish/subscribe nothing has to poll. Messages that are published while a connection is down are lost. So each
time a subscription begins, all callbacks run and all wake-ups are set.

On a cluster every node passes messages on to all others. Still the subscriber uses the node that has the shard, because
only there scripts see who is subscribed. It follows a shard that moves to another node.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import attrs
from anyio.abc import TaskGroup

from fairactor._model.keys import namespace_of
from fairactor._server.calls import Away, has_moved, is_temporary
from fairactor._server.connection import Server
from fairactor._server.nodes import FAILED, Node
from fairactor._server.rights import missing_right
from fairactor._util.wakeup import Wakeup
from fairactor.errors import ServerError, ServerUnavailable

from .line import FAILURES, Line
from .shard import Shard

logger: Final = logging.getLogger(__name__)

DRAINED: Final = b"d"
"""The event that a shard publishes when its last task ends."""

REPAIRED: Final = b"m"
"""The event that a shard publishes when it was repaired: what was to be published may be lost."""

Deliver = Callable[[bytes], None]

_PAUSE: Final = 0.1
"""Seconds before it connects again after a failure."""


@attrs.frozen(eq=False)
class _Channel:
    """A channel of a shard."""

    meta: str
    """The key that says at which node the shard is."""
    deliver: Deliver


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
        self._channels: dict[bytes, _Channel] = {}
        self._subscribed: dict[bytes, asyncio.Event] = {}
        self._lines: dict[Node, Line] = {}
        self._line_of: dict[bytes, Line] = {}  # a message that another line receives is too late
        self._deaf: dict[str, float] = {}  # shard of which nothing arrives -> since when
        self._callbacks: list[Callable[[], None]] = []
        self._wakeups: dict[bytes, set[Wakeup]] = {}  # by event
        self._malformed: set[tuple[bytes, bytes]] = set()  # channels and kinds of messages that were reported
        self._changed = Wakeup()  # set when lines may be at the wrong nodes
        self._refusal = ""  # why the server refuses subscriptions
        server.calls.topology.on_change = self._changed.set

    def listen(self, shard: Shard, runtime: str, deliver: Deliver) -> None:
        """Calls ``deliver`` with each message that a shard publishes to a runtime name. See `ready`."""
        meta = shard.keys.meta
        self._channels[shard.keys.inbox(runtime).encode()] = _Channel(meta, deliver)
        self._channels[shard.keys.events.encode()] = _Channel(meta, self._on_event)
        self._changed.set()

    def ignore(self, shard: Shard, runtime: str) -> None:
        """Stops receiving the messages that a shard publishes to a runtime name."""
        self._channels.pop(shard.keys.inbox(runtime).encode(), None)
        self._changed.set()

    async def ready(self, shard: Shard, runtime: str) -> None:
        """Waits until the messages of a shard to a runtime name arrive here.

        Raises:
            ServerUnavailable: the server did not confirm the subscription in time.
            ServerError: the user lacks the right to subscribe.
        """
        channel = shard.keys.inbox(runtime).encode()
        with anyio.move_on_after(self._patience):
            await self._subscribed.setdefault(channel, asyncio.Event()).wait()
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

    def deaf(self) -> dict[str, float]:
        """Returns the shards of which no messages arrive here, by their keys, and for how many seconds."""
        now = time.monotonic()
        return {meta: now - since for meta, since in self._deaf.items()}

    async def run(self) -> None:
        """Receives messages until canceled."""
        self._lines, self._line_of = {}, {}
        looked, looks_every = time.monotonic(), min(self._heartbeat, self._server.calls.topology.looks_every)
        async with anyio.create_task_group() as group:
            while True:
                self._changed.clear()
                found = await self._assign(group)
                await self._changed.wait(looks_every if found else _PAUSE)
                if time.monotonic() - looked >= looks_every:
                    await self._server.calls.look()  # a shard may have moved from a node that still lives
                    looked = time.monotonic()

    async def _assign(self, group: TaskGroup) -> bool:
        """Starts and changes the lines, so the channels of each shard are subscribed to at the shard's node.

        Returns whether the nodes of all shards were found.
        """
        nodes: dict[str, Node | None] = {}
        wanted: dict[Node, set[bytes]] = {}
        for name, channel in tuple(self._channels.items()):
            if channel.meta not in nodes:
                nodes[channel.meta] = await self._find(channel.meta)
            if (node := nodes[channel.meta]) is not None:
                wanted.setdefault(node, set()).add(name)
        for node, line in tuple(self._lines.items()):
            if node not in wanted or line.dropped != node.dropped:
                del self._lines[node]
                line.scope.cancel()
        lines = {name: self._line_to(node, group) for node, names in wanted.items() for name in names}
        for name in self._line_of.keys() - self._channels.keys():
            self._subscribed.pop(name, None)
        self._line_of = lines
        for node, names in wanted.items():
            self._lines[node].change(names)
        return None not in nodes.values()

    async def _find(self, meta: str) -> Node | None:
        try:
            return await self._server.calls.find(meta)
        except Away as error:
            self._note_away(meta, error)
            return None

    def _line_to(self, node: Node, group: TaskGroup) -> Line:
        line = self._lines.get(node)
        if line is None:
            line = self._lines[node] = Line(node, self._heartbeat, self._on_message)
            group.start_soon(self._run_line, line)
        return line

    async def _run_line(self, line: Line) -> None:
        """Runs a line until it fails. Then the next `_assign` starts another one, perhaps at another node."""
        with line.scope:
            try:
                await line.run()
            except FAILURES as error:
                for meta in {
                    channel.meta for name, channel in self._channels.items() if self._line_of.get(name) is line
                }:
                    self._note_away(meta, error)
                await self._failed(line, error)
                await anyio.sleep(_PAUSE)
                if self._lines.get(line.node) is line:
                    del self._lines[line.node]
                self._changed.set()

    async def _failed(self, line: Line, error: Exception) -> None:
        """Decides what the failure of a line means.

        Raises:
            redis.exceptions.ResponseError: it is not known.
        """
        if right := missing_right(error):
            await self._refuse(right)
        elif isinstance(error, FAILED) or is_temporary(error) or has_moved(error):
            await self._server.calls.topology.doubt(line.node, demoted=False)
        else:
            raise error

    def _note_away(self, meta: str, error: Exception) -> None:
        level = logging.DEBUG if self._deaf else logging.WARNING
        self._deaf.setdefault(meta, time.monotonic())
        logger.log(level, "%s is away: %s", self._server.where, str(error) or type(error).__name__)

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

    def _on_message(self, line: Line, kind: bytes, channel: bytes, content: bytes) -> None:
        if self._line_of.get(channel) is line and channel in self._channels:
            self._receive(kind, channel, content)

    def _receive(self, kind: bytes, channel: bytes, content: bytes) -> None:
        if kind == b"message":
            self._pass_on(channel, content)
        elif kind == b"subscribe":
            self._refusal = ""
            self._hears(self._channels[channel].meta)
            self._subscribed.setdefault(channel, asyncio.Event()).set()
            self.wake_all()
            for callback in self._callbacks:
                callback()

    def _hears(self, meta: str) -> None:
        if self._deaf.pop(meta, None) is not None and not self._deaf:
            logger.warning("%s is back", self._server.where)

    def _pass_on(self, channel: bytes, message: bytes) -> None:
        """Passes a message on. Anybody may publish anything, so one that nobody understands is logged and dropped."""
        try:
            self._channels[channel].deliver(message)
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
