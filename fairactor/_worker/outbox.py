"""The outbox of a dispatcher: the outcomes that its next turns report.

A turn takes the server longer if outcomes are kept, if others wait for them, or if much has to be loaded for their
tenants. So the server takes the first outcomes of a turn, as many as it can in time. The outbox learns from that how
many are worth sending.
"""

from __future__ import annotations

from collections.abc import Sequence

from fairactor._model.wire import Settlement
from fairactor._util.link import Link

from .pace import PER_TURN, SURE


class Outbox:
    """Outcomes in order. A turn reports as many as the link carries and the server takes in time, and at least one.

    Args:
        link: how many bytes of outcomes a turn may carry.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: list[Settlement] = []
        self._taken = 0  # the bytes of the last turn
        self._most = SURE

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def most(self) -> int:
        """The most outcomes in the next turn."""
        return self._most

    def add(self, outcome: Settlement) -> None:
        """Adds an outcome."""
        self._waiting.append(outcome)

    def clear(self) -> None:
        """Drops all outcomes, because the lease is lost."""
        self._waiting.clear()

    def take(self) -> list[Settlement]:
        """Removes the outcomes for the next turn, and returns them."""
        taken, self._waiting = self._divided(self._waiting)
        return taken

    def late(self, taken: list[Settlement]) -> list[Settlement]:
        """Returns which outcomes of a turn to repeat that was not answered in time. The others go back."""
        self._link.late(self._taken)
        repeated, others = self._divided(taken)
        self._waiting[:0] = others
        return repeated

    def reported(self, taken: list[Settlement], had: int, seconds: float) -> list[Settlement]:
        """Returns what a turn has reported that was answered after so many seconds.

        Args:
            taken: the outcomes of the last call.
            had: how many outcomes the server has taken, the first ones. It carries out only one call of a turn,
                perhaps an earlier and longer one.
            seconds: how long the last call took.
        """
        if taken:
            self._link.note(self._taken, seconds)
        if had < len(taken):
            self._most = max(SURE, had)
        elif had == self._most:
            self._most = min(PER_TURN, self._most + self._most // 4)
        if had == len(taken):
            return taken
        both = [*taken, *self._waiting]
        self._waiting = both[had:]
        return both[:had]

    def _divided(self, outcomes: list[Settlement]) -> tuple[list[Settlement], list[Settlement]]:
        some = outcomes[: self._most]
        size = _size(some)
        while size > self._link.budget and len(some) > 1:
            size -= some.pop().size
        self._taken = size
        return some, outcomes[len(some) :]


def _size(outcomes: Sequence[Settlement]) -> int:
    return sum([len(outcome.record) + len(outcome.extra) for outcome in outcomes])
