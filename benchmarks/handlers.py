"""The handlers that the benchmarks run. They do nothing but note that they were called, and some sleep."""

from __future__ import annotations

import asyncio
from time import monotonic, perf_counter, perf_counter_ns
from typing import Final, NamedTuple

from fairactor import actor


class Service(NamedTuple):
    """A call of `work`; times are `time.monotonic`, on Linux and macOS the same clock in all processes."""

    tenant: str
    began: float
    ended: float


starts: Final[list[float]] = []
"""When `nothing` was started, `time.perf_counter`."""
delays: Final[list[float]] = []
"""How long the calls of `arrive` were under way, µs."""
served: Final[list[str]] = []
"""The tenants that `serve` was called for."""
services: Final[list[Service]] = []
"""The calls of `work` that have ended."""


@actor
async def nothing(n: int) -> None:  # noqa: ARG001 - a call without an argument would be unlike those of services
    """Notes when it was started."""
    starts.append(perf_counter())


@actor
async def arrive(sent: int) -> None:
    """Notes how long it was under way.

    Args:
        sent: when that began, ``perf_counter_ns``; on Linux and macOS that clock is the same in all processes.
    """
    delays.append((perf_counter_ns() - sent) / 1000)


@actor
async def serve(tenant: str) -> None:
    """Notes whose turn it was."""
    served.append(tenant)


@actor
async def work(tenant: str, seconds: float) -> None:
    """Sleeps, and notes for whom and when."""
    began = monotonic()
    await asyncio.sleep(seconds)
    services.append(Service(tenant, began, monotonic()))
