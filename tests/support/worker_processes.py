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
        """What it said, once it has ended."""

    async def ready(self) -> None:
        """Waits until it serves."""
        assert self._process.stdout is not None
        line = await anyio.to_thread.run_sync(self._process.stdout.readline)
        if line.strip() != b"ready":
            raise RuntimeError(f"it did not start: {self._process.communicate()[1].decode()}")

    def signal(self, which: signal.Signals) -> None:
        """Sends it a signal."""
        self._process.send_signal(which)

    async def ended(self) -> int:
        """Waits for its end; returns its status, negative if a signal killed it."""
        _, said = await anyio.to_thread.run_sync(lambda: self._process.communicate(timeout=PATIENCE))
        self.log = said.decode()
        return self._process.returncode

    async def stop(self) -> int:
        """Ends it in the way that is intended."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    def kill(self) -> None:
        """Ends it by force, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


class Fleet:
    """Some processes on one server."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.processes: list[Process] = []

    async def start(self, count: int = 1, **settings: Any) -> list[Process]:
        """Starts processes that serve, all with these settings."""
        new = [Process(self._url, **{"lease": 1.0, "grace": 5.0, "workers": 4} | settings) for _ in range(count)]
        self.processes += new
        for process in new:
            await process.ready()
        return new

    async def stop(self) -> None:
        """Ends those that still run, in the way that is intended."""
        for process in self.processes:
            process.signal(signal.SIGTERM)
        for process in self.processes:
            await process.ended()


@contextmanager
def fleet(url: str) -> Iterator[Fleet]:
    """A fleet; whatever of it still runs afterwards is killed."""
    made = Fleet(url)
    try:
        yield made
    finally:
        for process in made.processes:
            process.kill()
