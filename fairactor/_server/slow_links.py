"""Waits for a reply as long as a slow link needs: a call is given up when nothing moves, not because it is large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions as redis_errors

SLOWEST: Final = 125_000
"""Bytes a second of the slowest link that is served, 1 Mbit/s. The kernel does not say how much it has sent yet."""


_LARGE: Final = 1 << 18  # bytes of a call, from which on its size may be why it fails


def size_of(arguments: Sequence[Any]) -> int:
    """Returns the bytes of arguments, without those that are always short."""
    return sum(len(argument) for argument in arguments if isinstance(argument, bytes | str))


def advice_on_size(size: int) -> str:
    """Returns what a call of ``size`` bytes needs, for the message that it was not answered; '' for a small one."""
    if size < _LARGE:
        return ""
    return f" (it has {size / 1e6:.1f} MB: the link must carry 1 Mbit/s at least; a reference to the data needs less)"


async def read_reply(connection: Any, sent: int) -> Any:
    """Reads the reply to a command; closes the connection if none comes.

    Args:
        connection: a connection of redis-py.
        sent: the bytes of the command, which may be on their way still.

    Raises:
        redis.exceptions.TimeoutError: nothing has arrived for the time that the connection has for an answer.
    """
    reader = connection._parser._reader  # noqa: SLF001 - nothing else knows how much has arrived
    answer, arrived = connection.socket_timeout, reader.len()  # it may still count bytes of earlier replies
    connection.socket_timeout = answer + sent / SLOWEST
    try:
        while True:
            try:
                return await connection.read_response(disconnect_on_error=False)
            except redis_errors.TimeoutError:
                before, arrived = arrived, reader.len()
                if arrived == before:
                    raise
                connection.socket_timeout = answer
    except redis_errors.ResponseError:
        raise
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    finally:
        connection.socket_timeout = answer
