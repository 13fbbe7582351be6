"""Runs a program in a terminal of its own, and tells what is on its screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyte

from tests.support.polling import until

ROOT = Path(__file__).parents[2]
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)


class Screen:
    """A terminal with a program in it."""

    def __init__(self, command: Sequence[str], columns: int, lines: int, environment: dict[str, str]) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        """Everything that was written."""
        self._master, slave = os.openpty()
        os.set_blocking(self._master, False)
        self._resize(columns, lines)
        self.before = termios.tcgetattr(self._master)
        """The settings of the terminal before the program started."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            cwd=ROOT,
            env=environment,
        )
        os.close(slave)

    def _resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        """Changes the size; the program gets SIGWINCH."""
        self._resize(columns, lines)
        self._screen.resize(lines, columns)

    def type(self, keys: str | bytes) -> None:
        """Types something."""
        os.write(self._master, keys.encode() if isinstance(keys, str) else keys)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the program."""
        self._process.send_signal(number)

    def has_program(self) -> bool:
        """Whether the program has the terminal, so that Ctrl-C reaches it."""
        return os.tcgetpgrp(self._master) == self._process.pid

    @property
    def lines(self) -> list[str]:
        """What is on the screen now, line by line."""
        with contextlib.suppress(BlockingIOError, OSError):  # OSError: the program has ended
            while data := os.read(self._master, 65536):
                self.raw += data
                self._stream.feed(data)
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """What is on the screen now."""
        return "\n".join(self.lines)

    def line(self, beginning: str) -> str:
        """Returns the first line that begins so; '' if there is none."""
        return next((line for line in self.lines if line.startswith(beginning)), "")

    async def shows(self, *texts: str) -> str:
        """Waits until all texts are on the screen; returns what is there."""
        return await self.sees(lambda screen: all(text in screen for text in texts), f"never all of {texts}")

    async def sees(self, condition: Callable[[str], object], otherwise: str = "never") -> str:
        """Waits until a condition holds for what is on the screen; returns what is there."""
        try:
            await until(lambda: condition(self.text))
        except TimeoutError:
            raise AssertionError(f"{otherwise}:\n{self.text}") from None
        return self.text

    async def ends(self) -> int:
        """Waits for the end of the program; returns its exit code."""
        await until(lambda: self.lines and self._process.poll() is not None)
        _ = self.lines
        return self._process.wait()

    def is_restored(self) -> bool:
        """Whether the terminal is as it was before: its settings, its screen, the cursor, line wrap."""
        _ = self.lines
        switched = [self.raw.rfind(code) for code in (b"\x1b[?1049h", b"\x1b[?25l", b"\x1b[?7l", b"\x1b[?2004h")]
        restored = [self.raw.rfind(code) for code in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?7h", b"\x1b[?2004l")]
        modes = all(on <= off for on, off in zip(switched, restored, strict=True))
        return modes and termios.tcgetattr(self._master) == self.before

    def close(self) -> None:
        """Ends the program and closes the terminal."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)


@contextlib.contextmanager
def screen(*command: str, columns: int = 100, lines: int = 24, **environment: str) -> Iterator[Screen]:
    """Starts a program in a terminal."""
    plain = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    made = Screen(command, columns, lines, plain | {"TERM": "xterm-256color"} | environment)
    try:
        yield made
    finally:
        made.close()
