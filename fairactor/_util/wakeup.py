"""Wake-ups: one coroutine waits for a wake-up, others set it."""

from __future__ import annotations

import asyncio
import math


class Wakeup:
    """Wakes the coroutine that waits for it. Waiting clears it, so setting it several times wakes only once.

    It uses plain futures instead of anyio's events and scopes, because every send and every turn waits for one.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wakes the coroutine that waits, or else the next one that does."""
        self._is_set = True
        if self._waiter is not None:
            _resolve(self._waiter)

    def clear(self) -> None:
        """Clears the wake-up without waiting, because the work that it announced is being done."""
        self._is_set = False

    async def wait(self, timeout: float = math.inf) -> None:  # noqa: ASYNC109 - it returns after the timeout, and does not raise
        """Returns once it is set, or after ``timeout`` seconds, and clears it."""
        if not self._is_set and timeout > 0:
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = None if timeout == math.inf else loop.call_later(timeout, _resolve, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        self._is_set = False


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
