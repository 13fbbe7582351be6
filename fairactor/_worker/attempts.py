"""Counts the attempts of a dispatcher for the history."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from fairactor._model.route import Route, pack_route
from fairactor._model.tally import Tally, event_of, usual_event
from fairactor._model.wire import Settlement, as_bytes, as_text
from fairactor._store.shard import Shard
from fairactor._store.traced_ends import read_ended

from .claim import Claim

_NOTHING: Final = frozenset("BUV")
"""States of claims that go back without an attempt, or of which the server decides what becomes of them."""


class Attempts:
    """Counts an attempt when the server has accepted its outcome, and its start before if it runs for long.

    Args:
        tally: the tally of the runtime.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._ended: dict[str, tuple[str, str, int]] = {}  # by task: what counts once the server has accepted it
        self._started: set[Claim] = set()  # those that run, and whose start was counted

    def ended(self, claim: Claim, state: str) -> None:
        """Notes an outcome that the next turns report. It keeps no claim, so memory is used again at once."""
        if state in _NOTHING:
            return
        task, call = claim.task, claim.call
        if task is None or call is None or claim in self._started:
            self._ended[claim.id] = self._described(claim, state)
            return
        try:
            waited, ran = task.began - task.due, task.ended_at - task.began  # type: ignore[operator]  # see below
            event = usual_event(state, waited, ran)
        except TypeError:  # it has not begun, or not ended
            event = event_of(state, task)
        self._ended[claim.id] = (call.route, task.tenant, event)

    def _described(self, claim: Claim, state: str) -> tuple[str, str, int]:
        starts = claim not in self._started
        self._started.discard(claim)
        tenant = claim.header.tenant if claim.header else ""
        return _route_of(claim), tenant, event_of(state, claim.task, starts=starts)

    def lost(self) -> None:
        """Forgets all outcomes, because the lease is lost."""
        self._ended.clear()

    def reported(self, settlements: Iterable[Settlement], refused: Collection[bytes]) -> None:
        """Counts attempts whose outcomes a turn has reported, but for those that the server has refused."""
        note, pop = self._tally.note, self._ended.pop
        for settlement in settlements:
            found = pop(settlement.id, None)
            if found is not None and (not refused or as_bytes(settlement.id) not in refused):
                note(*found)

    def dead(self, claim: Claim, tell_dead: Callable[[], None]) -> None:
        """Counts a task that has become a dead letter because its arguments fit no handler, and tells observers."""
        self._tally.note(*self._described(claim, "X"))
        tell_dead()

    async def given_up(self, shard: Shard, tasks: Sequence[bytes]) -> None:
        """Counts tasks that a script has ended as failed because their runtimes died."""
        for task_id in tasks:
            header, _, call = read_ended(await shard.inspect(as_text(task_id)))
            self._tally.failed(call.route if call else "", [header.tenant if header else ""])

    def expired(self, route: Route, number: int) -> None:
        """Counts tasks that a script has ended as failed because no runtime could run them."""
        self._tally.failed(pack_route(route.actor, route.queue), [""] * number)

    def note_running(self, claims: Iterable[Claim]) -> None:
        """Counts the starts of those that run and were not counted."""
        running = {claim for claim in claims if claim.task is not None and claim.task.is_running}
        for claim in running - self._started:
            self._tally.note(_route_of(claim), claim.header.tenant if claim.header else "", event_of("", claim.task))
        self._started = running


def _route_of(claim: Claim) -> str:
    return claim.call.route if claim.call is not None else ""
