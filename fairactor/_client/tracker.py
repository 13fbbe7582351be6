"""The tracker: follows tasks for handles, one or many at a time, and waits for their outcomes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, TypeVar

import anyio
import attrs

from fairactor._actors.codec import Codec
from fairactor._actors.handle import Handle
from fairactor._actors.task import Task, running_task
from fairactor._model import record
from fairactor._model.info import TaskInfo
from fairactor._model.inspection import read_info
from fairactor._model.log_line import LogLine
from fairactor._model.states import TaskState
from fairactor._model.task_logs import logs_in
from fairactor._store.outcomes import Outcomes, Settled, no_such_task
from fairactor._store.shard import Shard
from fairactor._store.shards import Shards
from fairactor._util.checks import check_timeout, shown
from fairactor._util.meters import Meters
from fairactor._util.spans import NO_SPAN, Spans
from fairactor.errors import ConfigurationError, Deadlock, TaskNotFound

from .dead_letters import redrive_one

T = TypeVar("T")


@attrs.frozen(eq=False)
class Tracker:
    """Implements `Follower` for the handles of a runtime."""

    shards: Shards
    outcomes: Outcomes
    codec: Callable[[str], Codec | None]
    """Returns the codec of an actor, if it is registered here."""
    check: Callable[[], None]
    """Raises RuntimeNotRunning if the runtime cannot be used here."""
    canceled_ttl: float
    """Seconds for which the record of a canceled task is kept."""
    spans: Spans | None = None
    meters: Meters | None = None
    """Records metrics; None without an OpenTelemetry SDK."""

    async def outcome(self, task_id: str, tenant: str | None, timeout: float | None) -> Settled:  # noqa: ASYNC109 - as in Handle
        """Waits for the outcome of a task; raises as `Handle.result`."""
        self.check()
        check_timeout(timeout)
        if self.shards.layout.epoch:
            return await self._outcome_on_some_shard(task_id, tenant, timeout)
        shard = await self._locate(task_id, tenant)
        return await self.wait_anywhere(task_id, tenant, self._expect(task_id, tenant, shard, running_task()), timeout)

    async def wait_anywhere(
        self,
        task_id: str,
        tenant: str | None,
        outcome: asyncio.Future[Settled],
        timeout: float | None,  # noqa: ASYNC109 - as above
    ) -> Settled:
        """Waits for an outcome that is expected on one shard, or on another one if the task moves there meanwhile."""
        began = time.monotonic()
        try:
            return await self.wait(outcome, task_id, timeout)
        except TaskNotFound:
            if not self.shards.layout.epoch:
                raise
        left = None if timeout is None else max(0.0, timeout + began - time.monotonic())
        return await self._outcome_on_some_shard(task_id, tenant, left)

    async def _outcome_on_some_shard(self, task_id: str, tenant: str | None, timeout: float | None) -> Settled:  # noqa: ASYNC109 - as above
        """Waits for the outcome of a task that may be on any of several shards, and may move meanwhile."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        before: Shard | None = None
        while True:
            shard = await self._steadily(lambda: self._locate(task_id, tenant))
            left = None if timeout is None else max(0.0, deadline - time.monotonic())
            try:
                return await self.wait(self._expect(task_id, tenant, shard, running_task()), task_id, left)
            except TaskNotFound:
                if shard is before:
                    raise
                before = shard

    def _expect(self, task_id: str, tenant: str | None, shard: Shard, task: Task | None) -> asyncio.Future[Settled]:
        """Returns a future of the outcome of a task, for the running task if there is one."""
        if task is not None and task.includes(task_id) and tenant in (None, task.tenant):
            raise Deadlock(f"task {task_id!r} waits for its own outcome, so it can never end")
        return self.outcomes.expect(task_id, shard, tenant or "", inside=task.tenant if task else "")

    async def wait(self, outcome: asyncio.Future[Settled], task_id: str, timeout: float | None) -> Settled:  # noqa: ASYNC109 - as above
        """Waits for an expected outcome. A running task lends its worker slot out meanwhile.

        Raises:
            TimeoutError: it did not arrive in time.
        """
        task = running_task()
        async with task.lend() if task is not None and not outcome.done() else nullcontext():
            with anyio.move_on_after(timeout):
                return await outcome
        raise _too_late(task_id, timeout)

    async def results(
        self,
        handles: Iterable[Handle[Any]],
        timeout: float | None,  # noqa: ASYNC109 - as above
        *,
        return_exceptions: bool,
    ) -> list[Any]:
        """Returns the results of many tasks; see `Runtime.results`."""
        handles = self._checked(handles)
        check_timeout(timeout)
        async with self._results(handles) as pending:
            if return_exceptions:
                await _wait(pending, timeout, asyncio.ALL_COMPLETED)
                return [_result_or_error(*each, timeout) for each in zip(handles, pending, strict=True)]
            await _wait(pending, timeout, asyncio.FIRST_EXCEPTION)
            for each in pending:
                if each.done():
                    each.result()  # raises the error of a task
            if late := [handle.id for handle, each in zip(handles, pending, strict=True) if not each.done()]:
                raise TimeoutError(
                    f"{len(late)} of {len(handles)} tasks have no outcome after {timeout:g} s, among them {late[0]!r}; "
                    "they go on"
                )
            return [each.result() for each in pending]

    @asynccontextmanager
    async def _results(self, handles: Sequence[Handle[Any]]) -> AsyncIterator[Sequence[asyncio.Task[Any]]]:
        """Waits in the background for the results of tasks. It asks for all of them at once.

        All shards are asked about a task of which only the id is known.
        """
        task = running_task()
        expected = [
            [
                self._expect(handle.id, handle.tenant, shard, task)
                for shard in (self.shards if handle.tenant is None else self.shards.likely(handle.tenant))
            ]
            for handle in handles
        ]
        pending = [asyncio.create_task(self._result(*each)) for each in zip(handles, expected, strict=True)]
        try:
            yield pending
        finally:
            for each in pending:
                each.cancel()
            for future in (future for futures in expected for future in futures):
                if not future.cancel() and not future.cancelled():
                    future.exception()  # whose error nobody else may have looked at
            await asyncio.gather(*pending, return_exceptions=True)

    async def _result(self, handle: Handle[Any], outcomes: Sequence[asyncio.Future[Settled]]) -> Any:
        """Returns the result of a task, from the first shard that has the task."""
        *others, last = outcomes
        for outcome in others:
            try:
                found = await outcome
            except TaskNotFound:
                continue
            break
        else:
            found = await self.wait_anywhere(handle.id, handle.tenant, last, None)
        handle.tenant = found[0].tenant
        return handle.unpack(*found)

    async def info(self, task_id: str, tenant: str | None) -> TaskInfo:
        """Returns a description of a task; raises as `Handle.info`."""
        return read_info(task_id, *await self._inspected(task_id, tenant))

    async def logs(self, task_id: str, tenant: str | None) -> list[LogLine]:
        """Returns what the handler of a task has logged; raises as `Handle.info`."""
        return logs_in((await self._inspected(task_id, tenant))[1])

    async def _inspected(self, task_id: str, tenant: str | None) -> list[Any]:
        async def inspect() -> list[Any]:
            return await _inspect(await self._locate(task_id, tenant), task_id, tenant)

        return await self._steadily(inspect)

    async def cancel(self, task_id: str, tenant: str | None) -> TaskState:
        """Cancels a task; returns the state in which it was; raises as `Handle.cancel`."""
        span = self.spans.canceling(task_id, tenant or "") if self.spans is not None else NO_SPAN
        with span if self.meters is None else self.meters.operation(span, "cancel", "settle"):
            return await self._cancel(task_id, tenant)

    async def _cancel(self, task_id: str, tenant: str | None) -> TaskState:
        self.check()
        return await self._steadily(lambda: self._cancel_somewhere(task_id, tenant))

    async def _places(self, tenant: str | None) -> list[Shard]:
        return list(self.shards) if tenant is None else await self.shards.places(tenant)

    async def _cancel_somewhere(self, task_id: str, tenant: str | None) -> TaskState:
        body = _canceled("by handle.cancel()")
        for _ in range(2 if self.shards.layout.growing else 1):  # it may be on its way to a shard that was asked before
            for shard in self.shards.in_order_of_moves(await self._places(tenant)):
                state = await shard.cancel(task_id, tenant or "", ttl=self.canceled_ttl, body=body)
                if state != "missing":
                    return TaskState(state)
        raise no_such_task(task_id)

    async def cancel_many(self, handles: Iterable[Handle[Any]]) -> list[TaskState | None]:
        """Cancels many tasks; see `Runtime.cancel_many`."""
        found = self._checked(handles)
        tenants = {handle.tenant or "" for handle in found}
        span = self.spans.canceling_many(len(found), tenants) if self.spans is not None else NO_SPAN
        with span if self.meters is None else self.meters.operation(span, "cancel", "settle"):
            return await self._cancel_many(found)

    async def _cancel_many(self, handles: Sequence[Handle[Any]]) -> list[TaskState | None]:
        body = _canceled("by runtime.cancel_many()")
        states: list[TaskState | None] = [None] * len(handles)

        async def cancel(shard: Shard, indexes: Sequence[int]) -> None:
            tasks = [(handles[index].id, handles[index].tenant or "") for index in indexes]
            found = await shard.cancel_many(tasks, ttl=self.canceled_ttl, body=body)
            for index, state in zip(indexes, found, strict=True):
                states[index] = None if state == "missing" else TaskState(state)

        layout = self.shards.layout
        places = [
            list(self.shards) if each.tenant is None else self.shards.in_order_of_moves(self.shards.likely(each.tenant))
            for each in handles
        ]
        for turn in range(len(self.shards)):
            by_shard: dict[Shard, list[int]] = {}
            for index, shards in enumerate(places):
                if states[index] is None and turn < len(shards):
                    by_shard.setdefault(shards[turn], []).append(index)
            replies = await asyncio.gather(*(cancel(*some) for some in by_shard.items()), return_exceptions=True)
            for reply in replies:
                if reply is not None:
                    raise reply
        if self.shards.layout is not layout:  # those that were not found may have been elsewhere
            left = [index for index, state in enumerate(states) if state is None]
            for index, state in zip(left, await self._cancel_many([handles[i] for i in left]), strict=True):
                states[index] = state
        return states

    def _checked(self, handles: Iterable[Handle[Any]]) -> Sequence[Handle[Any]]:
        """Returns the handles as a list, once it is clear that they are handles of this runtime."""
        self.check()
        if isinstance(handles, str | Handle) or not isinstance(handles, Iterable):
            raise ConfigurationError(f"got {shown(handles)} instead of a list of handles")
        found = list(handles)
        for handle in found:
            if not isinstance(handle, Handle):
                raise ConfigurationError(
                    f"got {shown(handle)} instead of a handle; runtime.handle(id, tenant) makes one from an id"
                )
            if not handle.is_of(self):
                raise ConfigurationError(
                    f"{handle!r} belongs to another Runtime; runtime.handle(id, tenant) makes one here"
                )
        return found

    async def redrive(self, task_id: str, tenant: str | None) -> None:
        """Sends a dead letter again; raises as `Handle.redrive`."""

        async def redrive() -> None:
            shard = await self._locate(task_id, tenant)
            found = await _inspect(shard, task_id, tenant)
            await redrive_one(self.shards, shard, task_id, found[1], tenant)

        await self._steadily(redrive)

    async def _steadily(self, call: Callable[[], Awaitable[T]]) -> T:
        """Calls a function again if it does not find a task, and the layout that it knew was not the latest."""
        while True:
            layout = self.shards.layout
            try:
                return await call()
            except TaskNotFound:
                if self.shards.layout is layout:
                    raise

    async def _locate(self, task_id: str, tenant: str | None) -> Shard:
        self.check()
        shard = await self.shards.locate(task_id, tenant)
        if shard is None:
            raise no_such_task(task_id)
        return shard


async def _inspect(shard: Shard, task_id: str, tenant: str | None) -> list[Any]:
    found = await shard.inspect(task_id, tenant or "")
    if not found:
        raise no_such_task(task_id)
    return found


def _canceled(reason: str) -> bytes:
    """Returns the outcome of a task that is canceled for a reason."""
    return record.encode(record.Outcome(error=record.Error("TaskCanceled", reason)))


async def _wait(pending: Collection[asyncio.Task[Any]], timeout: float | None, until: str) -> None:  # noqa: ASYNC109 - as above
    """Waits for asyncio tasks. A running task lends its worker slot out meanwhile."""
    task = running_task()
    async with task.lend() if task is not None and pending else nullcontext():
        if pending:
            await asyncio.wait(pending, timeout=timeout, return_when=until)


def _result_or_error(handle: Handle[Any], pending: asyncio.Task[Any], timeout: float | None) -> Any:
    if not pending.done():
        return _too_late(handle.id, timeout)
    error = pending.exception()
    return pending.result() if error is None else error


def _too_late(task_id: str, timeout: float | None) -> TimeoutError:
    return TimeoutError(f"task {task_id!r} has no outcome after {timeout:g} s; the task goes on")
