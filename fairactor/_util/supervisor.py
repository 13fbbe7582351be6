"""Supervision: runs the long-running functions of a runtime in a task group, and restarts those that fail.

The pause before a restart doubles. As in Erlang/OTP, the number of restarts within a period is bounded: a function that
keeps failing stops the runtime with its last error.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from fairactor.errors import NamespaceMismatch

from .backoff import doubled

logger: Final = logging.getLogger(__name__)

RESTARTS: Final = 5
"""The most restarts within `PERIOD`."""
PERIOD: Final = 30.0
"""Seconds."""
FIRST_PAUSE: Final = 0.05
"""Seconds before the first restart, of which a random part is subtracted."""


class Supervisor:
    """Starts async functions in a task group and keeps them running."""

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._context = copy_context()  # so that workers do not inherit the context of the task that starts them
        self._scopes: set[anyio.CancelScope] = set()
        self._one_ended = anyio.Event()
        self._stopped = False

    def start(self, name: str, actor: Callable[[], Awaitable[None]]) -> None:
        """Runs ``actor`` until it returns; restarts it if it raises.

        Raises (in the task group):
            Exception: the last error, once ``actor`` has failed more than `RESTARTS` times within `PERIOD`.
        """
        if self._stopped:  # a shard was added at the last moment
            return
        scope = anyio.CancelScope()
        self._scopes.add(scope)

        def begin() -> None:
            self._group.start_soon(self._keep, name, actor, scope, name=f"fairactor {name}")

        self._context.run(begin)

    async def stop(self) -> None:
        """Cancels all functions that were started here, and waits until they have ended."""
        self._stopped = True
        for scope in self._scopes:
            scope.cancel()
        with anyio.CancelScope(shield=True):
            while self._scopes:
                self._one_ended = anyio.Event()
                await self._one_ended.wait()

    async def _keep(self, name: str, actor: Callable[[], Awaitable[None]], scope: anyio.CancelScope) -> None:
        with scope:
            try:
                await anyio.lowlevel.checkpoint_if_cancelled()  # it may have been stopped before it began
                await self._restart(name, actor)
            finally:
                self._scopes.discard(scope)
                self._one_ended.set()

    async def _restart(self, name: str, actor: Callable[[], Awaitable[None]]) -> None:
        failures: deque[float] = deque(maxlen=RESTARTS + 1)
        while True:
            try:
                await actor()
            except NamespaceMismatch:
                raise  # a restart would fail in the same way
            except Exception:
                await (
                    anyio.lowlevel.checkpoint_if_cancelled()
                )  # an error while the runtime is being left is not a failure
                now = anyio.current_time()
                failures.append(now)
                if len(failures) > RESTARTS and now - failures[0] < PERIOD:
                    logger.exception("%s keeps failing; the runtime stops", name)
                    raise
                recent = sum(now - failure < PERIOD for failure in failures)
                logger.exception("%s failed; restarting it", name)
                await anyio.sleep(doubled(FIRST_PAUSE, recent - 1) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            else:
                return
