"""Reads the description of a task from the reply of inspect.lua."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import msgspec

from . import record
from .info import TaskInfo
from .states import Priority, TaskState

attrs.resolve_types(TaskInfo, localns={"record": record})  # `info` imports `record` only for type checkers


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
