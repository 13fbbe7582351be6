"""Reads what the screen shows from the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

import attrs

from fairactor._server.urls import parse_url
from fairactor._store.stats import Health
from fairactor.errors import FairactorError, ServerUnavailable, TaskNotFound
from fairactor.runtime import Runtime
from fairactor.views import QueueView, RunningTask, TenantOrder, WorkerView

from .model import Item, LimitView, Page, Place, Snapshot, View

_HISTORY_EVERY: Final = 5.0  # seconds
_FILLING: Final = 0.2  # seconds to go on reading if a filter leaves few rows


class Reader:
    """Reads snapshots.

    Args:
        runtime: an entered runtime, which runs no tasks.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._url = runtime.settings.url
        self._ended: tuple[float, int] | None = None  # when the totals were read, and the tasks that had ended
        self._rate: float | None = None
        self._minutes: Sequence[float] = ()
        self._history_at = -_HISTORY_EVERY

    def nothing(self) -> Snapshot:
        """Returns a snapshot in which nothing was read yet."""
        where = parse_url(self._url, "url").where if self._url else "embedded"
        return Snapshot(self._runtime.settings.namespace, where, datetime.now(UTC), 0.0)

    async def read(self, place: Place, rows: int, before: Snapshot) -> Snapshot:
        """Reads everything for the screen. Without an answer, it is the snapshot before with the reason.

        Args:
            place: what the screen shows.
            rows: the rows of the table.
            before: the last snapshot.
        """
        began = time.monotonic()
        try:
            health = await self._runtime.health()
            if health.stats is None:
                return attrs.evolve(before, trouble="; ".join(health.problems), away=True)
            self._measure(health)
            await self._read_history()
            now = attrs.evolve(
                before,
                at=datetime.now(UTC),
                health=health,
                rate=self._rate,
                minutes=self._minutes,
                trouble=None,
                away=False,
            )
        except Exception as error:  # noqa: BLE001 - what is stored may be damaged in any way
            return attrs.evolve(before, trouble=_said(error), away=isinstance(error, ServerUnavailable))
        try:
            page = await self._page(place, rows)
        except Exception as error:  # noqa: BLE001 - likewise
            return attrs.evolve(now, trouble=_said(error), away=isinstance(error, ServerUnavailable))
        return attrs.evolve(now, page=page, took=time.monotonic() - began)

    def _measure(self, health: Health) -> None:
        """Notes how many tasks have ended per second since the last time."""
        stats, now = health.stats, time.monotonic()
        assert stats is not None  # noqa: S101 - the caller has looked
        ended = stats.finished + stats.failed + stats.canceled
        if self._ended is not None and now > self._ended[0]:
            self._rate = max(0, ended - self._ended[1]) / (now - self._ended[0])
        self._ended = now, ended

    async def _read_history(self) -> None:
        if time.monotonic() - self._history_at < _HISTORY_EVERY:
            return
        self._history_at = time.monotonic()
        try:
            history = await self._runtime.history()
        except ServerUnavailable:
            raise
        except FairactorError:  # the rest is worth more than the bars
            self._minutes = ()
            return
        buckets = history.series.get("", ())
        self._minutes = tuple(bucket.started / bucket.seconds if bucket.seconds else 0.0 for bucket in buckets)

    async def _page(self, place: Place, rows: int) -> Page:
        reads = {
            View.TENANTS: self._tenants,
            View.QUEUES: self._queues,
            View.LIMITS: self._limits,
            View.WORKERS: self._workers,
            View.RUNS: self._runs,
            View.TASK: self._task,
        }
        return await reads.get(place.view, self._tasks)(place, rows)

    async def _queues(self, place: Place, rows: int) -> Page:
        return _cut(place, rows, await self._runtime.queues(), lambda each: each.queue, _QUEUE_ORDERS[place.order])

    async def _workers(self, place: Place, rows: int) -> Page:
        workers = await self._runtime.workers(tasks=0)
        return _cut(place, rows, workers, lambda each: each.runtime.name, _WORKER_ORDERS[place.order])

    async def _tenants(self, place: Place, rows: int) -> Page:
        order = cast("TenantOrder", place.order)
        items: list[Item] = []
        known, after, began = 0, place.after, time.monotonic()
        while True:
            found = await self._runtime.tenants(
                order_by=order, text=place.text or None, limit=rows - len(items), after=after
            )
            items += found.tenants
            known, after = found.known, found.after
            if after is None or len(items) >= rows or time.monotonic() > began + _FILLING:
                return Page(place.query, items, after, known)

    async def _tasks(self, place: Place, rows: int) -> Page:
        given: dict[str, Any] = {"text": place.text or None}
        if place.view is View.FAILURES:
            given["state"] = "failed"
        elif place.order != "all":
            given["state"] = place.order
        if place.subject is not None:
            given["queue" if place.subject.view is View.QUEUES else "tenant"] = place.subject.name
        items: list[Item] = []
        after, began = place.after, time.monotonic()
        while True:
            found = await self._runtime.tasks(**given, limit=rows - len(items), after=after)
            items += found.tasks
            after = found.after
            if after is None or len(items) >= rows or time.monotonic() > began + _FILLING:
                return Page(place.query, items, after)

    async def _task(self, place: Place, _: int) -> Page:
        assert place.subject is not None  # noqa: S101 - the view has one
        try:
            return Page(place.query, (await self._runtime.task(place.subject.name, place.subject.tenant),))
        except TaskNotFound:
            return Page(place.query)

    async def _runs(self, place: Place, rows: int) -> Page:
        assert place.subject is not None  # noqa: S101 - the view has one
        first = int(place.after or 0)
        found = await self._runtime.workers(tasks=first + rows + 1)
        runs = [task for each in found if each.runtime.name == place.subject.name for task in each.tasks]
        return _cut(place, rows, runs, lambda each: each.id, _by_claim)

    async def _limits(self, place: Place, rows: int) -> Page:
        """Reads the settings of all limits, and how those on the page are used."""
        policies = await self._runtime.limits()
        page = _cut(place, rows, list(policies), lambda name: name, lambda name: name)
        names = cast("Sequence[str]", page.items)
        usages = [await self._runtime.limit(name).usage() for name in names]
        limits = [LimitView(name, policies[name], usage) for name, usage in zip(names, usages, strict=True)]
        return attrs.evolve(page, items=limits)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, FairactorError) else f"{type(error).__name__}: {error}"


def _cut(
    place: Place, rows: int, items: Sequence[Any], name: Callable[[Any], str], order: Callable[[Any], Any]
) -> Page:
    """Makes a page of a whole list: filters, sorts and cuts it. Cursors are numbers of items."""
    found = sorted((each for each in items if place.text in name(each)), key=order)
    first = int(place.after or 0)
    shown = found[first : first + rows]
    after = str(first + rows) if len(found) > first + rows else None
    return Page(place.query, cast("Sequence[Item]", shown), after, len(items))


def _by_claim(each: RunningTask) -> tuple[bool, float]:
    return each.claimed_at is None, each.claimed_at.timestamp() if each.claimed_at else 0.0


def _busy(each: WorkerView) -> tuple[float, str]:
    return -(each.runtime.pulse.busy if each.runtime.pulse else 0), each.runtime.name


_QUEUE_ORDERS: Final[dict[str, Callable[[QueueView], Any]]] = {
    "backlog": lambda each: (-each.backlog, each.queue),
    "oldest": lambda each: (-(each.oldest_wait or 0.0), each.queue),
    "running": lambda each: (-each.running, each.queue),
    "name": lambda each: each.queue,
}
_WORKER_ORDERS: Final[dict[str, Callable[[WorkerView], Any]]] = {
    "busy": _busy,
    "started": lambda each: (-each.started, each.runtime.name),
    "name": lambda each: each.runtime.name,
}
