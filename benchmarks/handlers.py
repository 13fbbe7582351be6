"""The handlers that the benchmarks run. They note that they were called, and some of them sleep."""

from __future__ import annotations

import asyncio
from time import monotonic, perf_counter, perf_counter_ns
from typing import Final, NamedTuple

from fairactor import actor


class Service(NamedTuple):
    """One call of `work`. Times are `time.monotonic`, which on Linux and macOS is one clock for all processes."""

    tenant: str
    began: float
    ended: float


starts: Final[list[float]] = []
"""When the calls of `nothing` started, by `time.perf_counter`."""
delays: Final[list[float]] = []
"""How long it took from the send to each call of `arrive`, in µs."""
served: Final[list[str]] = []
"""The tenants of the calls of `serve`, in order."""
services: Final[list[Service]] = []
"""The calls of `work` that have ended."""


@actor
async def nothing(n: int) -> None:  # noqa: ARG001 - a call without arguments would be unrealistic
    """Notes when it started."""
    starts.append(perf_counter())


@actor
async def arrive(sent: int) -> None:
    """Notes how long it took from the send until now.

    Args:
        sent: when it was sent, by ``perf_counter_ns``, which on Linux and macOS is one clock for all processes.
    """
    delays.append((perf_counter_ns() - sent) / 1000)


@actor
async def serve(tenant: str) -> None:
    """Notes which tenant was served."""
    served.append(tenant)


@actor
async def work(tenant: str, seconds: float) -> None:
    """Sleeps, and notes for which tenant and when."""
    began = monotonic()
    await asyncio.sleep(seconds)
    services.append(Service(tenant, began, monotonic()))
