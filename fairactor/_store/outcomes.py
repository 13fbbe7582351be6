"""The outcomes of tasks, as futures. The server publishes an outcome to the runtimes that have asked for it."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import anyio
import attrs

from fairactor._model import record
from fairactor._model.inbox import OUTCOME, unpack_outcome
from fairactor._util.backoff import Backoff
from fairactor._util.wakeup import Wakeup
from fairactor.errors import Deadlock, InvalidPayload, NamespaceMismatch, ServerError, TaskNotFound

from .shard import Shard
from .subscriber import Subscriber

logger: Final = logging.getLogger(__name__)

Settled = tuple[record.Header, record.Outcome]
"""The header of a task's record, and the outcome of the task."""

_PER_CALL: Final = 250  # outcomes that one call asks for


_Place = tuple[Shard, str]
"""A task id in a shard. Each shard has ids of its own, so tasks of two shards may have the same id."""


@attrs.define(eq=False)
class _Waiter:
    """A caller in this process that waits for an outcome."""

    tenant: str
    """The tenant whose task it waits for; '' for any."""
    inside: str
    """The tenant of the running task that waits, or ''."""
    sending: bool
    """Whether the task is being sent."""


@attrs.frozen
class _Question:
    """What `watch` asks for. Waiters with the same question share the answer."""

    place: _Place
    tenant: str
    inside: str

    def is_of(self, waiter: _Waiter) -> bool:
        """Whether a waiter has asked this."""
        return not waiter.sending and (waiter.tenant, waiter.inside) == (self.tenant, self.inside)


@attrs.define(eq=False)
class _Awaited:
    """A task for whose outcome callers in this process wait."""

    waiters: dict[asyncio.Future[Settled], _Waiter] = attrs.Factory(dict)
    may_have_missed: bool = False
    """Whether the outcome may have been lost: the subscription was down while the task was being sent."""


@attrs.frozen(eq=False)
class _Questions:
    """What to ask a shard."""

    waiting: deque[_Question] = attrs.Factory(deque)
    wakeup: Wakeup = attrs.Factory(Wakeup)


class Outcomes:
    """The outcomes for which callers in this process wait."""

    def __init__(self, subscriber: Subscriber, runtime: str) -> None:
        self._subscriber = subscriber
        self._runtime = runtime
        self._awaited: dict[_Place, _Awaited] = {}
        self._questions: defaultdict[Shard, _Questions] = defaultdict(_Questions)
        self._closed: Exception | None = None
        subscriber.on_subscribe(self._ask_again)

    def listen(self, shard: Shard) -> None:
        """Receives the outcomes of a shard."""
        self._subscriber.listen(shard, self._runtime, partial(self._deliver, shard))

    async def ready(self, shard: Shard) -> None:
        """Waits until the outcomes of a shard arrive here.

        Raises:
            ServerUnavailable: the server did not confirm the subscription in time.
        """
        await self._subscriber.ready(shard, self._runtime)

    def expect(
        self, task_id: str, shard: Shard, tenant: str, *, inside: str = "", ask: bool = True
    ) -> asyncio.Future[Settled]:
        """Returns a future of a task's outcome. Cancel it if you no longer need the outcome.

        Args:
            task_id: the task.
            shard: the task's shard.
            tenant: the tenant that the task must belong to; '' for any.
            inside: the tenant of the running task that waits, or ''.
            ask: False if the send itself asks for the outcome. Then call `sent` after it.

        Raises (from the future):
            TaskNotFound: the tenant has no such task.
            InvalidPayload: the outcome cannot be decoded.
            Deadlock: the task cannot start before the running task of tenant ``inside`` ends.
        """
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        if self._closed is not None:
            future.set_exception(self._closed)
            return future
        place = shard, task_id
        awaited = self._awaited.setdefault(place, _Awaited())
        awaited.waiters[future] = _Waiter(tenant, inside, sending=not ask)
        future.add_done_callback(lambda done: self._forget(place, done))
        if ask:
            self._ask(_Question(place, tenant, inside))
        return future

    def sent(self, task_id: str, shard: Shard, future: asyncio.Future[Settled], *, ask: bool) -> None:
        """Notes that the server has accepted the task.

        Args:
            task_id: the task.
            shard: the task's shard.
            future: the future from `expect`.
            ask: whether to ask for the outcome again, because the send does not ask if the task existed already.
        """
        awaited = self._awaited.get((shard, task_id))
        if awaited is not None and future in awaited.waiters:
            waiter = awaited.waiters[future]
            waiter.sending = False
            if ask or awaited.may_have_missed:
                self._ask(_Question((shard, task_id), waiter.tenant, waiter.inside))

    def close(self, error: Exception) -> None:
        """Raises an error in all futures, and in those made from now on."""
        self._closed = error
        for awaited in tuple(self._awaited.values()):
            for future in tuple(awaited.waiters):
                _raise_in(future, error)

    async def run(self, shard: Shard) -> None:
        """Asks a shard for the expected outcomes, many at a time, until canceled."""
        waiting, wakeup = self._questions[shard].waiting, self._questions[shard].wakeup
        while True:
            await wakeup.wait()
            while waiting:
                asked = {waiting.popleft() for _ in range(min(len(waiting), _PER_CALL))}
                if expected := [question for question in asked if question.place in self._awaited]:
                    await self._watch(shard, expected)

    def _ask(self, *questions: _Question) -> None:
        for question in questions:
            of_shard = self._questions[question.place[0]]
            of_shard.waiting.append(question)
            of_shard.wakeup.set()

    def _ask_again(self) -> None:
        """Asks for all outcomes, because any may have been published while the subscription was down."""
        for place, awaited in self._awaited.items():
            self._ask_for(place, awaited)

    def _ask_for(self, place: _Place, awaited: _Awaited) -> None:
        """Asks for the outcome of a task on behalf of all that wait for it."""
        waiters = awaited.waiters.values()
        awaited.may_have_missed = awaited.may_have_missed or any(waiter.sending for waiter in waiters)
        self._ask(*{_Question(place, each.tenant, each.inside) for each in waiters if not each.sending})

    async def _watch(self, shard: Shard, questions: list[_Question]) -> None:
        tasks = [(question.place[1], question.tenant, question.inside) for question in questions]
        try:
            replies = await _until_answered(partial(shard.watch, self._runtime, tasks))
        except NamespaceMismatch as error:  # the server refuses this runtime, but its other parts decide about that
            for question in questions:
                self._fail(question, error)
            return
        for question, reply in zip(questions, replies, strict=True):
            self._answer(question, *reply)

    def _answer(self, question: _Question, kind: bytes, data: bytes = b"") -> None:
        """Handles the reply to a question."""
        task_id = question.place[1]
        if kind == b"l":  # the reply had no room for it
            self._ask(question)
        elif kind == b"n":
            self._fail(question, no_such_task(task_id))
        elif kind == b"d":
            self._fail(question, _deadlock(task_id, data.decode()))
        elif kind == b"o":
            try:
                settled = _decode(data)
            except record.UNREADABLE as error:
                failure = unreadable(task_id, error)
                logger.error("%s", failure)  # noqa: TRY400 - the traceback would add nothing
                self._fail(question, failure)
            else:
                self._settle(question.place, settled)

    def _deliver(self, shard: Shard, message: bytes) -> None:
        """Handles a message that a shard has published to this runtime."""
        if message[:1] != OUTCOME:
            raise ValueError(f"{message[:1]!r} is no kind of message that this version of fairactor knows")
        task_id, packed = unpack_outcome(message)
        place = shard, task_id
        awaited = self._awaited.get(place)
        if awaited is None:
            return
        if not packed:  # too large for a message
            self._ask_for(place, awaited)
            return
        try:
            settled = _decode(packed)
        except record.UNREADABLE as error:
            logger.warning("a message about task %r cannot be decoded: %s", task_id, error)
            self._ask_for(place, awaited)  # what is stored counts
        else:
            self._settle(place, settled)

    def _settle(self, place: _Place, settled: Settled) -> None:
        """Gives an outcome to the callers that may see it. For the others there is no such task."""
        awaited = self._awaited.get(place)
        for future, waiter in tuple(awaited.waiters.items()) if awaited else ():
            if waiter.tenant in ("", settled[0].tenant):
                if not future.done():
                    future.set_result(settled)
            elif not waiter.sending:  # otherwise the reply to the send says that another tenant has the id
                _raise_in(future, no_such_task(place[1]))

    def _fail(self, question: _Question, error: Exception) -> None:
        """Raises an error in the futures of all waiters that have asked a question."""
        awaited = self._awaited.get(question.place)
        for future, waiter in tuple(awaited.waiters.items()) if awaited else ():
            if question.is_of(waiter):
                _raise_in(future, error)

    def _forget(self, place: _Place, future: asyncio.Future[Settled]) -> None:
        awaited = self._awaited.get(place)
        if awaited is not None:
            awaited.waiters.pop(future, None)
            if not awaited.waiters:
                del self._awaited[place]


def _raise_in(future: asyncio.Future[Settled], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _decode(packed: bytes) -> Settled:
    """Decodes the record of a task that has ended.

    Raises:
        record.UNREADABLE: it cannot be decoded.
    """
    header, body = record.unpack(packed)
    if header.state not in record.SETTLED:
        raise ValueError(f"{header.state!r} is not the state of a task that has ended")
    return header, record.outcome_in(body)


def no_such_task(task_id: str) -> TaskNotFound:
    """Returns the error for an id that no task has."""
    return TaskNotFound(f"there is no task {task_id!r}: it was never sent, or its record has expired")


def unreadable(task_id: str, error: Exception) -> InvalidPayload:
    """Returns the error for a task whose record cannot be decoded."""
    return InvalidPayload(
        f"the record of task {task_id!r} cannot be decoded ({error}): something else than this version of fairactor "
        "has written or changed it"
    )


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
