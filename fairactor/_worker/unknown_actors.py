"""What becomes of tasks whose actor is not registered in this process: they wait for a process that has it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import anyio

from fairactor._model import record
from fairactor._model.wire import Settlement
from fairactor.errors import UnknownActor

from .claim import Claim, again

logger: Final = logging.getLogger(__name__)

ELSEWHERE_DELAY: Final = 1.0
"""Seconds after which a task is queued again, if another runtime has its actor, or nobody knows."""
FIRST_DELAY: Final = 1.0
"""Seconds after which it is queued again, at first, if no runtime has its actor. The delays grow with its wait."""
LONGEST_DELAY: Final = 30.0
"""Seconds."""
FRESH: Final = 1.0
"""Seconds for which what other runtimes have registered is not asked again."""

_TYPE: Final = "fairactor.errors.UnknownActor"
_REMEMBERED: Final = 1000  # actors that the log has named: their names come from messages

Registered = Callable[[], Awaitable[Collection[str] | None]]


class UnknownActors:
    """Decides when a task whose actor is not registered here is tried again, or fails.

    Since when no runtime has had the actor is kept as the last line of the task's history.

    Args:
        registered: returns the actors of all running runtimes; None if that is unknown.
        ttl: the seconds for which such tasks wait.
    """

    def __init__(self, registered: Registered, ttl: float) -> None:
        self._ask = registered
        self._ttl = ttl
        self._registered: Collection[str] | None = None
        self._asked = -FRESH
        self._asking = anyio.Lock()
        self._logged: set[str] = set()

    async def settle(self, claim: Claim, call: record.Call) -> Settlement | UnknownActor:
        """Returns the outcome of a task that waits, or the error with which it fails."""
        header = claim.header
        assert header is not None  # noqa: S101 - the task was decoded
        registered = await self._registered_elsewhere()
        if registered is None:
            return again(claim, claim.record, ELSEWHERE_DELAY)
        last = record.last_attempt(claim.body)
        # An attempt that has failed with such an error has the number of the attempt before.
        noted = last is not None and last.error == _TYPE and last.attempt == header.attempt
        if call.actor in registered:
            self._logged.discard(call.actor)
            packed = record.pack_without_last_attempt(header, claim.body) if noted else claim.record
            return again(claim, packed, ELSEWHERE_DELAY)
        now = claim.server_clock()
        since = max(last.started_at, header.stamp / 1e6) if noted and last else now  # a redrive starts again
        if now - since >= self._ttl:
            return self._failure(call.actor, now - since)
        self._log(call.actor)
        packed = claim.record
        if not noted:
            message = f"no running process has registered an actor {call.actor!r}; the task waits for one"
            note = record.Attempt(header.attempt, now, 0.0, claim.runtime, _TYPE, message)
            packed = record.pack_noted(header, claim.body, note)
        delay = min(max((now - since) / 4, FIRST_DELAY), LONGEST_DELAY) * random.uniform(0.75, 1.25)  # noqa: S311 - jitter
        return again(claim, packed, min(delay, since + self._ttl - now, self._until_expiry(claim, call)))

    def _failure(self, actor: str, waited: float) -> UnknownActor:
        how_long = f" for {waited:.0f} s (unknown_ttl={self._ttl:g})" if self._ttl else ""
        return UnknownActor(
            f"no running process has registered an actor {actor!r}{how_long}: start a service with it in "
            "Runtime(actors=[…]), or correct its name, then redrive the task"
        )

    def _until_expiry(self, claim: Claim, call: record.Call) -> float:
        expires: float = call.options.get("expires", float("inf"))
        return max(0.0, expires - claim.age())

    def _log(self, actor: str) -> None:
        if actor in self._logged:
            return
        if len(self._logged) >= _REMEMBERED:
            self._logged.clear()
        self._logged.add(actor)
        logger.warning(
            "tasks wait for actor %r, which no running process has registered. They wait for %g s (unknown_ttl=), then "
            "they fail",
            actor,
            self._ttl,
        )

    async def _registered_elsewhere(self) -> Collection[str] | None:
        async with self._asking:
            if time.monotonic() - self._asked >= FRESH:
                self._registered = await self._ask()
                self._asked = time.monotonic()
            return self._registered
