"""The outcomes of tasks, as futures. The server publishes an outcome to the runtimes that have asked for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import anyio
import attrs

from fairactor._model import record
from fairactor._model.wire import OUTCOME, unpack_outcome
from fairactor._util.backoff import Backoff
from fairactor._util.wakeup import Wakeup
from fairactor.errors import Deadlock, ServerError, TaskNotFound

from .shard import Shard
from .subscriber import Subscriber

logger: Final = logging.getLogger(__name__)

Settled = tuple[record.Header, record.Outcome]
"""The header of a task's record, and the outcome of the task."""

_PER_CALL: Final = 500  # outcomes that one call asks for


@attrs.define(eq=False)
class _Awaited:
    """A task for whose outcome callers in this process wait."""

    shard: Shard
    waiters: dict[asyncio.Future[Settled], str | None]
    """future -> the tenant of the running task that waits, or ''; None while the task is being sent."""
    may_have_missed: bool = False
    """Whether the outcome may have been lost: the subscription was down while the task was being sent."""


class Outcomes:
    """The outcomes for which callers in this process wait."""

    def __init__(self, subscriber: Subscriber, runtime: str) -> None:
        self._subscriber = subscriber
        self._runtime = runtime
        self._awaited: dict[str, _Awaited] = {}
        self._to_ask: deque[tuple[str, str]] = deque()
        self._wakeup = Wakeup()
        self._closed: Exception | None = None
        subscriber.on_subscribe(self._ask_again)

    def listen(self, shard: Shard) -> None:
        """Receives the outcomes of a shard."""
        self._subscriber.listen(shard, self._runtime, self._deliver)

    async def ready(self, shard: Shard) -> None:
        """Waits until the outcomes of a shard arrive here.

        Raises:
            ServerUnavailable: the server did not confirm the subscription in time.
        """
        await self._subscriber.ready(shard, self._runtime)

    def expect(self, task_id: str, shard: Shard, *, inside: str = "", ask: bool = True) -> asyncio.Future[Settled]:
        """Returns a future of a task's outcome. Cancel it if you no longer need the outcome.

        Args:
            task_id: the task.
            shard: the task's shard.
            inside: the tenant of the running task that waits, or ''.
            ask: False if the send itself asks for the outcome. Then call `sent` after it.

        Raises (from the future):
            TaskNotFound: the task does not exist.
            Deadlock: the task cannot start before the running task of tenant ``inside`` ends.
        """
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        if self._closed is not None:
            future.set_exception(self._closed)
            return future
        awaited = self._awaited.setdefault(task_id, _Awaited(shard, {}))
        awaited.waiters[future] = inside if ask else None
        future.add_done_callback(lambda done: self._forget(task_id, done))
        if ask:
            self._ask(task_id, inside)
        return future

    def sent(self, task_id: str, future: asyncio.Future[Settled], *, ask: bool) -> None:
        """Notes that the server has accepted the task.

        Args:
            task_id: the task.
            future: the future from `expect`.
            ask: whether to ask for the outcome again, because the send does not ask if the task existed already.
        """
        awaited = self._awaited.get(task_id)
        if awaited is not None and future in awaited.waiters:
            awaited.waiters[future] = ""
            if ask or awaited.may_have_missed:
                self._ask(task_id, "")

    def close(self, error: Exception) -> None:
        """Raises an error in all futures, and in those made from now on."""
        self._closed = error
        for task_id in tuple(self._awaited):
            self._fail(task_id, error)

    async def run(self) -> None:
        """Asks the server for the expected outcomes, many at a time, until canceled."""
        while True:
            await self._wakeup.wait()
            while self._to_ask:
                asked = {self._to_ask.popleft() for _ in range(min(len(self._to_ask), _PER_CALL))}
                await self._watch([(task_id, inside) for task_id, inside in asked if task_id in self._awaited])

    def _ask(self, task_id: str, inside: str) -> None:
        self._to_ask.append((task_id, inside))
        self._wakeup.set()

    def _ask_again(self) -> None:
        """Asks for all outcomes, because any may have been published while the subscription was down."""
        for task_id, awaited in self._awaited.items():
            awaited.may_have_missed = awaited.may_have_missed or None in awaited.waiters.values()
            self._to_ask.extend((task_id, inside) for inside in set(awaited.waiters.values()) if inside is not None)
        self._wakeup.set()

    async def _watch(self, asked: list[tuple[str, str]]) -> None:
        by_shard: dict[Shard, list[tuple[str, str]]] = {}
        for task_id, inside in asked:
            by_shard.setdefault(self._awaited[task_id].shard, []).append((task_id, inside))
        for shard, tasks in by_shard.items():
            replies = await _until_answered(partial(shard.watch, self._runtime, tasks))
            for (task_id, inside), reply in zip(tasks, replies, strict=True):
                if reply[0] == b"o":
                    self._settle(task_id, reply[1])
                elif reply[0] == b"n":
                    self._fail(task_id, no_such_task(task_id))
                elif reply[0] == b"d":
                    self._fail(task_id, _deadlock(task_id, reply[1].decode()), inside)

    def _deliver(self, message: bytes) -> None:
        if message[:1] == OUTCOME:
            self._settle(*unpack_outcome(message))

    def _settle(self, task_id: str, packed: bytes) -> None:
        awaited = self._awaited.get(task_id)
        if awaited is not None:
            header, body = record.unpack(packed)
            settled = header, record.outcome_in(body)
            for future in tuple(awaited.waiters):
                if not future.done():
                    future.set_result(settled)

    def _fail(self, task_id: str, error: Exception, inside: str | None = None) -> None:
        """Raises an error in all futures of a task, or only in those that tasks of one tenant wait for."""
        awaited = self._awaited.get(task_id)
        for future, waiter in tuple(awaited.waiters.items()) if awaited else ():
            if not future.done() and inside in (None, waiter):
                future.set_exception(error)

    def _forget(self, task_id: str, future: asyncio.Future[Settled]) -> None:
        awaited = self._awaited.get(task_id)
        if awaited is not None:
            awaited.waiters.pop(future, None)
            if not awaited.waiters:
                del self._awaited[task_id]


def no_such_task(task_id: str) -> TaskNotFound:
    """Returns the error for an id that no task has."""
    return TaskNotFound(f"there is no task {task_id!r}: it was never sent, or its record has expired")


def _deadlock(task_id: str, tenant: str) -> Deadlock:
    return Deadlock(
        f"task {task_id!r} of tenant {tenant!r} cannot start before the handler that waits for it ends, because the "
        "tenant runs one task at a time. Send it without waiting, await the message instead, or raise the tenant's "
        "concurrency"
    )


async def _until_answered(call: Callable[[], Awaitable[list[list[bytes]]]]) -> list[list[bytes]]:
    backoff = Backoff(0.05, 1.0)
    while True:
        try:
            return await call()
        except ServerError as error:
            logger.warning("%s", error)
        await anyio.sleep(backoff.next())
