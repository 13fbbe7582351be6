"""A flag that one coroutine waits for and others raise."""

from __future__ import annotations

import asyncio
import math


class Signal:
    """Raised any number of times, it wakes its waiter once; waiting lowers it.

    Plain futures, not anyio's events and scopes: every send and every turn passes through here.
    """

    def __init__(self) -> None:
        self._raised = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Raises the flag."""
        self._raised = True
        if self._waiter is not None:
            _wake(self._waiter)

    def lower(self) -> None:
        """Takes the flag down: what it was raised for is being done."""
        self._raised = False

    async def wait(self, timeout: float = math.inf) -> None:  # noqa: ASYNC109 - it returns, it does not raise
        """Returns when the flag is up, or after ``timeout`` seconds; the flag is down then."""
        if not self._raised and timeout > 0:
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = None if timeout == math.inf else loop.call_later(timeout, _wake, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        self._raised = False


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
