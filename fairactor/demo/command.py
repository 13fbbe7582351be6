"""The command ``fairactor demo``: finds the tenants, runs their tasks, reports, and exits cleanly after a signal."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import attrs

from fairactor import FairactorError

from .report import Report, make_report
from .sources import NoSources, find_sources
from .workload import Progress, run_workload

if TYPE_CHECKING:
    from .screen import Screen


@attrs.frozen
class Options:
    """The options of the command line."""

    path: Path | None = None
    limit: int = 0
    workers: int | None = None
    url: str | None = None
    every_tenant: bool = False
    json: bool = False
    svg: Path | None = None


def run(options: Options) -> int:
    """Runs the demo.

    Returns:
        The exit code: 0; 1 if it cannot run; 2 if there is nothing to run; 130 or 143 after SIGINT or SIGTERM.
    """
    try:
        screen = None if options.json and not options.svg else _screen(options)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise
        return _fail(1, 'the display needs rich: pip install "fairactor[cli]", or use --json, which works without it')
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it may warn about a worker process that has ended already
    try:
        return anyio.run(_perform, options, screen)
    except (Exception, BaseExceptionGroup) as raised:
        cause = _first(raised)
        if isinstance(cause, BrokenPipeError):  # the reader of the output has gone
            raise cause from None
        if isinstance(cause, NoSources):
            return _fail(2, str(cause))
        if isinstance(cause, FairactorError | OSError):
            return _fail(1, str(cause))
        raise


def _screen(options: Options) -> Screen:
    from .screen import Screen

    return Screen(quiet=options.json, every_tenant=options.every_tenant)


async def _perform(options: Options, screen: Screen | None) -> int:
    """Runs the part that a signal may interrupt; returns the exit code."""
    progress = Progress(options.workers or os.cpu_count() or 1)
    received: list[signal.Signals] = []
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with anyio.create_task_group() as group:
                progress.interrupt = group.cancel_scope.cancel
                group.start_soon(_listen, signals, received, progress)
                report = await _run_and_draw(options, progress, screen)
                if report is not None:
                    _show(options, screen, report)
                group.cancel_scope.cancel()
        except Exception:
            if not received:  # otherwise the interruption caused the error
                raise
    if received:
        done = f"after {sum(progress.settled):,} of {len(progress.places):,} files"
        when = done if progress.queued_at else "before the first task started"
        return _fail(128 + received[0], f"stopped by {received[0].name} {when}")
    return 0


async def _listen(signals: AsyncIterator[signal.Signals], received: list[signal.Signals], progress: Progress) -> None:
    """Stops the demo at the first signal. A second signal kills the process."""
    async for number in signals:
        received.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        progress.interrupt()
        return


async def _run_and_draw(options: Options, progress: Progress, screen: Screen | None) -> Report | None:
    """Runs the demo and displays its progress; returns None if it was interrupted."""
    complete = False
    async with anyio.create_task_group() as display:
        if screen is not None:
            display.start_soon(screen.follow, progress)
        await _find(progress, options)
        complete = await run_workload(progress, options.url or os.environ.get("FAIRACTOR_URL"))
        display.cancel_scope.cancel()
    return make_report(progress) if complete else None


async def _find(progress: Progress, options: Options) -> None:
    find = partial(find_sources, options.path, limit=options.limit)
    progress.begin(await anyio.to_thread.run_sync(find, abandon_on_cancel=True))


def _show(options: Options, screen: Screen | None, report: Report) -> None:
    if options.json:
        sys.stdout.write(json.dumps(report.to_json(), indent=2) + "\n")
        sys.stdout.flush()
    if screen is not None:
        screen.finish(report)
        if options.svg is not None:
            screen.save(options.svg)


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"fairactor demo: {message}\n")
    return code


def _first(error: BaseException) -> BaseException:
    """Returns the first exception in nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
