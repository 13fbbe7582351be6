"""The pool of workers. Each worker runs claimed tasks, one after the other."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextvars import copy_context
from typing import Any, Final

import anyio

from fairactor._model.wire import Settlement
from fairactor._util.tracing import leave

from .claim import Claim, Outcomes, Owner, Sleeper
from .worker import Worker

logger: Final = logging.getLogger(__name__)


class Pool:
    """Runs at most ``size`` tasks at once, not counting those that wait for other tasks.

    It starts workers when it needs them. A worker that takes a task wakes the next worker if more tasks are ready. So a
    single worker runs a whole batch of tasks that never wait, without switching between workers.
    """

    def __init__(
        self,
        size: int,
        execute: Callable[[Claim], Coroutine[Any, Any, Settlement | Outcomes]],
        canceled: Callable[[Claim, str], Settlement | Outcomes],
    ) -> None:
        self.size = size
        self.execute = execute
        self._canceled = canceled
        self._context = copy_context()  # so that workers do not inherit the context of the task that starts them
        self._context.run(leave)  # nor a trace or baggage of the code that enters the runtime
        self._ready: deque[Claim] = deque()
        # Not by id: a lost claim may still run beside the next claim of the same task.
        self._running: dict[Claim, Worker] = {}
        self.slow = math.inf
        """Tasks that run for longer than these seconds are noted in `slow_ended` when they end."""
        self.slow_ended: deque[tuple[float, Claim]] = deque(maxlen=10)
        self._idle: list[asyncio.Event] = []  # plain ones: a callback without an asyncio task may wake a worker
        self._waking: Worker | asyncio.Event | None = None
        self._closed = False
        self.interrupted: list[Claim] = []
        """The tasks whose asyncio task was canceled from outside, because the event loop ends."""
        self._workers: set[Worker] = set()
        self._busy = 0
        self.reserved = 0
        """How many slots are kept for batches that are being gathered."""
        self._lent = 0
        self._returning: deque[asyncio.Future[None]] = deque()
        self._to_wake: set[Sleeper] = set()  # those that want to claim more as soon as a slot is free
        self._ended: anyio.Event | None = None  # set when the next task ends
        self.on_rest: Callable[[], None] | None = None
        """Called when nothing runs any more, apart from tasks that wait for other tasks. Set only while somebody waits
        for that, because with short tasks it is so after each one."""
        self.hold_slots = False
        """Whether tasks that wait to get their slots back have to wait on."""

    @property
    def rests(self) -> bool:
        """Whether nothing runs or is about to, apart from tasks that wait for other tasks."""
        return not self._busy and not self._ready and not self._returning and not self.reserved

    @property
    def busy(self) -> int:
        """How many slots are taken."""
        return self._busy

    def has(self, claim: Claim) -> bool:
        """Whether a task runs here, or waits for another one."""
        return (claim.batch or claim) in self._running

    def return_slots(self) -> None:
        """Gives free slots to tasks that wait to get theirs back."""
        while self._returning and self._busy < self.size and not self.hold_slots:
            slot = self._returning.popleft()
            if not slot.done():
                self.seize()
                slot.set_result(None)

    @property
    def vacancies(self) -> int:
        """How many more tasks could start now; negative if tasks already wait here."""
        return self.size - self._busy - len(self._ready) - len(self._returning) - self.reserved

    def reserve(self) -> None:
        """Keeps a slot for a batch that is being gathered, until `release`."""
        self.reserved += 1

    def release(self) -> None:
        """Gives up a slot that was kept."""
        self.reserved -= 1
        self.has_vacancy()
        if self.on_rest is not None and self.rests:
            self.on_rest()

    def wake_on_vacancy(self, owner: Sleeper) -> None:
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
            if owner in (None, claim.owner) and (task := claim.find(task_id)) is not None:
                found = True
                # Otherwise it has been canceled already.
                if task.cancel_reason is None and claim.cancel(task, reason):
                    worker.cancel()
        if found:
            return True
        for claim in self._ready:
            if owner in (None, claim.owner) and (task := claim.find(task_id)) is not None:
                if claim.withdraw(task):
                    self._ready.remove(claim)
                task.settle(self._canceled(task, reason))
                return True
        return False

    def abandon(self, owner: Owner) -> None:
        """Drops the waiting tasks of an owner and cancels its running tasks, because its claims are lost."""
        self._ready = deque(claim for claim in self._ready if claim.owner is not owner)
        for claim, worker in self._running.items():
            if claim.owner is owner:
                claim.lost = True
                worker.cancel()

    def running(self) -> list[Claim]:
        """Returns the tasks that run now. Other threads may call it, too."""
        return list(self._running)

    def pulse(self) -> dict[str, float]:
        """Returns how the workers fare: how many are busy, how many tasks are ready, and since when tasks run."""
        seconds = [claim.seconds for claim in self._running]
        return {
            "busy": self._busy,
            "ready": len(self._ready),
            "oldest": max(seconds, default=0.0),
            "newest": min(seconds, default=0.0),
        }

    def claim_of(self, task: asyncio.Task[Any]) -> Claim | None:
        """Returns the claim that an asyncio task runs; None if it is not that of a worker. As `running`."""
        return next((claim for claim, worker in list(self._running.items()) if worker.task is task), None)

    async def close(self) -> None:
        """Ends all workers, even those whose handlers ignore their cancellation. Waiting tasks are dropped."""
        self._closed = True
        self._ready.clear()
        workers = list(self._workers)
        for worker in workers:
            worker.abort()
        if workers:
            await asyncio.wait([worker.task for worker in workers])

    def drop_ready(self) -> list[Claim]:
        """Removes the tasks that have not started, and returns them."""
        dropped = [task for claim in self._ready for task in claim.tasks]
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
        self.return_slots()
        self._wake()
        self.has_vacancy()
        if self.on_rest is not None and not self._busy:
            self.on_rest()

    async def take_back(self) -> None:
        """Waits for a slot for a task that has lent its slot. It has precedence over tasks that have not started."""
        if self._busy < self.size and not self.hold_slots:
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

    async def take(self, worker: Worker) -> Claim | None:
        """Waits for the next task; returns None if there are more workers than needed."""
        if self._waking is worker:
            self._waking = None
        while not self._ready or self._busy >= self.size:
            if len(self._workers) > self.size + self._lent:
                self._workers.discard(worker)
                return None
            wake = asyncio.Event()
            self._idle.append(wake)
            try:
                await wake.wait()
            finally:
                if wake.is_set():
                    self._waking = None
                else:
                    self._idle.remove(wake)
        return self.take_ready(worker)

    def take_ready(self, worker: Worker) -> Claim | None:
        """Returns the next task, if one is ready and a slot is free."""
        if not self._ready or self._busy >= self.size or self._waking is worker:
            return None
        claim = self._ready.popleft()
        self._busy += 1
        self._running[claim] = worker
        if self._ready:
            self._wake()
        return claim

    def finished(self, claim: Claim, outcome: Settlement | Outcomes) -> None:
        """Frees the slot of a task that has ended, and reports the outcome to its owner."""
        self._free(claim)
        if outcome.seconds > self.slow:
            self.slow_ended.append((time.monotonic(), claim))
        claim.settle(outcome)

    def canceled(self, claim: Claim) -> None:
        """Frees the slot of a canceled task. If no reason was given, the claim was lost, and no outcome is reported."""
        self._free(claim)
        if claim.cancel_reason is not None:
            claim.settle(self._canceled(claim, claim.cancel_reason))
        else:
            if not claim.lost:
                self.interrupted.append(claim)
            claim.owner.wake()

    def _free(self, claim: Claim) -> None:
        del self._running[claim]
        self._busy -= 1
        self.return_slots()
        if self._to_wake:
            self.has_vacancy()
        if self.on_rest is not None and not self._busy:
            self.on_rest()
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def has_vacancy(self) -> None:
        """Wakes the owners that want to claim more, if a slot is free."""
        if self.vacancies > 0:
            owners, self._to_wake = self._to_wake, set()
            for owner in owners:
                owner.wake()

    def _wake(self) -> None:
        """Wakes or starts a worker, if one is needed and none is being woken."""
        if self._waking is not None or not self._ready or self._busy >= self.size or self._closed:
            return
        if self._idle:
            self._waking = wake = self._idle.pop()
            wake.set()
        elif len(self._workers) < self.size + self._lent:
            self._waking = self._context.run(Worker, self, self._ended_worker)
            self._workers.add(self._waking)

    def _ended_worker(self, worker: Worker) -> None:
        """Replaces a worker that has ended, if there is more to do."""
        self._workers.discard(worker)
        if self._waking is worker:
            self._waking = None
        if not worker.task.cancelled() and (error := worker.task.exception()) is not None:
            logger.error("a worker failed; another takes its place", exc_info=error)
        self._wake()
