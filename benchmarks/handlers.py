"""The handlers that the benchmarks run. They do nothing but note that they were called."""

from __future__ import annotations

from time import perf_counter, perf_counter_ns
from typing import Final

from fairactor import actor

starts: Final[list[float]] = []
"""When `nothing` was started, `time.perf_counter`."""
delays: Final[list[float]] = []
"""How long the calls of `arrive` were under way, µs."""
served: Final[list[str]] = []
"""The tenants that `serve` was called for."""


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
