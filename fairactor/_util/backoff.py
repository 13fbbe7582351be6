"""Backing off: pauses that double from one failure to the next."""

from __future__ import annotations

import math

_DOUBLINGS = 63  # beyond these a float would overflow sooner or later


def doubled(first: float, times: int, longest: float = math.inf) -> float:
    """The pause after ``times`` doublings of ``first``, at most ``longest``; in seconds."""
    return min(first * 2.0 ** min(times, _DOUBLINGS), longest)


class Backoff:
    """The pauses of one loop that tries again, in seconds.

    Args:
        first: the first pause.
        longest: no pause is longer.
    """

    def __init__(self, first: float = 0.02, longest: float = 0.5) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many pauses it has given since the last success."""
        return self._failures

    def peek(self) -> float:
        """The next pause, without counting it."""
        return doubled(self._first, self._failures, self._longest)

    def next(self) -> float:
        """The next pause; the one after it is twice as long."""
        pause = self.peek()
        self._failures += 1
        return pause

    def reset(self) -> None:
        """Starts with the first pause again, after a success."""
        self._failures = 0
