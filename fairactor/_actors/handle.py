"""Handles: what `Runtime.send` returns, to follow and cancel a task."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

import msgspec

from fairactor._model import record
from fairactor._model.info import TaskInfo
from fairactor._model.states import TaskState
from fairactor.errors import TaskCanceled, TaskFailed

from .codec import Codec

R_co = TypeVar("R_co", covariant=True)


class Follower(Protocol):
    """What a handle needs of the runtime that made it. ``tenant`` is None if only the id is known.

    Every method raises RuntimeNotRunning if the runtime cannot be used here, and TaskNotFound if there is no such task.
    """

    async def outcome(
        self,
        task_id: str,
        tenant: str | None,
        timeout: float | None,  # noqa: ASYNC109 - as in Handle
    ) -> tuple[record.Header, record.Outcome]:
        """Waits for the outcome of a task; raises as `Handle.result`."""
        ...

    async def info(self, task_id: str, tenant: str | None) -> TaskInfo:
        """What is known of a task now."""
        ...

    async def cancel(self, task_id: str, tenant: str | None) -> TaskState:
        """Cancels a task; returns the state that it was in."""
        ...

    async def redrive(self, task_id: str, tenant: str | None) -> None:
        """Sends a dead letter again; raises as `Handle.redrive`."""
        ...

    def codec(self, actor: str, /) -> Codec | None:
        """The codec of an actor, if it is registered here."""
        ...


class Handle(Generic[R_co]):
    """A sent task. Handles are cheap: they hold no connection, and no memory on the server."""

    def __init__(
        self,
        follower: Follower,
        task_id: str,
        tenant: str | None,
        codec: Codec | None = None,
        *,
        duplicate: bool = False,
    ) -> None:
        self.id = task_id
        self.tenant = tenant
        """The tenant. None for a handle made from an id alone, until the task has been looked up."""
        self.duplicate = duplicate
        """Whether the message was not sent because this earlier task has the same key."""
        self._follower = follower
        self._codec = codec

    def __repr__(self) -> str:
        return f"<Handle {self.id!r} of {self.tenant!r}>"

    async def result(self, timeout: float | None = None) -> R_co:  # noqa: ASYNC109 - the promised signature
        """Waits for the outcome and returns the handler's result. Inside a handler it lends the worker slot out.

        Args:
            timeout: in seconds; None: no limit.

        Raises:
            TaskFailed: the task failed for good.
            TaskCanceled: it was canceled, or expired before it could start.
            TimeoutError: there was no outcome in time; the task goes on.
            TaskNotFound: there is no such task, or its record has expired.
            Deadlock: this handler holds the only slot of the tenant that the task waits for.
        """
        header, outcome = await self._follower.outcome(self.id, self.tenant, timeout)
        self.tenant = header.tenant
        return self.unpack(header, outcome)

    def unpack(self, header: record.Header, outcome: record.Outcome) -> R_co:
        """Returns the result in an outcome, or raises its error."""
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
        codec = self._codec or self._follower.codec(outcome.actor)
        result: R_co = codec.result_from_json(outcome.result) if codec else msgspec.json.decode(outcome.result)
        return result

    async def state(self) -> TaskState:
        """Returns the current state of the task.

        Raises:
            TaskNotFound: there is no such task, or its record has expired.
        """
        return (await self.info()).state

    async def info(self) -> TaskInfo:
        """Returns what is known of the task now: its state, times, progress, arguments, error and history.

        Raises:
            TaskNotFound: there is no such task, or its record has expired.
        """
        info = await self._follower.info(self.id, self.tenant)
        self.tenant = info.tenant
        return info

    async def cancel(self) -> TaskState:
        """Cancels the task; returns the state that it was in.

        A task that waits (queued, scheduled or deferred) is canceled when this returns. A task that has started is
        canceled at the next await of its handler, normally within milliseconds, at most within a third of a lease. The
        handler can clean up. The task is not run again, even if its runtime dies. If the handler ends before it
        receives the cancellation, that outcome counts. A task that has ended stays as it is.

        Raises:
            TaskNotFound: there is no such task, or its record has expired.
        """
        return await self._follower.cancel(self.id, self.tenant)

    async def redrive(self) -> None:
        """Sends a dead letter again: as a new task with the same id and all its retries.

        Raises:
            NotADeadLetter: the task has not failed, or another task has taken its key.
            TaskNotFound: there is no such task, or its record has expired.
        """
        await self._follower.redrive(self.id, self.tenant)
