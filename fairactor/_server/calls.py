"""Calls: sends commands to the node that has a key, and decides what each failure means.

Nothing else handles what servers and clusters say. A caller gets a reply, an error that is its own, or `Away`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final

import attrs
from redis import exceptions as redis_errors

from .nodes import FAILED, Node, NoNode
from .topology import Topology

_ABSENT: Final = ":absent"
_LAYOUT: Final = ":layout:"
"""What follows the tag of a shard in the name of a key that never exists. See `Calls.keys`."""

_REDIRECTIONS: Final = 4
"""How often a call follows a slot that has moved, before it counts as away."""

_NEVER_SENT: Final = ("connecting to", "No connection available")  # messages of redis-py: no connection was made

# The errors of a server that cannot serve now and has done nothing. It loads its data, is busy with a script, is a
# replica (perhaps since a moment ago), has too few replicas, cannot write to its disk, or moves a slot key by key (ASK,
# TRYAGAIN). If a script raises the error, Redis 6.2 puts the code into the middle of the text.
_NOT_NOW: Final = re.compile(
    r"\b(LOADING|BUSY|READONLY|MASTERDOWN|NOREPLICAS|MISCONF|TRYAGAIN|ASK|CLUSTERDOWN)\b |while the cluster is down"
)
_NOT_NOW_TYPES: Final = (
    redis_errors.BusyLoadingError, redis_errors.ReadOnlyError, redis_errors.MasterDownError, redis_errors.TryAgainError,
    redis_errors.ClusterDownError, redis_errors.AskError,
)  # fmt: skip
_MOVING: Final = (redis_errors.AskError, redis_errors.TryAgainError)
_DEMOTED: Final = (redis_errors.ReadOnlyError, redis_errors.MasterDownError)


class Away(Exception):
    """The server did not answer, or cannot serve now. The same call may succeed soon.

    Attributes:
        maybe_done: whether the call may have been carried out.
    """

    def __init__(self, problem: str, *, maybe_done: bool) -> None:
        super().__init__(problem)
        self.maybe_done = maybe_done


def was_never_sent(error: BaseException) -> bool:
    """Whether a command that failed with this error cannot have reached the server."""
    return isinstance(error, redis_errors.BusyLoadingError) or any(words in str(error) for words in _NEVER_SENT)


def is_temporary(error: BaseException) -> bool:
    """Whether an error is temporary: nothing was done, and the server may accept the same command soon."""
    return isinstance(error, _NOT_NOW_TYPES) or _NOT_NOW.search(str(error)) is not None


def has_moved(error: BaseException) -> bool:
    """Whether an error says that the node is not, or no longer, the one that has the slot."""
    return isinstance(error, redis_errors.MovedError)


def _is_demoted(error: BaseException) -> bool:
    return isinstance(error, _DEMOTED) or "READONLY " in str(error)


@attrs.define(eq=False)
class Calls:
    """Sends commands to the node that has a key."""

    topology: Topology
    """Where the keys are."""
    where: str
    """The URL without the password, for messages."""

    async def execute(self, key: str, *command: Any) -> Any:
        """Sends a command to the node of ``key``, and returns its reply.

        Raises:
            Away: the server did not answer, or cannot serve now.
            redis.exceptions.ResponseError: the server refused the command.
        """
        for _ in range(_REDIRECTIONS):
            node = self.topology.of(key) or await self._find(key)
            try:
                return await node.calls.execute_command(*command)
            except (*FAILED, redis_errors.ResponseError) as error:
                await self.failed(key, node, error)
        raise self._lost(key)

    async def execute_together(self, key: str, *commands: tuple[Any, ...]) -> list[Any]:
        """Sends commands over one connection to the node of ``key``; returns their replies, including errors.

        Raises:
            Away: the server did not answer, or cannot serve now.
        """
        for _ in range(_REDIRECTIONS):
            node = self.topology.of(key) or await self._find(key)
            try:
                replies = await node.rare.execute_many(*commands)
            except FAILED as error:
                await self.failed(key, node, error)
                continue
            first = replies[0]
            if not isinstance(first, redis_errors.ResponseError) or not (has_moved(first) or is_temporary(first)):
                return replies
            await self.failed(key, node, first)
        raise self._lost(key)

    def keys(self, key: str, epoch: int = 0) -> tuple[int | str, ...]:
        """Returns the number and the names of the keys to declare for a script of a shard.

        The last one tells the script which layout the caller knows, if there ever was another; no such key exists.

        On a cluster that is also a key that never exists. While the slot moves key by key, scripts would find some keys
        missing at the old node, and others at the new one. Then both nodes refuse scripts which declare a key that is
        missing (ASK, TRYAGAIN), before these begin, and all calls wait until the slot has moved.
        """
        if epoch:
            return (2, key, f"{key}{_LAYOUT}{epoch}")
        return (2, key, key + _ABSENT) if self.topology.cluster else (1, key)

    async def failed(self, key: str, node: Node, error: Exception) -> None:
        """Handles the failure of a command. Returns if the call should be sent again at once, to another node.

        Raises:
            Away: the node did not answer, or cannot serve now.
            redis.exceptions.ResponseError: the error is the caller's own.
        """
        if isinstance(error, redis_errors.MovedError):
            self.topology.moved(key, (error.host, error.port), node)
        elif isinstance(error, FAILED):
            await self.topology.doubt(node, demoted=False)
            raise Away(self._no_answer(node, error), maybe_done=not was_never_sent(error)) from error
        elif is_temporary(error):
            await self.topology.doubt(node, demoted=_is_demoted(error))
            why = f"the slot of {key} moves key by key" if isinstance(error, _MOVING) else str(error)
            raise Away(f"{self._named(node)} cannot serve now: {why}", maybe_done=False) from error
        else:
            raise error

    async def look(self) -> None:
        """Asks again where the keys are. If nobody answers, calls will say so."""
        with suppress(NoNode):
            await self.topology.look()

    async def find(self, key: str) -> Node:
        """Returns the node of ``key``.

        Raises:
            Away: it cannot be found now.
        """
        return self.topology.of(key) or await self._find(key)

    async def _find(self, key: str) -> Node:
        try:
            return await self.topology.find(key)
        except NoNode as error:
            raise Away(f"no answer from {self.where}: {error}", maybe_done=False) from error

    def _lost(self, key: str) -> Away:
        return Away(f"{self.where} moves the slot of {key} to and fro", maybe_done=False)

    def _named(self, node: Node) -> str:
        return self.where if type(self.topology) is Topology else f"{self.where} (node {node.name})"

    def _no_answer(self, node: Node, error: Exception) -> str:
        return f"no answer from {self._named(node)}: {str(error) or type(error).__name__}"

    async def close(self) -> None:
        """Closes all connections."""
        await self.topology.close()
