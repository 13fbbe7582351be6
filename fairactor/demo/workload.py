"""The run: queues all tasks, then starts the workers. It uses fairactor as any service would."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, Final

import anyio
import attrs

from fairactor import Handle, Runtime, TaskFailed
from fairactor.embedded import embedded_server

from .sources import Source
from .survey import Survey, survey

_KEEP: Final = 60.0  # seconds for which the user's server keeps results
_CANCELERS: Final = 20  # how many tasks are canceled at once
_CLEANUP: Final = 5.0  # seconds that an interrupted demo gets to cancel its tasks on the user's server


@attrs.define
class Progress:
    """The progress of the run, which the display reads."""

    processes: int
    sources: Sequence[Source] = ()
    surveys: list[Survey | None] = attrs.field(factory=list)
    """The results in the order of sending; None for a task that has not ended or has failed."""
    places: list[int] = attrs.field(factory=list)
    """For each task the index of its tenant in `sources`."""
    queued_at: float | None = None
    """When the server had accepted all tasks, by `time.monotonic`."""
    settled: list[int] = attrs.field(factory=list)
    """For each tenant the number of its tasks that have ended."""
    first_waits: list[float | None] = attrs.field(factory=list)
    """For each tenant how long its first task waited, in seconds; None while it waits."""
    failed: int = 0
    interrupt: Callable[[], object] = lambda: None
    """Is called after a signal."""
    queued: anyio.Event = attrs.field(factory=anyio.Event)
    """Is set when the server has accepted all tasks."""

    def begin(self, sources: Sequence[Source]) -> None:
        """Sets the tenants."""
        self.sources = sources
        self.places = [place for place, source in enumerate(sources) for _ in source.files]
        self.surveys = [None] * len(self.places)
        self.settled = [0] * len(sources)
        self.first_waits = [None] * len(sources)

    @property
    def elapsed(self) -> float:
        """Seconds since all tasks were queued."""
        return 0.0 if self.queued_at is None else time.monotonic() - self.queued_at

    def note(self, number: int, found: Survey) -> None:
        """Adds the result of a task."""
        place = self.places[number]
        self.surveys[number] = found
        self.settled[place] += 1
        wait = found.began - (self.queued_at or 0.0)
        first = self.first_waits[place]
        self.first_waits[place] = wait if first is None else min(first, wait)

    def note_failure(self, number: int) -> None:
        """Counts a task that has failed."""
        self.settled[self.places[number]] += 1
        self.failed += 1


async def run_workload(progress: Progress, url: str | None) -> bool:
    """Sends all tasks of all tenants, then starts the workers, until all tasks have ended or it is interrupted.

    Args:
        progress: the tenants, and the progress, which it updates.
        url: the server; None starts an embedded one.

    Returns:
        Whether all tasks have ended.
    """
    namespace = f"fairactor-demo-{os.urandom(4).hex()}"
    settings: dict[str, Any] = {"namespace": namespace, "result_ttl": _KEEP, "failed_ttl": _KEEP, "grace": 0}
    async with _server(url) as address, Runtime(address, workers=0, **settings) as sender:
        messages = [(source.tenant, survey(file)) for source in progress.sources for file in source.files]
        handles: list[Handle[Any]] = []
        with anyio.CancelScope(shield=True):  # a half-finished send could not be canceled
            handles = await sender.send_many(messages)
        progress.queued_at = time.monotonic()
        progress.queued.set()
        try:
            async with Runtime(address, actors=[survey], processes=progress.processes, **settings):
                with anyio.CancelScope() as scope:
                    progress.interrupt = scope.cancel
                    await _collect(progress, handles)
        finally:
            if url is not None:
                await _withdraw([handle for handle, found in zip(handles, progress.surveys, strict=True) if not found])
    return not scope.cancelled_caught


@asynccontextmanager
async def _server(url: str | None) -> AsyncIterator[str]:
    if url is not None:
        yield url
        return
    async with embedded_server() as embedded:
        yield embedded


async def _collect(progress: Progress, handles: Sequence[Handle[Any]]) -> None:
    """Collects the results. Those of one tenant are awaited one after the other, in the order in which they run."""
    tasks = iter(enumerate(handles))
    async with anyio.create_task_group() as group:
        for source in progress.sources:
            group.start_soon(_collect_of_tenant, progress, list(islice(tasks, len(source.files))))


async def _collect_of_tenant(progress: Progress, tasks: Sequence[tuple[int, Handle[Any]]]) -> None:
    for number, handle in tasks:
        try:
            progress.note(number, await handle.result())
        except TaskFailed:
            progress.note_failure(number)


async def _withdraw(handles: Sequence[Handle[Any]]) -> None:
    """Cancels tasks, so an interrupted demo leaves none on the user's server."""
    left = iter(handles)

    async def cancel() -> None:
        for handle in left:
            await handle.cancel()

    with anyio.move_on_after(_CLEANUP, shield=True):
        async with anyio.create_task_group() as group:
            for _ in range(_CANCELERS):
                group.start_soon(cancel)
