"""Gathers claims into batches of one tenant and actor, until there are enough of them, or for a while.

A batch has its slot from its first claim on. If other slots are free, what its tenant sends is claimed anyway. If none
is, only a turn that asks for it brings more tasks, so a batch that is due waits for the answer to such a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fairactor._actors.batch import Batching
from fairactor._model import record

from .batch import Batch
from .claim import Claim, Owner
from .pool import Pool

ANSWER_TIMEOUT: Final = 1.0
"""Seconds that a batch waits for the answers to turns that ask for more of its tasks."""
MANY: Final = 100
"""If an answer brings so many, the turn may have stopped before it had all: it takes 200 at most (MOST_ALONG)."""

_Key = tuple[Owner, str, str]  # the owner, the tenant and the actor of a batch


class Batches:
    """The batches that are being gathered in a runtime.

    Args:
        batchings: how the calls of each actor with batches are gathered.
        pools: the pools of each kind of slots.
    """

    def __init__(self, batchings: Mapping[str, Batching], pools: Sequence[Pool]) -> None:
        self._batchings = batchings
        self._pools = pools
        self._open: dict[_Key, Batch] = {}
        self._timers: dict[Batch, asyncio.TimerHandle] = {}

    def has(self, actor: str) -> bool:
        """Whether an actor has batches."""
        return actor in self._batchings

    def join(self, claim: Claim, actor: str) -> bool:
        """Adds a claim to a batch that is being gathered; returns whether there is one."""
        batch = self._open.get((claim.owner, _tenant_of(claim), actor))
        if batch is None:
            return False
        batch.add(claim)
        if not batch.room:
            self._start(batch)
        return True

    def open(self, claim: Claim, actor: str) -> None:
        """Begins a batch with a claim. It takes a slot."""
        batching = self._batchings[actor]
        batch = Batch(claim, _tenant_of(claim), actor, batching)
        self._open[claim.owner, batch.tenant, actor] = batch
        self._pools[batch.kind].reserve()
        # Even without a wait, it takes all that one turn brings.
        self._timers[batch] = asyncio.get_running_loop().call_later(batching.wait, self._is_due, batch)
        if not batch.room:
            self._start(batch)

    def alone(self, claim: Claim, actor: str) -> Batch:
        """Returns a batch of one claim, because it may be what kills processes."""
        return Batch(claim, _tenant_of(claim), actor, self._batchings[actor])

    # Turns that ask for more

    def ask(self, owner: Owner) -> list[tuple[str, str, int]]:
        """Returns the tenant, the actor and the room of each batch of an owner; `answered` must follow."""
        own = list(self._of(owner))
        for batch in own:
            batch.is_asked, batch.had = True, len(batch.members)
        return [(batch.tenant, batch.actor, batch.room) for batch in own]

    def answered(self, owner: Owner) -> None:
        """Starts the batches that waited for the answer to a turn, once its claims have joined them."""
        for batch in list(self._of(owner)):
            asked, batch.is_asked = batch.is_asked, False
            if batch.is_due and asked and len(batch.members) < batch.had + MANY:
                self._start(batch)
            elif batch.is_due:
                owner.wake()

    def _is_due(self, batch: Batch) -> None:
        # A turn that is on its way may bring more of its tasks, and there is no other room for them.
        at_once = not self._batchings[batch.actor].wait
        if at_once or batch.is_due or (not batch.is_asked and self._pools[batch.kind].vacancies > 0):
            self._start(batch)
            return
        batch.is_due = True
        self._timers[batch] = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT, self._is_due, batch)
        batch.owner.wake()

    def _start(self, batch: Batch) -> None:
        self._pools[batch.kind].submit([batch])
        self._forget(batch)

    def _forget(self, batch: Batch) -> None:
        del self._open[batch.owner, batch.tenant, batch.actor]
        self._timers.pop(batch).cancel()
        self._pools[batch.kind].release()

    def _of(self, owner: Owner | None) -> Iterator[Batch]:
        return (batch for batch in self._open.values() if owner in (None, batch.owner))

    # As in pools

    def withdraw(self, task_id: str, owner: Owner | None) -> Claim | None:
        """Takes a task of an owner, None for any, out of its batch; returns its claim if it was found."""
        for batch in self._of(owner):
            if (claim := batch.find(task_id)) is not None:
                if batch.withdraw(claim):
                    self._forget(batch)
                return claim
        return None

    def abandon(self, owner: Owner) -> None:
        """Drops the batches of an owner, because its claims are lost."""
        for batch in list(self._of(owner)):
            self._forget(batch)

    def drop(self) -> list[Claim]:
        """Drops all batches, and returns their claims."""
        dropped = list(self._open.values())
        for batch in dropped:
            self._forget(batch)
        return [claim for batch in dropped for claim in batch.members]


def _tenant_of(claim: Claim) -> str:
    if claim.header is None:
        claim.header, claim.body = record.unpack(claim.record)
    return claim.header.tenant
