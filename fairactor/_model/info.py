"""What is known of a task: what `Handle.info` returns, and dead letters are."""

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


def read_info(
    task_id: str,
    state: bytes,
    packed: bytes,
    due: bytes = b"",
    runtime: bytes = b"",
    _ttl: int = -1,
    progress: bytes = b"",
) -> TaskInfo:
    """What a record says, and what inspect.lua says beside it."""
    header, body = record.unpack(packed)
    settled = record.SETTLED.get(header.state)
    outcome, call, history = record.unfold(body, live=settled is None)
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
