"""A process of ``fairactor worker``, from the side of its supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Self

import anyio

from .options import WorkerOptions

_LONGEST: Final = 1 << 26
"""The most bytes of a line: it may have the names of many actors."""
_LAST_WORDS: Final = 1.0
"""The seconds for which to read what a process has said before it ended."""


class Child:
    """A process that runs tasks.

    Args:
        process: the process.
        reader: reads what it says.
        writer: tells it what to do.
        on_change: called when it is ready, wants to be replaced, or has ended.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_change: Callable[[], None],
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._on_change = on_change
        self._began = time.monotonic()
        self.pid = process.pid
        self.info: dict[str, Any] | None = None
        """What it runs; None before it is ready."""
        self.fatal = False
        """Whether it could not start for a reason that will not go away."""
        self.drained = False
        """Whether it ends because nothing is pending."""
        self.renewal: str | None = None
        """Why it wants to be replaced."""
        self.code: int | None = None
        """Its exit code once it has ended; negative if a signal killed it."""
        self.ended = anyio.Event()
        self.told = False
        """Whether it was told to stop."""

    @classmethod
    async def start(cls, options: WorkerOptions, on_change: Callable[[], None]) -> Self:
        """Starts a process."""
        ours, theirs = socket.socketpair()
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as in multiprocessing
        command = [sys.executable, *flags, "-m", "fairactor._worker_command", str(theirs.fileno()), *options.targets]
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(*command, pass_fds=(theirs.fileno(),))
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST)
        writer.write(options.packed())
        return cls(process, reader, writer, on_change)

    @property
    def seconds(self) -> float:
        """The seconds since it was started."""
        return time.monotonic() - self._began

    async def follow(self) -> None:
        """Reads what it says until it has ended."""
        async with anyio.create_task_group() as group:
            silent = anyio.Event()
            group.start_soon(self._read, silent)
            self.code = await self._process.wait()
            with anyio.move_on_after(_LAST_WORDS):  # a process that its handler has forked may hold the socket open
                await silent.wait()
            group.cancel_scope.cancel()
        self._writer.close()
        self.ended.set()
        self._on_change()

    async def _read(self, silent: anyio.Event) -> None:
        with contextlib.suppress(OSError):
            while line := await self._reader.readline():
                self._note(json.loads(line))
        silent.set()

    def _note(self, said: dict[str, Any]) -> None:
        self.info = said.get("ready", self.info)
        self.renewal = said.get("renew", self.renewal)
        self.fatal = said.get("fatal", self.fatal)
        self.drained = said.get("drained", self.drained)
        self._on_change()

    def stop(self) -> None:
        """Lets it stop gracefully; a process that still imports its module ends at once."""
        self.told = True
        if self.info is None:
            self._signal(signal.SIGTERM)
        else:
            self._writer.write(b"stop\n")

    def stop_now(self) -> None:
        """Lets it stop without waiting for running tasks."""
        self.told = True
        if self.info is None:
            self._signal(signal.SIGTERM)
        else:
            self._writer.write(b"now\n")

    def kill(self) -> None:
        """Kills it."""
        self.told = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def end_described(self) -> str:
        """Returns how it ended."""
        code = self.code or 0
        if code >= 0:
            return f"process {self.pid} has ended with code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        hint = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
        return f"process {self.pid} was killed by {name}{hint}"
