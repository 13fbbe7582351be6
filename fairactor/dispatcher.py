"""The dispatcher: turn by turn it reports what has ended in this process and claims what is next, from one shard."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import anyio
import attrs

from . import record
from .errors import LeaseLost, ServerError, ServerUnavailable
from .inbox import Inbox
from .settings import Settings
from .shard import Shard
from .signals import Signal
from .wire import Assignment, Handed, Settlement, Turn, handed_mark, turn_mark
from .worker import Claim, Pool, new_claims

logger: Final = logging.getLogger(__name__)

BATCH: Final = 500
"""The most outcomes, and the most claims, in one turn."""

_FIRST_PAUSE: Final = 0.02  # seconds before a turn that failed is taken again; doubled each time
_LONGEST_PAUSE: Final = 0.5
_LET_GO: Final = 1.0
"""Seconds that handlers get to end, whose claims were lost, before these are given back where the server has them."""
_CANCEL_REASON: Final = "by handle.cancel()"


@attrs.frozen
class _Request:
    """A turn as it is sent; the same again until it is answered."""

    number: int
    want: int
    ahead: int
    heard: bool
    settle: list[Settlement]


class Dispatcher:
    """Holds the lease of this runtime on one shard, and keeps the workers supplied from it."""

    def __init__(
        self,
        shard: Shard,
        pool: Pool,
        inbox: Inbox,
        settings: Settings,
        info: dict[str, Any],
        serves: Assignment | None = None,
    ) -> None:
        self._shard = shard
        self._pool = pool
        self._inbox = inbox
        self._settings = settings
        self._info = info
        self._serves = serves
        self._joined = 0
        self.runtime = ""  # the name under which it holds its lease; a lost lease costs the name, '' is none
        self._number = 0
        self._heard = False  # of a task that was handed over since the last turn
        self._request: _Request | None = None
        self._outbox: list[Settlement] = []
        self._signal = Signal()
        self._back = Signal()  # the server is back
        self._claiming = True
        self._leaving = False
        self._stopped = anyio.Event()
        self._stopped.set()
        self._pace = _Pace(pool.size)

    # What others call

    def settled(self, claim: Claim, settlement: Settlement) -> None:
        """Takes the outcome of a claim; it goes with the next turn."""
        if claim.runtime == self.runtime:  # else a lease was lost since: numbers of turns are its own
            self._outbox.append(settlement)
        self._signal.set()

    def vacated(self) -> None:
        """Learns that a worker has become free."""
        self._signal.set()

    def wake(self) -> None:
        """Learns that there is work."""
        self._signal.set()

    async def join(self) -> None:
        """Takes a lease under a new name."""
        self._joined += 1
        name = f"{self._inbox.runtime}/{self._joined}"
        self._inbox.listen(self._shard, name, self.wake, self._cancel, self._server_is_back, self._take)
        try:
            await self._inbox.ready(self._shard, name)
            serves = self._serves
            await self._shard.join(name, lease=self._settings.lease, info=self._info, serves=serves)
            if serves is not self._serves:  # it was changed meanwhile
                await self._shard.assign(name, self._serves)
        except BaseException:
            self._inbox.ignore(self._shard, name)
            raise
        self._number = 0
        self._heard = False
        self.runtime = name

    async def assign(self, serves: Assignment | None) -> None:
        """Changes which tenants are served; None: all alike."""
        self._serves = serves
        if self.runtime:
            await self._shard.assign(self.runtime, serves)
        self._signal.set()

    def stop_claiming(self) -> None:
        """Claims no more; what has ended is still reported."""
        self._claiming = False
        self._signal.set()

    async def leave(self) -> None:
        """Reports what has ended, then gives up the lease and what is still claimed."""
        self._leaving = True
        self.stop_claiming()
        await self._stopped.wait()  # `run` may have been canceled long ago
        while self.runtime and (self._request or self._outbox):
            try:
                await self._exchange()
            except ServerUnavailable:
                await anyio.sleep(0.1)
            except LeaseLost as error:
                logger.error("%s", error)  # noqa: TRY400 - the message says it all
                break
        if self.runtime:
            await self._shard.leave(self.runtime)

    async def run(self) -> None:
        """Takes turns until it leaves. A server that is away is waited for."""
        self._stopped = anyio.Event()
        pause = _FIRST_PAUSE
        try:
            while not self._leaving:
                try:
                    if not self.runtime:
                        await self.join()
                    await self._take_turn()
                except ServerError as error:
                    logger.log(logging.WARNING if pause == _FIRST_PAUSE else logging.DEBUG, "%s; trying again", error)
                    await self._back.wait(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
                except LeaseLost as error:
                    logger.error("%s", error)  # noqa: TRY400 - the message says it all
                    await self._let_go()
                else:
                    pause = _FIRST_PAUSE
        finally:
            self._stopped.set()

    # One turn

    async def _take_turn(self) -> None:
        request, turn = await self._exchange()
        if turn.claims:
            mark = turn_mark(request.number)
            self._begin(new_claims(turn.claims, mark, self, turn.now), at_once=not turn.more)
        for task_id in turn.cancels:
            self._pool.cancel(task_id.decode(), _CANCEL_REASON)
        if turn.tend:
            await self._tend()
        await self._rest(request, turn)

    def _begin(self, claims: list[Claim], *, at_once: bool, free: bool = True) -> None:
        """Starts what was claimed, or gives it back where no worker is free for it.

        Where there is more to claim, it starts only after the next turn was sent.
        """
        if self._claiming and free:
            self._pool.submit(claims, at_once=at_once)
        elif not self._leaving:
            self._outbox += [claim.given_back() for claim in claims]

    def _take(self, handed: Handed) -> None:
        """Starts a task that was handed over; one that comes late is brought by the turn that was taken since."""
        if self.runtime and handed.mark == handed_mark(self._number):
            self._heard = True
            claims = new_claims([handed.id, handed.record], handed.mark, self, handed.now)
            free = self._pool.vacancies > 0  # tasks of other shards may have the workers
            self._begin(claims, at_once=True, free=free)
            self._signal.set()  # it would take more

    async def _exchange(self) -> tuple[_Request, Turn]:
        """Sends a turn, or the one before that was not answered, and takes the reply in."""
        request = self._request = self._request or self._next_request()
        started = time.monotonic()
        turn = await self._shard.turn(
            self.runtime,
            request.number,
            lease=self._settings.lease,
            want=request.want,
            ahead=request.ahead,
            heard=request.heard,
            settle=request.settle,
        )
        self._request = None
        self._pace.note(time.monotonic() - started, request.settle)
        for refused in turn.refused:
            logger.warning("the outcome of task %s came too late and was refused", refused.decode(errors="replace"))
        return request, turn

    def _next_request(self) -> _Request:
        self._number += 1
        self._signal.lower()  # what it was raised for goes with this turn
        settle, self._outbox = self._outbox[:BATCH], self._outbox[BATCH:]
        heard, self._heard = self._heard, False
        return _Request(self._number, *self._wanted(), heard, settle)

    def _wanted(self) -> tuple[int, int]:
        """How many tasks could start here at once, and how many more soon."""
        if not self._claiming:
            return 0, 0
        vacancies = min(BATCH, self._pool.vacancies)
        want = max(0, vacancies)
        return want, max(0, min(BATCH, vacancies + self._pace.ahead) - want)

    async def _rest(self, request: _Request, turn: Turn) -> None:
        """Waits until there is a reason for the next turn.

        While more work waits than was claimed, the next turn goes out at once, so that the server chooses while the
        workers here run.
        """
        if self._outbox or turn.tend or self._leaving or (turn.more and any(self._wanted())):
            return
        if self._claiming and len(turn.claims) >= 2 * request.want:  # else the server wakes it when there is work
            self._pool.tell_of_room(self)
        heartbeat = self._settings.lease / 3
        await self._signal.wait(min(heartbeat, turn.wait + 0.001))

    async def _tend(self) -> None:
        body = record.encode(
            record.Outcome(
                error=record.Error("WorkerDied", f"{self._settings.max_deliveries} runtimes died while they ran it")
            )
        )
        while await self._shard.tend(
            deliveries=self._settings.max_deliveries, failed_ttl=self._settings.failed_ttl, body=body
        ):
            pass

    async def _let_go(self) -> None:
        """After the lease is lost: nothing of what was claimed is ours. The next turn is taken under a new name."""
        lost, self.runtime = self.runtime, ""
        self._request = None
        self._outbox.clear()
        self._pool.abandon(self)
        with anyio.move_on_after(_LET_GO):
            await self._pool.quiet(self)
        self._inbox.ignore(self._shard, lost)
        with suppress(ServerError):  # where the server is behind, it holds claims in that name; else they lapse
            await self._shard.leave(lost)

    def _server_is_back(self) -> None:
        self._back.set()
        self.wake()

    def _cancel(self, task_id: str) -> None:
        if not self._pool.cancel(task_id, _CANCEL_REASON):
            self.wake()  # its claim may be on its way here, and the turn after it says so again


class _Pace:
    """How much to claim ahead: what the workers will start within one round trip, and nothing where tasks are slow."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._rate = 0.0  # outcomes per second
        self._round_trip = 0.0  # seconds
        self._run = math.inf  # seconds that a task runs
        self._last = time.monotonic()

    def note(self, round_trip: float, settled: Sequence[Settlement]) -> None:
        """Learns from a turn."""
        now = time.monotonic()
        elapsed, self._last = max(now - self._last, 1e-6), now
        rate = len(settled) / elapsed
        self._rate = max(rate, self._rate + 0.2 * (rate - self._rate))  # at once up, so that who comes late catches up
        self._round_trip += 0.2 * (round_trip - self._round_trip)
        if settled:
            mean = sum(settlement.seconds for settlement in settled) / len(settled)
            self._run = mean if self._run == math.inf else self._run + 0.2 * (mean - self._run)

    @property
    def ahead(self) -> int:
        """How many tasks to hold ready beyond those that run.

        Few workers may be free in less than a round trip, but what the process has done in that time it will at most
        do twice.
        """
        free = self._workers * self._round_trip / max(self._run, 1e-6)
        return min(BATCH, round(free), 1 + int(2 * self._rate * self._round_trip))
