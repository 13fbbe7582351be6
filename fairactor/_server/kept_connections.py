"""Connections that are kept for calls: one command at a time on each, and nothing around it.

Of what a call of redis-py's client takes before a command is written, and after its reply was read, most is the way in
and out of the connection pool. Here a connection is taken from the pool once, and kept.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio import ConnectionPool


class Lines:
    """Up to ``number`` connections of a pool; a call waits for a free one, and the last used comes first."""

    def __init__(self, pool: ConnectionPool, number: int) -> None:
        self._pool: Final[Any] = pool  # typed by halves
        self._number: Final = number
        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
        for _ in range(number):
            self._free.put_nowait(None)  # one that was not taken from the pool yet

    @property
    def busy(self) -> int:
        """How many calls are under way."""
        return self._number - self._free.qsize()

    async def execute_command(self, *command: Any) -> Any:
        """The reply to a command.

        Raises:
            redis.exceptions.RedisError, OSError: as redis-py does; whether a command that got no reply can have reached
                the server is what `connection.was_never_sent` tells.
        """
        connection = await self._free.get()
        try:
            if connection is None:
                connection = await self._pool.get_connection()
            elif connection.is_connected and connection._reader.at_eof():  # noqa: SLF001 - or it is found out too late
                await connection.disconnect(nowait=True)  # the server has hung up
            if not connection.is_connected:
                await connection.connect()
            # `send_packed_command` would start a task to watch over the time that this takes; the reply is watched.
            connection._writer.write(pack_command(command))  # noqa: SLF001
            return await connection.read_response()  # where there is none, the connection is closed
        finally:
            self._free.put_nowait(connection)

    async def hang_up(self) -> None:
        """Closes those that are free; they are made anew when they are needed."""
        free = [self._free.get_nowait() for _ in range(self._free.qsize())]
        for connection in reversed(free):
            self._free.put_nowait(connection)
            if connection is not None:
                await connection.disconnect(nowait=True)
