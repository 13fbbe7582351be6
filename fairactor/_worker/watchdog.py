"""The watchdog: notices when the event loop does not run, and names the handler that blocks it."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

from fairactor._actors.task import task_in

from .claim import described
from .pools import Pools

logger: Final = logging.getLogger(__name__)

LIMIT: Final = 1.0
"""Seconds for which the loop may stand still before the log says so; less if the lease is shorter than three times
that."""

_PACKAGE: Final = str(Path(__file__).parents[1])
_STEP: Final = asyncio.Handle._run.__code__  # noqa: SLF001 - the frame below everything that a loop runs
_ADVICE: Final = (
    "nothing else runs in this process meanwhile. Await something asynchronous there, or write the handler as a plain "
    "function (def), which runs in a thread"
)


class Watchdog:
    """Notices when the event loop stands still.

    The loop ticks. A thread calls `look`; if the loop is late, it finds out what the loop runs at that moment. If the
    thread could not run either, the whole process stood still, which only the next tick can say.
    """

    def __init__(self, pool: Pools, lease: float, is_plain: Callable[[str], bool]) -> None:
        self.limit = min(LIMIT, lease / 3)
        self.beat = self.limit / 4
        """The seconds between two ticks of the loop, and between two looks of the thread."""
        self._pool = pool
        self._is_plain = is_plain
        self._loop: asyncio.AbstractEventLoop
        self._thread = 0
        self._due = math.inf  # when the next tick is due
        self._timer: asyncio.TimerHandle | None = None
        self._culprit = ""  # what the loop runs while it is late
        self._reported = False  # whether the log has the culprit already
        pool.note_slow(self.limit / 2)

    # In the event loop

    def start(self) -> None:
        """Starts to tick. Must be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._schedule(time.monotonic())

    def stop(self) -> None:
        """Stops ticking, so nothing counts as late any more."""
        self._due = math.inf
        if self._timer is not None:
            self._timer.cancel()

    @property
    def late(self) -> float:
        """The seconds for which the loop has stood still."""
        return max(0.0, time.monotonic() - self._due)

    @property
    def ended(self) -> bool:
        """Whether the loop will never run again."""
        return self._loop.is_closed()

    def _schedule(self, now: float) -> None:
        self._thread = threading.get_ident()
        self._due = now + self.beat
        self._timer = self._loop.call_later(self.beat, self._tick)

    def _tick(self) -> None:
        now = time.monotonic()
        began, late = self._due, now - self._due
        culprit, self._culprit, self._reported = self._culprit, "", False
        self._schedule(now)
        if late <= self.limit:
            return
        if culprit:
            logger.warning("the event loop was blocked for %.1f s by %s", late, culprit)
        else:
            logger.warning(
                "this process stood still for %.1f s: a handler kept Python's lock, as a long regular expression does, "
                "or the process was stopped, or its machine was busy. Tasks that ended then, or run in threads: %s",
                late,
                self._what_ran(began),
            )

    def _what_ran(self, since: float) -> str:
        """Names the tasks that may have kept the interpreter's lock: plain handlers, and what ended meanwhile."""
        ended = [claim for at, claim in self._pool.slow_ended if at >= since]
        plain = [claim for claim in self._pool.running() if claim.call and self._is_plain(claim.call.actor)]
        return described(dict.fromkeys([*ended, *plain]))

    # In the thread

    def look(self, overslept: float) -> None:
        """Finds out what blocks the loop, if it is late.

        Args:
            overslept: the seconds by which the thread itself was late.
        """
        due = self._due
        late = time.monotonic() - due
        if overslept > self.limit / 2 or late < self.limit / 2 or not self._loop.is_running():
            return
        if not self._culprit:
            culprit = self._find_culprit()
            if self._due != due:
                return  # it runs again
            self._culprit = culprit
        if late > self.limit and not self._reported:
            self._reported = True
            logger.warning("the event loop has been blocked for %.1f s by %s: %s", late, self._culprit, _ADVICE)

    def _find_culprit(self) -> str:
        frames = _frames(sys._current_frames().get(self._thread))  # noqa: SLF001 - there is no public function
        return f"{self._task_in(frames) or 'code outside of handlers'}, at {_position(frames)}"

    def _task_in(self, frames: Sequence[FrameType]) -> str:
        """Describes the task that the loop works for, whose handler runs, or what its handler has started; or ''."""
        asyncio_task = asyncio.current_task(self._loop)
        if asyncio_task is not None and (claim := self._pool.claim_of(asyncio_task)) is not None:
            return claim.described()
        context: Any = getattr(asyncio_task, "get_context", None)  # Python 3.12
        if frames and frames[-1].f_code is _STEP:  # not in a loop that is written in C
            task = task_in(frames[-1].f_locals["self"]._context)  # noqa: SLF001 - there is no public attribute
        else:
            task = task_in(context()) if context is not None else None
        return f"{task.id} ({task.actor} of tenant {task.tenant!r})" if task else ""


def _frames(frame: FrameType | None) -> list[FrameType]:
    """Returns the frames of a step of the loop, the innermost first; the last one is the loop's own."""
    frames = []
    while frame is not None:
        frames.append(frame)
        if frame.f_code is _STEP:
            break
        frame = frame.f_back
    return frames


def _position(frames: Sequence[FrameType]) -> str:
    """Says where the handler is, and, if that is elsewhere, where what it has called is."""
    steps = [frame for frame in frames if frame.f_code is not _STEP]
    if not steps:
        return "an unknown place"
    outer = None
    for frame in steps:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            outer = frame
        elif outer is not None:
            break
    here = _line(steps[0])
    return here if outer in (None, steps[0]) else f"{_line(outer)}, in {here}"


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_name})"
