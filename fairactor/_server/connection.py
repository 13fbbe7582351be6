"""Connects to servers, and checks whether they can be used."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import anyio
import attrs
from redis import exceptions as redis_errors

from fairactor._util.backoff import Backoff
from fairactor._util.meters import Meters
from fairactor.errors import ConfigurationError, ServerError, ServerUnavailable

from . import tls
from .blocking import BlockingCalls
from .calls import Calls, is_temporary
from .fitness import check_fitness, has_flags, is_cluster, read_info
from .nodes import FAILED, Node, Nodes, NoNode, ask_any, check_options
from .rights import User, missing_right
from .topology import Cluster, Sentinels, Topology
from .url_options import LEAST_CONNECTIONS
from .urls import Address, parse_url

T = TypeVar("T")

_SOON: Final = 1.0
"""The most seconds for which the certificates of a cluster are checked."""


def has_no_functions(error: redis_errors.ResponseError) -> bool:
    """Whether a command failed because the server has no functions, or lets its user use none."""
    return isinstance(error, redis_errors.NoPermissionError) or "unknown command" in str(error).lower()


@attrs.define(eq=False)
class Server:
    """A server that can be used, or a cluster of them."""

    calls: Calls
    """Sends commands to it."""
    flags: bool
    """Whether the server supports script flags."""
    functions: bool
    """Whether functions can be loaded and called, as far as is known."""
    answer: float = 5.0
    """Seconds after which a command without an answer fails."""
    user_name: str = "default"
    """Who has logged in, for messages."""
    address: str = ""
    """The host, or the path of the socket, as the URL names it first."""
    port: int | None = None
    """The port; None for a socket."""
    blocking_client: Callable[[], Any] | None = None
    """Makes a synchronous client of the same server, for threads; it connects with its first command."""
    meters: Meters | None = None
    """Records how long scripts take; None without an OpenTelemetry SDK."""

    @property
    def where(self) -> str:
        """The URL without the password, for messages."""
        return self.calls.where

    @property
    def cluster(self) -> bool:
        """Whether it is a cluster."""
        return self.calls.topology.cluster

    @property
    def user(self) -> User:
        """Who has logged in, to say which rights are missing."""
        return User(self.user_name, self.where)

    async def close(self) -> None:
        """Closes the connections."""
        await self.calls.close()


async def connect(url: str, *, timeout: float, answer: float, source: str = "url=") -> Server:  # noqa: ASYNC109 - the error message has it
    """Connects to a server, trying for ``timeout`` seconds.

    A command without an answer fails after ``answer`` seconds, and its connection is closed. No command is repeated,
    because the caller must know whether it may have been carried out.

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
    try:
        check_options(address)
    except (TypeError, ValueError, OSError, redis_errors.RedisError) as error:
        raise ConfigurationError(f"{source}, for {address.where}, has options that cannot be used: {error}") from None
    user = User(str(address.arguments.get("username", "default")), address.where, address.secrets)
    sentinel = _sentinel_address(address)
    nodes, sentinels = Nodes(address), Nodes(sentinel)
    try:
        if address.primary:
            topology: Topology = Sentinels(nodes, [sentinels.at(host) for host in address.hosts], address.primary)
            info = await _patiently(partial(_ask_primary, topology), user, address, timeout)
        else:
            hosts = [nodes.at(host) for host in address.hosts or (None,)]
            first, info = await _patiently(partial(ask_any, hosts, _info_of), user, address, timeout)
            topology = _topology(nodes, first, info, address, source)
            await _patiently(topology.look, user, address, timeout)
            if topology.cluster and address.kind == "rediss":
                await _check_certificates(nodes, address)
        check_fitness(info, address.where)
    except BaseException:
        await nodes.close()
        await sentinels.close()
        raise
    flags = has_flags(info)
    return Server(
        Calls(topology, address.where),
        flags,
        functions=flags,
        answer=answer,
        user_name=user.name,
        address=address.host,
        port=address.port,
        blocking_client=partial(BlockingCalls, address, sentinel, topology),
    )


def _sentinel_address(address: Address) -> Address:
    """Returns how to connect to the sentinels."""
    of_servers = ("username", "password", "db")
    arguments = {name: value for name, value in address.arguments.items() if name not in of_servers}
    return attrs.evolve(address, arguments=arguments | address.sentinel_login, connections=LEAST_CONNECTIONS)


def _topology(nodes: Nodes, first: Node, info: dict[str, str], address: Address, source: str) -> Topology:
    """Returns where the keys are.

    Raises:
        ConfigurationError: the URL has what cannot be used there.
    """
    about = f"{source}, for {address.where},"
    if is_cluster(info):
        if not address.hosts or address.arguments.get("db"):
            what = "db=" if address.hosts else "a socket"
            raise ConfigurationError(f"{about} is a cluster, whose URL cannot have {what}")
        return Cluster(nodes, address.hosts)
    if len(address.hosts) > 1:
        raise ConfigurationError(
            f"{about} names several hosts, but {first.name} is not a node of a cluster: name one host, or give the "
            "sentinels as in sentinel://host:26379,host:26379/mymaster"
        )
    return Topology(nodes, first)


async def _ask_primary(topology: Topology) -> dict[str, str]:
    """Returns what the primary says about itself."""
    node = await topology.find("")
    info = await read_info(node.rare.execute_command)
    if info.get("role") != "master":
        await topology.doubt(node, demoted=True)
        raise NoNode(f"the sentinels name {node.name}, which is a replica")
    return info


async def _info_of(node: Node) -> tuple[Node, dict[str, str]]:
    return node, await read_info(node.rare.execute_command)


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
                except (redis_errors.RedisError, OSError, NoNode) as error:
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
    if isinstance(error, NoNode):
        if not isinstance(error.__cause__, Exception) or isinstance(error.__cause__, NoNode):
            return None
        error = error.__cause__
    if any(isinstance(each, redis_errors.AuthenticationError) for each in (error, error.__cause__)):
        return ServerError(f"{where} refused the login: {text}; check the URL's user and password")
    if problem := tls.problem_of(error):
        return ServerError(f"{where} {problem}")
    if isinstance(error, FAILED) or is_temporary(error):
        return None
    if right := missing_right(error):
        return ServerError(user.lacks([right]))
    return ServerError(f"{where} refused: {text}; check the URL and the user's permissions")


async def _check_certificates(nodes: Nodes, address: Address) -> None:
    """Checks that the nodes of a cluster have the certificates of the names that they give each other.

    Raises:
        ServerError: one has not. Nodes that do not answer now are passed over.
    """
    problems: list[str] = []

    async def check(node: Node) -> None:
        try:
            await node.rare.execute_command("PING")
        except (redis_errors.RedisError, OSError) as error:
            if problem := tls.problem_of(error):
                problems.append(f"its node {node.name} {problem}")

    with anyio.move_on_after(_SOON):
        async with anyio.create_task_group() as group:
            for node in nodes:
                group.start_soon(check, node)
    if problems:
        raise ServerError(
            f"{address.where} is a cluster, and {problems[0]}; nodes are called as CLUSTER SLOTS says: by address, or "
            "by name with cluster-announce-hostname and cluster-preferred-endpoint-type hostname"
        )
