"""Shows everything that is known about a task."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from .output import Column, Facts, Output, Part, Table, Text, to_record
from .text import duration, moment, plain, state_style

if TYPE_CHECKING:
    from fairactor import TaskInfo
    from fairactor.runtime import Runtime
    from fairactor.views import TaskDetails

_LABELS: Final = {
    "id": "id", "tenant": "tenant", "actor": "actor", "state": "state", "queue": "queue", "version": "version",
    "priority": "priority", "attempt": "attempt", "enqueued_at": "sent", "due_at": "due", "started_at": "started",
    "ended_at": "ended", "running_for": "running for", "runtime": "runtime", "progress": "progress",
    "held_by": "held by", "kept_until": "kept until", "arguments": "arguments", "problem": "error",
}  # fmt: skip
_TIMELINE: Final = (Column("TIME", "at", moment), Column("WHAT", "what"), Column("NOTE", "note", rank=1))
_OTHERS: Final = (Column("ID", "id"), Column("TENANT", "tenant", rank=1), Column("STATE", "state", style=state_style))
_LOGS: Final = (
    Column("TIME", "at", moment, rank=2),
    Column("LEVEL", "level", rank=1),
    Column("MESSAGE", "message"),
    Column("LOGGER", "logger", rank=3),
    Column("ATTEMPT", "attempt", right=True, rank=4),
)


async def show_task(runtime: Runtime, output: Output, task_id: str, tenant: str | None) -> None:
    """Prints everything that is known about a task."""
    details = await runtime.task(task_id, tenant)
    if output.json:
        record = to_record(details)
        output.write([{**to_record(record.pop("info")), **record}])
        return
    info = details.info
    record = {**to_record(details), **to_record(info), "arguments": _arguments(info), "problem": _error(info)}
    show = {"running_for": duration, "progress": lambda value: f"{value[0]:.0%} {value[1]}".strip()}
    output.show(Facts(record, _LABELS, show), *_parts(details))


def _parts(details: TaskDetails) -> list[Part]:
    parts: list[Part] = []
    tables = (
        ("timeline", _TIMELINE, details.timeline),
        ("waits for", _OTHERS, details.waits_for),
        ("waited for by", _OTHERS, details.children),
        ("logs", _LOGS, details.logs),
    )
    for title, columns, values in tables:
        if values:
            parts += [Text(f"\n{title}", "bold"), Table(columns, [to_record(each) for each in values])]
    if details.info.error is not None and details.info.error.traceback:
        parts += [Text("\ntraceback", "bold"), Text(details.info.error.traceback.rstrip())]
    return parts


def _arguments(info: TaskInfo) -> str | None:
    parts = [json.dumps(value, ensure_ascii=False, default=plain) for value in info.args]
    parts += [f"{name}={json.dumps(value, ensure_ascii=False, default=plain)}" for name, value in info.kwargs.items()]
    return ", ".join(parts) or None


def _error(info: TaskInfo) -> Any:
    return None if info.error is None else f"{info.error.type}: {info.error.message}"
