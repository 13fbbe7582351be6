"""The actors of the chaos tests, and a worker process that runs them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import anyio
import attrs

from fairactor import Retry, Runtime, actor, current_task
from fairactor.errors import NotReplicated, ServerUnavailable

RETRIES: Final = 10_000
"""So many that only tasks of `doomed` and `broken` ever fail for good."""

runtime: Runtime
"""The runtime of this worker."""
NOTES: Final = "FAIRACTOR_CHAOS_NOTES"
"""The environment variable with the path of a named pipe to the workload, which handlers in processes use, too."""
notes = -1
"""The pipe, once it is open; each note is one line, written at once."""


def note(word: str, rest: str = "") -> None:
    """Writes a note for the workload to the pipe."""
    global notes  # noqa: PLW0603 - a process opens it once
    if notes < 0:
        notes = os.open(os.environ[NOTES], os.O_WRONLY)
    os.write(notes, f"{word} {os.getpid()} {rest}\n".encode())


def begun() -> None:
    note("run", current_task().id)


@actor(max_retries=RETRIES)
async def echo(n: int, seconds: float) -> int:
    """Sleeps, then returns its number."""
    begun()
    await anyio.sleep(seconds)
    return n


@actor(max_retries=RETRIES)
def plain(n: int, seconds: float) -> int:
    """Sleeps in a thread, then returns its number."""
    begun()
    time.sleep(seconds)
    return n


@actor(max_retries=RETRIES)
async def flaky(n: int, times: int) -> int:
    """Asks for another attempt in its first ``times`` attempts."""
    begun()
    if current_task().attempt <= times:
        raise Retry(delay=0.01 * current_task().attempt)
    return n


@actor
async def doomed(n: int) -> int:
    """Fails for good until it is redriven; then it has a history."""
    begun()
    me = current_task()
    if not (await runtime.handle(me.id, me.tenant).info()).history:
        raise ValueError("not yet")
    return n


@actor(max_retries=RETRIES)
async def piece(n: int, times: int, before: list[int | None]) -> int:
    """Adds its number to its parents' results; asks for another attempt in its first ``times`` attempts."""
    begun()
    if current_task().attempt <= times:
        raise Retry(delay=0.01)
    return n + sum(result for result in before if result is not None)


@actor
async def broken(n: int) -> int:
    """Fails for good."""
    begun()
    raise ValueError(f"{n} is of no use")


@actor
async def killer(n: int) -> int:
    """Kills its process, as the system does when memory runs out."""
    begun()
    note("kills")
    os.kill(os.getpid(), signal.SIGKILL)
    return n


@actor
async def self_canceler(n: int) -> int:
    """Cancels its own asyncio task."""
    begun()
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await anyio.sleep(1)
    return n


@actor
async def exiter(n: int) -> int:
    """Raises what usually ends a process."""
    begun()
    raise (KeyboardInterrupt, SystemExit, GeneratorExit)[n % 3]


@actor
def thread_exiter(n: int) -> int:
    """Raises what usually ends a process, in a thread."""
    begun()
    raise (KeyboardInterrupt, SystemExit, GeneratorExit)[n % 3]


@actor(max_retries=RETRIES)
async def blocker(n: int, seconds: float) -> int:
    """Blocks the event loop."""
    begun()
    time.sleep(seconds)  # noqa: ASYNC251 - the fault under test
    return n


@actor(process=True)
def process_echo(n: int, seconds: float) -> int:
    """Sleeps in a process, then returns its number. It is not tried again: nothing else may end its process."""
    begun()
    time.sleep(seconds)
    return n


@actor(process=True)
def process_exiter(n: int) -> int:
    """Raises what usually ends a process, in a worker process, and sets a timer that would kill the next handler."""
    begun()
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    raise (KeyboardInterrupt, SystemExit, GeneratorExit)[n % 3]


@actor(process=True)
def process_killer(n: int) -> int:
    """Ends its worker process, or what connects it to the runtime."""
    begun()
    match n % 6:
        case 0:
            os._exit(n % 256)
        case 1:
            os.closerange(3, 256)
            time.sleep(2)
        case 2:
            os.killpg(0, signal.SIGKILL)
        case k:
            os.kill(os.getpid(), (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[k - 3])
            time.sleep(2)  # the signal may take a moment
    return n


@actor(process=True, timeout=0.2)
def process_hanger(n: int) -> int:
    """Hangs past its timeout, whatever it is told."""
    begun()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if n % 3 == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        with suppress(BaseException):
            time.sleep(1)


@actor(max_retries=RETRIES)
async def parent(n: int, kids: int) -> int:
    """Sends some tasks, asks one more, and returns the sum of all results."""
    begun()
    me = current_task().id
    try:
        handles = [await runtime.send(f"kids:{k}", echo(n + k, 0.002), id=f"{me}.{k}") for k in range(1, kids)]
        asked = await runtime.ask("kids:0", echo(n, 0.002), id=f"{me}.0")
        return asked + sum([await handle.result() for handle in handles])
    except (ServerUnavailable, NotReplicated):
        raise Retry(delay=0.05) from None


@attrs.frozen
class WorkerSpec:
    """The options of a worker process."""

    url: str
    notes: str
    """The path of the pipe."""
    settings: dict[str, Any]
    actors: Sequence[str] = ()
    """The names of its actors; none: all of them."""
    limited: bool = False
    """Whether those with limits are among them."""


async def work(spec: WorkerSpec) -> None:
    """Serves until SIGTERM. Retries while the server is down at the start, as a service manager would."""
    global runtime
    os.environ[NOTES] = spec.notes
    modules = [sys.modules[__name__]]
    if spec.limited:
        from . import limited_actors  # it imports this module

        modules.append(limited_actors)
    names = {name: getattr(module, name) for module in modules for name in vars(module)}
    found = [names[name] for name in spec.actors] or modules
    while True:
        try:
            async with (
                Runtime(spec.url, actors=found, **spec.settings) as runtime,
                anyio.create_task_group() as group,
            ):
                group.start_soon(_say_ready)  # runs once `run` waits, when its signal handlers are installed
                await runtime.run()
                return
        except ServerUnavailable as error:
            print(f"cannot start yet: {error}", file=sys.stderr, flush=True)  # noqa: T201 - its log


async def _say_ready() -> None:
    note("ready")
