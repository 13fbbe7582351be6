"""The replies to commands on one connection."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as NotAnswered

from .incoming import Incoming, is_pushed
from .slow_links import SLOWEST


class Replies:
    """Reads the replies on one connection, for one caller at a time.

    Args:
        connection: an open connection of redis-py, on which nothing is expected.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._answer: float = connection.socket_timeout
        self._incoming = Incoming(connection, self._receive, self._end)
        self._replies: list[Any] = []
        self._count = 0
        self._done: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle

    async def read(self, count: int, sent: int) -> list[Any]:
        """Returns the replies to commands, also those that are errors; closes the connection if they do not come.

        Args:
            count: how many.
            sent: the bytes of the commands, which may be on their way still.

        Raises:
            redis.exceptions.TimeoutError: nothing has arrived for the time that the connection has for an answer.
            redis.exceptions.RedisError: the connection has ended.
            OSError: likewise.
        """
        loop = asyncio.get_running_loop()
        replies, self._count = self._replies, count
        done = self._done = loop.create_future()
        self._timer = loop.call_later(self._answer + sent / SLOWEST, self._look, loop, self._incoming.arrived)
        try:
            await done
            for reply in replies:
                if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
                    raise reply  # noqa: TRY301 - it ends the connection, as it does in redis-py
        except BaseException:
            await self.connection.disconnect(nowait=True)
            raise
        finally:
            self._done, self._replies = None, []
            self._timer.cancel()
        return replies

    def _look(self, loop: asyncio.AbstractEventLoop, before: int) -> None:
        """Gives up if nothing has arrived since it last looked."""
        if self._incoming.arrived == before:
            self._end(NotAnswered(f"nothing arrived for {self._answer:g} s"))
        else:
            self._timer = loop.call_later(self._answer, self._look, loop, self._incoming.arrived)

    def _receive(self, reply: Any) -> None:
        if self._done is None or is_pushed(reply):
            return
        self._replies.append(reply)
        if len(self._replies) == self._count and not self._done.done():
            self._done.set_result(None)

    def _end(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
