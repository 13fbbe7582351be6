"""Reaching the server: which URLs there are, how long it is tried, and what a server must be like."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import anyio
import attrs
from redis import exceptions as broken
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from .errors import ConfigurationError, ServerError, ServerUnavailable

logger: Final = logging.getLogger(__name__)
T = TypeVar("T")

_SCHEMES: Final = {
    "redis": "redis", "rediss": "rediss", "unix": "unix",
    "valkey": "redis", "valkeys": "rediss", "valkey+unix": "unix",
}  # fmt: skip
_LEAST: Final = (6, 2)
_FLAGS_SINCE: Final = (7, 0)

CONNECTIONS: Final = 8
"""The most connections of a runtime. One listens; all else shares the others, and waits for a free one."""

AWAY: Final = (broken.ConnectionError, broken.TimeoutError, broken.ClusterDownError, OSError)
"""What redis-py raises when a command may or may not have reached the server."""


@attrs.frozen
class Server:
    """A server that has been found fit."""

    client: Any  # Redis or RedisCluster: they share the commands used here, but no type
    listener: Redis
    """A client of one node, to subscribe with; on a cluster every node hears what is published."""
    flags: bool
    """Whether it knows script flags."""
    cluster: bool
    where: str

    async def close(self) -> None:
        """Closes the connections."""
        await self.client.aclose()
        if self.listener is not self.client:
            await self.listener.aclose()


async def connect(url: str, *, timeout: float) -> Server:  # noqa: ASYNC109 - a bound on retries, told in the error
    """Connects, trying for ``timeout`` seconds.

    Raises:
        ConfigurationError: the URL is none, or of an unknown scheme.
        ServerUnavailable: nothing answered in time.
        ServerError: it refused the login, is too old, or may evict keys.
    """
    url = _checked(url)
    where = _without_password(url)
    try:
        pool = BlockingConnectionPool.from_url(url, retry=_retry(), max_connections=CONNECTIONS, timeout=None)
        pool.make_connection()  # type: ignore[no-untyped-call]  # a query is looked at only here
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"url={where!r} cannot be used: {error}") from None
    client = Redis.from_pool(pool)
    try:
        info: dict[str, Any] = await _patiently(client.info, where, timeout)
        _check_fitness(info, where)
    except BaseException:
        await client.aclose()
        raise
    flags = _version(info) >= _FLAGS_SINCE
    if info.get("redis_mode") == "cluster" or info.get("server_mode") == "cluster":
        return Server(RedisCluster.from_url(url), client, flags, cluster=True, where=where)
    return Server(client, client, flags, cluster=False, where=where)


def unavailable(where: str, error: BaseException, advice: str = "") -> ServerUnavailable:
    """The exception for a server that does not answer."""
    return ServerUnavailable(f"no answer from {where}: {str(error) or type(error).__name__}{advice}")


async def _patiently(command: Callable[[], Awaitable[T]], where: str, timeout: float) -> T:  # noqa: ASYNC109
    error: BaseException = TimeoutError("it took too long")
    with anyio.move_on_after(timeout):
        pause = 0.02
        while True:
            try:
                return await command()
            except (broken.NoPermissionError, broken.ResponseError) as refused:
                raise ServerError(f"{where} refused: {refused}; check the URL and the user's permissions") from None
            except AWAY as failure:
                if any(isinstance(each, broken.AuthenticationError) for each in (failure, failure.__cause__)):
                    raise ServerError(
                        f"{where} refused the login: {failure}; check the URL's user and password"
                    ) from None
                error = failure
            await anyio.sleep(pause)
            pause = min(2 * pause, 0.5)
    raise unavailable(where, error, f"; tried for {timeout:g} s (connect_timeout=). Is it running, and is url= right?")


def _retry() -> Retry:
    return Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.3), retries=3)


def _checked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise ConfigurationError(f"url={_without_password(url)!r}: give one that starts with {known}")
    path = urlsplit(url).path
    if _SCHEMES[scheme] == "unix" and not path:
        raise ConfigurationError(
            f"url={_without_password(url)!r}: give the path of a socket, as in unix:///run/server.sock"
        )
    if _SCHEMES[scheme] != "unix" and path.strip("/") and not path.strip("/").isdigit():
        raise ConfigurationError(f"url={_without_password(url)!r}: what follows the host is the number of a database")
    return f"{_SCHEMES[scheme]}://{rest}"


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("?")[0].rpartition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]


def _version(info: dict[str, Any]) -> tuple[int, int]:
    major, minor = str(info.get("redis_version", "0.0")).split(".")[:2]
    return int(major), int(minor)


def _check_fitness(info: dict[str, Any], where: str) -> None:
    if _version(info) < _LEAST:
        raise ServerError(f"{where} is version {info.get('redis_version')}: fairactor needs Redis 6.2, or Valkey")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return
    if policy.startswith("allkeys") and int(info.get("maxmemory", 0)) > 0:
        raise ServerError(
            f"{where} may evict tasks: its maxmemory-policy is {policy}. Set it to noeviction (then a full server "
            "refuses sends, and nothing is lost), or give fairactor a server of its own"
        )
    logger.warning("%s: with maxmemory-policy %s the server may drop results when memory is short", where, policy)
