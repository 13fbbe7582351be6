"""The nodes that are known, and the connections to each of them."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import anyio
import attrs
from redis.asyncio import BlockingConnectionPool, Connection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as NotAnswered

from . import tls
from .kept_connections import KeptConnections
from .urls import Address, Host

CONNECTIONS: Final = 8
"""The most connections of a runtime to a server, unless its URL says otherwise. One receives messages, one is for rare
commands, the others are for calls."""

_SOON: Final = 0.3
"""Seconds after which a node that does not answer is not waited for alone."""

T = TypeVar("T")

FAILED: Final = (NotConnected, NotAnswered, OSError)
"""The errors that redis-py raises if a server did not answer."""


class NoNode(Exception):
    """No node is known that could serve now. The message says why."""


@attrs.define(eq=False)
class Node:
    """A server, and the connections to it."""

    name: str
    """Its host and port, or the path of its socket."""
    host: Host | None
    """None for a socket."""
    pool: BlockingConnectionPool = attrs.field(repr=False)
    calls: KeptConnections = attrs.field(repr=False)
    """The connections for calls."""
    rare: KeptConnections = attrs.field(repr=False)
    """The connection for rare commands."""
    failed: float = -math.inf
    """When it last failed to answer, or to serve."""
    dropped: int = 0
    """How often its connections were dropped."""

    def fail(self) -> None:
        """Notes that it has failed, so others are asked first."""
        self.failed = time.monotonic()

    async def drop(self) -> None:
        """Closes the connections that are free, because its name may now lead to another server."""
        self.dropped += 1
        await self.pool.disconnect(inuse_connections=False)
        await self.calls.close_free()
        await self.rare.close_free()

    async def close(self) -> None:
        """Closes all connections, for good."""
        self.calls.close()
        self.rare.close()
        await self.pool.disconnect()


class Nodes:
    """Makes nodes, one for each address.

    Args:
        address: how to connect.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._known: dict[Host | None, Node] = {}

    def __iter__(self) -> Iterator[Node]:
        return iter(tuple(self._known.values()))

    def at(self, host: Host | None = None) -> Node:
        """Returns the node at a host, or at the socket."""
        node = self._known.get(host)
        if node is None:
            node = self._known[host] = self._make(host)
        return node

    def _make(self, host: Host | None) -> Node:
        limit = self._address.connections or CONNECTIONS
        pool = _pool(self._address, host, limit)
        name = str(self._address.arguments["path"]) if host is None else name_of(host)
        return Node(name, host, pool, KeptConnections(pool, limit - 2), KeptConnections(pool, 1))

    async def keep(self, hosts: Iterable[Host]) -> None:
        """Forgets all nodes but those at these hosts, and closes the connections to them."""
        for host in self._known.keys() - set(hosts):
            await self._known.pop(host).close()

    async def close(self) -> None:
        """Closes all connections."""
        for node in self._known.values():
            await node.close()


async def ask_any(nodes: Iterable[Node], ask: Callable[[Node], Awaitable[T]]) -> T:
    """Returns the first answer of any node. If one does not answer soon, the next one is asked as well.

    Args:
        nodes: the nodes, the best first.
        ask: asks a node; raises `NoNode`, or an error of redis-py.

    Raises:
        NoNode: none has answered; the cause is the last error.
    """
    found: list[T] = []
    failures: list[tuple[Node, Exception]] = []

    async def ask_one(node: Node, ended: anyio.Event, scope: anyio.CancelScope) -> None:
        answered = False
        try:
            found.append(await ask(node))
            answered = True
            scope.cancel()
        except (RedisError, OSError, NoNode) as error:
            failures.append((node, error))
        finally:
            if not answered:
                node.fail()
            ended.set()

    async with anyio.create_task_group() as group:
        for node in nodes:
            ended = anyio.Event()
            group.start_soon(ask_one, node, ended, group.cancel_scope)
            with anyio.move_on_after(_SOON):
                await ended.wait()
    if found:
        return found[0]
    node, error = failures[-1]
    raise NoNode(f"{node.name}: {str(error) or type(error).__name__}") from error


def name_of(host: Host) -> str:
    """Returns a host and its port, for messages."""
    name, port = host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _pool(address: Address, host: Host | None, limit: int) -> BlockingConnectionPool:
    kinds = {"redis": Connection, "rediss": tls.TLSConnection, "unix": UnixDomainSocketConnection}
    arguments = dict(address.arguments)
    if host is not None:
        arguments["host"], arguments["port"] = host
    if address.kind == "rediss":
        arguments.setdefault("ssl_password", "")  # otherwise OpenSSL would ask for it on the terminal
    return BlockingConnectionPool(
        max_connections=limit,
        timeout=None,
        connection_class=kinds[address.kind],
        retry=Retry(NoBackoff(), 0),
        **arguments,
    )


def check_options(address: Address) -> None:
    """Checks that connections can be made.

    Raises:
        TypeError, ValueError, OSError, redis.exceptions.RedisError: they cannot.
    """
    pool = _pool(address, address.hosts[0] if address.hosts else None, 1)
    connection: Any = pool.make_connection()  # type: ignore[no-untyped-call]  # checks the arguments
    if address.kind == "rediss":
        tls.shared_context(connection.ssl_context)  # reads the files
