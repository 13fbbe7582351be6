"""`TaskInfo`: the description of a task that `Handle.info` and lists of dead letters return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

from . import record
from .states import Priority, TaskState


@attrs.frozen
class TaskInfo:
    """A description of a task, as `Handle.info` and lists of dead letters return it."""

    id: str
    tenant: str
    actor: str
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
    runtime: str | None = None
    """The runtime that runs it; None if it is not started."""
    progress: tuple[float, str] | None = None
    """The last progress that the handler reported: a fraction and a note. None if there is none, or it has ended."""
    error: record.Error | None = None
    """Why it failed or was canceled, with the traceback if it failed."""
    history: Sequence[record.Attempt] = ()
    """The last 20 failed attempts, including those before a redrive."""
    args: Sequence[Any] = ()
    """The positional arguments as decoded JSON. They are not kept once the task has finished."""
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    """The keyword arguments, likewise."""


def read_info(
    task_id: str,
    state: bytes,
    packed: bytes,
    due: bytes = b"",
    runtime: bytes = b"",
    _ttl: int = -1,
    progress: bytes = b"",
) -> TaskInfo:
    """Makes a description of a task from its record and the rest of the reply of inspect.lua."""
    header, body = record.unpack(packed)
    settled = record.SETTLED.get(header.state)
    outcome, call, history = record.decode_body(body, live=settled is None)
    actor = outcome.actor if outcome and outcome.actor else call.actor if call else ""
    return TaskInfo(
        id=task_id,
        tenant=header.tenant,
        actor=actor,
        state=settled or TaskState(state.decode()),
        priority=Priority(header.priority),
        attempt=header.attempt,
        enqueued_at=_moment(header.stamp / 1e6),
        due_at=_moment(float(due) / 1000) if due else None,
        started_at=_moment(outcome.started_at) if outcome and outcome.started_at else None,
        ended_at=_moment(outcome.ended_at) if outcome and outcome.ended_at else None,
        runtime=runtime.decode() or None,
        progress=tuple(msgspec.json.decode(progress)) if progress else None,
        error=outcome.error if outcome else None,
        history=history,
        args=call.args if call else (),
        kwargs=call.kwargs if call else {},
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
