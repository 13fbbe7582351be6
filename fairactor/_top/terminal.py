"""A terminal in raw mode, on its other screen: reads keys, draws lines that have changed, and is always restored."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, Self

import anyio
from rich.console import Console
from rich.text import Text

_ENTER: Final = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?2004h\x1b[2J"
"""The other screen, no cursor, no line wrap, pastes are marked as such."""
_LEAVE: Final = b"\x1b[?2026l\x1b[0m\x1b[?2004l\x1b[?7h\x1b[?25h\x1b[?1049l"
_BEGIN: Final = b"\x1b[?2026h"
"""Terminals that know this show all that follows at once."""
_END: Final = b"\x1b[?2026l"
_PATIENCE: Final = 1.0  # seconds for a terminal that takes nothing, before it is left as it is
_DUMB: Final = ("", "dumb", "unknown")
_LARGEST: Final = 1000  # lines and columns
_WIDE: Final = 10_000  # columns of the console that makes control sequences, so that it breaks no line


def open_terminal() -> int | None:
    """Opens the terminal of this process; returns a descriptor that does not block, or None without a terminal.

    The descriptor is a new one, because whether one blocks is common to all that share it, such as the shell.
    """
    if os.environ.get("TERM", "") in _DUMB or not sys.stdout.isatty():
        return None
    with contextlib.suppress(OSError):
        flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK
        return os.open(os.ttyname(sys.stdout.fileno()), flags)
    return None


class Terminal:
    """The terminal. As a context manager it restores the terminal on leaving, and closes the descriptor.

    Args:
        descriptor: from `open_terminal`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before: list[Any] | None = None
        self._drawn: list[Text] = []
        self._size = (0, 0)
        self._console = Console(
            file=io.StringIO(), force_terminal=True, width=_WIDE, height=1, highlight=False, emoji=False, markup=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        os.close(self._descriptor)

    def enter(self) -> None:
        """Changes to the other screen. Ctrl-C and Ctrl-Z stay signals, so they work even if the event loop is busy."""
        if self._before is not None:
            return
        self._before = termios.tcgetattr(self._descriptor)
        mode = termios.tcgetattr(self._descriptor)
        mode[0] &= ~(termios.IXON | termios.ICRNL)
        mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, mode)
        self.redraw()
        self._write_now(_ENTER)

    def leave(self) -> None:
        """Restores the terminal. Does nothing if it was restored already."""
        if self._before is None:
            return
        before, self._before = self._before, None
        with contextlib.suppress(OSError):  # the terminal may have been closed
            self._write_now(_LEAVE)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._descriptor, termios.TCSANOW, before)

    @property
    def size(self) -> tuple[int, int]:
        """The columns and lines."""
        with contextlib.suppress(OSError):
            width, height = os.get_terminal_size(self._descriptor)
            if width and height:
                return min(width, _LARGEST), min(height, _LARGEST)
        return 80, 24

    def redraw(self) -> None:
        """Makes the next `draw` draw everything."""
        self._drawn = []
        self._size = (0, 0)

    async def read(self) -> bytes:
        """Waits for input; returns b'' once the terminal was closed."""
        while True:
            await anyio.wait_readable(self._descriptor)
            try:
                return os.read(self._descriptor, 4096)
            except BlockingIOError:
                continue
            except OSError:
                return b""

    async def draw(self, lines: Sequence[Text]) -> None:
        """Draws the lines that differ from what is on the screen.

        Raises:
            OSError: the terminal was closed.
        """
        await self._write(b"".join(self._changes(lines)))
        self._drawn = list(lines)

    def _changes(self, lines: Sequence[Text]) -> Iterator[bytes]:
        drawn = self._drawn
        if self._size != self.size:
            self._size, drawn = self.size, []
        changed = [row for row, line in enumerate(lines) if row >= len(drawn) or drawn[row] != line]
        if not changed and len(drawn) <= len(lines) and drawn:
            return
        yield _BEGIN
        for row in changed:
            yield f"\x1b[{row + 1};1H{self._drawing(lines[row])}\x1b[0m".encode(errors="replace")
        if len(drawn) != len(lines):
            yield f"\x1b[{len(lines) + 1};1H\x1b[J".encode() if len(lines) < self._size[1] else b""
        yield _END

    def _drawing(self, line: Text) -> str:
        """Returns what draws a line, and erases what was there before."""
        text = self._ansi(line)
        if not line.plain.isascii():  # terminals do not agree on the widths of all characters
            return f"\x1b[2K{text}"
        return text if len(line.plain) >= self._size[0] else f"{text}\x1b[0m\x1b[K"

    def _ansi(self, line: Text) -> str:
        with self._console.capture() as capture:
            self._console.print(line, end="", no_wrap=True, crop=False, overflow="ignore")
        return capture.get()

    async def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                await anyio.wait_writable(self._descriptor)

    def _write_now(self, data: bytes) -> None:
        """Writes without waiting long: a terminal that takes nothing must not keep this process from ending."""
        deadline = time.monotonic() + _PATIENCE
        left = memoryview(data)
        while left and time.monotonic() < deadline:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [], 0.05)
