"""Waits for conditions that have no event, with a time limit."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import redis

PATIENCE = 30.0
"""Seconds; far longer than any step takes, for busy machines."""


async def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Waits until ``condition`` returns (or its awaitable gives) a true value, and returns that value.

    Raises:
        TimeoutError: the value did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {found!r} after {seconds:g} s")
        await anyio.sleep(0.005)


async def pushed(db: redis.Redis, key: str, count: int = 1) -> list[str]:
    """Waits for the next values of a list and pops them."""
    values = []
    for _ in range(count):
        found = await anyio.to_thread.run_sync(lambda: db.blpop([key], timeout=PATIENCE))
        if found is None:
            raise TimeoutError(f"{len(values)} of {count} were pushed to {key!r} within {PATIENCE:g} s")
        values.append(found[1].decode())
    return values
