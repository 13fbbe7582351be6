"""The pool of workers. Each worker runs claimed tasks, one after the other."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import anyio

from fairactor._model.wire import Settlement

from .claim import Claim, Owner


class _Worker:
    """Runs one task after the other. Canceling its scope cancels the current task. Then it continues with the next."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.claim: Claim | None = None
        self.scope = anyio.CancelScope()

    async def run(self) -> None:
        while True:
            try:
                with anyio.CancelScope() as self.scope:
                    if not await self._serve():
                        return
            finally:
                claim, self.claim = self.claim, None
                if claim is not None:
                    self._pool.canceled(claim)
            if claim is not None and claim.context_changed:
                self._pool.retired()
                return

    async def _serve(self) -> bool:
        """Runs tasks; returns False if the worker should end, True if its scope was canceled between two tasks."""
        pool = self._pool
        while (claim := await pool.take(self)) is not None:
            self.claim = claim
            claim.begun = time.monotonic()
            settlement = await pool.execute(claim)
            self.claim = None
            pool.finished(claim, settlement)
            if claim.context_changed:
                pool.retired()
                return False
            if self.scope.cancel_called:  # it came after the task had ended, and must not hit the next task
                return True
        return False


class Pool:
    """Runs at most ``size`` tasks at once, not counting those that wait for other tasks.

    It starts workers when it needs them. A worker that takes a task wakes the next worker if more tasks are ready. So a
    single worker runs a whole batch of tasks that never wait, without switching between workers.
    """

    def __init__(
        self,
        size: int,
        execute: Callable[[Claim], Awaitable[Settlement]],
        canceled: Callable[[Claim, str], Settlement],
        start: Callable[[str, Callable[[], Awaitable[None]]], None],
    ) -> None:
        self.size = size
        self.execute = execute
        self._canceled = canceled
        self._start = start
        self._ready: deque[Claim] = deque()
        # Not by id: a lost claim may still run beside the next claim of the same task.
        self._running: dict[Claim, _Worker] = {}
        self._idle: list[anyio.Event] = []
        self._waking = False
        self._workers = 0
        self._busy = 0
        self._lent = 0
        self._returning: deque[asyncio.Future[None]] = deque()
        self._to_wake: set[Owner] = set()  # owners that want to claim more as soon as a slot is free
        self._ended: anyio.Event | None = None  # set when the next task ends

    @property
    def vacancies(self) -> int:
        """How many more tasks could start now; negative if tasks already wait here."""
        return self.size - self._busy - len(self._ready) - len(self._returning)

    def wake_on_vacancy(self, owner: Owner) -> None:
        """Wakes an owner once, as soon as a slot becomes free."""
        self._to_wake.add(owner)

    def submit(self, claims: Iterable[Claim], *, at_once: bool = True) -> None:
        """Adds tasks, which start as workers become free.

        With ``at_once=False`` they start on the next loop iteration, after pending writes have been flushed.
        """
        self._ready.extend(claims)
        if at_once:
            self._wake()
        else:
            asyncio.get_running_loop().call_soon(self._wake)

    def cancel(self, task_id: str, reason: str, owner: Owner | None = None) -> bool:
        """Cancels a task of an owner, None for any, that runs or waits here; returns whether it found the task.

        Each shard has ids of its own, so a task of another owner may have the same id.
        """
        found = False
        for claim, worker in self._running.items():
            if claim.id == task_id and owner in (None, claim.owner):
                found = True
                if claim.cancel_reason is None:  # otherwise it has been canceled already
                    claim.cancel_reason = reason
                    worker.scope.cancel()
        if found:
            return True
        for claim in self._ready:
            if claim.id == task_id and owner in (None, claim.owner):
                self._ready.remove(claim)
                claim.owner.settle(claim, self._canceled(claim, reason))
                return True
        return False

    def abandon(self, owner: Owner) -> None:
        """Drops the waiting tasks of an owner and cancels its running tasks, because its claims are lost."""
        self._ready = deque(claim for claim in self._ready if claim.owner is not owner)
        for claim, worker in self._running.items():
            if claim.owner is owner:
                worker.scope.cancel()

    def drop_ready(self) -> list[Claim]:
        """Removes the tasks that have not started, and returns them."""
        dropped = list(self._ready)
        self._ready.clear()
        return dropped

    async def wait_until_idle(self, owner: Owner | None = None) -> None:
        """Waits until no task runs, or no task of an owner."""
        while any(owner in (None, claim.owner) for claim in self._running):
            if self._ended is None:
                self._ended = anyio.Event()
            await self._ended.wait()

    def lend(self) -> None:
        """Lends out the slot of a running task."""
        self._busy -= 1
        self._lent += 1
        self._return_slots()
        self._wake()
        self._wake_owners()

    async def take_back(self) -> None:
        """Waits for a slot for a task that has lent its slot. It has precedence over tasks that have not started."""
        if self._busy < self.size:
            self.seize()
            return
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._returning.append(slot)
        try:
            await slot
        except BaseException:
            if slot in self._returning:
                self._returning.remove(slot)
            if slot.cancelled():
                self.seize()
            raise

    def seize(self) -> None:
        """Takes a slot for a task that has lent its slot, even if none is free, because the task is about to end."""
        self._busy += 1
        self._lent -= 1

    def retired(self) -> None:
        """Replaces a worker that has ended because a task changed its context. The next worker has a clean context."""
        self._workers -= 1
        self._wake()

    async def take(self, worker: _Worker) -> Claim | None:
        """Waits for the next task; returns None if there are more workers than needed."""
        while not self._ready or self._busy >= self.size:
            if self._workers > self.size + self._lent:
                self._workers -= 1
                return None
            wake = anyio.Event()
            self._idle.append(wake)
            try:
                await wake.wait()
            finally:
                if wake.is_set():
                    self._waking = False
                else:
                    self._idle.remove(wake)
        claim = self._ready.popleft()
        self._busy += 1
        self._running[claim] = worker
        if self._ready:
            self._wake()
        return claim

    def finished(self, claim: Claim, settlement: Settlement) -> None:
        """Frees the slot of a task that has ended, and reports the outcome to its owner."""
        self._free(claim)
        claim.owner.settle(claim, settlement)

    def canceled(self, claim: Claim) -> None:
        """Frees the slot of a canceled task. If no reason was given, the claim was lost, and no outcome is reported."""
        self._free(claim)
        if claim.cancel_reason is not None:
            claim.owner.settle(claim, self._canceled(claim, claim.cancel_reason))
        else:
            claim.owner.wake()

    def _free(self, claim: Claim) -> None:
        del self._running[claim]
        self._busy -= 1
        self._return_slots()
        if self._to_wake:
            self._wake_owners()
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def _wake_owners(self) -> None:
        if self.vacancies > 0:
            owners, self._to_wake = self._to_wake, set()
            for owner in owners:
                owner.wake()

    def _return_slots(self) -> None:
        """Gives free slots to tasks that wait to get theirs back."""
        while self._returning and self._busy < self.size:
            slot = self._returning.popleft()
            if not slot.done():
                self.seize()
                slot.set_result(None)

    def _wake(self) -> None:
        """Wakes or starts a worker, if one is needed and none is being woken."""
        if self._waking or not self._ready or self._busy >= self.size:
            return
        if self._idle:
            self._waking = True
            self._idle.pop().set()
        elif self._workers < self.size + self._lent:
            self._waking = True
            self._workers += 1
            self._start("worker", self._run_worker)

    async def _run_worker(self) -> None:
        self._waking = False
        await _Worker(self).run()
