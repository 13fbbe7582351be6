"""A service for the tests that need processes: actors that can be imported, and a program that runs them.

``python -m tests.support.service URL SETTINGS`` (settings as JSON) says "ready" and serves until SIGTERM.
"""

from __future__ import annotations

import json
import os
import sys
import time

import anyio
import redis.asyncio

from fairactor import Retry, Runtime, actor, current_task

store: redis.asyncio.Redis
"""A client of the server, for notes that outlive the process."""


async def _note(key: str) -> int:
    """Notes that a task has begun here; returns how often it has begun by now."""
    task = current_task()
    begun = await store.incr(f"begun {task.id}")
    await store.rpush(key, f"{task.id} {os.getpid()}")
    return int(begun)


@actor
async def nap(seconds: float) -> int:
    """Sleeps; the process that ran it is its result."""
    await _note("runs")
    await anyio.sleep(seconds)
    return os.getpid()


@actor
async def hold() -> int:
    """Waits for something to be pushed to the list ``gate``."""
    await _note("runs")
    await store.blpop("gate")
    return os.getpid()


@actor
async def block(seconds: float, times: int = 1) -> int:
    """Blocks the event loop, the first so many times that it is run."""
    if await _note("runs") <= times:
        time.sleep(seconds)  # noqa: ASYNC251 - the fault to be tested
    return os.getpid()


@actor
async def die(times: int) -> int:
    """Kills its process, the first so many times that it is run."""
    if await _note("runs") <= times:
        os._exit(7)
    return os.getpid()


@actor
async def one_at_a_time(n: int) -> int:
    """Notes its number, and how many of its tenant run at once."""
    tenant = current_task().tenant
    await store.rpush(f"order {tenant}", n)
    at_once = await store.incr(f"running {tenant}")
    await store.rpush(f"at once {tenant}", at_once)
    await anyio.sleep(0.001)
    await store.decr(f"running {tenant}")
    return os.getpid()


class NotCarried(Exception):
    """Cannot be made anew from its arguments alone, as many exceptions of real programs."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")


@actor(process=True)
def crunch(n: int) -> tuple[int, int]:
    """Runs in a process of its own, whose id is part of its result."""
    return os.getpid(), n * n


@actor(process=True)
def crunch_and_fail(how: str) -> None:
    """Fails in a process of its own."""
    if how == "exit":
        os._exit(9)
    if how == "retry":
        raise Retry(delay=0)
    if how == "custom":
        raise NotCarried(5, "it did not fit")
    raise ValueError(how)


@actor(process=True)
def crunch_long(seconds: float) -> None:
    """Keeps a process of its own for long."""
    time.sleep(seconds)


async def _main(url: str, settings: str) -> None:
    global store
    async with (
        redis.asyncio.Redis.from_url(url) as store,
        anyio.create_task_group() as group,
        Runtime(url, actors=[sys.modules[__name__]], **json.loads(settings)) as runtime,
    ):
        group.start_soon(_say_ready)  # it comes to run when `run` waits, and so has its signal handlers
        await runtime.run()


async def _say_ready() -> None:
    print("ready", flush=True)  # noqa: T201 - told to the parent


if __name__ == "__main__":
    anyio.run(_main, *sys.argv[1:])
