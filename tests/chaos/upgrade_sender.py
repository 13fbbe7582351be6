"""Sends tasks until it is told to stop. As a program it runs on the release before: it uses what both releases have."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from typing import Any, Final

import anyio

from fairactor import Runtime
from tests.support import service

CAPPED: Final = ("one:old", "one:new")
"""Tenants of which one task may run at once."""
_TENANTS: Final = 20
_EACH: Final = 0.03
"""Seconds between two sends."""


async def send_until(runtime: Runtime, name: str, ends: Any, accepted: list[str]) -> None:
    """Sends tasks until an event is set, and notes the ids of those that are accepted."""
    capped = f"one:{name}"
    await runtime.tenant(capped).configure(concurrency=1)
    for number in itertools.count():
        if ends.is_set():
            return
        messages = [
            (f"tenant:{number % _TENANTS}", service.nap(0.005).options(id=f"{name} {number}")),
            (capped, service.one_at_a_time(number).options(id=f"{name} one {number}")),
        ]
        accepted += [handle.id for handle in await runtime.send_many(messages)]
        await anyio.sleep(_EACH)


async def _main(url: str) -> None:
    ends, accepted = asyncio.Event(), []  # type: ignore[var-annotated]
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ends.set)
    async with Runtime(url, workers=0) as runtime:
        print("ready", flush=True)  # noqa: T201 - for the parent process
        await send_until(runtime, "old", ends, accepted)
    print(json.dumps(accepted), flush=True)  # noqa: T201 - likewise


if __name__ == "__main__":
    anyio.run(_main, sys.argv[1])
