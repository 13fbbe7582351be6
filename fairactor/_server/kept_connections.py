"""Connections that are kept for calls, with one command at a time on each.

A call of redis-py's client spends most of its time on taking a connection from the pool and putting it back. Here each
connection is taken from the pool once, and kept.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio import ConnectionPool


class KeptConnections:
    """Up to ``limit`` connections of a pool. A call waits for a free one, and takes the most recently used first."""

    def __init__(self, pool: ConnectionPool, limit: int) -> None:
        self._pool: Final[Any] = pool  # its types are incomplete
        self._limit: Final = limit
        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
        for _ in range(limit):
            self._free.put_nowait(None)  # stands for a connection that is not yet taken from the pool

    @property
    def busy(self) -> int:
        """The number of calls under way."""
        return self._limit - self._free.qsize()

    async def execute_command(self, *command: Any) -> Any:
        """Sends a command and returns its reply.

        Raises:
            redis.exceptions.RedisError, OSError: as redis-py. `connection.was_never_sent` tells whether a command
                without a reply can have reached the server.
        """
        connection = await self._free.get()
        try:
            if connection is None:
                connection = await self._pool.get_connection()
            elif connection.is_connected and connection._reader.at_eof():  # noqa: SLF001 - otherwise a write would find out
                await connection.disconnect(nowait=True)  # the server has closed it
            if not connection.is_connected:
                await connection.connect()
            # `send_packed_command` would start a task for its timeout; here the timeout of the reply covers both.
            connection._writer.write(pack_command(command))  # noqa: SLF001
            return await connection.read_response()  # closes the connection if there is none
        finally:
            self._free.put_nowait(connection)

    async def close_free(self) -> None:
        """Closes the free connections. Later calls open new ones."""
        free = [self._free.get_nowait() for _ in range(self._free.qsize())]
        for connection in reversed(free):
            self._free.put_nowait(connection)
            if connection is not None:
                await connection.disconnect(nowait=True)
