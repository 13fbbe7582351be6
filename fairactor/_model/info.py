"""What is known of a task: what `Handle.info` returns, and dead letters are."""

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
    """What is known of a task."""

    id: str
    tenant: str
    actor: str
    state: TaskState
    priority: Priority
    attempt: int
    """The number of the attempt that is made, is to be made, or was the last."""
    enqueued_at: datetime
    """When it was sent, or is or was due."""
    due_at: datetime | None = None
    """When a scheduled one will be queued."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    runtime: str | None = None
    """Who runs it, while it is started."""
    progress: tuple[float, str] | None = None
    """What its handler said last, while it is started: a fraction and a note."""
    error: record.Error | None = None
    """Why it failed or was canceled, with the traceback."""
    history: Sequence[record.Attempt] = ()
    """The attempts that did not end well, the last 20 of them; also those before it was sent again."""
    args: Sequence[Any] = ()
    """The positional arguments, as JSON has them; of a finished task they are not kept."""
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
