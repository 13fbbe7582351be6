"""How many bytes one call should carry, so that a slow link answers it in time."""

from __future__ import annotations

from typing import Final

MOST: Final = 1 << 20
"""The most bytes of messages, outcomes or records in one call. More would occupy the server for too long."""
LEAST: Final = 1 << 14
FIRST: Final = 1 << 18
"""The bytes of the first call, if it may fail because it is late: even a link of 1 Mbit/s is fast enough."""


class Link:
    """Learns from each call how many bytes the next one may carry.

    Args:
        answer: the seconds after which a call without an answer fails.
        first: the bytes of the first call.
    """

    def __init__(self, answer: float, first: int = FIRST) -> None:
        self._answer = answer
        self.budget = first
        """The most bytes in the next call. A single message, outcome or record may be larger."""

    def note(self, size: int, seconds: float) -> None:
        """Learns from a call with ``size`` bytes that was answered after ``seconds``."""
        if seconds > self._answer / 2:
            self.late(size)
        elif seconds * 2 * self.budget < size * self._answer / 4:  # twice as many bytes would come in time
            self.budget = min(2 * self.budget, MOST)

    def late(self, size: int) -> None:
        """Learns that a call with ``size`` bytes was not answered in time."""
        if size > LEAST:
            self.budget = max(min(self.budget, size) // 2, LEAST)
