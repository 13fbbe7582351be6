"""The tracker: follows tasks for handles, and waits for their outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import anyio
import attrs

from fairactor._actors.codec import Codec
from fairactor._actors.task import running_task
from fairactor._model import record
from fairactor._model.info import TaskInfo
from fairactor._model.inspection import read_info
from fairactor._model.states import TaskState
from fairactor._store.outcomes import Outcomes, Settled, no_such_task
from fairactor._store.shard import Shard
from fairactor._store.shards import Shards
from fairactor._util.checks import check_timeout
from fairactor._util.spans import NO_SPAN, Spans
from fairactor.errors import Deadlock

from .dead_letters import redrive_one


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

    async def outcome(self, task_id: str, tenant: str | None, timeout: float | None) -> Settled:  # noqa: ASYNC109 - as in Handle
        """Waits for the outcome of a task; raises as `Handle.result`."""
        shard = await self._locate(task_id, tenant)
        check_timeout(timeout)
        task = running_task()
        if task is not None and task.id == task_id and tenant in (None, task.tenant):
            raise Deadlock(f"task {task_id!r} waits for its own outcome, so it can never end")
        future = self.outcomes.expect(task_id, shard, tenant or "", inside=task.tenant if task else "")
        return await self.wait(future, task_id, timeout)

    async def wait(self, outcome: asyncio.Future[Settled], task_id: str, timeout: float | None) -> Settled:  # noqa: ASYNC109 - as above
        """Waits for an expected outcome. A running task lends its worker slot out meanwhile.

        Raises:
            TimeoutError: it did not arrive in time.
        """
        task = running_task()
        async with task.lend() if task is not None and not outcome.done() else nullcontext():
            with anyio.move_on_after(timeout):
                return await outcome
        raise TimeoutError(f"task {task_id!r} has no outcome after {timeout:g} s; the task goes on")

    async def info(self, task_id: str, tenant: str | None) -> TaskInfo:
        """Returns a description of a task; raises as `Handle.info`."""
        return read_info(task_id, *await _inspect(await self._locate(task_id, tenant), task_id, tenant))

    async def cancel(self, task_id: str, tenant: str | None) -> TaskState:
        """Cancels a task; returns the state in which it was; raises as `Handle.cancel`."""
        with self.spans.canceling(task_id, tenant or "") if self.spans is not None else NO_SPAN:
            return await self._cancel(task_id, tenant)

    async def _cancel(self, task_id: str, tenant: str | None) -> TaskState:
        shard = await self._locate(task_id, tenant)
        body = record.encode(record.Outcome(error=record.Error("TaskCanceled", "by handle.cancel()")))
        state = await shard.cancel(task_id, tenant or "", ttl=self.canceled_ttl, body=body)
        if state == "missing":
            raise no_such_task(task_id)
        return TaskState(state)

    async def redrive(self, task_id: str, tenant: str | None) -> None:
        """Sends a dead letter again; raises as `Handle.redrive`."""
        shard = await self._locate(task_id, tenant)
        found = await _inspect(shard, task_id, tenant)
        await redrive_one(shard, task_id, found[1], tenant)

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
