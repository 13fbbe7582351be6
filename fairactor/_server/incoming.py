"""Takes what arrives on a connection of redis-py, as soon as its bytes are here.

redis-py reads in an asyncio task, which has to be woken for that, with a timeout and several coroutines for each reply.
Here the callback of the event loop that gets the bytes parses them and passes them on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import hiredis
from redis.exceptions import ConnectionError, InvalidResponse  # noqa: A004 - the one of redis-py

_PUSHED: Final = getattr(hiredis, "PushNotification", ())
"""The type of what a server says unasked, by RESP3. Older releases of hiredis have none."""

_INCOMPLETE: Final = object()


class Incoming:
    """What arrives on a connection from now on.

    Args:
        connection: an open connection of redis-py, on which nothing is expected. Its own methods can read no more.
        receive: called with each reply and each message. It also gets the errors that the server says.
        ended: called with the reason once nothing more will arrive.
    """

    def __init__(self, connection: Any, receive: Callable[[Any], None], ended: Callable[[Exception], None]) -> None:
        self._parser = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=connection._parser.parse_error,  # noqa: SLF001 - the errors of redis-py
            notEnoughData=_INCOMPLETE,
        )
        self._receive = receive
        self._ended = ended
        self.arrived = 0
        """How many bytes have arrived."""
        stream = connection._reader  # noqa: SLF001 - nothing else gets the bytes
        self._feed_eof, self._set_exception = stream.feed_eof, stream.set_exception
        stream.feed_data, stream.feed_eof, stream.set_exception = self._on_bytes, self._on_eof, self._on_exception

    def _on_bytes(self, data: bytes) -> None:
        self.arrived += len(data)
        try:
            self._parser.feed(data)
            while (reply := self._parser.gets()) is not _INCOMPLETE:
                self._receive(reply)
        except Exception as error:  # noqa: BLE001 - the event loop would only log it
            self._ended(error)

    def _on_eof(self) -> None:
        self._feed_eof()
        self._ended(ConnectionError("the server has closed the connection"))

    def _on_exception(self, error: Exception) -> None:
        self._set_exception(error)
        self._ended(error)


def is_pushed(reply: Any) -> bool:
    """Whether the server has said something unasked, so it is no reply to a command."""
    return isinstance(reply, _PUSHED)
