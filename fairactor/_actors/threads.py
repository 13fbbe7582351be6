"""Running plain handlers in threads.

anyio runs functions in threads, too, but Python waits for anyio's threads before a process may exit. A handler that
never returns must not keep a process alive that has given its tasks back, so these are daemon threads. In them
`anyio.from_thread` works as in a thread of anyio.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final

import anyio
import attrs
from anyio._backends._asyncio import AsyncIOBackend
from anyio._core._eventloop import claim_worker_thread, set_current_async_library, threadlocals

from .task import running_task

logger: Final = logging.getLogger(__name__)

IDLE_TIME: Final = 10.0
"""Seconds after which a thread without work ends."""
SLOW_END: Final = 1.0
"""Seconds after which the log names a canceled function that has not returned."""


async def run_in_thread(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Runs a plain function in a thread.

    A thread cannot be stopped. So if the caller is canceled, this waits until the function has returned, and then
    raises the cancellation. The function can learn of it with `anyio.from_thread.check_cancelled`.
    """
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    context.run(set_current_async_library, None)
    with anyio.CancelScope() as scope:
        job = _Job(partial(function, *args, **kwargs), context, loop, loop.create_future(), scope)
        (_idle.pop() if _idle else _Thread()).jobs.put(job)
        try:
            await asyncio.wait([job.done])
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await _wait_for_end(job.done)
            raise
        finally:
            job.done.cancel()  # if it runs on, nobody waits for it
        return job.done.result()


async def _wait_for_end(done: asyncio.Future[Any]) -> None:
    """Waits until a canceled function has returned. If it takes a while, it logs which one that is."""
    ended, _ = await asyncio.wait([done], timeout=SLOW_END)
    task = running_task()
    if not ended and task is not None:
        logger.warning(
            "task %s (%s) of tenant %r was canceled, but it runs in a thread, which cannot be stopped. It keeps its "
            "worker and its share of the tenant's limits until it returns: call anyio.from_thread.check_cancelled() in "
            "it now and then, or use @actor(process=True)",
            *(task.id, task.actor, task.tenant),
        )
    await asyncio.wait([done])
    if not done.cancelled():
        done.exception()  # marks it as retrieved


@attrs.frozen(eq=False)
class _Job:
    function: Callable[[], Any]
    context: contextvars.Context
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]
    scope: anyio.CancelScope
    """What `anyio.from_thread.check_cancelled` asks, with the scopes around it."""

    def run(self) -> None:
        result: Any = None
        error: BaseException | None = None
        threadlocals.current_cancel_scope = self.scope
        try:
            with claim_worker_thread(AsyncIOBackend, self.loop):
                result = self.context.run(self.function)
        except BaseException as raised:  # noqa: BLE001 - whatever a handler raises is its outcome
            error = raised
        finally:
            del threadlocals.current_cancel_scope
        try:
            self.loop.call_soon_threadsafe(self._report, result, error)
        except RuntimeError:
            logger.warning("a plain handler returned after its event loop was closed, so its outcome is lost")

    def _report(self, result: Any, error: BaseException | None) -> None:
        if self.done.done():  # nobody waits any more
            return
        if isinstance(error, StopIteration):  # futures refuse it
            stopped = RuntimeError("the handler raised StopIteration")
            stopped.__cause__ = error
            error = stopped
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(result)


class _Thread(threading.Thread):
    """Runs one job after the other, and ends when it has had none for a while."""

    def __init__(self) -> None:
        super().__init__(name="fairactor handler", daemon=True)
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            try:
                job = self.jobs.get(timeout=IDLE_TIME)
            except Empty:
                try:
                    _idle.remove(self)
                except ValueError:  # it was taken just now, and gets a job
                    continue
                return
            job.run()
            del job
            _idle.append(self)


_idle: Final[list[_Thread]] = []
"""The threads that wait for a job. The operations on the list are atomic."""
