"""A synchronous client, for the thread that works while the event loop is blocked."""

from __future__ import annotations

from typing import Any, Final

from redis import Connection, ConnectionPool, Redis, RedisCluster, SSLConnection, UnixDomainSocketConnection
from redis.backoff import NoBackoff
from redis.retry import Retry

from .urls import Address

_KINDS: Final[dict[str, Any]] = {"redis": Connection, "rediss": SSLConnection, "unix": UnixDomainSocketConnection}


def blocking_client(address: Address, *, cluster: bool) -> Any:
    """Makes a synchronous client of a server that can be used. It connects with its first command.

    Args:
        address: where the server is, with timeouts.
        cluster: whether it is a cluster.
    """
    arguments = dict(address.arguments)
    if cluster:
        arguments.pop("db", None)
        arguments.setdefault("host", "localhost")
        return RedisCluster(**arguments, ssl=address.kind == "rediss")
    pool = ConnectionPool(connection_class=_KINDS[address.kind], retry=Retry(NoBackoff(), 0), **arguments)
    return Redis.from_pool(pool)
