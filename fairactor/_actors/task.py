"""The running task, as its handler sees it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from fairactor._model.limit import check_cost, check_limit_name
from fairactor._model.states import Priority
from fairactor._util.checks import plain_number, shown
from fairactor.errors import ConfigurationError, RuntimeNotRunning

if TYPE_CHECKING:
    from .host import Client

ReportProgress = Callable[["Task", float, str], Awaitable[None]]
ChargeLimit = Callable[["Task", str, float], Awaitable[None]]


class Slots(Protocol):
    """The worker slots of a process, which a task lends out while it waits for other tasks."""

    def lend(self) -> None:
        """Frees the slot of a running task, until `take_back` or `seize`."""

    async def take_back(self) -> None:
        """Waits for a slot for a task that has lent its slot."""

    def seize(self) -> None:
        """Takes a slot for a task that has lent its slot, even if none is free."""


class Log(Protocol):
    """What the handler of a task logs."""

    def add(self, record: logging.LogRecord) -> None:
        """Adds a record."""

    def added_to(self, body: bytes) -> bytes:
        """Returns the body of the task's record with what was logged."""
        ...


@attrs.define(eq=False)
class Task:
    """The task that a handler runs; `current_task` returns it."""

    id: str
    tenant: str
    actor: str
    """The name of the actor."""
    attempt: int = 1
    """The number of the attempt, from 1."""
    priority: Priority = Priority.NORMAL
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """The options that travel with the task, including those of plugins, in JSON types."""
    runtime: Client | None = attrs.field(default=None, repr=False)
    """The runtime that runs the task, for sending from its handler. None if the message was awaited directly."""
    due: float | None = attrs.field(default=None, repr=False)
    """When the task was sent, or this attempt became due, by ``time.monotonic()``; None if that is unknown."""
    began: float | None = attrs.field(default=None, repr=False)
    """When this attempt began, by ``time.monotonic()``; None if it has not."""
    attachments: dict[str, Any] | None = attrs.field(default=None, repr=False)
    """Data for the Lua of plugins, by plugin; see `attach`."""
    canceled: bool = False
    """Whether it was canceled while its batch runs. The handler of a single task is canceled itself."""
    members: Sequence[Task] = attrs.field(default=(), repr=False)
    """The tasks of the batch that this stands for; empty for a task. No handler or plugin sees one that has any."""
    log: Log | None = attrs.field(default=None, repr=False)
    """What its handler logs, if that is kept."""
    _report: ReportProgress | None = attrs.field(default=None, alias="report")
    _charge: ChargeLimit | None = attrs.field(default=None, alias="charge")
    _slots: Slots | None = attrs.field(default=None, alias="slots")
    _on_begin: Callable[[], None] | None = None
    _waits: int = 0  # how many parts of the handler wait for other tasks
    _lent: bool = False
    _returning: bool = False
    ended_at: float | None = attrs.field(default=None, repr=False, init=False)
    """When this attempt ended, by ``time.monotonic()``; None if it has not."""

    @property
    def waited(self) -> float:
        """The seconds from when the task was sent, or this attempt became due, until it began, or until now."""
        began = time.monotonic() if self.began is None else self.began
        return 0.0 if self.due is None else max(0.0, began - self.due)

    @property
    def seconds(self) -> float:
        """The seconds for which this attempt has run, or ran if it has ended; 0 if it has not begun."""
        if self.began is None:
            return 0.0
        return (time.monotonic() if self.ended_at is None else self.ended_at) - self.began

    @property
    def is_running(self) -> bool:
        """Whether this attempt has begun and not ended."""
        return self.began is not None and self.ended_at is None

    def attach(self, plugin: str, data: Any) -> None:
        """Attaches data for the Lua of a plugin. If the task finishes, the hook ``ended`` gets it as ``data``.

        Args:
            plugin: the plugin's name.
            data: the data, in JSON types. It replaces what was attached before.
        """
        self.attachments = {**(self.attachments or {}), plugin: data}

    async def progress(self, fraction: float, note: str = "") -> None:
        """Reports the progress of the task, which `Handle.info` returns. Without a runtime it does nothing.

        Args:
            fraction: the finished part, from 0 to 1.
            note: a few words.

        Raises:
            ConfigurationError: the fraction is out of range, or the note is no text.
            ServerUnavailable: as `Runtime.send`.
            ServerError: as `Runtime.send`.
        """
        if not isinstance(fraction, int | float) or not 0 <= plain_number(fraction) <= 1:
            raise ConfigurationError(f"progress({shown(fraction)}): give a fraction from 0 to 1")
        if not isinstance(note, str) or note.encode(errors="ignore").decode() != note:
            raise ConfigurationError(f"progress(…, {shown(note)}): give a few words")
        if self._report is not None:
            await self._report(self, plain_number(fraction), note)

    async def charge(self, limit: str, used: float) -> None:
        """Corrects what the start of this task took of a limit. Without a runtime it does nothing.

        Less than was taken lets others start earlier, more makes them wait. It counts for the tenant's share as well.

        Args:
            limit: the name of the limit.
            used: what the task used of it in all. A second call replaces the first.

        Raises:
            ConfigurationError: the task does not name the limit, or the number is not from 0 to a thousand million.
            ServerUnavailable: as `Runtime.send`.
            ServerError: as `Runtime.send`.
        """
        name = check_limit_name(limit)
        cost = check_cost("used", used, zero=True)
        if self._charge is not None:
            await self._charge(self, name, cost)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[None]:
        """Lends the task's worker slot out while any part of its handler waits for another task."""
        if self._slots is None or self.ended_at is not None:
            yield
            return
        self._waits += 1
        if not self._lent:
            self._lent = True
            self._slots.lend()
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits and not self._returning and self.ended_at is None:
                await self._take_back(self._slots)

    async def _take_back(self, slots: Slots) -> None:
        self._returning = True
        try:
            await slots.take_back()
        finally:
            self._returning = False
            if (
                self.ended_at is not None or self._waits
            ):  # meanwhile the handler has ended, or another part of it began to wait
                slots.lend()
            else:
                self._lent = False

    def includes(self, task_id: str) -> bool:
        """Whether this is the task with that id, or stands for it."""
        return any(member.id == task_id for member in self.members) if self.members else self.id == task_id

    def call_when_begun(self, callback: Callable[[], None]) -> None:
        """Sets what to call when the handler starts in its process."""
        self._on_begin = callback

    def begin(self) -> None:
        """Notes that the handler starts now, because its process is ready."""
        if self._on_begin is not None:
            self._on_begin()

    def end(self) -> None:
        """Ends the attempt. Code that its handler has left running no longer lends the slot."""
        self.ended_at = time.monotonic()
        if self._lent and self._slots is not None:
            self._slots.seize()


_current: Final[ContextVar[Task]] = ContextVar("fairactor_task")
set_current: Final = _current.set


@contextmanager
def enter_task(task: Task) -> Iterator[None]:
    """Runs the code in the block as part of ``task``, unless it is part of a task already."""
    if running_task() is not None:
        yield
        return
    token = _current.set(task)
    try:
        yield
    finally:
        _current.reset(token)


def task_in(context: Context) -> Task | None:
    """Returns the task that the code in a context is part of, if any."""
    return context.get(_current)


def current_task() -> Task:
    """Returns the task that the calling code is part of.

    Raises:
        RuntimeNotRunning: the code does not run in a handler, or in one of a batch, which has several tasks.
    """
    try:
        task = _current.get()
    except LookupError:
        raise RuntimeNotRunning("current_task() works only inside a handler") from None
    if task.members:
        raise RuntimeNotRunning(
            f"current_task() does not work in {task.actor}(), which runs a batch of tasks: use current_batch()"
        )
    return task


def current_batch() -> list[Task]:
    """Returns the tasks that the calling code is part of: those of a batch, in the order of its lists, or the one task.

    Raises:
        RuntimeNotRunning: the code does not run in a handler.
    """
    try:
        task = _current.get()
    except LookupError:
        raise RuntimeNotRunning("current_batch() works only inside a handler") from None
    return list(task.members) or [task]


def running_task() -> Task | None:
    """Returns the task that the calling code is part of, or what stands for those of a batch; None outside handlers."""
    return _current.get(None)
