"""The supervisor of ``fairactor worker``: starts processes, replaces them, and stops them.

It never imports the user's module, so a process that starts later always runs the code as it is then.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from fairactor._util.backoff import Backoff
from fairactor._util.wakeup import Wakeup

from .child import Child
from .logging_setup import introduce, logger
from .options import FAILED, INTERRUPTED, STOPPED, WorkerOptions
from .reload import changes

_MOST_FAILURES: Final = 5
"""How often in a row a start may fail while no process is ready."""
_STABLE: Final = 10.0
"""The seconds after which a process that dies has not failed at once."""
_MARGIN: Final = 15.0
"""The seconds that a process gets beyond its grace before it is killed."""
_AT_ONCE: Final = 10.0
"""The seconds that a process gets to stop at once before it is killed."""


class Slot:
    """The place of one process, which others take one after the other.

    Args:
        supervisor: the supervisor.
        number: the number of the place, from 0.
    """

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self._supervisor = supervisor
        self._number = number
        self._backoff = Backoff(first=0.1, longest=30.0)
        self.wakeup = Wakeup()
        self.current: Child | None = None
        self.restart = False
        """Whether to stop its process and start another, because code has changed."""
        self._renewed: anyio.Event | None = None

    async def renew(self) -> bool:
        """Replaces the process by one that is ready before the old one stops; returns whether that was possible."""
        old, renewed = self.current, anyio.Event()
        self._renewed = renewed
        self.wakeup.set()
        await renewed.wait()
        return self.current is not None and self.current is not old

    async def run(self) -> None:
        """Keeps a process running until the supervisor stops, or all is drained."""
        supervisor = self._supervisor
        while not supervisor.over.is_set():
            if self.current is None:
                self.current = await self._started()
            elif self.current.code is not None:
                if not await self._note_end(self.current):
                    break
            elif self.restart:
                await self._restart(self.current)
            elif self._renewed is not None or self.current.renewal is not None:
                await self._renew(self.current)
            else:
                await self.wakeup.wait()
        if self._renewed is not None:
            self._renewed.set()
        if self.current is not None:
            await self.current.ended.wait()

    async def _started(self) -> Child | None:
        """Starts a process, again and again until one is ready; None if the supervisor stops."""
        supervisor = self._supervisor
        while not supervisor.over.is_set():
            self.restart = False
            if (child := await self._try()) is not None:
                return child
            if supervisor.over.is_set() or self.restart:
                continue
            if supervisor.reloads:
                logger.info("waiting for a change of the code")
                while not (self.restart or supervisor.over.is_set()):
                    await self.wakeup.wait()
                continue
            await self._pause()
        return None

    async def _try(self) -> Child | None:
        """Starts a process once; returns it when it is ready, or None if it has failed."""
        supervisor = self._supervisor
        child = await supervisor.start_child(self.wakeup)
        while child.info is None and child.code is None:
            await self.wakeup.wait()
            if self.restart and not child.told:
                child.kill()
        if child.info is not None:
            supervisor.note_ready(child)
            return child
        if not (supervisor.over.is_set() or self.restart):
            supervisor.note_failure(child)
        return None

    async def _pause(self) -> None:
        pause = self._backoff.next()
        logger.info("starting another process in %.3g s", pause)
        with anyio.move_on_after(pause):
            await self._supervisor.over.wait()

    async def _note_end(self, child: Child) -> bool:
        """Decides what follows the end of a process; returns whether another one takes its place."""
        self.current = None
        supervisor = self._supervisor
        if child.drained and child.code is not None and child.code >= 0:
            supervisor.note_drained(child.code)
            return False
        if child.code:
            logger.warning("%s", child.end_described())
        else:
            logger.info("%s", child.end_described())
        if child.seconds >= _STABLE:
            self._backoff.reset()
        await self._pause()
        return True

    async def _restart(self, child: Child) -> None:
        child.stop_now()
        with anyio.move_on_after(_AT_ONCE):
            await child.ended.wait()
        child.kill()
        await child.ended.wait()
        self.current = None

    async def _renew(self, old: Child) -> None:
        supervisor = self._supervisor
        if old.renewal is not None:
            logger.info("process %d %s: another one takes its place", old.pid, old.renewal)
        new = await self._try()
        if new is not None:
            self.current = new
            supervisor.retire(old)
        if self._renewed is not None:
            self._renewed.set()
            self._renewed = None
        elif new is None and not supervisor.over.is_set():
            await self._pause()


class Supervisor:
    """Runs the processes of ``fairactor worker``.

    Args:
        options: what the command line says.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._slots = [Slot(self, number) for number in range(options.processes)]
        self._children: set[Child] = set()
        self._group: TaskGroup
        self._first_ready = anyio.Event()
        self._renewing = anyio.Lock()
        self._failures = 0
        self._signals = 0
        self._code = STOPPED
        self._terminal = os.isatty(2)
        self.over: Final = anyio.Event()
        """Set when all processes stop, or were told to."""
        self.reloads: Final = options.reload

    async def run(self) -> int:
        """Runs the processes until they are to stop; returns the exit code."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with anyio.create_task_group() as self._group:
                self._group.start_soon(self._follow_signals, signals)
                if self.reloads:
                    self._group.start_soon(self._follow_files)
                await self._run_slots()
                while self._children:  # those that were replaced and still run tasks
                    await next(iter(self._children)).ended.wait()
                self._group.cancel_scope.cancel()
        return self._code

    async def _run_slots(self) -> None:
        """Starts the first process alone, so that what is wrong is said once."""
        async with anyio.create_task_group() as slots:
            slots.start_soon(self._slots[0].run)
            async with anyio.create_task_group() as waiting:
                for event in (self._first_ready, self.over):
                    waiting.start_soon(_cancel_at, event, waiting.cancel_scope)
            for slot in self._slots[1:]:
                slots.start_soon(slot.run)

    async def start_child(self, wakeup: Wakeup) -> Child:
        """Starts a process."""
        child = await Child.start(self._options, wakeup.set)
        self._children.add(child)
        self._group.start_soon(self._follow, child)
        if self.over.is_set():
            child.stop()
        return child

    async def _follow(self, child: Child) -> None:
        await child.follow()
        self._children.discard(child)

    def retire(self, child: Child) -> None:
        """Lets a process that was replaced stop gracefully."""
        child.stop()
        self._group.start_soon(_kill_later, child)

    def note_ready(self, child: Child) -> None:
        """Notes that a process runs tasks."""
        self._failures = 0
        if not self._first_ready.is_set():
            self._first_ready.set()
            introduce(self._options, child.info or {})
        logger.info("process %d is ready", child.pid)

    def note_failure(self, child: Child) -> None:
        """Notes that a process could not start. It ends the others if none is ready and this is not the first one."""
        self._failures += 1
        if not child.fatal:  # it has said what is wrong
            logger.error("%s, before it was ready", child.end_described())
        others = any(each.info is not None and each.code is None for each in self._children)
        if not (others or self.reloads) and (child.fatal or self._failures >= _MOST_FAILURES):
            self._end(child.code if child.code and child.code > 0 else FAILED)

    def note_drained(self, code: int) -> None:
        """Notes that a process has ended because nothing is pending."""
        self._code = max(self._code, code)
        self._first_ready.set()

    # Stopping and reloading

    def _end(self, code: int) -> None:
        """Stops all processes gracefully."""
        if not self.over.is_set():
            self._code = code
            self.over.set()
            self._group.start_soon(self._kill_late)
        for child in self._children:
            child.stop()
        for slot in self._slots:
            slot.wakeup.set()

    async def _kill_late(self) -> None:
        for child in tuple(self._children):
            self._group.start_soon(_kill_later, child)

    async def _follow_signals(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for received in signals:
            name = signal.Signals(received).name
            if received == signal.SIGHUP and not self._hung_up():
                if not self.over.is_set():
                    logger.info("SIGHUP: starting processes with the code as it is now")
                    self._group.start_soon(self._renew_all)
                continue
            self._signals += 1
            ready = self._first_ready.is_set()
            if self._signals == 1:
                grace = max([child.info["grace"] for child in self._children if child.info], default=0.0)
                logger.info("%s: stopping, with %g s for running tasks", name, grace)
                self._end(INTERRUPTED if received == signal.SIGINT and not ready else STOPPED)
            elif self._signals == 2:  # noqa: PLR2004 - the second signal
                logger.warning("%s again: stopping at once", name)
                self._code = INTERRUPTED if received == signal.SIGINT else self._code
                for child in self._children:
                    child.stop_now()
                    self._group.start_soon(_kill_after, child, _AT_ONCE)
            else:
                for child in self._children:
                    child.kill()

    def _hung_up(self) -> bool:
        """Whether the terminal has gone, which sends SIGHUP as well."""
        if not self._terminal:
            return False
        try:
            os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
        except OSError:
            return True
        return False

    async def _renew_all(self) -> None:
        """Replaces one process after the other; keeps the others if one cannot start."""
        async with self._renewing:
            for slot in self._slots:
                if slot.current is None:  # what starts now may have the old code
                    slot.restart = True
                    slot.wakeup.set()
                elif not await slot.renew():
                    if not self.over.is_set():
                        logger.error("the new code does not start: the processes with the old code go on")
                    return

    async def _follow_files(self) -> None:
        async for changed in changes(self._options.targets):
            logger.info("%s has changed: starting again", _shown_paths(changed))
            for slot in self._slots:
                slot.restart = True
                slot.wakeup.set()


async def _cancel_at(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _kill_later(child: Child) -> None:
    """Kills a process that was told to stop, once its grace and some seconds are over."""
    grace = child.info["grace"] if child.info else 0.0
    await _kill_after(child, grace + _MARGIN)


async def _kill_after(child: Child, seconds: float) -> None:
    with anyio.move_on_after(seconds):
        await child.ended.wait()
    if child.code is None:
        logger.error("process %d does not stop: killing it", child.pid)
        child.kill()


def _shown_paths(paths: list[Path]) -> str:
    first = paths[0]
    with suppress(ValueError):
        first = first.relative_to(Path.cwd())
    return f"{first} and {len(paths) - 1} more" if len(paths) > 1 else str(first)
