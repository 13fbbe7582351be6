"""When this process runs suspects: tasks that a runtime had when it died, or when it lost its lease.

One of them may be what kills processes. So they run one at a time in a process, beside other tasks, and a task that has
one delivery left runs with nothing beside it: only what dies alone is given up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final

from fairactor._model.wire import Emptying, Permit, Waits, pack_permit

from .claim import Claim, Owner
from .pools import Pools

APART: Final = 2.0
"""Seconds for which a suspect with one delivery runs before others may start beside it; with each further delivery
three times as long. So what kills at once is soon apart from the rest, and what kills late does not hold it up long."""
FEW: Final = 4
"""How many with one delivery may start in that time, so that what a single death has interrupted goes on soon."""

EMPTYING: Final = 30.0
"""Seconds for which a process claims nothing, so that a task can run alone. If that was too short, it goes on for as
long as it waited, and then waits twice as long."""
_LONGEST: Final = 3600.0


class Suspects:
    """Permits the dispatchers of a process to claim suspects, one at a time.

    Args:
        pool: the pool that runs them.
        most: the deliveries after which a task fails.
    """

    def __init__(self, pool: Pools, most: int) -> None:
        self._pool = pool
        self._most = most
        self._all: list[Owner] = []
        self._asking: Owner | None = None  # its turn may claim a suspect
        self._claiming: set[Owner] = set()  # their turns may claim something
        self._denied: dict[Owner, None] = {}  # suspects may wait for them, in order
        self.running: set[Claim] = set()
        """The suspects that run here."""
        # Suspects beside which no other may start yet, or only a few, and what ends that.
        self._apart: dict[Claim, asyncio.TimerHandle] = {}
        self._alone: Claim | None = None  # nothing else may start beside it
        self._emptying: Owner | None = None  # the process claims nothing, so that one of its tasks can run alone
        self._empty_until = 0.0
        self._empty_again = 0.0
        self._empty_for = EMPTYING

    @property
    def excluding(self) -> bool:
        """Whether nothing else may be claimed here, because a suspect has to run alone."""
        return self._alone is not None or self._emptying is not None

    def add(self, owner: Owner) -> None:
        """Adds a dispatcher."""
        self._all.append(owner)

    def ask(self, owner: Owner, want: int, ahead: int) -> tuple[int, int, bytes]:
        """Returns what a turn may claim, and how it may claim suspects; `answer` must follow."""
        permit, emptying = Permit.NONE, Emptying.NO
        if self._emptying is not None and time.monotonic() > self._empty_until:
            self._stop_emptying(failed=True)
        if self.excluding:
            permit, emptying = self._permit_alone(owner)
            want, ahead = int(permit == Permit.ALONE), 0
        elif want and self._may_start:
            self._asking, permit = owner, Permit.APART
            if self._rests:
                emptying = Emptying.RESTS
            elif time.monotonic() > self._empty_again:
                emptying = Emptying.YES
        elif want:
            self._denied[owner] = None
        if want or ahead:
            self._claiming.add(owner)
        return want, ahead, pack_permit(permit, self._most, emptying)

    def _permit_alone(self, owner: Owner) -> tuple[Permit, Emptying]:
        if self._alone is not None:
            waits = owner is self._alone.owner and self._pool.waits(self._alone)
            return Permit.SHARED if waits else Permit.NONE, Emptying.NO
        if owner is not self._emptying:
            return Permit.NONE, Emptying.NO
        return (Permit.ALONE, Emptying.NO) if self._rests else (Permit.APART, Emptying.YES)

    def answer(self, owner: Owner, waits: Waits, claims: Iterable[Claim], *, asked: bytes) -> None:
        """Takes the reply to a turn: which suspects wait, and what it has claimed and will run."""
        self._claiming.discard(owner)
        permit = Permit(asked[0])
        if self._asking is owner:
            self._asking = None
        if permit == Permit.SHARED:
            self._end_alone()
        if self._emptying is owner and waits != Waits.TO_RUN_ALONE:
            self._stop_emptying(failed=False)
        for claim in claims:
            if claim.deliveries:
                self._start(claim, alone=permit == Permit.ALONE and claim.deliveries + 1 >= self._most)
                self._denied[owner] = None
        if waits == Waits.TO_RUN_ALONE:
            self._empty(owner)
        elif waits == Waits.NONE:
            self._denied.pop(owner, None)
        self._pass_on()

    def ended(self, claim: Claim) -> None:
        """Notes that a claim has ended; needed only while suspects run."""
        if claim in self.running:
            self.running.discard(claim)
            self._end_apart(claim)
            if claim is self._alone:
                self._end_alone()

    def lost(self, owner: Owner) -> None:
        """Forgets a dispatcher's turn and claims, because its lease is lost."""
        self._claiming.discard(owner)
        self._denied.pop(owner, None)
        if self._asking is owner:
            self._asking = None
        for claim in [claim for claim in self.running if claim.owner is owner]:
            self.ended(claim)
        if self._emptying is owner:
            self._stop_emptying(failed=False)
        self._pass_on()

    @property
    def _rests(self) -> bool:
        return self._pool.rests and not self._claiming

    def _start(self, claim: Claim, *, alone: bool) -> None:
        self.running.add(claim)
        seconds = APART * 3 ** min(claim.deliveries - 1, 8)
        self._apart[claim] = asyncio.get_running_loop().call_later(seconds, self._end_apart, claim)
        if alone:
            self._alone = claim
            self._pool.hold_slots = True
            self._excluding_changed()

    @property
    def _may_start(self) -> bool:
        return (
            self._asking is None
            and len(self._apart) < FEW
            and all(claim.deliveries == 1 for claim in self._apart)
            and not self.excluding
        )

    def _end_apart(self, claim: Claim) -> None:
        if (timer := self._apart.pop(claim, None)) is not None:
            timer.cancel()
            self._pass_on()

    def _end_alone(self) -> None:
        self._alone = None
        self._pool.hold_slots = False
        self._pool.return_slots()
        self._excluding_changed()

    def _empty(self, owner: Owner) -> None:
        if self._emptying is None:
            self._emptying = owner
            self._empty_until = time.monotonic() + self._empty_for
            self._excluding_changed()  # so that the server wakes other processes for new work
        self._on_rest()

    def _stop_emptying(self, *, failed: bool) -> None:
        self._emptying = None
        if failed:
            self._empty_again = time.monotonic() + self._empty_for
            self._empty_for = min(2 * self._empty_for, _LONGEST)
        else:
            self._empty_for = EMPTYING
        self._excluding_changed()

    def _pass_on(self) -> None:
        """Lets the next dispatcher for which suspects may wait take a turn, if one of them may start."""
        self._on_rest()
        if self._denied and self._may_start:
            owner = next(iter(self._denied))
            del self._denied[owner]
            owner.wake()

    def _on_rest(self) -> None:
        """Nothing runs here now, apart from tasks that wait for others."""
        if self._emptying is not None and self._rests:
            self._emptying.wake()
        elif self._alone is not None and self._pool.waits(self._alone):
            self._alone.owner.wake()

    def _excluding_changed(self) -> None:
        self._pool.on_rest = self._on_rest if self.excluding else None
        for owner in self._all:
            owner.wake()
