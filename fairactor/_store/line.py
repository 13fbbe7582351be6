"""A line: one connection over which a server publishes messages to this runtime."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import anyio
from hiredis import pack_command
from redis.exceptions import ResponseError

from fairactor._server.incoming import Incoming
from fairactor._server.nodes import FAILED, Node
from fairactor._util.wakeup import Wakeup

FAILURES: Final = (*FAILED, ResponseError)
"""The errors that end a line."""

Receive = Callable[["Line", bytes, bytes, bytes], None]
"""Takes a line, and the kind, the channel and the content of a message."""


class Line:
    """A subscription to channels at one node.

    Messages are passed on as soon as their bytes arrive, in a callback of the event loop: no asyncio task has to be
    woken for that.

    Args:
        node: the node.
        heartbeat: seconds of silence after which it checks the connection.
        receive: called with each message, and with each confirmation of a subscription.
    """

    def __init__(self, node: Node, heartbeat: float, receive: Receive) -> None:
        self.node = node
        self.dropped = node.dropped
        """How often the connections to the node had been dropped when this line began."""
        self.channels: set[bytes] = set()
        """The channels that it should be subscribed to."""
        self.scope = anyio.CancelScope()
        """Cancels the line."""
        self._heartbeat = heartbeat
        self._receive = receive
        self._wakeup = Wakeup()  # set when it has to send something, or to end
        self._heard = 0.0  # when something arrived last
        self._failure: Exception | None = None

    def change(self, channels: set[bytes]) -> None:
        """Changes the channels."""
        if channels != self.channels:
            self.channels = channels
            self._wakeup.set()

    async def run(self) -> None:
        """Receives messages until it is canceled or the connection fails.

        Raises:
            redis.exceptions.RedisError: as redis-py; one of `FAILURES` if the server does not answer or refuses.
            OSError: likewise.
        """
        pool: Any = self.node.pool  # its types are incomplete
        connection = await pool.get_connection()
        try:
            Incoming(connection, self._on_message, self._end)
            await self._serve(connection._writer)  # noqa: SLF001 - the connection's own methods wait for it
        finally:
            with anyio.CancelScope(shield=True):
                await connection.disconnect(nowait=True)
                await pool.release(connection)

    async def _serve(self, writer: Any) -> None:
        """Subscribes, and checks the connection when it is silent."""
        subscribed: set[bytes] = set()
        self._heard, asked = time.monotonic(), 0.0
        while True:
            self._subscribe(writer, subscribed)
            await self._wakeup.wait(max(self._heard, asked) + self._heartbeat - time.monotonic())
            if self._failure is not None:
                raise self._failure
            if time.monotonic() - max(self._heard, asked) >= self._heartbeat:
                if asked > self._heard:
                    raise TimeoutError(f"it was silent for {2 * self._heartbeat:g} s")
                asked = time.monotonic()
                writer.write(pack_command(("PING",)))

    def _subscribe(self, writer: Any, subscribed: set[bytes]) -> None:
        """Subscribes to the current channels, and unsubscribes from the others."""
        if new := self.channels - subscribed:
            command: Any = ("SUBSCRIBE", *new)
            writer.write(pack_command(command))
        if old := subscribed - self.channels:
            command = ("UNSUBSCRIBE", *old)
            writer.write(pack_command(command))
        subscribed ^= new | old

    def _on_message(self, message: Any) -> None:
        self._heard = time.monotonic()
        if isinstance(message, Exception):
            self._end(message)
        elif isinstance(message, list) and len(message) == 3:  # noqa: PLR2004 - others answer a PING
            self._receive(self, *message)

    def _end(self, error: Exception) -> None:
        """Lets `run` raise an error."""
        self._failure = self._failure or error
        self._wakeup.set()
