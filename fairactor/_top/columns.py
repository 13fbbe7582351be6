"""The columns of each view, and which of them fit on the screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import attrs

from fairactor._model.info import TaskInfo
from fairactor.views import QueueView, RunningTask, TenantView, WorkerView

from .model import LimitView, View
from .text import number, percent, rate, span, visible

_GAP: Final = 1
_LEAST_NAME: Final = 8  # cells that a name keeps, whatever else is shown
_COMFORT: Final = 12  # more cells for names, before columns are shown that are not needed
_NEEDED: Final = 5  # the last rank of those that are
_STEP: Final = 8  # cells by which a column for names grows


@attrs.frozen
class Column:
    """A column of a table."""

    title: str
    width: int
    """In cells. A name gets what is left over, and this is the least."""
    rank: int
    """The columns with the lowest ranks stay if not all fit."""
    cell: Callable[[Any, datetime], str]
    """Makes the text of an item, given the time by the clock here."""
    order: str | None = None
    """The order that it belongs to."""
    grows: bool = False
    """Whether it is for a name, and takes the room that is left over."""
    left: bool = False
    """Whether it stands left, as columns that grow do."""
    style: Callable[[Any], str] | None = None


def choose(columns: Sequence[Column], width: int, names: Callable[[Column], int]) -> list[tuple[Column, int]]:
    """Returns the columns that fit into ``width`` cells, in their order, with the width of each.

    Args:
        columns: all columns.
        width: the cells that there are.
        names: returns how many cells the longest text of a column takes.
    """
    chosen: list[Column] = []
    left = width + _GAP
    for column in sorted(columns, key=lambda column: column.rank):
        if chosen and column.width + _GAP > left - (_COMFORT if column.rank > _NEEDED else 0):
            break
        chosen.append(column)
        left -= column.width + _GAP
    left = max(0, left)
    growing = [column for column in columns if column in chosen and column.grows]
    widths = {column.title: column.width for column in chosen}
    for column in growing:
        step = -(-names(column) // _STEP) * _STEP  # so that columns move rarely
        more = max(0, min(left, step - column.width))
        if column is growing[-1] and len(growing) > 1:  # the rest, so that errors can be read
            more = left
        widths[column.title] += more
        left -= more
    return [(column, min(widths[column.title], width)) for column in columns if column in chosen]


def _tenant_state(each: TenantView) -> str:
    return "paused" if each.paused else ""


def _share_style(each: TenantView) -> str:
    """Marks a tenant that waits and gets clearly less than its fair share."""
    return "yellow" if each.backlog and each.fair_share and each.share < each.fair_share / 2 else ""


_TENANTS: Final = (
    Column("tenant", _LEAST_NAME, 0, lambda each, _: visible(each.tenant), "name", grows=True),
    Column("state", 6, 4, lambda each, _: _tenant_state(each), style=lambda _: "bold magenta", left=True),
    Column("backlog", 8, 1, lambda each, _: number(each.backlog), "backlog"),
    Column("oldest", 7, 2, lambda each, _: span(each.oldest_wait), "oldest"),
    Column("running", 8, 3, lambda each, _: number(each.running), "running"),
    Column("tasks/s", 7, 5, lambda each, _: rate(each.rate)),
    Column("share", 6, 6, lambda each, _: percent(each.share), "share", style=_share_style),
    Column("fair", 6, 7, lambda each, _: percent(each.fair_share)),
    Column("failed", 6, 8, lambda each, _: number(each.failed)),
    Column("done", 6, 9, lambda each, _: number(each.finished)),
    Column("later", 6, 10, lambda each, _: number(each.scheduled + each.deferred)),
    Column("weight", 6, 11, lambda each, _: f"{each.weight:g}"),
    Column("group", 8, 12, lambda each, _: visible(each.group or ""), left=True),
)


def _queue_name(name: str | None) -> str:
    return visible(name) if name else "(none)"


def _runtimes_style(each: QueueView) -> str:
    return "bold red" if each.backlog and not each.runtimes else ""


_QUEUES: Final = (
    Column("queue", _LEAST_NAME, 0, lambda each, _: _queue_name(each.queue), "name", grows=True),
    Column("backlog", 8, 1, lambda each, _: number(each.backlog), "backlog"),
    Column("oldest", 7, 2, lambda each, _: span(each.oldest_wait), "oldest"),
    Column("running", 8, 3, lambda each, _: number(each.running), "running"),
    Column("runtimes", 8, 4, lambda each, _: number(each.runtimes), style=_runtimes_style),
)


def _pause(each: LimitView) -> str:
    left = each.usage.paused if each.usage else 0.0
    return "" if left <= 0 else "paused" if left == float("inf") else span(left)


def _usage(field: str) -> Callable[[LimitView, datetime], str]:
    return lambda each, _: number(getattr(each.usage, field)) if each.usage else "?"


_LIMITS: Final = (
    Column("limit", _LEAST_NAME, 0, lambda each, _: visible(each.name), "name", grows=True),
    Column("state", 6, 3, lambda each, _: _pause(each), style=lambda _: "bold magenta", left=True),
    Column("running", 8, 1, _usage("running")),
    Column("most", 7, 2, lambda each, _: "-" if each.policy.concurrency is None else number(each.policy.concurrency)),
    Column("tenants wait", 12, 4, _usage("waiting")),
    Column("rate", 10, 5, lambda each, _: visible(each.policy.rate or "-")),
    Column("owed", 7, 6, _usage("owed")),
    Column("each", 6, 7, lambda each, _: each.policy.per or "all"),
)


def _dead_style(each: WorkerView) -> str:
    return "bold red" if each.runtime.lease_left < 0 else ""


def _lease(each: WorkerView) -> str:
    left = each.runtime.lease_left
    return f"dead {span(-left)}" if left < 0 else span(left)


def _pulse(field: str, form: Callable[[Any], str]) -> Callable[[WorkerView, datetime], str]:
    def cell(each: WorkerView, _: datetime) -> str:
        return form(getattr(each.runtime.pulse, field)) if each.runtime.pulse else "-"

    return cell


def _full_style(each: WorkerView) -> str:
    return "yellow" if each.runtime.full() else ""


_WORKERS: Final = (
    Column("runtime", 12, 0, lambda each, _: visible(each.runtime.name), "name", grows=True),
    Column("busy", 5, 1, _pulse("busy", number), "busy", style=_full_style),
    Column("slots", 5, 2, lambda each, _: number(each.runtime.size)),
    Column("claimed", 7, 3, lambda each, _: number(each.started), "started"),
    Column("lease", 10, 4, lambda each, _: _lease(each), style=_dead_style),
    Column("longest", 7, 5, _pulse("oldest_run", span)),
    Column("usual", 6, 6, _pulse("usual_run", span)),
    Column("ready", 5, 7, _pulse("ready", number)),
    Column("queues", 10, 8, lambda each, _: _names(each.runtime.queues), left=True),
    Column("actors", 10, 9, lambda each, _: _names(each.runtime.actors), grows=True),
)


def _names(names: Sequence[str] | None) -> str:
    return "all" if names is None else visible(", ".join(names))


def _error(task: TaskInfo) -> str:
    return visible(f"{task.error.type}: {task.error.message}") if task.error else ""


def _ago(task: TaskInfo, now: datetime) -> str:
    """Says how long a task has ended, or has waited."""
    moment = task.ended_at or task.due_at or task.enqueued_at
    seconds = (now - moment).total_seconds()
    return f"in {span(-seconds)}" if seconds < 0 else span(seconds)


_FAILURES: Final = (
    Column("ended", 6, 0, _ago),
    Column("tenant", _LEAST_NAME, 1, lambda task, _: visible(task.tenant), grows=True),
    Column("actor", 12, 3, lambda task, _: visible(task.actor), left=True),
    Column("tries", 5, 4, lambda task, _: number(task.attempt)),
    Column("error", 16, 2, lambda task, _: _error(task), grows=True, style=lambda _: "red"),
)

_STATES: Final[Mapping[str, str]] = {"failed": "red", "started": "green", "canceled": "dim", "finished": "dim"}


def _progress(task: TaskInfo | RunningTask) -> str:
    return f"{100 * task.progress[0]:.0f}% {visible(task.progress[1])}" if task.progress else ""


_TASKS: Final = (
    Column("state", 9, 0, lambda task, _: str(task.state), style=lambda task: _STATES.get(task.state, ""), left=True),
    Column("actor", 10, 1, lambda task, _: visible(task.actor), grows=True),
    Column("age", 9, 2, _ago),
    Column("tries", 5, 4, lambda task, _: number(task.attempt)),
    Column("id", 14, 3, lambda task, _: visible(task.id), left=True),
    Column("note", 16, 5, lambda task, _: _error(task) or _progress(task), grows=True),
)


def _runs_for(task: RunningTask, now: datetime) -> str:
    return span((now - task.claimed_at).total_seconds()) if task.claimed_at else "-"


_RUNS: Final = (
    Column("for", 6, 1, _runs_for),
    Column("actor", 10, 0, lambda task, _: visible(task.actor), grows=True),
    Column("tenant", 10, 2, lambda task, _: visible(task.tenant), left=True),
    Column("tries", 5, 4, lambda task, _: number(task.attempt)),
    Column("id", 14, 3, lambda task, _: visible(task.id), left=True),
    Column("progress", 12, 5, lambda task, _: _progress(task), grows=True),
)

COLUMNS: Final[Mapping[View, Sequence[Column]]] = {
    View.TENANTS: _TENANTS,
    View.QUEUES: _QUEUES,
    View.LIMITS: _LIMITS,
    View.WORKERS: _WORKERS,
    View.FAILURES: _FAILURES,
    View.TASKS: _TASKS,
    View.RUNS: _RUNS,
}
