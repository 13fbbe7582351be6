"""What a handler can learn of the task that it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import attrs

from .errors import ConfigurationError, RuntimeNotRunning
from .states import Priority

if TYPE_CHECKING:
    from .runtime import Runtime
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
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """Those of the task that travel with it, also plugins': JSON."""
    runtime: Runtime | None = attrs.field(default=None, repr=False)
    """The runtime that runs it; None where a message was awaited in place."""
    left: dict[str, Any] | None = attrs.field(default=None, repr=False)
    """What was left for plugins, by their names."""
    _report: ReportProgress | None = attrs.field(default=None, alias="report")
    _pool: Pool | None = attrs.field(default=None, alias="pool")
    _waits: int = 0
    """Parts of the handler that wait for other tasks."""
    _lent: bool = False
    _returning: bool = False
    _ended: bool = False

    def leave(self, plugin: str, data: Any) -> None:
        """Leaves something for the Lua of a plugin: its hook ``ended`` finds it as ``data`` when the task has finished.

        Args:
            plugin: its name.
            data: what JSON has a form for; it stands in place of what was left before.
        """
        self.left = {**(self.left or {}), plugin: data}

    async def progress(self, fraction: float, note: str = "") -> None:
        """Tells how far the task has come: it shows in ``await handle.info()``.

        Args:
            fraction: from 0 to 1.
            note: a few words.
        """
        if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise ConfigurationError(f"progress({fraction!r}): give a fraction from 0 to 1")
        if self._report is not None:
            await self._report(self, float(fraction), note)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[None]:
        """Lends the task's worker slot out, while any part of the handler waits for another task."""
        if self._pool is None or self._ended:
            yield
            return
        self._waits += 1
        if not self._lent:
            self._lent = True
            self._pool.lend()
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits and not self._returning and not self._ended:
                await self._take_back(self._pool)

    async def _take_back(self, pool: Pool) -> None:
        self._returning = True
        try:
            await pool.take_back()
        finally:
            self._returning = False
            if self._ended or self._waits:  # meanwhile the handler has ended, or another part of it began to wait
                pool.lend()
            else:
                self._lent = False

    def end(self) -> None:
        """Ends the task: what its handler left behind lends nothing any more."""
        self._ended = True
        if self._lent:
            self._pool.seize()  # type: ignore[union-attr]  # it was lent to this pool


_current: Final[ContextVar[Task]] = ContextVar("fairactor_task")
set_current: Final = _current.set


@contextmanager
def a_task(task: Task) -> Iterator[None]:
    """Makes the code inside a part of ``task``, unless it is a part of one already."""
    if running_task() is not None:
        yield
        return
    token = _current.set(task)
    try:
        yield
    finally:
        _current.reset(token)


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
