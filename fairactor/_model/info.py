"""`TaskInfo`: the description of a task that `Handle.info` and lists of dead letters return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

from .states import Priority, TaskState

if TYPE_CHECKING:
    from . import record


@attrs.frozen
class TaskInfo:
    """A description of a task, as `Handle.info` and lists of dead letters return it."""

    id: str
    tenant: str
    actor: str
    """The name of the actor."""
    state: TaskState
    priority: Priority
    attempt: int
    """The number of the current, the next or the last attempt, from 1."""
    enqueued_at: datetime
    """When the task was sent or redriven, or, if it has a delay or a time, when it is due."""
    due_at: datetime | None = None
    """When a scheduled task will be queued; None in other states."""
    started_at: datetime | None = None
    """When the last attempt started; None if the task has not ended, or never started."""
    ended_at: datetime | None = None
    """When the task ended; None until then."""
    waited: float | None = attrs.field(default=None, eq=False)  # it grows, so it would make equal ones differ
    """The seconds that the last attempt waited in its queue before it started; if the task is queued, until now. None
    if it waits for its time or for other tasks, or never started."""
    ran: float | None = attrs.field(default=None, eq=False)  # likewise
    """The seconds that the last attempt ran; if the task is started, until now. None if it waits, or never started."""
    runtime: str | None = None
    """The runtime that runs it; None if it is not started."""
    progress: tuple[float, str] | None = None
    """The last progress that the handler reported: a fraction and a note. None before the first, and after the end."""
    error: record.Error | None = None
    """Why it failed or was canceled, with the traceback if it failed."""
    history: Sequence[record.Attempt] = ()
    """The last 20 failed attempts, including those before a redrive."""
    args: Sequence[Any] = ()
    """The positional arguments as decoded JSON. They are not kept once the task has finished."""
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    """The keyword arguments, likewise."""
    queue: str | None = None
    """The queue that it was sent to. It is not kept once the task has finished: then None."""
    version: int | None = None
    """The version of the actor that it was sent for, likewise."""
