"""The worker processes, as dispatchers see them: how many more tasks may be claimed for them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fairactor._model.record import actor_in
from fairactor._model.wire import pack_capped

from .claim import Claim, Owner
from .pool import Pool


class ProcessSlots:
    """Limits the claimed tasks of certain actors to the worker processes that are free.

    Args:
        size: how many worker processes there may be.
        actors: the names of the actors that run in them.
        pool: runs the tasks.
    """

    def __init__(self, size: int, actors: Iterable[str], pool: Pool) -> None:
        self._size = size
        self._actors: Final = frozenset(actors)
        self._pool = pool
        self.capped: Final = pack_capped(sorted(self._actors))
        """The actors, packed for turn.lua; empty if there are none."""

    @property
    def free(self) -> int:
        """How many more tasks could start in processes now."""
        return max(0, self._size - self._pool.in_processes) if self._actors else 0

    def wake_when_free(self, owner: Owner) -> None:
        """Wakes an owner once, as soon as a process becomes free."""
        self._pool.wake_on_free_process(owner)

    def divide(self, claims: list[Claim]) -> tuple[list[Claim], list[Claim]]:
        """Divides claims: those that can start, and those for which no process is free.

        Several shards may have been asked for a task for the same process. Suspects are claimed whatever they need, and
        wait here for a process.
        """
        if not self._actors:
            return claims, []
        starting: list[Claim] = []
        too_many: list[Claim] = []
        free = self.free
        for claim in claims:
            claim.in_process = actor_in(claim.record) in self._actors
            free -= claim.in_process
            waits = claim.in_process and free < 0 and not claim.deliveries
            (too_many if waits else starting).append(claim)
        return starting, too_many
