"""A process that runs schedules with a wrong clock, for tests that kill it.

``python -m tests.support.scheduling.scheduler_process URL SKEW`` prints "ready" and runs until it is killed. Its clocks
are SKEW seconds ahead. It ignores leadership: all processes that run at the same time race for each tick.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread


class SchedulerProcess:
    """A scheduler process, seen from the test."""

    def __init__(self, url: str, skew: float) -> None:
        command = [sys.executable, "-W", "error", "-m", "tests.support.scheduling.scheduler_process", url, str(skew)]
        self._process = subprocess.Popen(
            command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    async def ready(self) -> None:
        """Waits until the process runs schedules."""
        assert self._process.stdout is not None
        line = await anyio.to_thread.run_sync(self._process.stdout.readline)
        if line.strip() != b"ready":
            raise RuntimeError(f"it did not start: {self._process.communicate()[1].decode()}")

    def kill(self) -> str:
        """Kills the process and returns its output."""
        self._process.kill()
        return self._process.communicate()[1].decode()


def put_clocks_wrong(skew: float) -> None:
    """Moves the clocks of this process ahead by ``skew`` seconds."""
    right, now = time.time, dt.datetime.now

    class Wrong(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return now(tz) + dt.timedelta(seconds=skew)

        @classmethod
        def utcnow(cls) -> Any:
            return now(dt.UTC).replace(tzinfo=None) + dt.timedelta(seconds=skew)

    time.time = lambda: right() + skew
    time.time_ns = lambda: int((right() + skew) * 1e9)
    dt.datetime = Wrong  # type: ignore[misc]


async def _main(url: str) -> None:
    import redis.asyncio
    from fairactor_dependencies import Dependencies
    from fairactor_scheduling import Scheduling, _plugin

    from fairactor import Runtime

    _plugin.MOST_RUNS = 7  # type: ignore[misc]  # many small steps make many races
    alone = _plugin._Poller._send_due
    async with redis.asyncio.Redis.from_url(url) as store:

        async def racing(poller: Any) -> float:
            await store.delete("{fairactor/0}:plugin:fairactor_scheduling:leader")
            return min(await alone(poller), 0.05)

        _plugin._Poller._send_due = racing  # type: ignore[method-assign]
        async with Runtime(url, workers=0, plugins=[Dependencies(), Scheduling()]):
            print("ready", flush=True)  # noqa: T201 - for the parent process
            await anyio.sleep_forever()


if __name__ == "__main__":
    put_clocks_wrong(float(sys.argv[2]))
    anyio.run(_main, sys.argv[1])
