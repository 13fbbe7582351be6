"""Runs ``fairactor worker`` in processes, and reads what they say."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fairactor

from .polling import PATIENCE

ROOT = Path(fairactor.__file__).parents[1]
PATH = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
READY = r"process (\d+) is ready"


class Command:
    """A process of the command.

    Args:
        folder: the current folder, with the modules to run.
        arguments: the arguments after ``fairactor worker``.
        environ: variables to set.
    """

    def __init__(self, folder: Path, *arguments: str, **environ: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "fairactor", "worker", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": PATH, "PYTHONDONTWRITEBYTECODE": "1"} | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that a group can be interrupted as a terminal does
        )
        self.pid = self._process.pid
        self.said: list[str] = []
        """The lines that it has said so far."""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, pattern: str) -> re.Match[str]:
        """Waits for the next line that matches a pattern."""
        deadline = time.monotonic() + PATIENCE
        while (found := self._lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            self.said.append(found)
            if match := re.search(pattern, found):
                return match
        raise AssertionError(f"it ended without {pattern!r}:\n" + "\n".join(self.said))

    def ready(self, count: int = 1) -> list[int]:
        """Waits until processes are ready; returns their numbers."""
        return [int(self.line(READY)[1]) for _ in range(count)]

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Sends it a signal; to the whole group, as a terminal does, if asked."""
        if group:
            os.killpg(self.pid, number)
        else:
            self._process.send_signal(number)

    def ended(self) -> int:
        """Waits for its end and returns its exit code."""
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        while not self._lines.empty() and (line := self._lines.get()) is not None:
            self.said.append(line)
        return code

    @property
    def text(self) -> str:
        """Everything that it has said so far."""
        return "\n".join(self.said)

    def close(self) -> None:
        """Kills it and its processes, if they still run."""
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Commands:
    """Starts commands in a folder.

    Args:
        folder: the folder.
        url: the server; None for none.
    """

    def __init__(self, folder: Path, url: str | None) -> None:
        self._folder = folder
        self._url = url
        self._started: list[Command] = []

    def write(self, name: str, code: str) -> None:
        """Writes a module."""
        (self._folder / name).write_text(code)

    def start(self, *arguments: str, **environ: str) -> Command:
        """Starts a command."""
        server = {"FAIRACTOR_URL": self._url} if self._url is not None else {}
        command = Command(self._folder, *arguments, **server | environ)
        self._started.append(command)
        return command

    def run(self, *arguments: str, **environ: str) -> Command:
        """Runs a command to its end."""
        command = self.start(*arguments, **environ)
        command.ended()
        return command

    @contextmanager
    def closing(self) -> Iterator[Commands]:
        """Yields itself; kills what still runs afterwards."""
        try:
            yield self
        finally:
            for command in self._started:
                command.close()
