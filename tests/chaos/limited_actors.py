"""The actors of the chaos tests that have limits of their own."""

from __future__ import annotations

import anyio

from fairactor import actor

from .actors import RETRIES, begun


@actor(max_retries=RETRIES, concurrency=2)
async def narrow(n: int, seconds: float) -> int:
    """Sleeps, then returns its number; two at a time."""
    begun()
    await anyio.sleep(seconds)
    return n


@actor(max_retries=RETRIES, concurrency=1, per="tenant")
async def single(n: int, seconds: float) -> int:
    """Likewise; one at a time for each tenant."""
    begun()
    await anyio.sleep(seconds)
    return n
