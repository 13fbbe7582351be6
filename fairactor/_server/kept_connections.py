"""Connections that are kept for calls, with one command at a time on each.

A call of redis-py's client spends most of its time on taking a connection from the pool and putting it back. Here each
connection is taken from the pool only once.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError, ResponseError  # noqa: A004 - the one of redis-py

from .slow_links import read_reply


class KeptConnections:
    """Up to ``limit`` connections of a pool. A call waits for a free one, and prefers the most recently used."""

    def __init__(self, pool: ConnectionPool, limit: int) -> None:
        self._pool: Final[Any] = pool  # its types are incomplete
        self._limit: Final = limit
        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
        self._closed = False
        for _ in range(limit):
            self._free.put_nowait(None)  # a connection that has not been taken from the pool yet

    @property
    def busy(self) -> int:
        """The number of calls under way."""
        return self._limit - self._free.qsize()

    async def execute_command(self, *command: Any) -> Any:
        """Sends a command and returns its reply.

        Raises:
            redis.exceptions.RedisError: as redis-py. `calls.was_never_sent` says whether the command may have reached
                the server.
            OSError: likewise.
        """
        connection = await self._free.get()
        try:
            connection = await self._connected(connection)
            # `send_packed_command` would start a task for its timeout. Here the timeout of the reply covers both.
            packed = pack_command(command)
            connection._writer.write(packed)  # noqa: SLF001
            return await read_reply(connection, len(packed))
        finally:
            self._free.put_nowait(connection)

    async def execute_many(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Sends commands over one connection; returns their replies, including errors. Raises as `execute_command`."""
        connection = await self._free.get()
        try:
            connection = await self._connected(connection)
            packed = b"".join(map(pack_command, commands))
            connection._writer.write(packed)  # noqa: SLF001 - as above
            return [await _reply(connection, len(packed)) for _ in commands]
        finally:
            self._free.put_nowait(connection)

    async def _connected(self, connection: Any) -> Any:
        """Returns an open connection: the given one, or a new one if that is None."""
        if self._closed:  # while the call waited for a connection
            raise ConnectionError("not connecting to a server that is not used any more")
        if connection is None:
            connection = await self._pool.get_connection()
        elif connection.is_connected and connection._reader.at_eof():  # noqa: SLF001 - otherwise only a write would notice
            await connection.disconnect(nowait=True)  # the server has closed it
        if not connection.is_connected:
            await connection.connect()
        return connection

    def close(self) -> None:
        """Opens no further connection. The pool closes those that are open."""
        self._closed = True

    async def close_free(self) -> None:
        """Closes the free connections. Later calls open new ones."""
        free = [self._free.get_nowait() for _ in range(self._free.qsize())]
        for connection in reversed(free):
            self._free.put_nowait(connection)
            if connection is not None:
                await connection.disconnect(nowait=True)


async def _reply(connection: Any, sent: int) -> Any:
    """Reads a reply, or the error that the server says."""
    try:
        return await read_reply(connection, sent)
    except ResponseError as error:
        return error
