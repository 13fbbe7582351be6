"""The actors of chaos, and a worker process that runs them."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

import anyio
import attrs

from fairactor import Retry, Runtime, actor, current_task
from fairactor.errors import ServerUnavailable

RETRIES: Final = 10_000
"""So many that no task ever fails for good, but for those that are doomed."""

runtime: Runtime
"""That of this worker."""
notes = -1
"""A pipe to the workload: each note is one line, written in one piece."""


def note(word: str, rest: str = "") -> None:
    """Writes a note for the workload into the pipe."""
    os.write(notes, f"{word} {os.getpid()} {rest}\n".encode())


def _begun() -> None:
    note("run", current_task().id)


@actor(max_retries=RETRIES)
async def echo(n: int, seconds: float) -> int:
    """Takes its time."""
    _begun()
    await anyio.sleep(seconds)
    return n


@actor(max_retries=RETRIES)
def plain(n: int, seconds: float) -> int:
    """Takes its time in a thread."""
    _begun()
    time.sleep(seconds)
    return n


@actor(max_retries=RETRIES)
async def flaky(n: int, times: int) -> int:
    """Asks for another attempt, the first so many times that it is run."""
    _begun()
    if current_task().attempt <= times:
        raise Retry(delay=0.01 * current_task().attempt)
    return n


@actor
async def doomed(n: int) -> int:
    """Fails for good, until it is sent again: then it has a history."""
    _begun()
    me = current_task()
    if not (await runtime.handle(me.id, me.tenant).info()).history:
        raise ValueError("not yet")
    return n


@actor(max_retries=RETRIES)
async def piece(n: int, times: int, before: list[int | None]) -> int:
    """Adds to what those before it have returned; asks for other attempts at first."""
    _begun()
    if current_task().attempt <= times:
        raise Retry(delay=0.01)
    return n + sum(result for result in before if result is not None)


@actor
async def broken(n: int) -> int:
    """Fails for good."""
    _begun()
    raise ValueError(f"{n} is of no use")


@actor(max_retries=RETRIES)
async def parent(n: int, kids: int) -> int:
    """Sends some tasks, waits for all of them, and for one more."""
    _begun()
    me = current_task().id
    try:
        handles = [await runtime.send(f"kids:{k}", echo(n + k, 0.002), id=f"{me}.{k}") for k in range(1, kids)]
        asked = await runtime.ask("kids:0", echo(n, 0.002), id=f"{me}.0")
        return asked + sum([await handle.result() for handle in handles])
    except ServerUnavailable:
        raise Retry(delay=0.05) from None


@attrs.frozen
class WorkerSpec:
    """What a worker process is to do."""

    url: str
    notes: int
    settings: dict[str, Any]


async def work(spec: WorkerSpec) -> None:
    """Serves until SIGTERM. A server that is away when it begins is tried again, as by whoever starts services."""
    global runtime, notes  # noqa: PLW0603 - a process is one worker
    notes = spec.notes
    while True:
        try:
            async with (
                Runtime(spec.url, actors=[sys.modules[__name__]], **spec.settings) as runtime,
                anyio.create_task_group() as group,
            ):
                group.start_soon(_say_ready)  # it comes to run when `run` waits, and so has its signal handlers
                await runtime.run()
                return
        except ServerUnavailable as error:
            print(f"cannot start yet: {error}", file=sys.stderr, flush=True)  # noqa: T201 - its log


async def _say_ready() -> None:
    note("ready")
