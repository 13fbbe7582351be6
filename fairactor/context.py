"""What a handler can learn of the task that it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import attrs

from .errors import RuntimeNotRunning
from .settings import seconds
from .states import Priority

if TYPE_CHECKING:
    from .worker import Pool

ReportProgress = Callable[["Task", float, str], Awaitable[None]]


@attrs.define(eq=False)
class Task:
    """The task that a handler runs, as `current_task` returns it."""

    id: str
    tenant: str
    actor: str
    attempt: int = 1
    """1 for the first attempt."""
    priority: Priority = Priority.NORMAL
    _report: ReportProgress | None = None
    _pool: Pool | None = None
    _waits: int = 0

    async def progress(self, fraction: float, note: str = "") -> None:
        """Tells how far the task has come: it shows in ``await handle.info()``.

        Args:
            fraction: from 0 to 1.
            note: a few words.
        """
        seconds("fraction", fraction)
        if self._report is not None:
            await self._report(self, float(fraction), note)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[None]:
        """Lends the task's worker slot out, while any part of the handler waits for another task."""
        self._waits += 1
        try:
            if self._pool is None or self._waits > 1:
                yield
            else:
                async with self._pool.lend():
                    yield
        finally:
            self._waits -= 1


_current: Final[ContextVar[Task]] = ContextVar("fairactor_task")
set_current: Final = _current.set


def current_task() -> Task:
    """The task that this code is a part of.

    Raises:
        RuntimeNotRunning: it is part of none.
    """
    try:
        return _current.get()
    except LookupError:
        raise RuntimeNotRunning("current_task() works inside a handler only") from None


def running_task() -> Task | None:
    """The task that this code is a part of, if any."""
    return _current.get(None)
