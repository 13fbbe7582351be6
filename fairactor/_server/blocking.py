"""Synchronous calls, for the thread that works while the event loop is blocked."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any, Final

from redis import Connection, SSLConnection, UnixDomainSocketConnection
from redis import exceptions as redis_errors
from redis.backoff import NoBackoff
from redis.retry import Retry

from .calls import is_temporary
from .nodes import FAILED
from .topology import Sentinels, Topology
from .urls import Address, Host

_KINDS: Final[dict[str, Any]] = {"redis": Connection, "rediss": SSLConnection, "unix": UnixDomainSocketConnection}
_TRIES: Final = 4


class BlockingCalls:
    """Runs scripts from a thread, one at a time. It connects when it is first used.

    It begins with what the event loop knew last. Other nodes, or sentinels, say if a key has moved since.

    Args:
        address: how to connect, with timeouts.
        sentinel: how to connect to sentinels.
        topology: where the keys are.
    """

    def __init__(self, address: Address, sentinel: Address, topology: Topology) -> None:
        self._address = address
        self._sentinel = sentinel
        self._topology = topology
        self._connections: dict[tuple[bool, Host | None], Any] = {}

    def execute_command(self, *command: Any) -> Any:
        """Runs a script: ``EVALSHA digest number key …``, or likewise; returns its reply.

        Raises:
            redis.exceptions.RedisError: as redis-py.
            OSError: likewise.
        """
        failure: Exception = redis_errors.ConnectionError("no node is known")
        hosts = deque(self._topology.hosts(command[3]))
        asked = False
        for _ in range(_TRIES):
            if not hosts and not asked:
                asked = True
                hosts.extend(self._ask_sentinels())
            if not hosts:
                break
            host = hosts.popleft()
            try:
                return self._execute(self._address, host, command)
            except redis_errors.MovedError as error:
                failure = error
                hosts.appendleft((error.host or (host or ("",))[0], error.port))
            except (*FAILED, redis_errors.ResponseError) as error:
                if not isinstance(error, FAILED) and not is_temporary(error):
                    raise
                failure = error
        raise failure

    def _ask_sentinels(self) -> list[Host]:
        """Returns the primary that a sentinel names, if there are sentinels."""
        hosts = self._topology.sentinel_hosts() if isinstance(self._topology, Sentinels) else []
        for host in hosts:
            with suppress(*FAILED, redis_errors.ResponseError):
                command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._sentinel.primary)
                if found := self._execute(self._sentinel, host, command):
                    return [(found[0].decode(), int(found[1]))]
        return []

    def _execute(self, address: Address, host: Host | None, command: tuple[Any, ...]) -> Any:
        place = address is self._sentinel, host
        connection = self._connections.get(place) or self._connections.setdefault(place, _connection(address, host))
        try:
            connection.send_command(*command)
            return connection.read_response()
        except FAILED:
            connection.disconnect()
            raise

    def close(self) -> None:
        """Closes the connections."""
        for connection in self._connections.values():
            connection.disconnect()


def _connection(address: Address, host: Host | None) -> Any:
    arguments = dict(address.arguments)
    if host is not None:
        arguments["host"], arguments["port"] = host
    if address.kind == "rediss":
        arguments.setdefault("ssl_password", "")
    return _KINDS[address.kind](retry=Retry(NoBackoff(), 0), **arguments)
