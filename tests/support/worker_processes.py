"""Worker processes that run `tests.support.service`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread

from .polling import PATIENCE


class Process:
    """A process that runs `tests.support.service`."""

    def __init__(self, url: str, **settings: Any) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.support.service", url, json.dumps(settings)]
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.pid = self._process.pid
        self.log = ""
        """Its output, once it has ended."""

    async def ready(self) -> None:
        """Waits until the process serves."""
        assert self._process.stdout is not None
        line = await anyio.to_thread.run_sync(self._process.stdout.readline)
        if line.strip() != b"ready":
            raise RuntimeError(f"it did not start: {self._process.communicate()[1].decode()}")

    def signal(self, which: signal.Signals) -> None:
        """Sends the process a signal."""
        self._process.send_signal(which)

    async def ended(self) -> int:
        """Waits for the process to end and returns its status, which is negative if a signal killed it."""
        _, said = await anyio.to_thread.run_sync(lambda: self._process.communicate(timeout=PATIENCE))
        self.log = said.decode()
        return self._process.returncode

    async def stop(self) -> int:
        """Stops the process gracefully and returns its status."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    def kill(self) -> None:
        """Kills the process."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


class Fleet:
    """Worker processes on one server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.processes: list[Process] = []

    async def start(self, count: int = 1, **settings: Any) -> list[Process]:
        """Starts processes with the given settings and waits until they serve."""
        new = [Process(self._url, **{"lease": 1.0, "grace": 5.0, "workers": 4} | settings) for _ in range(count)]
        self.processes += new
        for process in new:
            await process.ready()
        return new

    async def stop(self) -> None:
        """Stops running processes gracefully."""
        for process in self.processes:
            process.signal(signal.SIGTERM)
        for process in self.processes:
            await process.ended()


@contextmanager
def fleet(url: str) -> Iterator[Fleet]:
    """Yields a fleet; kills the processes that still run afterwards."""
    made = Fleet(url)
    try:
        yield made
    finally:
        for process in made.processes:
            process.kill()
