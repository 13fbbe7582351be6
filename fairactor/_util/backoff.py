"""Exponential back-off: pauses that double from one failure to the next."""

from __future__ import annotations

import math

_DOUBLINGS = 63  # more could overflow a float


def doubled(first: float, times: int, longest: float = math.inf) -> float:
    """Returns ``first`` doubled ``times`` times, but at most ``longest``."""
    return min(first * 2.0 ** min(times, _DOUBLINGS), longest)


class Backoff:
    """The pauses of a loop that repeats an operation until it succeeds, in seconds.

    Args:
        first: the first pause.
        longest: the longest pause.
    """

    def __init__(self, first: float = 0.02, longest: float = 0.5) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0

    @property
    def failures(self) -> int:
        """The number of pauses since the last success."""
        return self._failures

    def peek(self) -> float:
        """Returns the next pause, without counting it."""
        return doubled(self._first, self._failures, self._longest)

    def next(self) -> float:
        """Returns the next pause. The one after it is twice as long."""
        pause = self.peek()
        self._failures += 1
        return pause

    def reset(self) -> None:
        """Starts again with the first pause, after a success."""
        self._failures = 0
