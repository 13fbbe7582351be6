"""The pulse of a runtime: tells the server now and then how the workers fare, for `Runtime.health`."""

from __future__ import annotations

from typing import Any, Final

import anyio

from fairactor._store.shard import Shard
from fairactor.errors import ServerError

from .dispatcher import Dispatcher
from .pools import Pools

EVERY: Final = 5.0
"""The seconds between two reports, at most."""


class PulseReporter:
    """Reports how the workers of a pool fare.

    Args:
        pool: the workers of all kinds.
        dispatcher: the dispatcher of the first shard, which gets the reports.
        shard: that shard.
        info: the description with which the runtime joins; it gets the report, too.
        lease: the seconds of a lease: there are three reports in it, or more.
    """

    def __init__(self, pool: Pools, dispatcher: Dispatcher, shard: Shard, info: dict[str, Any], lease: float) -> None:
        self._pool = pool
        self._dispatcher = dispatcher
        self._shard = shard
        self._info = info
        self._pause = min(EVERY, lease / 3)

    async def run(self) -> None:
        """Reports until canceled. A runtime without tasks has nothing new to report."""
        said_idle = True
        while True:
            await anyio.sleep(self._pause)
            found = self._pool.pulse()
            if (idle := not found["busy"]) and said_idle:
                continue
            usual = self._dispatcher.usual_runs
            for kind, seconds in zip(found.get("kinds", {}).values(), usual, strict=False):
                kind["usual"] = seconds
            self._info["pulse"] = found | {"usual": max(filter(None, usual), default=None)}
            try:
                if self._dispatcher.runtime:
                    await self._shard.describe(self._dispatcher.runtime, self._info)
            except ServerError:  # the dispatcher says so
                continue
            said_idle = idle
