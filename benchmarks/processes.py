"""Starts processes next to the one that measures. Each has an event loop and a line to talk over."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, Final

import anyio

_PATIENCE: Final = 10.0  # seconds until a process that was told to end is killed


class Line:
    """One end of a pipe to another process."""

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection

    def send(self, value: Any = None) -> None:
        """Sends a value that can be pickled."""
        self._connection.send(value)

    async def receive(self) -> Any:
        """Waits for the next value.

        Raises:
            EOFError: the other process has ended.
        """
        await anyio.wait_readable(self._connection)
        os.set_blocking(self._connection.fileno(), True)  # uvloop has made it non-blocking
        return self._connection.recv()


Work = Callable[..., Coroutine[Any, Any, None]]


@asynccontextmanager
async def processes(number: int, work: Work, *arguments: Any) -> AsyncIterator[list[Line]]:
    """Runs ``work(line, *arguments)`` in several processes; yields the lines to them once all are up."""
    new_loop = getattr(sys.modules.get("uvloop"), "new_event_loop", None)  # the same loop as this process
    running, ends = [], []
    try:
        for _ in range(number):
            here, there = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_main, args=(there, new_loop, work, arguments))
            await asyncio.to_thread(process.start)  # the first start is slow
            there.close()
            running.append(process)
            ends.append(here)
        lines = [Line(here) for here in ends]
        await all_heard(lines)
        yield lines
    finally:
        for here in ends:
            here.close()  # a process that still waits gets EOFError
        for process in running:
            await asyncio.to_thread(process.join, _PATIENCE)
            process.kill()


async def all_heard(lines: Sequence[Line]) -> list[Any]:
    """Waits for the next value from each line."""
    return [await line.receive() for line in lines]


def _main(
    connection: Connection[Any, Any],
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None,
    work: Work,
    arguments: Sequence[Any],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the measuring process ends all others

    async def run() -> None:
        line = Line(connection)
        line.send()
        with suppress(EOFError, BrokenPipeError):
            await work(line, *arguments)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


CONTEXT: Final = multiprocessing.get_context("forkserver")  # starts a process in a few hundredths of a second
CONTEXT.set_forkserver_preload(["benchmarks.__main__"])
