"""Reads the description of a task from the reply of inspect.lua."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import attrs
import msgspec

from . import record
from .info import TaskInfo
from .route import read_route
from .states import Priority, TaskState
from .wire import as_text

attrs.resolve_types(TaskInfo, localns={"record": record})  # `info` imports `record` only for type checkers


def read_info(
    task_id: str,
    state: bytes,
    packed: bytes,
    due: bytes = b"",
    runtime: bytes = b"",
    _ttl: int = -1,
    progress: bytes = b"",
    now: float = 0.0,
    claimed: float = 0.0,
) -> TaskInfo:
    """Makes a description of a task from its record and the rest of the reply of inspect.lua.

    ``now`` is the shard's time in ms, and ``claimed`` when the task was claimed; 0 if that is not known.

    If something of the record cannot be decoded, the description has what can be, and an error that says so.
    """
    header, outcome, call, history, failure = _decode(packed)
    settled = record.SETTLED.get(header.state)
    route = read_route(call.route) if call else None
    actor = outcome.actor if outcome and outcome.actor else route.actor if route else ""
    waited, ran = _durations(state, header, outcome, history, float(now), float(claimed))
    return TaskInfo(
        id=task_id,
        tenant=header.tenant,
        actor=actor,
        state=settled or TaskState(state.decode()),
        priority=_PRIORITIES.get(header.priority, Priority.NORMAL),
        attempt=header.attempt,
        enqueued_at=_moment(header.stamp / 1e6) or _UNKNOWN,
        due_at=_moment(float(due) / 1000) if due else None,
        started_at=_moment(outcome.started_at) if outcome and outcome.started_at else None,
        ended_at=_moment(outcome.ended_at) if outcome and outcome.ended_at else None,
        waited=waited,
        ran=ran,
        runtime=as_text(runtime) or None,
        progress=read_progress(progress),
        error=outcome.error if outcome and outcome.error else failure,
        history=history,
        args=call.args if call else (),
        kwargs=call.kwargs if call else {},
        queue=route.queue if route else None,
        version=route.version if route else None,
    )


def _decode(
    packed: bytes,
) -> tuple[record.Header, record.Outcome | None, record.Call | None, list[record.Attempt], record.Error | None]:
    """Decodes a record as far as possible. The error says what cannot be decoded."""
    header, outcome, call, history = _NO_HEADER, None, None, list[record.Attempt]()
    problems: list[str] = []
    try:
        header, body = record.unpack(packed)
    except record.UNREADABLE as error:
        return header, outcome, call, history, _unreadable([str(error)])
    live = header.state not in record.SETTLED
    if not live:
        line, _, body = body.partition(b"\n")
        try:
            outcome = record.decode_outcome(line)
        except record.UNREADABLE as error:
            problems.append(f"its outcome: {error}")
    _, call, history = record.decode_body(body, live=True)
    if call is None and body.partition(b"\n")[0]:
        problems.append("its call")
    return header, outcome, call, history, _unreadable(problems) if problems else None


def _durations(
    state: bytes,
    header: record.Header,
    outcome: record.Outcome | None,
    history: list[record.Attempt],
    now: float,
    claimed: float,
) -> tuple[float | None, float | None]:
    """Returns for how long the last attempt waited, and ran, in seconds; None where there is nothing to say."""
    if outcome is not None:
        began, until = outcome.started_at, outcome.ended_at
    elif state == b"queued":
        began, until = now / 1000, 0.0
    elif state == b"started":
        began, until = claimed / 1000, now / 1000
    else:
        began = until = 0.0
    if not began:
        return None, None
    waited = began - record.due_in(header.stamp, history, began)
    return max(0.0, waited), max(0.0, until - began) if until else None


def _unreadable(problems: list[str]) -> record.Error:
    return record.Error(record.UNREADABLE_TYPE, f"the record of the task cannot be decoded: {'; '.join(problems)}")


def read_progress(stored: bytes) -> tuple[float, str] | None:
    try:
        return msgspec.json.decode(stored, type=tuple[float, str]) if stored else None
    except record.UNREADABLE:
        return None


def _moment(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):  # no date that Python knows
        return None


_UNKNOWN: Final = datetime.fromtimestamp(0, UTC)
_PRIORITIES: Final = {priority.value: priority for priority in Priority}
_NO_HEADER: Final = record.Header(b"", 0, Priority.NORMAL.value, 1, 0.0, "", record.NO_HEADER)
