"""The run itself: everything is queued, then the workers start. It uses fairactor as any service would."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any, Final

import anyio
import anyio.to_process
import attrs

from fairactor import Handle, Runtime, TaskFailed
from fairactor.embedded import embedded_server

from .sources import Source
from .survey import Survey, prepare, survey

_KEPT: Final = 60.0  # seconds that a server of the user's keeps the results
_CONNECTIONS: Final = 20  # how many of them it cancels at once
_FAREWELL: Final = 5.0  # seconds that an interrupted demo takes to clear its queue there


@attrs.define
class Progress:
    """What has happened so far; the run writes it, the screen reads it."""

    processes: int
    sources: Sequence[Source] = ()
    surveys: list[Survey | None] = attrs.field(factory=list)
    """What was found out, in the order of sending; None where it has not been yet, or never will."""
    places: list[int] = attrs.field(factory=list)
    """For each task the place of its tenant in `sources`."""
    queued_at: float | None = None
    """When the server had accepted all tasks (`time.monotonic`)."""
    settled: list[int] = attrs.field(factory=list)
    """For each tenant, how many of its tasks have ended."""
    first_waits: list[float | None] = attrs.field(factory=list)
    """For each tenant, how long its first task waited; None: it still does."""
    failed: int = 0
    interrupt: Callable[[], object] = lambda: None
    """What to call at a signal."""
    queued: anyio.Event = attrs.field(factory=anyio.Event)

    def begin(self, sources: Sequence[Source]) -> None:
        """Takes the tenants in."""
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
        """Takes the result of a task in."""
        place = self.places[number]
        self.surveys[number] = found
        self.settled[place] += 1
        wait = found.began - (self.queued_at or 0.0)
        first = self.first_waits[place]
        self.first_waits[place] = wait if first is None else min(first, wait)

    def note_failure(self, number: int) -> None:
        """Takes in that a task has failed for good."""
        self.settled[self.places[number]] += 1
        self.failed += 1


async def run_workload(progress: Progress, url: str | None) -> bool:
    """Sends all tasks of all tenants, then starts the workers; returns when every task has ended, or it is interrupted.

    Args:
        progress: where it is told.
        url: a server; None: an embedded one.

    Returns:
        Whether every task has ended.
    """
    namespace = f"fairactor-demo-{os.urandom(4).hex()}"
    settings: dict[str, Any] = {"namespace": namespace, "result_ttl": _KEPT, "failed_ttl": _KEPT, "grace": 0}
    async with _server(url) as address, Runtime(address, workers=0, **settings) as sender:
        messages = [(source.tenant, survey(file)) for source in progress.sources for file in source.files]
        handles: list[Handle[Any]] = []
        with anyio.CancelScope(shield=True):  # all or nothing: what was sent is known, and can be withdrawn
            handles = await sender.send_many(messages)
        progress.queued_at = time.monotonic()
        progress.queued.set()
        try:
            # Twice as many workers as processes: each process finds its next task at hand.
            async with Runtime(address, actors=[survey], workers=2 * progress.processes, **settings):
                with anyio.CancelScope() as scope:
                    progress.interrupt = scope.cancel
                    await _collect(progress, handles)
        finally:
            if url is not None:
                await _withdraw([handle for handle, found in zip(handles, progress.surveys, strict=True) if not found])
    return not scope.cancelled_caught


async def start_processes(count: int) -> None:
    """Starts the worker processes, so that the first tasks don't wait for Python to load.

    Ctrl-C reaches all processes of a terminal. What it means is for this one to decide, so the others are born with
    the signals blocked; one that comes in these tenths of a second waits here until they are there.
    """
    anyio.to_process.current_default_process_limiter().total_tokens = count
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        with anyio.CancelScope(shield=True):  # anyio loses sight of a process that is canceled before it is ready
            await _in_each(count, os.getpid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    await _in_each(count, prepare)


async def _in_each(count: int, function: Callable[[], object]) -> None:
    """Calls a function in each worker process: as many calls at once as there are processes."""
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(partial(anyio.to_process.run_sync, function, cancellable=True))


@asynccontextmanager
async def _server(url: str | None) -> AsyncIterator[str]:
    if url is not None:
        yield url
        return
    async with embedded_server() as embedded:
        yield embedded


async def _collect(progress: Progress, handles: Sequence[Handle[Any]]) -> None:
    """Takes the results in as they come: for each tenant one after the other, which is how they are served."""
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
    """Cancels what has not been done, so that nothing of an interrupted demo stays on the user's server."""
    left = iter(handles)

    async def cancel() -> None:
        for handle in left:
            await handle.cancel()

    with anyio.move_on_after(_FAREWELL, shield=True):
        async with anyio.create_task_group() as group:
            for _ in range(_CONNECTIONS):
                group.start_soon(cancel)
