"""The pools of a runtime: one for each kind of slots."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from itertools import chain
from typing import Any, Final

from fairactor._actors.batch import Batching
from fairactor._model.wire import Settlement
from fairactor._util.meters import SlotUse

from .batches import Batches
from .claim import Claim, Outcomes, Owner, Sleeper
from .pool import Pool


class Pools:
    """Runs tasks in the pool of their kind. No kind waits for a slot of another.

    Args:
        sizes: how many tasks each pool runs at once, by the name of its kind.
        execute: runs a claim.
        canceled: makes the outcome of a claim that was canceled.
        batchings: how the calls of each actor with batches are gathered.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        execute: Callable[[Claim], Coroutine[Any, Any, Settlement | Outcomes]],
        canceled: Callable[[Claim, str], Settlement | Outcomes],
        batchings: Mapping[str, Batching] | None = None,
    ) -> None:
        self._by_name: Final = {name: Pool(size, execute, canceled) for name, size in sizes.items()}
        self.all: Final = list(self._by_name.values())
        self.first: Final = self.all[0]
        self._single: Final = len(self.all) == 1
        self.batches = Batches(batchings or {}, self.all)
        """What is being gathered to run together."""
        self._canceled = canceled

    @property
    def vacancies(self) -> int:
        """How many more tasks could start now, if they are of the right kinds."""
        if self._single:
            return self.first.vacancies
        return sum(max(0, pool.vacancies) for pool in self.all)

    def submit(self, claims: Iterable[Claim], *, at_once: bool = True) -> None:
        """See `Pool.submit`."""
        if self._single:
            self.first.submit(claims, at_once=at_once)
            return
        by_kind: list[list[Claim]] = [[] for _ in self.all]
        for claim in claims:
            by_kind[claim.kind].append(claim)
        for pool, own in zip(self.all, by_kind, strict=True):
            if own:
                pool.submit(own, at_once=at_once)

    def wake_on_vacancy(self, owner: Sleeper, kinds: Iterable[int] | None = None) -> None:
        """Wakes an owner once for each of these kinds, by default all, as soon as it has a free slot."""
        for number, pool in enumerate(self.all):
            if kinds is None or number in kinds:
                pool.wake_on_vacancy(owner)

    def cancel(self, task_id: str, reason: str, owner: Owner | None = None) -> bool:
        """See `Pool.cancel`."""
        found = [pool.cancel(task_id, reason, owner) for pool in self.all]
        claim = self.batches.withdraw(task_id, owner)
        if claim is not None:
            claim.settle(self._canceled(claim, reason))
        return any(found) or claim is not None

    def abandon(self, owner: Owner) -> None:
        """See `Pool.abandon`."""
        self.batches.abandon(owner)
        for pool in self.all:
            pool.abandon(owner)

    def running(self) -> list[Claim]:
        """Returns the tasks that run now. Other threads may call it, too."""
        return list(chain.from_iterable(pool.running() for pool in self.all))

    def drop_ready(self) -> list[Claim]:
        """Removes the tasks that have not started, and returns them."""
        return [*self.batches.drop(), *chain.from_iterable(pool.drop_ready() for pool in self.all)]

    @property
    def interrupted(self) -> list[Claim]:
        """See `Pool.interrupted`."""
        return list(chain.from_iterable(pool.interrupted for pool in self.all))

    async def wait_until_idle(self, owner: Owner | None = None) -> None:
        """Waits until no task runs, or no task of an owner."""
        for pool in self.all:
            await pool.wait_until_idle(owner)

    async def close(self) -> None:
        """See `Pool.close`."""
        await asyncio.gather(*(pool.close() for pool in self.all))

    # For suspects, beside which nothing else may run

    @property
    def rests(self) -> bool:
        """Whether nothing runs or is about to, apart from tasks that wait for other tasks."""
        return all(pool.rests for pool in self.all)

    def waits(self, claim: Claim) -> bool:
        """Whether a task waits for another one, and nothing runs here."""
        return not any(pool.busy for pool in self.all) and any(pool.has(claim) for pool in self.all)

    def return_slots(self) -> None:
        """Gives free slots to tasks that wait to get theirs back."""
        for pool in self.all:
            pool.return_slots()

    @property
    def hold_slots(self) -> bool:
        """Whether tasks that wait to get their slots back have to wait on."""
        return self.first.hold_slots

    @hold_slots.setter
    def hold_slots(self, hold: bool) -> None:
        for pool in self.all:
            pool.hold_slots = hold

    @property
    def on_rest(self) -> Callable[[], None] | None:
        """Called when nothing runs in one of the pools any more; see `Pool.on_rest`."""
        return self.first.on_rest

    @on_rest.setter
    def on_rest(self, call: Callable[[], None] | None) -> None:
        for pool in self.all:
            pool.on_rest = call

    # For those who watch

    def pulse(self) -> dict[str, Any]:
        """Returns how the workers fare, as `Pool.pulse`: in all, and by kind if there are several."""
        kinds = {name: pool.pulse() for name, pool in self._by_name.items()}
        if self._single:
            return dict(self.first.pulse())
        running = [found for found in kinds.values() if found["busy"]]
        return {
            "busy": sum(found["busy"] for found in kinds.values()),
            "ready": sum(found["ready"] for found in kinds.values()),
            "oldest": max((found["oldest"] for found in running), default=0.0),
            "newest": min((found["newest"] for found in running), default=0.0),
            "kinds": kinds,
        }

    def slots(self) -> list[SlotUse]:
        """Returns how many slots of each kind there are, and are taken. Other threads may call it, too."""
        return [SlotUse(name, pool.size, pool.busy) for name, pool in self._by_name.items()]

    def note_slow(self, seconds: float) -> None:
        """Says from how many seconds on tasks that end are noted; see `Pool.slow`."""
        for pool in self.all:
            pool.slow = seconds

    @property
    def slow_ended(self) -> list[tuple[float, Claim]]:
        """The tasks that ended of late and took long: when, and which."""
        return sorted(chain.from_iterable(list(pool.slow_ended) for pool in self.all), key=lambda ended: ended[0])

    def claim_of(self, task: asyncio.Task[Any]) -> Claim | None:
        """Returns the claim that an asyncio task runs; None if it is not that of a worker. As `running`."""
        return next(filter(None, (pool.claim_of(task) for pool in self.all)), None)
