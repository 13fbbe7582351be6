"""Connections: checks URLs, connects, and checks whether a server can be used."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import attrs
from redis import exceptions as redis_errors
from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    Redis,
    RedisCluster,
    UnixDomainSocketConnection,
)
from redis.asyncio.cluster import PipelineCommand
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from fairactor._util.backoff import Backoff
from fairactor.errors import ConfigurationError, ServerError, ServerUnavailable

from . import tls
from .blocking import blocking_client
from .fitness import check_fitness, has_flags, is_cluster, read_info
from .kept_connections import KeptConnections
from .rights import User, missing_right, user_of
from .urls import Address, parse_url

T = TypeVar("T")

CONNECTIONS: Final = 8
"""The most connections of a runtime, unless its URL says otherwise. One receives messages, one is for rare commands,
the others are for calls."""

AWAY: Final = (redis_errors.ConnectionError, redis_errors.TimeoutError, redis_errors.ClusterDownError, OSError)
"""The errors that redis-py raises if the server did not answer."""

_NEVER_SENT: Final = ("connecting to", "No connection available")  # messages of redis-py: no connection was made

# The errors of a server that cannot serve now and has done nothing. It loads its data, is busy with a script, is a
# replica (perhaps since a moment ago), has too few replicas, or cannot write to its disk. If a script raises the error,
# Redis 6.2 puts the code into the middle of the text.
_NOT_NOW: Final = re.compile(r"\b(LOADING|BUSY|READONLY|MASTERDOWN|NOREPLICAS|MISCONF|TRYAGAIN|CLUSTERDOWN)\b ")
_NOT_NOW_TYPES: Final = (
    redis_errors.BusyLoadingError, redis_errors.ReadOnlyError, redis_errors.MasterDownError, redis_errors.TryAgainError,
    redis_errors.ClusterDownError,
)  # fmt: skip


def was_never_sent(error: BaseException) -> bool:
    """Whether a command that failed with this error cannot have reached the server."""
    return isinstance(error, redis_errors.BusyLoadingError) or any(words in str(error) for words in _NEVER_SENT)


def is_read_only(error: BaseException) -> bool:
    """Whether an error says that the server is a replica."""
    return isinstance(error, redis_errors.ReadOnlyError) or "READONLY " in str(error)


def is_temporary(error: BaseException) -> bool:
    """Whether an error is temporary: nothing was done, and the server may accept the same command soon."""
    return isinstance(error, _NOT_NOW_TYPES) or _NOT_NOW.search(str(error)) is not None


def has_no_functions(error: redis_errors.ResponseError) -> bool:
    """Whether a command failed because the server has no functions, or lets its user use none."""
    return isinstance(error, redis_errors.NoPermissionError) or "unknown command" in str(error).lower()


@attrs.define(eq=False)
class Server:
    """A server that can be used, and the connections to it."""

    client: Any  # Redis or RedisCluster: both have the commands used here, but share no type
    listener: Redis
    """A client of one node, for subscriptions. On a cluster, every node receives all messages."""
    flags: bool
    """Whether the server supports script flags."""
    cluster: bool
    """Whether the server is a cluster."""
    functions: bool
    """Whether functions can be loaded and called, as far as is known."""
    where: str
    """The URL without the password, for messages."""
    answer: float = 5.0
    """Seconds after which a command without an answer fails."""
    user_name: str = "default"
    """Who has logged in, for messages."""
    connections: KeptConnections | None = None
    """The connections for calls. None on a cluster, where the client finds the node."""
    address: str = ""
    """The host, or the path of the socket, as the URL names it."""
    port: int | None = None
    """The port; None for a socket."""
    blocking_client: Callable[[], Any] | None = None
    """Makes a synchronous client of the same server, for threads; it connects with its first command."""
    on_drop: Callable[[], None] = lambda: None
    """Called when the connections are dropped, so other connections must be opened again, too."""

    @property
    def user(self) -> User:
        """Who has logged in, to say which rights are missing."""
        return User(self.user_name, self.where)

    async def drop_connections(self) -> None:
        """Closes the connections. The server has become a replica, and its name may now lead to another server."""
        if not self.cluster:  # on a cluster the client follows the slots
            await self.client.connection_pool.disconnect(inuse_connections=False)
            if self.connections is not None:
                await self.connections.close_free()
            self.on_drop()

    async def execute(self, *command: Any) -> Any:
        """Sends a command with one key and returns the reply."""
        return await (self.connections or self.client).execute_command(*command)

    async def execute_at(self, key: str, *command: Any) -> Any:
        """Sends a command without keys to the node of ``key``; returns its reply, or the error that the node says."""
        if self.cluster:
            [reply] = await self.execute_on_one(key, command)
            return reply
        try:
            return await self.execute(*command)
        except redis_errors.ResponseError as error:
            return error

    async def execute_on_one(self, key: str, *commands: tuple[Any, ...]) -> list[Any]:
        """Sends commands over one connection to the node of ``key``; returns their replies, including errors."""
        if self.cluster:
            sent = [PipelineCommand(number, *command) for number, command in enumerate(commands)]
            await self.client.get_node_from_key(key).execute_pipeline(sent)
            return [command.result for command in sent]
        pipeline = self.client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    async def close(self) -> None:
        """Closes the connections."""
        await self.client.aclose()
        if self.listener is not self.client:
            await self.listener.aclose()


async def connect(url: str, *, timeout: float, answer: float, source: str = "url=") -> Server:  # noqa: ASYNC109 - the error message has it
    """Connects to a server, trying for ``timeout`` seconds.

    A command without an answer fails after ``answer`` seconds, and its connection is closed. The client never repeats a
    command by itself, because the caller must know whether the command may have been carried out.

    Args:
        url: the URL of the server.
        timeout: the seconds to try.
        answer: the seconds to wait for the reply to a command.
        source: where the URL was given, for messages.

    Raises:
        ConfigurationError: the URL is invalid, or has an unknown scheme or option.
        ServerUnavailable: no server answered in time.
        ServerError: the server refused the login, is too old, or may evict keys.
    """
    address = _with_timeouts(parse_url(url, source), answer, source)
    where, many, user = address.where, address.connections or CONNECTIONS, user_of(address.arguments, address.where)
    pool = _pool(address, many, source)
    client = Redis.from_pool(pool)
    try:
        info = await _patiently(partial(read_info, client), user, address, timeout)
        check_fitness(info, where)
        cluster = None
        if is_cluster(info):
            cluster = _cluster(address, source)
            # The client of a cluster would say only that no node can be reached.
            await _patiently(partial(client.execute_command, "CLUSTER SLOTS"), user, address, timeout)
    except BaseException:
        await client.aclose()
        raise
    flags = has_flags(info)
    threads = partial(blocking_client, address, cluster=cluster is not None)
    rest: dict[str, Any] = {"where": where, "answer": answer, "user_name": user.name, "blocking_client": threads}
    rest |= {"address": address.host, "port": address.port}
    if cluster is not None:
        return Server(cluster, client, flags, cluster=True, functions=flags, **rest)
    connections = KeptConnections(pool, many - 2)
    return Server(client, client, flags, cluster=False, functions=flags, connections=connections, **rest)


def _with_timeouts(address: Address, answer: float, source: str) -> Address:
    """Adds the timeouts of a connection, and the protocol. The timeouts of the URL may be shorter.

    Protocol 2 needs no HELLO, which some servers do not have, and has all that is used here.
    """
    timeouts = {"socket_timeout": answer, "socket_connect_timeout": answer}
    for name in timeouts:
        if address.arguments.get(name, 0) > answer:
            raise ConfigurationError(
                f"{source}, for {address.where}, has {name}= of more than {answer:g} s, which is half of "
                "connect_timeout=, or a third of lease=: leave it out, or raise these settings"
            )
    return attrs.evolve(address, arguments={"protocol": 2} | timeouts | address.arguments)


def _pool(address: Address, many: int, source: str) -> BlockingConnectionPool:
    kinds = {"redis": Connection, "rediss": tls.TLSConnection, "unix": UnixDomainSocketConnection}
    arguments = dict(address.arguments)
    if address.kind == "rediss":
        arguments.setdefault("ssl_password", "")  # otherwise OpenSSL would ask for it on the terminal
    try:
        pool = BlockingConnectionPool(
            max_connections=many,
            timeout=None,
            connection_class=kinds[address.kind],
            retry=Retry(NoBackoff(), 0),
            **arguments,
        )
        connection: Any = pool.make_connection()  # type: ignore[no-untyped-call]  # checks the arguments
        if address.kind == "rediss":
            tls.shared_context(connection.ssl_context)  # reads the files
    except (TypeError, ValueError, OSError, redis_errors.RedisError) as error:
        raise ConfigurationError(f"{source}, for {address.where}, has options that cannot be used: {error}") from None
    return pool


def _cluster(address: Address, source: str) -> RedisCluster:
    """Makes the client of a cluster.

    Raises:
        ConfigurationError: the URL has what no cluster can have.
    """
    arguments = {name: value for name, value in address.arguments.items() if name != "db"}
    refused: list[str] = [name for name in ("path", "ssl_password", "ssl_ca_path") if name in arguments]
    if address.connections is not None:
        refused.append("max_connections")
    if address.arguments.get("db"):
        refused.append("db")
    if refused:
        what = "a socket" if refused[0] == "path" else f"{refused[0]}="
        raise ConfigurationError(f"{source}, for {address.where}, is a cluster, whose URL cannot have {what}")
    arguments.setdefault("host", "localhost")
    return RedisCluster(**arguments, ssl=address.kind == "rediss")


async def _patiently(
    command: Callable[[], Awaitable[T]],
    user: User,
    address: Address,
    timeout: float,  # noqa: ASYNC109 - the error message has it
) -> T:
    problem, refusal = "it took too long", None

    def refuse(what: str) -> None:
        nonlocal refusal
        refusal = ServerError(f"{user.where} {what}")
        group.cancel_scope.cancel()

    with anyio.move_on_after(timeout):
        async with anyio.create_task_group() as group:
            group.start_soon(tls.watch_protocol, address, refuse)
            backoff = Backoff()
            while refusal is None:
                try:
                    reply = await command()
                except (redis_errors.RedisError, OSError) as error:
                    problem, refusal = user.hide(str(error) or type(error).__name__), _refusal(error, user)
                else:
                    group.cancel_scope.cancel()
                    return reply
                if refusal is None:
                    await anyio.sleep(backoff.next())
            group.cancel_scope.cancel()
    if refusal is not None:
        raise refusal  # not in the handler above: then it would carry the error, in which the password may be
    raise ServerUnavailable(
        f"no answer from {user.where}: {problem}; tried for {timeout:g} s (connect_timeout=). Is it running, and is "
        "url= right?"
    )


def _refusal(error: Exception, user: User) -> ServerError | None:
    """Returns the error to raise if trying again is of no use.

    Old servers repeat what they do not know, so the text may contain the password.
    """
    text, where = user.hide(str(error)), user.where
    if any(isinstance(each, redis_errors.AuthenticationError) for each in (error, error.__cause__)):
        return ServerError(f"{where} refused the login: {text}; check the URL's user and password")
    if problem := tls.problem_of(error):
        return ServerError(f"{where} {problem}")
    if isinstance(error, AWAY) or is_temporary(error):
        return None
    if right := missing_right(error):
        return ServerError(user.lacks([right]))
    return ServerError(f"{where} refused: {text}; check the URL and the user's permissions")
