"""Handles: what `Runtime.send` returns, to follow and cancel a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from fairactor._model.info import TaskInfo
from fairactor._model.log_line import LogLine
from fairactor._model.states import TaskState
from fairactor.errors import TaskCanceled, TaskFailed, TaskSkipped

from .codec import Codec

if TYPE_CHECKING:
    from fairactor._model import record

R_co = TypeVar("R_co", covariant=True)


class Follower(Protocol):
    """The part of a runtime that its handles use. ``tenant`` is None if only the id is known.

    All async methods raise RuntimeNotRunning if the calling code cannot use the runtime, and TaskNotFound if the task
    does not exist.
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
        """Returns a description of a task."""
        ...

    async def logs(self, task_id: str, tenant: str | None) -> list[LogLine]:
        """Returns what the handler of a task has logged."""
        ...

    async def cancel(self, task_id: str, tenant: str | None) -> TaskState:
        """Cancels a task; returns the state in which it was."""
        ...

    async def redrive(self, task_id: str, tenant: str | None) -> None:
        """Sends a dead letter again; raises as `Handle.redrive`."""
        ...

    def codec(self, actor: str, /) -> Codec | None:
        """Returns the codec of an actor, if it is registered here."""
        ...


class Handle(Generic[R_co]):
    """A task that was sent. Handles are cheap: they use no connection, and no memory on the server."""

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
        """The name of the tenant. None if the handle was made from an id alone, until a method has found the task."""
        self.duplicate = duplicate
        """Whether the message was not sent because this earlier task has the same key."""
        self._follower = follower
        self._codec = codec

    def __repr__(self) -> str:
        return f"<Handle {self.id!r} of {self.tenant!r}>"

    def is_of(self, follower: object) -> bool:
        """Whether a runtime has made this handle. ``follower`` is the part of it that its handles use."""
        return self._follower is follower

    async def result(self, timeout: float | None = None) -> R_co:  # noqa: ASYNC109 - the promised signature
        """Waits for the handler's result and returns it. In a handler, its worker can run other tasks meanwhile.

        Args:
            timeout: the seconds to wait; None for no limit.

        Raises:
            TaskFailed: the task failed for good.
            TaskCanceled: the task was canceled, or expired before it could start.
            TaskSkipped: the task had nothing to do; this is a TaskCanceled, too.
            TimeoutError: the task did not end in time. It goes on.
            TaskNotFound: the task does not exist, or its record has expired.
            Deadlock: the task cannot start before this handler ends, because their tenant runs one task at a time.
            InvalidPayload: the result does not fit the handler's annotation, or what is stored cannot be decoded.
            RuntimeNotRunning: the runtime was left, or belongs to another thread or event loop.
            ServerUnavailable: as `Runtime.send`.
            ServerError: as `Runtime.send`.
        """
        header, outcome = await self._follower.outcome(self.id, self.tenant, timeout)
        self.tenant = header.tenant
        return self.unpack(header, outcome)

    def unpack(self, header: record.Header, outcome: record.Outcome) -> R_co:
        """Returns the result in an outcome, or raises its error."""
        state = header.ended_as
        error = outcome.error
        actor = f" ({outcome.actor})" if outcome.actor else ""  # scripts do not store it
        about = f"task {self.id!r} of tenant {header.tenant!r}{actor}"
        if state is TaskState.FAILED:
            reason = f"{error.type}: {error.message}" if error else "no reason was given"
            raise TaskFailed(
                f"{about} failed after {header.attempt} attempt(s): {reason}",
                error=error.type if error else "",
                traceback=error.traceback if error else "",
            )
        if state is TaskState.CANCELED:
            if error and error.type == TaskSkipped.__name__:
                raise TaskSkipped(f"{about} was {error.message}")
            raise TaskCanceled(f"{about} was canceled: {error.message if error else 'no reason was given'}")
        codec = self._codec or self._follower.codec(outcome.actor)
        result: R_co = codec.result_from_json(outcome.result) if codec else outcome.plain_result()
        return result

    async def state(self) -> TaskState:
        """Returns the current state of the task.

        Raises:
            As `info`.
        """
        return (await self.info()).state

    async def info(self) -> TaskInfo:
        """Returns a description of the task: its state, times, progress, arguments, error and history.

        Raises:
            TaskNotFound: the task does not exist, or its record has expired.
            RuntimeNotRunning: the runtime was left, or belongs to another thread or event loop.
            ServerUnavailable: as `Runtime.send`.
            ServerError: as `Runtime.send`.
        """
        info = await self._follower.info(self.id, self.tenant)
        self.tenant = info.tenant
        return info

    async def logs(self) -> list[LogLine]:
        """Returns what the handler has logged in the attempts that have ended, oldest first.

        It is kept with the record if the runtime that ran the task has the setting ``task_logs``.

        Raises:
            TaskNotFound: as `info`.
            RuntimeNotRunning: as `info`.
            ServerUnavailable: as `Runtime.send`.
            ServerError: as `Runtime.send`.
        """
        return await self._follower.logs(self.id, self.tenant)

    async def cancel(self) -> TaskState:
        """Cancels the task; returns the state in which it was.

        A task that waits (queued, scheduled or deferred) is canceled when this returns. A task that has started is
        canceled at the next await of its handler, normally within milliseconds, at most within a third of a lease. The
        handler can clean up. The task is not run again, even if its runtime dies. If the handler ends before it
        receives the cancellation, that outcome counts. A task that has ended stays as it is.

        Raises:
            As `info`.
        """
        return await self._follower.cancel(self.id, self.tenant)

    async def redrive(self) -> None:
        """Sends a dead letter again, as a new task with the same id and all its retries.

        Raises:
            NotADeadLetter: the task has not failed, or another task now has its key.
            As `info`.
        """
        await self._follower.redrive(self.id, self.tenant)
