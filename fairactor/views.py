"""What `Runtime.tasks`, `task`, `tenants`, `queues`, `workers`, `history` and `select` return.

Times that are numbers are seconds; points in time are aware datetimes in UTC, by the server's clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, get_args

import attrs

from ._model.info import TaskInfo
from ._model.log_line import LogLine
from ._store.runtimes import RuntimeInfo
from ._store.stats import Health

__all__ = [
    "HISTORY_BY",
    "TENANT_ORDERS",
    "Bucket",
    "Dependency",
    "Event",
    "Health",
    "Histogram",
    "History",
    "HistoryBy",
    "LogLine",
    "Matches",
    "QueueView",
    "RunningTask",
    "TaskDetails",
    "TaskPage",
    "TenantOrder",
    "TenantPage",
    "TenantView",
    "WorkerView",
]

TenantOrder = Literal["backlog", "oldest", "share", "running", "name"]
TENANT_ORDERS: Final[tuple[TenantOrder, ...]] = get_args(TenantOrder)
HistoryBy = Literal["actor", "queue", "tenant"]
HISTORY_BY: Final[tuple[HistoryBy, ...]] = get_args(HistoryBy)


@attrs.frozen
class TaskPage:
    """A page of tasks, as `Runtime.tasks` returns it."""

    tasks: Sequence[TaskInfo]
    """The tasks of the page. A task that changes its state while pages are read may be missing, or come twice."""
    after: str | None
    """Give it to `Runtime.tasks` as ``after=`` for the next page; None if this is the last one."""
    looked_at: int
    """How many tasks were looked at for this page. A filter that few tasks pass makes it larger than the page."""


@attrs.frozen
class Event:
    """Something that has happened to a task."""

    at: datetime
    what: str
    """``sent``, ``due``, ``started``, ``failed``, ``retried``, ``finished``, ``canceled`` and the like."""
    note: str = ""
    """More about it, such as the error, or the runtime."""


@attrs.frozen
class Dependency:
    """A task on which another one depends."""

    id: str
    tenant: str
    state: str
    """Its state, or ``unknown`` if its record has expired."""


@attrs.frozen
class TaskDetails:
    """Everything that is known about a task, as `Runtime.task` returns it."""

    info: TaskInfo
    """Its description, with arguments, error and history."""
    timeline: Sequence[Event]
    """What has happened to it, oldest first."""
    running_for: float | None
    """How long the current attempt has run; None if none runs, or if its runtime has not said so yet."""
    waits_for: Sequence[Dependency]
    """The tasks that must end before it can start; at most 100."""
    children: Sequence[Dependency]
    """The tasks that wait for it; at most 100."""
    held_by: str | None
    """Why a task that waits does not start: what it is deferred by, or a paused tenant, a limit, or missing workers."""
    logs: Sequence[LogLine]
    """What its handler has logged, if that is kept (setting ``task_logs``)."""
    kept_until: datetime | None
    """When its record expires; None while it has not ended."""
    after: Sequence[str] = ()
    """The ids of the tasks that had to end before it could start, also if they have; at most 100."""
    options: Mapping[str, Any] = attrs.field(factory=dict)
    """The options that travel with it, in JSON types. They are not kept once it has finished."""
    limits: Mapping[str, float] = attrs.field(factory=dict)
    """What a start takes of limits that tenants share, by limit; likewise."""


@attrs.frozen
class TenantView:
    """How a tenant fares."""

    tenant: str
    backlog: int
    """Its queued tasks: those that could start, or wait for a limit or a worker."""
    oldest_wait: float | None
    """How long the first of its queued tasks has waited; None if none waits."""
    running: int
    scheduled: int
    deferred: int
    finished: int
    failed: int
    canceled: int
    rate: float
    """How many of its tasks have finished or failed per second of late: a moving average, in which a task counts less
    the longer ago it has ended, 1/e after a minute."""
    share: float
    """Its share of all tasks that have finished or failed of late, from 0 to 1."""
    fair_share: float
    """The share that its weight gives it among the tenants that wait or run now, from 0 to 1."""
    weight: float
    group: str | None
    paused: bool


@attrs.frozen
class TenantPage:
    """A page of tenants, as `Runtime.tenants` returns it."""

    tenants: Sequence[TenantView]
    after: str | None
    """Give it to `Runtime.tenants` as ``after=`` for the next page; None if this is the last one."""
    known: int
    """How many tenants have a live task, or one that ended of late."""
    looked_at: int
    """How many tenants were looked at to find those that come first."""


@attrs.frozen
class QueueView:
    """How a queue fares."""

    queue: str
    backlog: int
    """Its queued tasks."""
    oldest_wait: float | None
    running: int
    runtimes: int
    """How many runtimes serve it."""
    exact: bool = True
    """Whether all numbers are exact. Where hundreds of tenants wait in a queue, or thousands of tasks run, some are
    looked at, and the numbers are estimates."""


@attrs.frozen
class RunningTask:
    """A task that a runtime has claimed."""

    id: str
    tenant: str
    actor: str
    claimed_at: datetime | None
    attempt: int
    progress: tuple[float, str] | None


@attrs.frozen
class WorkerView:
    """A runtime that runs tasks, and what it runs."""

    runtime: RuntimeInfo
    started: int
    """How many tasks it has claimed."""
    tasks: Sequence[RunningTask]
    """Some of them, the oldest first; as many as were asked for."""


@attrs.frozen
class Histogram:
    """How often durations fell into each range."""

    bounds: Sequence[float]
    """The upper bounds of the ranges, in seconds; the last range has none."""
    counts: Sequence[int]
    """How many durations were in each range; one more than `bounds`."""

    @property
    def total(self) -> int:
        """How many durations there were."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Returns the upper bound of the range in which the quantile lies; None without durations.

        Args:
            share: from 0 to 1; 0.5 is the median.
        """
        left = share * self.total
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            left -= count
            if count and left <= 0:
                return bound
        return None


@attrs.frozen
class Bucket:
    """What happened in a stretch of time."""

    start: datetime
    seconds: float
    """How long the stretch is."""
    sent: int
    started: int
    finished: int
    failed: int
    """The tasks that have failed for good."""
    wait: Histogram
    """How long tasks waited before they started."""
    run: Histogram
    """How long attempts ran."""


@attrs.frozen
class History:
    """What happened in the last hour or in the last days, as `Runtime.history` returns it."""

    by: HistoryBy | None
    series: Mapping[str, Sequence[Bucket]]
    """For each name (an actor, a queue, a tenant; '' for all together) its buckets, oldest first, without gaps."""


@attrs.frozen
class Matches:
    """How many tasks a selection has."""

    count: int
    complete: bool
    """Whether everything was looked at; otherwise there may be more."""
    looked_at: int
