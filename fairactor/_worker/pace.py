"""How many tasks a turn claims: at most, and ahead of free workers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Final

from fairactor._model.wire import Settlement

PER_TURN: Final = 500
"""The most outcomes, and the most claims, in one turn. The server takes as many as it can in `TURN_TIME`."""
SURE: Final = 200
"""So many outcomes, and so many claims, the server takes in any case."""
TURN_TIME: Final = 0.002
"""Seconds for which the server may choose what else a turn takes. It writes for half as long, and for longer if
outcomes are kept. So a turn holds up the server for 3 or 4 ms."""


class Pace:
    """Decides how many tasks to claim ahead: as many as will start within a round trip; none if tasks are slow."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._rate = 0.0  # outcomes per second
        self._round_trip = 0.0  # seconds
        self._run = math.inf  # seconds that a task runs, on average
        self._last = time.monotonic()

    def note(self, round_trip: float, settled: Sequence[Settlement]) -> None:
        """Learns from the duration of a turn and the outcomes that it reported."""
        now = time.monotonic()
        elapsed, self._last = max(now - self._last, 1e-6), now
        rate = len(settled) / elapsed
        # The rate rises at once, so a runtime that has just started catches up.
        self._rate = max(rate, self._rate + 0.2 * (rate - self._rate))
        self._round_trip += 0.2 * (round_trip - self._round_trip)
        if settled:
            mean = sum(settlement.seconds for settlement in settled) / len(settled)
            self._run = mean if self._run == math.inf else self._run + 0.2 * (mean - self._run)

    @property
    def usual_run(self) -> float | None:
        """The seconds that a task has run lately, on average; None if none has."""
        return None if self._run == math.inf else self._run

    @property
    def rate(self) -> float:
        """How many tasks start per second, about."""
        return min(self._rate, self._workers / max(self._run, 1e-6))

    @property
    def ahead(self) -> int:
        """How many tasks to hold ready in addition to those that run.

        Short tasks free all workers several times within a round trip. But the process at most doubles its rate.
        """
        free = self._workers * self._round_trip / max(self._run, 1e-6)
        return min(PER_TURN, round(free), 1 + int(2 * self._rate * self._round_trip))
