"""The lifetime of an engine: an asyncio task that starts it, waits until it is left, and ends it.

A task group has to be entered and left in the same asyncio task. Runtimes are not always: fixtures of tests, start-up
hooks and notebooks enter one in one asyncio task and leave it in another. So the engine's task group belongs to an
asyncio task of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import anyio

from ._engine import Engine

logger: Final = logging.getLogger(__name__)


class Lifetime:
    """Runs an engine from `start` to `end`, which may be called in different asyncio tasks.

    Args:
        engine: the engine.
        on_connected: called once the runtime can send.
        on_end: called when nothing may use the runtime any more, before its connections are closed.
    """

    def __init__(self, engine: Engine, on_connected: Callable[[], None], on_end: Callable[[], None]) -> None:
        self._engine = engine
        self._on_connected = on_connected
        self._on_end = on_end
        self._started = anyio.Event()
        self._left = anyio.Event()
        self._grace = 0.0
        self._error: BaseException | None = None
        self._user: asyncio.Task[object] | None = None
        self._interrupted = False
        self._abandoned = False  # while it started
        self._task: asyncio.Task[None]

    async def start(self) -> None:
        """Starts the engine. If the engine fails later, the calling asyncio task is canceled.

        Raises:
            Exception: the engine could not be started.
        """
        self._user = asyncio.current_task()
        self._task = asyncio.get_running_loop().create_task(self._live(), name="fairactor runtime")
        started = asyncio.ensure_future(self._started.wait())
        try:
            await asyncio.wait([self._task, started], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._abandoned = True
            self._task.cancel()
            await self._wait_for_end()
            raise
        finally:
            started.cancel()
        if self._task.done():
            self._task.result()

    async def end(self, grace: float, error: BaseException | None) -> None:
        """Ends the engine.

        Args:
            grace: the seconds that running tasks may still take.
            error: why the runtime is left.

        Raises:
            Exception: the error that has stopped the engine.
        """
        self._grace, self._error = grace, error if isinstance(error, Exception) else None
        self._left.set()
        if self._interrupted and (user := asyncio.current_task()) is not None and user is self._user:
            user.uncancel()
        try:
            await asyncio.wait([self._task])
        except asyncio.CancelledError:
            self._engine.hurry()
            await self._wait_for_end()
            raise
        if not self._task.cancelled():
            self._task.result()

    def is_ending(self) -> bool:
        """Whether the event loop ends, and so cancels every asyncio task, or the engine has failed."""
        return self._task.cancelling() > 0

    async def _wait_for_end(self) -> None:
        """Waits until the engine has ended, although the caller is being canceled."""
        with anyio.CancelScope(shield=True):
            await asyncio.wait([self._task])
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            logger.warning("the runtime failed while it was left: %r", error)

    async def _live(self) -> None:
        try:
            await self._engine.start(self._on_connected, self.is_ending)
            if self._abandoned:  # something has swallowed the cancellation
                raise asyncio.CancelledError  # noqa: TRY301 - it ends as if it had been canceled in `start`
        except BaseException as error:
            await self._finish(0, error)
            raise
        self._started.set()
        try:
            await self._left.wait()
        except asyncio.CancelledError as error:
            if self._engine.failed:
                self._interrupt()
            crashed = not (self._engine.failed or self._abandoned)
            await self._finish(0, error, crashed=crashed)
            raise
        await self._finish(self._grace, self._error)

    def _interrupt(self) -> None:
        """Cancels the asyncio task that has entered the runtime, because the engine has failed."""
        if self._user is not None and not self._user.done():
            self._interrupted = self._user.cancel()

    async def _finish(self, grace: float, error: BaseException | None, *, crashed: bool = False) -> None:
        engine = self._engine
        try:
            await engine.end_work(grace, error, crashed=crashed)
        finally:
            self._on_end()
            if self._started.is_set():
                engine.close()
            await engine.unwind(error)
