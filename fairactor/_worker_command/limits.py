"""The limits after which a process is replaced: how many tasks it has run, and how much memory it holds."""

from __future__ import annotations

import os
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import anyio

from .logging_setup import logger
from .options import WorkerOptions

_JITTER: Final = 0.1
"""By what part a limit is drawn lower or higher, so that processes are not replaced at the same time."""
_EACH: Final = 1.0
"""The seconds between two looks at the memory."""
_YOUNG: Final = 10.0
"""The seconds after which a process may be replaced for its memory."""


class Counter:
    """A plugin that counts the attempts which have ended here, and the tasks that have failed for good."""

    def __init__(self) -> None:
        self.name = "fairactor_worker"
        self.attempts = 0
        self.failures = 0
        self.changed: Callable[[], None] = lambda: None
        """Called after each attempt."""

    def finished(self, task: Any, result: Any) -> None:  # noqa: ARG002 - see `fairactor.plugins`
        """Counts a task that has finished."""
        self._count()

    def retried(self, task: Any, error: BaseException, delay: float) -> None:  # noqa: ARG002 - likewise
        """Counts an attempt after which another one follows."""
        self._count()

    def canceled(self, task: Any, reason: str) -> None:  # noqa: ARG002 - likewise
        """Counts a task that was canceled."""
        self._count()

    def dead(self, task: Any, error: BaseException) -> None:  # noqa: ARG002 - likewise
        """Counts a task that has failed for good."""
        self.failures += 1
        self._count()

    def _count(self) -> None:
        self.attempts += 1
        self.changed()


class Limits:
    """Asks for another process once, when this one has reached a limit.

    Args:
        options: the options.
        counter: counts the tasks of this process.
        ask: asks for another process, and says why.
    """

    def __init__(self, options: WorkerOptions, counter: Counter, ask: Callable[[str], None]) -> None:
        self._counter = counter
        self._ask = ask
        self._most_tasks = round(_drawn(options.max_tasks)) if options.max_tasks else None
        self._most_memory = _drawn(options.max_memory) if options.max_memory else None
        self._asked = False
        if self._most_tasks is not None:
            counter.changed = self._look_at_tasks

    def _look_at_tasks(self) -> None:
        if self._most_tasks is not None and self._counter.attempts >= self._most_tasks and not self._asked:
            self._asked = True
            self._ask(f"has run {self._counter.attempts} tasks")

    async def watch(self) -> None:
        """Looks at the memory now and then, if it has a limit."""
        most, began = self._most_memory, time.monotonic()
        if most is None:
            return
        if (now := resident_memory()) > most:
            logger.warning(
                "this process holds %.0f MB before its first task, more than --max-memory allows: it will be replaced "
                "every %g s; give it more",
                now,
                _YOUNG,
            )
        while not self._asked:
            await anyio.sleep(_EACH)
            held = resident_memory()
            if held > most and time.monotonic() - began >= _YOUNG and not self._asked:
                self._asked = True
                self._ask(f"holds {held:.0f} MB")


def resident_memory() -> float:
    """Returns how many MB of memory this process holds; where the system does not tell, the most that it has held."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _drawn(limit: int) -> float:
    return limit * random.uniform(1 - _JITTER, 1 + _JITTER) if limit >= 1 / _JITTER else limit  # noqa: S311 - no secret
