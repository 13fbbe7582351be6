"""The runtimes of a shard: how they join it, say what they run, and leave."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from fairactor._model.lane import NO_ACTORS, RuntimeKind
from fairactor._model.wire import Assignment, pack_assignment, whole_ms

from .script_runner import ScriptRunner

_NAMES_AT_ONCE: Final = 50
"""The most tenants that one call assigns, and the most that it lets a runtime steal from."""
_CALL_AGAIN: Final = 2


class Fleet:
    """The methods of `Shard` for the scripts about runtimes."""

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner
        self._run = runner.run

    @property
    def away_for(self) -> float | None:
        """The seconds since calls began to fail because the server is away; None if the last one was answered."""
        since = self._runner.away_since
        return None if since is None else time.monotonic() - since

    async def join(
        self,
        runtime: str,
        *,
        lease: float,
        info: dict[str, Any],
        serves: Assignment | None = None,
        kind: RuntimeKind = NO_ACTORS,
        unknown_ttl: float = 0.0,
        ended_index: int = 1000,
    ) -> bool:
        """Gives a runtime its lease; returns whether `fill` must follow.

        Args:
            runtime: the runtime.
            lease: the seconds until the lease ends.
            info: what the runtime says of itself.
            serves: the tenants that it serves; None for all.
            kind: what it can run.
            unknown_ttl: the seconds that tasks wait while no runtime can run them.
            ended_index: how many ended tasks of a tenant are listed; 0 for none.
        """
        first, *others = _steps(serves)
        tenants, ttl = pack_assignment(first), whole_ms(unknown_ttl)
        reply = await self._run("join", runtime, whole_ms(lease), json.dumps(info), tenants, *kind, ttl, ended_index)
        for some in others:
            await self._run("assign", runtime, pack_assignment(some), "+")
        return _has_to_fill(reply)

    async def declare(self, runtime: str, kind: RuntimeKind, *, unknown_ttl: float) -> bool:
        """Says what a runtime can run, after `Undeclared`; returns whether `fill` must follow."""
        reply = await self._run("declare", runtime, *kind, whole_ms(unknown_ttl))
        return _has_to_fill(reply)

    async def fill(self, runtime: str) -> bool:
        """Does a step of putting tenants where runtimes of this kind find them; returns whether more is left."""
        return bool(await self._run("fill", runtime))

    async def describe(self, runtime: str, info: dict[str, Any]) -> bool:
        """Replaces what a runtime said when it joined; returns whether the runtime has a lease. It tries once."""
        return bool(await self._run("describe", runtime, json.dumps(info), patience=0))

    async def assign(self, runtime: str, serves: Assignment | None) -> bool:
        """Changes the tenants that a runtime serves, many in steps; returns whether the runtime has a lease."""
        first, *others = _steps(serves)
        while (reply := await self._run("assign", runtime, pack_assignment(first), "")) == _CALL_AGAIN:
            pass
        for some in others:
            reply = await self._run("assign", runtime, pack_assignment(some), "+")
        return bool(reply)

    async def leave(
        self, runtime: str, *, crashed: bool = False, deliveries: int = 255, failed_ttl: float = 0.0, body: bytes = b""
    ) -> int:
        """Ends a lease; returns the number of claims that it held.

        Args:
            runtime: the runtime that leaves.
            crashed: whether what it ran has ended it. Then its claims count as deliveries.
            deliveries: the deliveries after which a task fails.
            failed_ttl: the seconds for which to keep the record of such a task.
            body: the outcome of such a task.
        """
        number, left = 0, 1
        while left:
            some, left = await self._run("leave", runtime, int(crashed), deliveries, whole_ms(failed_ttl), body)
            number += int(some)
        return number

    def renew(self, client: Any, runtime: str, *, lease: float) -> bool:
        """Renews a lease from a thread, without an event loop; returns whether the runtime still has the lease.

        Args:
            client: a synchronous client, from `Server.blocking_client`.
            runtime: the runtime.
            lease: the seconds for which to renew the lease.

        Raises:
            redis.exceptions.RedisError: as redis-py. It tries once.
            OSError: likewise.
        """
        return bool(self._runner.run_blocking(client, "renew", runtime, whole_ms(lease)))


def _steps(serves: Assignment | None) -> list[Assignment | None]:
    """Divides the tenants that a runtime serves, for one call each; there is one call at least."""
    if serves is None:
        return [None]
    longest = max(len(serves.assigned), len(serves.steal), 1)
    starts = range(0, longest, _NAMES_AT_ONCE)
    return [Assignment(*(names[start : start + _NAMES_AT_ONCE] for names in serves)) for start in starts]


def _has_to_fill(reply: Any) -> bool:
    """Reads the reply of join.lua or declare.lua: the number of the runtime's kind, and whether `fill` must follow.

    Without a lease declare.lua does nothing, and the next turn says so.
    """
    return isinstance(reply, list) and bool(reply[1])
