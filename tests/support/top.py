"""Actors and helpers for the tests of `fairactor top`."""

from __future__ import annotations

import sys
from typing import Any

from fairactor import Runtime, TaskState, actor

HOSTILE = "evil\x1b[2J\u202egnp\n日本" + "e\u0301" * 30
"""A name with characters that would clear the screen, turn the writing round and break the line."""


@actor
async def work(number: int) -> None: ...


@actor(max_retries=0)
async def broken(number: int) -> None:
    raise ValueError(f"no order {number}")


def command(url: str, *options: str) -> list[str]:
    """Returns a command line of `fairactor top`."""
    return [sys.executable, "-m", "fairactor", "top", "--url", url, "--interval", "0.2", *options]


async def fill(runtime: Runtime, **tenants: int) -> None:
    """Sends tasks to tenants."""
    for tenant, number in tenants.items():
        await runtime.send_many([(tenant, work(n)) for n in range(number)])


async def is_in(handle: Any, state: TaskState) -> bool:
    """Whether a task is in a state."""
    return await handle.state() is state
