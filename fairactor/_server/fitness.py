"""What a server says of itself, and whether it is fit to keep tasks."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis import exceptions as redis_errors

from fairactor.errors import ServerError

logger: Final = logging.getLogger(__name__)

_LEAST: Final = (6, 2)
_FLAGS_SINCE: Final = (7, 0)
_ABOUT_INFO: Final = re.compile(r"(no permissions?|unknown command)\b.*\binfo\b", re.IGNORECASE | re.DOTALL)
_ABOUT_HELLO: Final = re.compile(r"unknown command\b.*\bhello\b", re.IGNORECASE | re.DOTALL)


async def read_info(ask: Callable[..., Awaitable[Any]]) -> dict[str, str]:
    """Returns what a server says of itself with INFO. If that is forbidden, only its version, its mode and its role.

    Args:
        ask: sends a command to the server.

    Raises:
        redis.exceptions.RedisError: as redis-py.
        OSError: likewise.
    """
    try:
        reply = await ask("INFO")
    except redis_errors.ResponseError as error:
        if not _ABOUT_INFO.search(str(error)):
            raise
        return await _hello(ask)
    lines = reply.decode(errors="replace").splitlines()
    return {name: value for name, separator, value in (line.partition(":") for line in lines) if separator}


async def _hello(ask: Callable[..., Awaitable[Any]]) -> dict[str, str]:
    """Asks with HELLO, which no ACL can forbid. A server without it counts as the oldest that can be used."""
    try:
        reply = await ask("HELLO")
    except redis_errors.ResponseError as error:
        if not _ABOUT_HELLO.search(str(error)):
            raise
        return {"redis_version": ".".join(map(str, _LEAST)), "role": "master"}
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    said = {_text(name): _text(value) for name, value in pairs}
    return {"redis_version": said["version"], "redis_mode": said.get("mode", ""), "role": said.get("role", "master")}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def is_cluster(info: dict[str, str]) -> bool:
    """Whether a server is a node of a cluster."""
    return "cluster" in (info.get("redis_mode"), info.get("server_mode"))


def has_flags(info: dict[str, str]) -> bool:
    """Whether a server supports script flags, and functions."""
    return _version(info) >= _FLAGS_SINCE


def _version(info: dict[str, str]) -> tuple[int, int]:
    major, minor = str(info.get("redis_version", "0.0")).split(".")[:2]
    return int(major), int(minor)


def check_fitness(info: dict[str, str], where: str) -> None:
    """Checks that a server is new enough and does not evict tasks.

    Raises:
        ServerError: it is too old, or may evict tasks.
    """
    if _version(info) < _LEAST:
        raise ServerError(f"{where} is version {info.get('redis_version')}: fairactor needs Redis 6.2, or Valkey")
    policy = info.get("maxmemory_policy")
    if policy == "noeviction":
        return
    if policy is None:
        logger.warning(
            "%s does not show its maxmemory-policy: make sure that it is noeviction, or tasks may be lost when memory "
            "is short. A user with the right +info can see it",
            where,
        )
    elif policy.startswith("allkeys") and int(info.get("maxmemory", 0)) > 0:
        raise ServerError(
            f"{where} may evict tasks, because its maxmemory-policy is {policy}. Set it to noeviction, so a full "
            "server refuses sends and nothing is lost, or use a separate server for fairactor"
        )
    else:
        logger.warning(
            "%s: with maxmemory-policy %s the server may drop results, dead letters and deduplication keys when memory "
            "is short. Set it to noeviction",
            where,
            policy,
        )
