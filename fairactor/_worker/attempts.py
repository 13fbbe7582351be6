"""Counts the attempts of a dispatcher for the history."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from fairactor._model.tally import Tally
from fairactor._model.wire import Settlement, as_bytes

from .claim import Claim

_STARTED_NOTHING: Final = frozenset("BUV")  # how a claim ends without an attempt


class Attempts:
    """Counts an attempt when the server has accepted its outcome, and its start before if it runs for long.

    Args:
        tally: the tally of the runtime.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._ended: dict[str, Claim] = {}  # by task: their outcomes are on the way
        self._started: set[Claim] = set()  # those that run, and whose start was counted

    def ended(self, claim: Claim) -> None:
        """Notes a claim whose outcome the next turns report."""
        self._ended[claim.id] = claim

    def lost(self) -> None:
        """Forgets all outcomes, because the lease is lost."""
        self._ended.clear()
        self._started.clear()

    def reported(self, settlements: Iterable[Settlement], refused: Collection[bytes]) -> None:
        """Counts attempts whose outcomes a turn has reported, but for those that the server has refused."""
        for settlement in settlements:
            claim = self._ended.pop(settlement.id, None)
            state = settlement.state
            if claim is None or state in _STARTED_NOTHING or (refused and as_bytes(settlement.id) in refused):
                continue
            task, header, call = claim.task, claim.header, claim.call
            route, tenant = call.route if call else "", header.tenant if header else ""
            if task is None or task.ended_at is None:  # nothing was tried
                if state in ("X", "F"):
                    self._tally.ran(route, tenant, state, None, None)
                continue
            waited = None if claim in self._started else task.waited
            self._started.discard(claim)
            self._tally.ran(route, tenant, state, waited, task.seconds)

    def dead(self, claim: Claim, tell_dead: Callable[[], None]) -> None:
        """Counts a task that has become a dead letter because its arguments fit no handler, and tells observers."""
        if claim.call is not None and claim.header is not None:
            self._tally.failed(claim.call.route, [claim.header.tenant])
        tell_dead()

    def note_running(self, claims: Iterable[Claim]) -> None:
        """Counts the starts of those that run and were not counted."""
        running = {
            claim for claim in claims if claim.task is not None and claim.task.began and claim.task.ended_at is None
        }
        for claim in running - self._started:
            if claim.call is not None and claim.header is not None and claim.task is not None:
                self._tally.ran(claim.call.route, claim.header.tenant, "", claim.task.waited, None)
        self._started = running
