"""Handles: what `send` returns, to follow a task by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from . import record
from .dead_letters import redrive_one
from .errors import TaskCanceled, TaskFailed, TaskNotFound
from .info import TaskInfo, read_info
from .states import TaskState

if TYPE_CHECKING:
    from .codec import Codec
    from .shard import Shard
    from .tracking import Tracker

R = TypeVar("R")


class Handle(Generic[R]):
    """A sent task. Handles are cheap: they hold no connection and no memory on the server."""

    def __init__(
        self,
        tracker: Tracker,
        task_id: str,
        tenant: str | None,
        codec: Codec | None = None,
        shard: Shard | None = None,
        *,
        duplicate: bool = False,
    ) -> None:
        self.id = task_id
        self.tenant = tenant
        """The tenant; None for a handle made from an id alone, until the task has been looked up."""
        self.duplicate = duplicate
        """Whether this is an earlier task, with the key of the message that was sent; that was not accepted."""
        self._tracker = tracker
        self._codec = codec
        self._shard = shard

    def __repr__(self) -> str:
        return f"<Handle {self.id!r} of {self.tenant!r}>"

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - the promised signature
        """Waits for the outcome and returns the handler's result. Inside a handler it lends the worker slot out.

        Args:
            timeout: in seconds; None: as long as it takes.

        Raises:
            TaskFailed: the task failed for good.
            TaskCanceled: it was canceled, or expired before it could start.
            TimeoutError: no outcome in time; the task goes on.
            TaskNotFound: there is no such task (any more).
            Deadlock: this handler holds the only slot of the tenant that the task waits for.
        """
        shard = await self._find()
        header, outcome = await self._tracker.outcome(self.id, shard, timeout)
        self.tenant = header.tenant
        return self.unfold(header, outcome)

    def unfold(self, header: record.Header, outcome: record.Outcome) -> R:
        """The result in an outcome, or its exception."""
        state = record.SETTLED[header.state]
        error = outcome.error
        actor = f" ({outcome.actor})" if outcome.actor else ""  # scripts do not know it
        about = f"task {self.id!r} of tenant {header.tenant!r}{actor}"
        if state is TaskState.FAILED:
            reason = f"{error.type}: {error.message}" if error else "no reason was given"
            raise TaskFailed(
                f"{about} failed after {header.attempt} attempt(s): {reason}",
                error=error.type if error else "",
                traceback=error.traceback if error else "",
            )
        if state is TaskState.CANCELED:
            raise TaskCanceled(f"{about} was canceled: {error.message if error else 'no reason was given'}")
        codec = self._codec or self._tracker.codec(outcome.actor)
        result: R = codec.result_from_json(outcome.result) if codec else msgspec.json.decode(outcome.result)
        return result

    async def state(self) -> TaskState:
        """The state that the task is in now.

        Raises:
            TaskNotFound: there is no such task (any more).
        """
        return (await self.info()).state

    async def info(self) -> TaskInfo:
        """What is known of the task now.

        Raises:
            TaskNotFound: there is no such task (any more).
        """
        shard = await self._find()
        found = await shard.inspect(self.id)
        if not found:
            raise _not_found(self.id)
        info = read_info(self.id, *found)
        self.tenant = info.tenant
        return info

    async def cancel(self) -> TaskState:
        """Cancels the task; returns the state in which it was found.

        One that waits (queued, scheduled or deferred) is canceled when this returns. One that has started is told: its
        handler gets a cancellation at its next await, normally within milliseconds, within a third of a lease at
        most, and can clean up; it is not run again, also if its runtime dies. If it ends all the same before it
        hears, that counts. A settled one stays as it is.

        Raises:
            TaskNotFound: there is no such task (any more).
        """
        shard = await self._find()
        state = await self._tracker.cancel(self.id, shard)
        if state == "missing":
            raise _not_found(self.id)
        return TaskState(state)

    async def redrive(self) -> None:
        """Sends the task again, if it is a dead letter: as a new one under its id, with its retries as at first.

        Raises:
            NotADeadLetter: it has not failed, or its key stands for another task by now.
            TaskNotFound: there is no such task (any more).
        """
        shard = await self._find()
        found = await shard.inspect(self.id)
        if not found:
            raise _not_found(self.id)
        await redrive_one(shard, self.id, found[1])

    async def _find(self) -> Shard:
        self._tracker.check()
        if self._shard is None:
            self._shard = await self._tracker.find(self.id, self.tenant)
        if self._shard is None:
            raise _not_found(self.id)
        return self._shard


def _not_found(task_id: str) -> TaskNotFound:
    return TaskNotFound(f"there is no task {task_id!r}: it was never sent, or its record has expired")
