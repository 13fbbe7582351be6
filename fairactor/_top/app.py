"""Runs the screen: keys, signals, reading and drawing beside each other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Final

import anyio
import anyio.abc
import attrs
from rich.text import Text

from fairactor.errors import FairactorError
from fairactor.runtime import Runtime

from . import deeds
from .keys import ESCAPE_PATIENCE, KeyParser
from .model import Deed, Page, Snapshot, State, current_page
from .press import Ask, Do, Effect, press
from .reader import Reader
from .render import render, table_rows
from .terminal import Terminal

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGWINCH)
_FRAME: Final = 0.02  # seconds between two drawings, at least
_TIMES: Final = 5  # it waits this many times as long as it has read
_SILENT: Final = 2.0  # seconds without an answer before the screen says so


class App:
    """The screen of one run.

    Args:
        terminal: the terminal, in raw mode.
        state: what to show first.
        interval: the seconds between two readings.
    """

    def __init__(self, terminal: Terminal, state: State, interval: float) -> None:
        self._terminal = terminal
        self._interval = interval
        self._state = state
        self._snapshot: Snapshot | None = None
        self._runtime: Runtime | None = None
        self._code = 0
        self._changed = anyio.Event()
        self._again = anyio.Event()
        self._asked = True  # whether to read even if the screen is frozen
        self._reading: anyio.CancelScope | None = None
        self._since: float | None = None  # when the reading under way began
        self._target: tuple[object, int] | None = None  # what is being read
        self._group: anyio.abc.TaskGroup | None = None

    async def run(self, connect: Callable[[], AbstractAsyncContextManager[Runtime]]) -> int:
        """Connects, and shows the screen until the user quits; returns the exit code.

        Raises:
            FairactorError: it cannot connect.
        """
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
            try:
                async with anyio.create_task_group() as group:
                    self._group = group
                    group.start_soon(self._alive, lambda: self._listen(signals))
                    self._terminal.enter()
                    await self._alive(self._draw)  # connecting imports a lot first
                    group.start_soon(self._alive, self._read_keys)
                    group.start_soon(self._alive, self._paint)
                    async with connect() as runtime:
                        self._runtime = runtime
                        await self._read(Reader(runtime))
            finally:
                self._terminal.leave()
        return self._code

    async def _alive(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs a part; if the terminal has gone, the program ends."""
        try:
            await work()
        except OSError:
            self._quit(128 + signal.SIGHUP)

    def _quit(self, code: int) -> None:
        self._code = code
        self._terminal.leave()
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)  # a second one ends the process at once
        if self._group is not None:
            self._group.cancel_scope.cancel()

    # Signals and keys

    async def _listen(self, signals: AsyncIterator[signal.Signals]) -> None:
        async for received in signals:
            if received is signal.SIGTSTP:
                self._suspend()
            elif received is signal.SIGWINCH:
                self._change(self._state)
            else:
                self._quit(128 + received)
                return

    def _suspend(self) -> None:
        """Gives the terminal back and stops the process; returns once it was continued."""
        self._terminal.leave()
        handler = signal.getsignal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        signal.siginterrupt(signal.SIGTSTP, False)
        self._terminal.enter()
        self._change(self._state)

    async def _read_keys(self) -> None:
        parser = KeyParser()
        while data := await self._terminal.read():
            keys = parser.feed(data)
            while parser.waits:
                with anyio.move_on_after(ESCAPE_PATIENCE) as waited:
                    keys += parser.feed(await self._terminal.read())
                if waited.cancelled_caught:
                    keys += parser.flush()
            for key in keys:
                self._press(key)
        self._quit(128 + signal.SIGHUP)

    def _press(self, key: str) -> None:
        state, effect = press(self._state, key, self._snapshot, self._rows())
        match effect:
            case Effect.QUIT:
                self._quit(0)
            case Effect.INTERRUPT:
                self._quit(128 + signal.SIGINT)
            case Effect.SUSPEND:
                self._suspend()
            case Effect.REDRAW:
                self._terminal.redraw()
            case Effect.REFRESH:
                self._read_again()
            case Ask():
                state = state.say("…")
                self._start(self._ask, effect.deed)
            case Do():
                state = state.say("…")
                self._start(self._perform, effect.deed)
            case None:
                pass
        self._change(state)

    def _change(self, state: State) -> None:
        """Takes a new state: draws it, and reads at once if something else is shown."""
        self._state = state
        self._changed.set()
        page = self._snapshot.page if self._snapshot else None
        fits = page is not None and page.query == state.place.query and len(page.items) >= self._wanted(page)
        if not fits and self._target != (state.place.query, self._rows()):
            self._read_again()

    def _wanted(self, page: Page) -> int:
        """Returns how many rows to have: more were asked for only if the page has a next one."""
        return self._rows() if page.after else 0

    def _read_again(self) -> None:
        self._asked = True
        self._again.set()
        if self._reading is not None:
            self._reading.cancel()

    # Changes

    def _start(self, work: Callable[[Runtime, Deed], Awaitable[None]], deed: Deed) -> None:
        if self._group is not None and self._runtime is not None:
            self._group.start_soon(self._attempt, work, self._runtime, deed)

    async def _attempt(self, work: Callable[[Runtime, Deed], Awaitable[None]], runtime: Runtime, deed: Deed) -> None:
        """Asks or does something; what fails is said in the footer."""
        try:
            await work(runtime, deed)
        except Exception as error:  # noqa: BLE001 - whatever it is, the screen goes on
            said = str(error) if isinstance(error, FairactorError) else f"{type(error).__name__}: {error}"
            self._change(self._state.say(said, failed=True))

    async def _ask(self, runtime: Runtime, deed: Deed) -> None:
        question = await deeds.ask(runtime, deed)
        if self._state.question is None and self._state.typed is None:
            self._change(attrs.evolve(self._state, question=question, message=""))

    async def _perform(self, runtime: Runtime, deed: Deed) -> None:
        self._change(self._state.say(await deeds.perform(runtime, deed)))
        self._read_again()

    # Reading

    async def _read(self, reader: Reader) -> None:
        """Reads again and again: after the interval, or at once if something else is to be shown."""
        self._snapshot = reader.nothing()
        while True:
            self._again = anyio.Event()
            if self._asked or not self._state.frozen:
                self._asked = False
                await self._read_once(reader)
            took = self._snapshot.took if self._snapshot else 0.0
            with anyio.move_on_after(max(self._interval, _TIMES * took)):  # so a slow server is asked less often
                await self._again.wait()

    async def _read_once(self, reader: Reader) -> None:
        assert self._snapshot is not None  # noqa: S101 - the caller has made one
        self._since, self._target = time.monotonic(), (self._state.place.query, self._rows())
        with anyio.CancelScope() as self._reading:
            self._snapshot = await reader.read(self._state.place, self._rows(), self._snapshot)
        self._reading = self._since = self._target = None
        self._changed.set()

    def _rows(self) -> int:
        return table_rows(self._state, self._snapshot, *self._terminal.size)

    # Drawing

    async def _paint(self) -> None:
        while True:
            self._changed = anyio.Event()
            await self._draw()
            await anyio.sleep(_FRAME)
            with anyio.move_on_after(self._interval):
                await self._changed.wait()

    async def _draw(self) -> None:
        await self._terminal.draw(self._lines())

    def _lines(self) -> list[Text]:
        snapshot = self._snapshot
        silent = 0.0 if self._since is None else time.monotonic() - self._since
        if snapshot is not None and silent > _SILENT:
            trouble = f"the server has not answered for {silent:.0f} s"
            snapshot = attrs.evolve(snapshot, trouble=snapshot.trouble or trouble, away=True)
        if snapshot is not None and not self._state.frozen and current_page(self._state, snapshot) is None:
            snapshot = attrs.evolve(snapshot, at=datetime.now(UTC))
        return render(self._state, snapshot, *self._terminal.size)
