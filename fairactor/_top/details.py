"""The lines of the page about one task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.text import Text

from fairactor.views import Dependency, TaskDetails

from .text import clock, fit, fold, span, visible

_LABEL: Final = 11  # cells
_SHOWN: Final = 400  # characters of arguments


def detail_lines(task: TaskDetails, width: int) -> list[Text]:
    """Returns the lines, none of them longer than ``width``."""
    lines = [
        _labelled(label, part, width) for label, text in _facts(task) for part in fold(visible(text), width - _LABEL)
    ]
    for title, rows in _sections(task):
        if rows:
            lines += [Text(), Text(fit(title, width).rstrip(), style="bold")]
            lines += [Text(part) for row in rows for part in fold(visible(row), width)]
    return lines


def _labelled(label: str, text: str, width: int) -> Text:
    return Text.assemble((fit(label, min(_LABEL, width)), "dim"), text)


def _facts(task: TaskDetails) -> Iterator[tuple[str, str]]:
    info = task.info
    yield "task", info.id
    yield "tenant", info.tenant
    yield "actor", info.actor + (f"  (version {info.version})" if info.version else "")
    running = f", for {span(task.running_for)}" if task.running_for is not None else ""
    yield "state", f"{info.state}, attempt {info.attempt}{running}"
    if task.held_by:
        yield "held by", task.held_by
    if info.queue:
        yield "queue", info.queue
    yield "priority", info.priority.name.lower()
    times = (
        ("sent", info.enqueued_at),
        ("due", info.due_at),
        ("started", info.started_at),
        ("ended", info.ended_at),
        ("kept until", task.kept_until),
    )
    yield from ((label, clock(moment)) for label, moment in times if moment is not None)
    if info.runtime:
        yield "runtime", info.runtime
    if info.progress:
        yield "progress", f"{100 * info.progress[0]:.0f}% {info.progress[1]}"
    if info.args or info.kwargs:
        yield "arguments", _call(info.args, info.kwargs)
    if info.error:
        yield "error", f"{info.error.type}: {info.error.message}"


def _call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    parts = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    text = ", ".join(parts)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _sections(task: TaskDetails) -> Iterator[tuple[str, list[str]]]:
    yield "timeline", [f"{clock(event.at)}  {event.what}  {event.note}" for event in task.timeline]
    yield "waits for", list(map(_dependency, task.waits_for))
    yield "wait for it", list(map(_dependency, task.children))
    yield "log", [_log(each.at, each.level, f"{each.logger}: {each.message}") for each in task.logs]
    error = task.info.error
    yield "traceback", error.traceback.splitlines() if error else []


def _dependency(each: Dependency) -> str:
    return f"{each.state}  {each.id}  of {each.tenant}"


def _log(at: datetime, level: str, text: str) -> str:
    return f"{clock(at)}  {level}  {text}"
