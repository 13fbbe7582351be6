"""A line: one connection over which a server publishes messages to this runtime."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import anyio
from redis.asyncio.client import PubSub
from redis.exceptions import ResponseError

from fairactor._server.nodes import FAILED, Node

logger: Final = logging.getLogger(__name__)

FAILURES: Final = (*FAILED, ResponseError)
"""The errors that end a line."""

Receive = Callable[["Line", dict[str, Any]], None]


class Line:
    """A subscription to channels at one node.

    Args:
        node: the node.
        heartbeat: seconds of silence after which it checks the connection.
        receive: called with each message.
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
        self._reading = anyio.CancelScope()  # while it waits for a message

    def change(self, channels: set[bytes]) -> None:
        """Changes the channels."""
        if channels != self.channels:
            self.channels = channels
            self._reading.cancel()

    async def run(self) -> None:
        """Receives messages until it is canceled or the connection fails.

        Raises:
            redis.exceptions.RedisError: as redis-py; one of `FAILURES` if the server does not answer or refuses.
            OSError: likewise.
        """
        pubsub: Any = PubSub(self.node.pool)
        subscribed: set[bytes] = set()
        silent = False
        try:
            while True:
                await self._subscribe(pubsub, subscribed)
                with anyio.CancelScope() as self._reading:
                    message = await pubsub.get_message(timeout=self._heartbeat)
                    if message is None:
                        if silent:
                            raise TimeoutError(f"it was silent for {2 * self._heartbeat:g} s")
                        await pubsub.ping()
                    silent = message is None
                    if message is not None:
                        self._receive(self, message)
                        await asyncio.sleep(0)  # let the receiver run before the next message
        finally:
            with anyio.CancelScope(shield=True):
                await pubsub.aclose()

    async def _subscribe(self, pubsub: Any, subscribed: set[bytes]) -> None:
        """Subscribes to the current channels and unsubscribes from the others, until nothing changes."""
        while self.channels != subscribed:
            if new := self.channels - subscribed:
                await pubsub.subscribe(*new)
                subscribed |= new
            if old := subscribed - self.channels:
                await pubsub.unsubscribe(*old)
                subscribed -= old
