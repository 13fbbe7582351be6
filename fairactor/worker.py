"""The workers of a runtime: a pool of actors that run claimed tasks, one each at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import anyio

from . import record
from .context import Task
from .wire import Settlement


class Owner(Protocol):
    """Where a claim came from: its dispatcher."""

    runtime: str
    """The name under which it claims now."""

    def settled(self, claim: Claim, settlement: Settlement) -> None:
        """Takes the outcome of a claim."""

    def vacated(self) -> None:
        """Learns that a worker has become free without an outcome."""


class Claim:
    """A task that this runtime has claimed."""

    __slots__ = (
        "begun", "body", "call", "cancel_reason", "claimed", "header", "id",
        "owner", "record", "runtime", "server_time", "stained", "task", "turn",
    )  # fmt: skip

    def __init__(
        self, task_id: str, packed: bytes, turn: bytes, owner: Owner, server_time: float, claimed: float
    ) -> None:
        self.id = task_id
        self.record = packed
        self.turn = turn
        self.owner = owner
        self.runtime = owner.runtime  # as it was called when it claimed this: fencing needs both, that and the turn
        self.server_time = server_time  # of the claim, unix seconds
        self.claimed = claimed  # the same moment by this process's monotonic clock
        self.begun = claimed
        self.header: record.Header | None = None
        self.body = b""
        self.call: record.Call | None = None
        self.task: Task | None = None
        self.cancel_reason: str | None = None
        self.stained = False  # whether its handler has set context variables

    def server_clock(self, at: float | None = None) -> float:
        """What the server's clock says at a moment of the monotonic one, now by default; unix seconds."""
        return self.server_time + (time.monotonic() if at is None else at) - self.claimed

    @property
    def seconds(self) -> float:
        """For how long its task has run."""
        return time.monotonic() - self.begun if self.begun != self.claimed else 0.0

    def age(self) -> float:
        """Seconds since the task was sent, or was due, by the server's clock."""
        return self.server_clock() - self.header.stamp / 1e6 if self.header else 0.0

    def given_back(self) -> Settlement:
        """What to report of a claim that was never started: the task goes back to its place."""
        return Settlement(self.id, self.turn, "B", 0, self.record)


class _Worker:
    """Runs one task after the other. Canceling its scope cancels the task at hand; it then goes on with the next."""

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
            if claim is not None and claim.stained:
                self._pool.retired()
                return

    async def _serve(self) -> bool:
        """Runs tasks until there are too many workers (False), or until the scope has been canceled."""
        pool = self._pool
        while (claim := await pool.take(self)) is not None:
            self.claim = claim
            claim.begun = time.monotonic()
            settlement = await pool.execute(claim)
            self.claim = None
            pool.finished(claim, settlement)
            if claim.stained:
                pool.retired()
                return False
            if self.scope.cancel_called:  # too late for that task, and it must not hit the next one
                return True
        return False


class Pool:
    """At most ``size`` tasks running at once, not counting those that wait for other tasks.

    Workers are started as they are needed. One that takes a task wakes the next if more are ready, so that a batch
    of tasks that never wait is run by one worker without a switch.
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
        self._running: dict[Claim, _Worker] = {}  # not by id: a lost claim may run on beside the next of its task
        self._idle: list[anyio.Event] = []
        self._waking = False
        self._workers = 0
        self._busy = 0
        self._lent = 0
        self._returning: deque[asyncio.Future[None]] = deque()
        self._in_want: set[Owner] = set()  # owners that would have claimed more, had there been room
        self._ended: anyio.Event | None = None  # set when the next task ends: somebody waits for that

    @property
    def vacancies(self) -> int:
        """How many more tasks could start at once; negative when some wait here already."""
        return self.size - self._busy - len(self._ready) - len(self._returning)

    def tell_of_room(self, owner: Owner) -> None:
        """Tells an owner once when a slot is free again, whosever task it was."""
        self._in_want.add(owner)

    def submit(self, claims: Iterable[Claim], *, at_once: bool = True) -> None:
        """Hands tasks in; they start as workers are free.

        Not ``at_once`` is in the event loop's next round, when what was written in this one is on its way.
        """
        self._ready.extend(claims)
        if at_once:
            self._wake()
        else:
            asyncio.get_running_loop().call_soon(self._wake)

    def cancel(self, task_id: str, reason: str) -> bool:
        """Cancels a task that is running or ready here; returns whether it is either."""
        found = False
        for claim, worker in self._running.items():
            if claim.id == task_id:
                found = True
                if claim.cancel_reason is None:  # else it has been told
                    claim.cancel_reason = reason
                    worker.scope.cancel()
        if found:
            return True
        for claim in self._ready:
            if claim.id == task_id:
                self._ready.remove(claim)
                claim.owner.settled(claim, self._canceled(claim, reason))
                return True
        return False

    def abandon(self, owner: Owner) -> None:
        """Drops the tasks of an owner, and cancels those that run: they are others' now, or will be."""
        self._ready = deque(claim for claim in self._ready if claim.owner is not owner)
        for claim, worker in self._running.items():
            if claim.owner is owner:
                worker.scope.cancel()

    def drop_ready(self) -> list[Claim]:
        """Drops the tasks that have not started, and returns them."""
        dropped = list(self._ready)
        self._ready.clear()
        return dropped

    async def quiet(self, owner: Owner | None = None) -> None:
        """Returns when no task is running, or none of an owner."""
        while any(owner in (None, claim.owner) for claim in self._running):
            if self._ended is None:
                self._ended = anyio.Event()
            await self._ended.wait()

    def lend(self) -> None:
        """Lends out the slot of a running task."""
        self._busy -= 1
        self._lent += 1
        self._hand_over()
        self._wake()
        self._offer_room()

    async def take_back(self) -> None:
        """Waits for a slot for a task that lent its own; it comes before tasks that have not started."""
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
        """Takes a slot for a task that lent its own, free or not: the task is about to end."""
        self._busy += 1
        self._lent -= 1

    def retired(self) -> None:
        """Learns that a worker has ended, because its context holds what a task left in it; another starts clean."""
        self._workers -= 1
        self._wake()

    async def take(self, worker: _Worker) -> Claim | None:
        """The next task; None when there are more workers than needed."""
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
        """Frees the slot of a task that has ended, and hands its outcome in."""
        self._free(claim)
        claim.owner.settled(claim, settlement)

    def canceled(self, claim: Claim) -> None:
        """Frees the slot of a task that was canceled; without a reason nobody wants its outcome."""
        self._free(claim)
        if claim.cancel_reason is not None:
            claim.owner.settled(claim, self._canceled(claim, claim.cancel_reason))
        else:
            claim.owner.vacated()

    def _free(self, claim: Claim) -> None:
        del self._running[claim]
        self._busy -= 1
        self._hand_over()
        if self._in_want:
            self._offer_room()
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def _offer_room(self) -> None:
        if self.vacancies > 0:
            in_want, self._in_want = self._in_want, set()
            for owner in in_want:
                owner.vacated()

    def _hand_over(self) -> None:
        """Gives what is free to tasks that want their slots back."""
        while self._returning and self._busy < self.size:
            slot = self._returning.popleft()
            if not slot.done():
                self.seize()
                slot.set_result(None)

    def _wake(self) -> None:
        """Wakes or starts one worker, if one is needed and none is on its way."""
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


def new_claims(ids_and_records: Any, turn: bytes, owner: Owner, server_time: float) -> list[Claim]:
    """The claims in the reply to a turn."""
    now = time.monotonic()
    flat = iter(ids_and_records)
    return [
        Claim(task_id.decode(), packed, turn, owner, server_time, now)
        for task_id, packed in zip(flat, flat, strict=True)
    ]
