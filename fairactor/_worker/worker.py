"""A worker: runs claimed tasks, one after the other, in an asyncio task of its own.

What a handler does to its asyncio task must not reach the next handler: it may cancel the task, leave a timeout or a
cancel scope open, or keep a reference to the task and cancel it later. An asyncio task for each handler would prevent
that, but is expensive. Instead a worker runs many handlers in one asyncio task, and ends after a handler that may have
left something behind: if the task has been canceled, or if anything else still refers to it. Every open timeout or
scope does.

Each handler runs in its own copy of the context, so its context variables end with it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import types
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Final, Protocol

import anyio

from fairactor._model.wire import Settlement

from .claim import Claim, Outcomes

logger = logging.getLogger(__name__)

_ENDED: Final = object()


class Supply(Protocol):
    """The pool, as far as its workers use it."""

    execute: Callable[[Claim], Coroutine[Any, Any, Settlement | Outcomes]]

    def take_ready(self, worker: Worker) -> Claim | None:
        """Returns the next task, if one is ready and may start."""

    async def take(self, worker: Worker) -> Claim | None:
        """Waits for the next task; returns None if the worker should end."""

    def finished(self, claim: Claim, outcome: Settlement | Outcomes) -> None:
        """Takes the outcome of a task that has ended."""

    def canceled(self, claim: Claim) -> None:
        """Takes back a task that was canceled or lost."""


class Worker:
    """Runs one task after the other.

    Args:
        supply: where its tasks come from.
        ended: called when it has ended. If more tasks are ready, the pool starts another worker.
    """

    def __init__(self, supply: Supply, ended: Callable[[Worker], None]) -> None:
        self._supply = supply
        self._scope: anyio.CancelScope  # set once it runs: anyio makes none outside asyncio tasks
        self._claim: Claim | None = None
        self._ends = False  # whether it ends after its current task
        self._aborted = False
        self._references = 0
        self.task: asyncio.Task[None] = asyncio.get_running_loop().create_task(self._run(), name="fairactor worker")
        self.task.add_done_callback(lambda _: ended(self))

    def cancel(self) -> None:
        """Cancels the current task. Then the worker continues with the next."""
        self._scope.cancel()

    def abort(self) -> None:
        """Ends the worker and its current task, even if the handler ignores its cancellation."""
        self._aborted = True
        self.task.cancel()

    async def _run(self) -> None:
        while not self._ends:
            try:
                with anyio.CancelScope() as self._scope:
                    await self._serve()
            except asyncio.CancelledError:  # not by `cancel`: by the handler, by `abort`, or because the loop is closed
                self._ends = True
            except RuntimeError:
                if not self._ends:  # otherwise a scope that the handler has left open prevents that ours is closed
                    raise
            finally:
                claim, self._claim = self._claim, None
                if claim is not None:
                    self._supply.canceled(claim)
            self._ends = self._ends or self.task.cancelling() > 0

    async def _serve(self) -> None:
        """Runs tasks until the worker has to end, or its scope is canceled."""
        supply, task = self._supply, self.task
        references = self._references = self._references or sys.getrefcount(task)  # before the first handler
        if sys.getrefcount(task) > references or task.cancelling():  # the handler that was canceled has left something
            self._ends = True
            return
        attempts: Any = self._attempts()  # a generator, which the type of `types.coroutine` hides
        attempts.send(None)
        while (claim := supply.take_ready(self) or await supply.take(self)) is not None:
            self._claim = claim
            claim.begun = time.monotonic()
            context = copy_context()
            awaited = context.run(attempts.send, claim)
            if awaited is not _ENDED:
                await self._drive(attempts, context, awaited)
            self._claim = None
            supply.finished(claim, self._outcome)
            if sys.getrefcount(task) > references or task.cancelling():
                self._ends = True
                return
            if self._scope.cancel_called:  # it came after the task had ended, and must not hit the next task
                return
        self._ends = True

    @types.coroutine
    def _attempts(self) -> Generator[Any, Any, None]:
        """Runs each claim that it is sent. Yields what the handler awaits, then `_ENDED`.

        All claims share one generator: to end a coroutine for each would raise an exception each time.
        """
        execute, claim = self._supply.execute, (yield _ENDED)
        while True:
            self._outcome = yield from execute(claim)
            claim = yield _ENDED

    @types.coroutine
    def _drive(self, attempts: Generator[Any, Any, None], context: Context, awaited: Any) -> Generator[Any, Any, None]:
        """Runs the rest of an attempt in its context, as part of this worker's task."""
        while awaited is not _ENDED:
            try:
                step, given = attempts.send, (yield awaited)
            except BaseException as error:
                if self._aborted or isinstance(error, GeneratorExit):
                    context.run(_close, attempts)
                    raise
                step, given = attempts.throw, error
            awaited = context.run(step, given)


def _close(attempts: Generator[Any, Any, None]) -> None:
    try:
        attempts.close()
    except BaseException:
        logger.debug("a handler failed while it was ended", exc_info=True)
