"""A service for tests that need processes: importable actors, and a program that runs them.

``python -m tests.support.service URL SETTINGS`` (settings as JSON) prints "ready" and serves until SIGTERM.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time

import anyio
import redis.asyncio

from fairactor import Retry, Runtime, actor, current_task
from tests.support import process_actors

store: redis.asyncio.Redis
"""A client of the server, for notes that outlive the process."""


async def _note(key: str) -> int:
    """Notes that a task has started here; returns how often it has started so far."""
    task = current_task()
    begun = await store.incr(f"begun {task.id}")
    await store.rpush(key, f"{task.id} {os.getpid()}")
    return int(begun)


@actor
async def nap(seconds: float) -> int:
    """Sleeps and returns the id of its process."""
    await _note("runs")
    await anyio.sleep(seconds)
    return os.getpid()


@actor
async def hold() -> int:
    """Waits until a value is pushed to the list ``gate``."""
    await _note("runs")
    await store.blpop("gate")
    return os.getpid()


@actor
async def block(seconds: float, times: int = 1) -> int:
    """Blocks the event loop in its first ``times`` runs."""
    if await _note("runs") <= times:
        time.sleep(seconds)  # noqa: ASYNC251 - the fault under test
    return os.getpid()


@actor
def match(length: int) -> None:
    """Keeps Python's lock for a long time in its first run: the expression tries every way to divide the text."""
    _matches.append(length)
    if len(_matches) == 1:
        re.match(r"(a+)+$", "a" * length + "b")


_matches: list[int] = []


@actor
async def die(times: int) -> int:
    """Kills its process in its first ``times`` runs."""
    if await _note("runs") <= times:
        os._exit(7)
    return os.getpid()


@actor
async def one_at_a_time(n: int) -> int:
    """Notes its number and how many tasks of its tenant run at once."""
    tenant = current_task().tenant
    await store.rpush(f"order {tenant}", n)
    at_once = await store.incr(f"running {tenant}")
    await store.rpush(f"at once {tenant}", at_once)
    await anyio.sleep(0.001)
    await store.decr(f"running {tenant}")
    return os.getpid()


class NotCarried(Exception):
    """An exception that cannot be rebuilt from its ``args``, like many in real programs."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")


@actor(process=True)
def crunch(n: int) -> tuple[int, int]:
    """Runs in a separate process and returns its id with the result."""
    return os.getpid(), n * n


@actor(process=True)
def crunch_and_fail(how: str) -> None:
    """Fails in a separate process."""
    if how == "exit":
        os._exit(9)
    if how == "retry":
        raise Retry(delay=0)
    if how == "custom":
        raise NotCarried(5, "it did not fit")
    raise ValueError(how)


@actor(process=True)
def crunch_long(seconds: float) -> None:
    """Occupies a separate process for a long time."""
    time.sleep(seconds)


async def _main(url: str, settings: str) -> None:
    global store
    async with (
        redis.asyncio.Redis.from_url(url) as store,
        anyio.create_task_group() as group,
        Runtime(url, actors=[sys.modules[__name__], process_actors], **json.loads(settings)) as runtime,
    ):
        group.start_soon(_say_ready)  # runs once `run` waits, when its signal handlers are installed
        await runtime.run()


async def _say_ready() -> None:
    print("ready", flush=True)  # noqa: T201 - for the parent process


if __name__ == "__main__":
    anyio.run(_main, *sys.argv[1:])
