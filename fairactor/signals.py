"""A flag that one coroutine waits for and others raise."""

from __future__ import annotations

import anyio


class Signal:
    """Raised any number of times, it wakes its waiter once; waiting lowers it."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Raises the flag."""
        self._event.set()

    async def wait(self, timeout: float = float("inf")) -> None:  # noqa: ASYNC109 - it returns, it does not raise
        """Returns when the flag is up, or after ``timeout`` seconds; the flag is down then."""
        if not self._event.is_set() and timeout > 0:
            with anyio.move_on_after(timeout):
                await self._event.wait()
        self._event = anyio.Event()
