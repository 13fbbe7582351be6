"""A batch: claims of one tenant and actor that run together, as one claim does."""

from __future__ import annotations

import time
from typing import Final

from fairactor._actors.batch import Batching
from fairactor._model.wire import Settlement

from .claim import Claim, Outcomes, described


class Batch(Claim):
    """Claims that are gathered, and then run together in one slot.

    Args:
        first: the first claim.
        tenant: its tenant.
        actor: its actor.
        batching: how the calls of the actor are gathered.
    """

    __slots__ = ("actor", "had", "is_asked", "is_due", "members", "most", "outcomes", "tenant")

    def __init__(self, first: Claim, tenant: str, actor: str, batching: Batching) -> None:
        super().__init__("", b"", first.turn, first.owner, first.server_time, first.claimed)
        self.kind, self.slots = first.kind, first.slots
        self.tenant: Final = tenant
        self.actor: Final = actor
        self.most: Final = batching.size
        self.members: Final[list[Claim]] = []
        self.outcomes: Final[dict[Claim, Settlement]] = {}
        """The outcomes that are known before all are."""
        self.is_due = False  # whether it starts with the next answer
        self.is_asked = False  # whether a turn asks for more tasks for it
        self.had = 0  # how many it had then
        self.add(first)

    @property
    def room(self) -> int:
        """How many more claims may join."""
        return self.most - len(self.members)

    def add(self, claim: Claim) -> None:
        """Adds a claim."""
        claim.batch = self
        self.members.append(claim)

    def begin(self) -> None:
        """Notes that all begin now."""
        for member in self.members:
            member.begun = self.begun

    def find(self, task_id: str) -> Claim | None:
        """See `Claim.find`."""
        return next((member for member in self.members if member.id == task_id), None)

    def cancel(self, claim: Claim, reason: str) -> bool:
        """Cancels one of the tasks; returns whether all are canceled. The handler runs on for the others."""
        claim.cancel_reason = reason
        if claim.task is not None:
            claim.task.canceled = True
        if any(member.cancel_reason is None for member in self.members):
            return False
        self.cancel_reason = reason
        return True

    def withdraw(self, claim: Claim) -> bool:
        """Takes out a task; returns whether none is left."""
        claim.batch = None
        self.members.remove(claim)
        return not self.members

    def settle(self, outcome: Settlement | Outcomes) -> None:
        """Reports the outcomes to the owner."""
        assert isinstance(outcome, Outcomes)  # noqa: S101 - it has as many as members
        for member, settlement in zip(self.members, outcome.each, strict=True):
            self.owner.settle(member, settlement)

    def collected(self) -> Outcomes:
        """Returns the outcomes. Each task has its part of the seconds, since they ran together."""
        seconds = time.monotonic() - self.begun
        each = [self.outcomes[member] for member in self.members]
        return Outcomes([outcome._replace(seconds=outcome.seconds / len(each)) for outcome in each], seconds)

    @property
    def tasks(self) -> list[Claim]:
        """See `Claim.tasks`."""
        return self.members

    def described(self) -> str:
        """Returns the tasks of the batch, for the log."""
        return f"a batch of {len(self.members)}: {described(self.members)}"
