"""Reports what a runtime has sent and run to the history of the namespace."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Final

import anyio

from fairactor._model.tally import Tally
from fairactor._store.shard import Shard
from fairactor.errors import ServerError

logger: Final = logging.getLogger(__name__)

EVERY: Final = 5.0
"""The seconds between two reports. A runtime that is killed loses what it has counted since the last one."""
_GOODBYE: Final = 1.0
"""Seconds to try to send the last report."""


class HistoryReporter:
    """Sends the tally of a runtime to the server, a report at a time, in order.

    Args:
        tally: what the runtime counts.
        runtime: its name.
        shard: shard 0.
    """

    def __init__(self, tally: Tally, runtime: str, shard: Shard) -> None:
        self._tally = tally
        self._runtime = runtime
        self._shard = shard
        self._number = 0
        self._reporting = anyio.Lock()
        self._unsent: bytes | None = None  # the report with that number, until the server has it

    async def run(self) -> None:
        """Reports until canceled, if there is something to report, also while the server does not answer."""
        while True:
            await anyio.sleep(EVERY)
            try:
                await self.report()
            except ServerError as error:
                self._tally.add_up()
                logger.debug("the history gets its report later: %s", error)

    async def report(self) -> None:
        """Reports what was counted until now.

        Raises:
            ServerError: the server did not take it; the next call goes on.
        """
        async with self._reporting:
            again = self._unsent is not None
            await self._send()
            if again:
                await self._send()

    async def end(self) -> None:
        """Makes the last report, if the server takes it soon."""
        with anyio.move_on_after(_GOODBYE, shield=True), suppress(ServerError):
            await self.report()

    async def _send(self) -> None:
        """Sends the report that the server may have missed, or else a new one."""
        if self._unsent is None:
            self._unsent = self._tally.take()
            self._number += self._unsent is not None
        if self._unsent is not None:
            await self._shard.count(self._runtime, self._number, self._unsent)
            self._unsent = None
