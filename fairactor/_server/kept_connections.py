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

from .replies import Replies


class KeptConnections:
    """Up to ``limit`` connections of a pool. A call waits for a free one, and prefers the most recently used."""

    def __init__(self, pool: ConnectionPool, limit: int) -> None:
        self._pool: Final[Any] = pool  # its types are incomplete
        self._limit: Final = limit
        self._free: asyncio.LifoQueue[Replies | None] = asyncio.LifoQueue()
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
        (reply,) = await self._execute(pack_command(command), 1)
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def execute_many(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Sends commands over one connection; returns their replies, including errors. Raises as `execute_command`."""
        return await self._execute(b"".join(map(pack_command, commands)), len(commands))

    async def _execute(self, packed: bytes, count: int) -> list[Any]:
        kept = await self._free.get()
        try:
            kept = await self._connected(kept)
            # `send_packed_command` would start a task for its timeout. Here the timeout of the replies covers both.
            kept.connection._writer.write(packed)  # noqa: SLF001
            return await kept.read(count, len(packed))
        finally:
            self._free.put_nowait(kept)

    async def _connected(self, kept: Replies | None) -> Replies:
        """Returns an open connection: the given one, or a new one if that is None."""
        if self._closed:  # while the call waited for a connection
            raise ConnectionError("not connecting to a server that is not used any more")
        if kept is None:
            return Replies(await self._pool.get_connection())
        connection = kept.connection
        if connection.is_connected:
            if not connection._reader.at_eof():  # noqa: SLF001 - otherwise only a write would notice
                return kept
            await connection.disconnect(nowait=True)  # the server has closed it
        await connection.connect()
        return Replies(connection)

    def close(self) -> None:
        """Opens no further connection. The pool closes those that are open."""
        self._closed = True

    async def close_free(self) -> None:
        """Closes the free connections. Later calls open new ones."""
        free = [self._free.get_nowait() for _ in range(self._free.qsize())]
        for kept in reversed(free):
            self._free.put_nowait(kept)
            if kept is not None:
                await kept.connection.disconnect(nowait=True)
