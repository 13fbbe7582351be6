"""The dispatcher: in each turn it reports outcomes of this process to a shard, and claims the next tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import anyio
import attrs

from fairactor._model.inbox import CANCEL, HANDED, WORK, Handed, handed_mark, unpack_handed
from fairactor._model.lane import RuntimeKind
from fairactor._model.limit import PackedLimit
from fairactor._model.tally import Tally
from fairactor._model.wire import Assignment, Settlement, Turn, as_bytes, as_text, turn_mark
from fairactor._store.shard import Shard, Undeclared
from fairactor._store.subscriber import Subscriber
from fairactor._util.backoff import Backoff
from fairactor._util.link import MOST, Link
from fairactor._util.spans import Spans
from fairactor._util.wakeup import Wakeup
from fairactor.errors import LeaseLost, ServerError, ServerUnavailable
from fairactor.settings import Settings

from .attempts import Attempts
from .claim import Claim, described, new_claims
from .lease import Lease
from .outbox import Outbox
from .pace import SURE, TURN_TIME, Pace
from .reader import Reader
from .slots import Room, Slots
from .suspects import Suspects
from .unserved import Expiry, Refusals
from .upkeep import maintain

logger: Final = logging.getLogger(__name__)

NOTHING: Final[Mapping[bytes, int]] = MappingProxyType({})
LOOKING: Final = 2
"""While many tenants wait for a kind of slot, a pause before it looks behind them, by the time that takes."""

_ABANDON_TIMEOUT: Final = 1.0
"""Seconds to wait for handlers whose claims were lost, before the dispatcher takes a new lease."""
_CANCEL_REASON: Final = "by handle.cancel()"


@attrs.frozen
class _Request:
    """The arguments of a turn. They stay the same when the turn is repeated, until it is answered."""

    number: int
    want: int
    ahead: int
    permit: bytes
    room: Room
    slots: bytes
    received: bool
    settle: list[Settlement]


class Dispatcher:
    """Holds the lease of this runtime on one shard, and supplies the workers with tasks from it."""

    def __init__(
        self,
        name: str,
        shard: Shard,
        slots: Slots,
        suspects: Suspects,
        subscriber: Subscriber,
        settings: Settings,
        info: dict[str, Any],
        kind: RuntimeKind,
        limits: Mapping[str, PackedLimit],
        serves: Assignment | None = None,
        spans: Spans | None = None,
        tally: Tally | None = None,
    ) -> None:
        self._shard = shard
        self._lease = Lease(name, shard, subscriber, settings, info, kind, limits, serves)
        self._pool = slots.pools
        self._slots = slots
        self._behind = Room(())  # what the last turn had left, if it had to stop at tenants that it passed over
        self._suspects = suspects
        suspects.add(self)
        self._settings = settings
        self._spans = spans
        self._refusals = Refusals(shard)
        self.attempts = None if tally is None else Attempts(tally)
        """Counts for the history; None if nobody wants to know."""
        self._expiry = Expiry(shard, settings, spans, self.attempts)
        self._number = 0
        self._duration = 0.0  # seconds that the last turn took
        self._link = Link(shard.answer, MOST)  # for records: a reply is late only if nothing of it arrives
        self.reader = Reader(shard, self._link, self._start_late)
        """Has to run beside the dispatcher: it reads records that did not fit into the reply to a turn."""
        self._received = False  # whether it received the task that was handed over since the last turn
        self._request: _Request | None = None
        self._outbox = Outbox(Link(shard.answer))
        self._wakeup = Wakeup()
        self._server_back = Wakeup()
        self._claiming = True
        self._leaving = False
        self._stopped = anyio.Event()
        self._stopped.set()
        self._paces = [Pace(kind.size) for kind in slots.kinds]
        self._share = slots.shares.add(self, self._paces[0])  # only tasks of the first kind are claimed ahead
        subscriber.on_subscribe(self._on_subscribe)

    @property
    def runtime(self) -> str:
        """The name under which it holds its lease, or ''; each lease has a new name."""
        return self._lease.runtime

    @property
    def renewed(self) -> float:
        """When the last turn that was answered began: it has renewed the lease."""
        return self._lease.renewed

    @property
    def usual_runs(self) -> list[float | None]:
        """The seconds that a task has run lately, on average, for each kind of slots; None if none has."""
        return [pace.usual_run for pace in self._paces]

    # Called by other parts

    def settle(self, claim: Claim, settlement: Settlement) -> None:
        """Takes the outcome of a claim, which the next turn reports."""
        if self._suspects.running:
            self._suspects.ended(claim)
        if claim.runtime == self._lease.runtime:  # otherwise the lease of this claim was lost
            self._outbox.add(settlement)
            if self.attempts is not None:
                self.attempts.ended(claim, settlement.state)
            if claim.tell_dead is not None:
                self._refusals.add(settlement.id, self._when_dead(claim, claim.tell_dead))
        self._wakeup.set()

    def _when_dead(self, claim: Claim, tell_dead: Callable[[], None]) -> Callable[[], None]:
        return tell_dead if self.attempts is None else partial(self.attempts.dead, claim, tell_dead)

    def wake(self) -> None:
        """Makes it take a turn soon, because there is work or a free worker."""
        self._wakeup.set()

    def renew(self, client: Any) -> bool:
        """Renews the lease from a thread, because the event loop is blocked; returns whether there is a lease."""
        return self._lease.renew(client)

    async def join(self) -> None:
        """Takes a new lease, under a new name."""
        await self._lease.join(self._deliver)
        self._number = 0
        self._received = False

    async def assign(self, serves: Assignment | None) -> None:
        """Changes the tenants that are served; None means all tenants alike."""
        await self._lease.assign(serves)
        self._wakeup.set()

    async def declare_limits(self, limits: Mapping[str, PackedLimit]) -> None:
        """Changes what the code says of the limits of actors on this shard."""
        await self._lease.declare_limits(limits)

    def stop_claiming(self) -> None:
        """Stops claiming. Outcomes are still reported."""
        self._claiming = False
        self._give_back(self.reader.drop())
        self._share.failed()
        self._wakeup.set()

    async def leave(self, *, crashed: bool = False) -> None:
        """Reports outcomes, then gives up the lease and the remaining claims.

        If what ran here has ended the event loop (``crashed``), the claims count as delivered.
        """
        self._leaving = True
        self.stop_claiming()
        await self._stopped.wait()  # `run` may have been canceled long ago
        while self.runtime and (self._request or self._outbox):
            try:
                await self._exchange()
            except ServerUnavailable:
                await anyio.sleep(0.1)
            except LeaseLost as error:
                logger.error("%s", error)  # noqa: TRY400 - the traceback would add nothing
                break
        if self.runtime:
            await self._lease.leave(crashed=crashed)

    async def run(self) -> None:
        """Takes turns until it leaves. While the server does not answer, it keeps trying."""
        self._stopped = anyio.Event()
        backoff = Backoff()
        try:
            while not self._leaving:
                try:
                    if not self.runtime:
                        await self.join()
                    await self._take_turn()
                except ServerError as error:
                    self._share.failed()
                    logger.log(logging.DEBUG if backoff.failures else logging.WARNING, "%s; trying again", error)
                    await self._server_back.wait(backoff.next())
                except LeaseLost as error:
                    logger.error("%s", error)  # noqa: TRY400 - the traceback would add nothing
                    await self._abandon_claims()
                else:
                    backoff.reset()
        finally:
            self._stopped.set()

    # One turn

    async def _take_turn(self) -> None:
        request, turn = await self._exchange()
        claims = new_claims(turn.claims, turn_mark(request.number), self, turn.now) if turn.claims else []
        # What was handed over comes even if it was not wanted.
        free = not self._suspects.excluding or request.want > 0
        begun = self._begin(claims, turn.cut, at_once=not turn.more, free=free, ahead=request.ahead)
        self._share.answered(turn, sum(claim.takes_slot for claim in claims), request.want)
        self._slots.batches.answered(self)
        self._suspects.answer(self, turn.suspects, claims if begun else (), asked=request.permit)
        for task_id in turn.cancels:
            self._cancel_here(as_text(task_id))
        if turn.maintenance_due:
            await self._maintain()
        if self._expiry.lanes:
            await self._expiry.step()
        if self._wait_for_slots(request, turn, claims):
            await self._wait_for_work(request, turn)

    def _begin(
        self,
        claims: list[Claim],
        cut: Mapping[bytes, int] = NOTHING,
        *,
        at_once: bool,
        free: bool = True,
        ahead: int = 0,
    ) -> bool:
        """Starts claimed tasks, or returns them to their mailboxes if no worker is free; returns whether they start.

        Those for whose kind no slot is free go back. Those in ``cut`` start once their records have been read.

        With ``at_once=False`` they start after the next turn has been sent, because more tasks wait.
        """
        if self._claiming and free:
            if cut:
                claims = self._read(claims, cut)
            if claims:
                starting, too_many = self._slots.divide(claims, ahead=ahead)
                self._pool.submit(starting, at_once=at_once)
                self._give_back(too_many)
            return True
        if not self._leaving:
            self._give_back(claims)
        return False

    def _give_back(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self._outbox.add(claim.given_back())

    def _read(self, claims: list[Claim], cut: Mapping[bytes, int]) -> list[Claim]:
        """Lets the reader complete those claims whose records are cut off; returns the others."""
        complete: list[Claim] = []
        for claim in claims:
            size = cut.get(as_bytes(claim.id))
            if size is None:
                complete.append(claim)
            else:
                self.reader.add(claim, size, self._slots.pool_of(claim))
        return complete

    def _start_late(self, claim: Claim) -> None:
        """Starts a claim whose record has been read."""
        self._begin([claim], at_once=True)
        self._wakeup.set()  # the reader may have kept it from claiming more

    def _take(self, handed: Handed) -> None:
        """Starts a task that was handed over. If the message is late, the reply to a later turn has the task."""
        if self.runtime and handed.mark == handed_mark(self._number) and not self._received:
            claims = new_claims([handed.id, handed.record], handed.mark, self, handed.now)
            self._received = True
            self._share.handed()
            # Tasks of other shards may occupy the workers, or one of them has to run alone.
            free = self._pool.vacancies > 0 and not self._suspects.excluding
            self._begin(claims, at_once=True, free=free)
            self._wakeup.set()  # to claim more

    async def _exchange(self) -> tuple[_Request, Turn]:
        """Sends the next turn, or repeats the one that was not answered; returns it with the reply."""
        request = self._request = self._request or self._next_request()
        if self._lease.declares:
            await self._lease.declare_limits()
        started = time.monotonic()
        try:
            turn = await self._send(request)
        except Undeclared:  # the last runtime of an older release has left
            await self._lease.declare()
            turn = await self._send(request)
        except ServerUnavailable:
            self._link.late(self._link.budget)
            self._request = attrs.evolve(request, settle=self._outbox.late(request.settle))
            raise
        self._request = None
        self._lease.renewed = started
        self._duration = time.monotonic() - started
        request = attrs.evolve(request, settle=self._outbox.reported(request.settle, turn.had, self._duration))
        if turn.claims:
            self._link.note(sum(map(len, turn.claims)), self._duration)
        for pace, settled in zip(self._paces, self._slots.by_kind(request.settle), strict=True):
            pace.note(self._duration, settled)
        for refused in turn.refused:
            logger.warning("the outcome of task %s came too late and was refused", refused.decode(errors="replace"))
        if self.attempts is not None:
            self.attempts.reported(request.settle, turn.refused)
        if self._refusals:
            await self._refusals.reported(request.settle, turn.refused)
        return request, turn

    async def _send(self, request: _Request) -> Turn:
        return await self._shard.turn(
            self.runtime,
            request.number,
            lease=self._settings.lease,
            want=request.want,
            ahead=request.ahead,
            permit=request.permit,
            received=request.received,
            slots=request.slots,
            most_bytes=self._link.budget,
            sure=SURE,
            most_time=TURN_TIME,
            settle=request.settle,
        )

    def _next_request(self) -> _Request:
        self._number += 1
        self._wakeup.clear()  # this turn handles what it announced
        settle = self._outbox.take()
        received, self._received = self._received, False
        asked = self._suspects.ask(self, *self._wanted())
        self._share.asks(asked[0] + asked[1])
        room = self._slots.room(self._behind)
        joining = self._slots.batches.ask(self) if self._claiming and not self._suspects.excluding else ()
        return _Request(self._number, *asked, room, self._slots.pack(room, joining), received, settle)

    def _wanted(self) -> tuple[int, int]:
        """Returns how many tasks could start here now, and how many more could start soon."""
        may = self._claiming and not self._suspects.excluding and not self.reader.is_full
        return self._share.wanted() if may else (0, 0)

    def _wait_for_slots(self, request: _Request, turn: Turn, claims: list[Claim]) -> bool:
        """Lets a free slot of a kind that is full wake it, because tasks may wait for one.

        Returns False if one has become free already.
        """
        if not self._slots.several or not self._claiming:
            return True
        left = self._slots.left(request.room, claims)
        self._behind = attrs.evolve(left, behind=turn.behind)
        if not left.full:
            return True
        self._pool.wake_on_vacancy(self, left.full)
        return not any(self._pool.all[kind].vacancies > 0 for kind in left.full)

    async def _wait_for_work(self, request: _Request, turn: Turn) -> None:
        """Waits until there is a reason for the next turn.

        If more work waits than was claimed, the next turn is sent at once, so the server selects tasks while the
        workers here run.
        """
        busy = self._outbox or turn.maintenance_due or self._expiry.lanes
        if busy or self._leaving or (turn.more and any(self._wanted())):
            return
        # Otherwise the server sends a wake-up when there is work.
        pause = LOOKING * self._duration if turn.unseen else self._settings.lease / 3  # else for a heartbeat
        enough = turn.more or len(turn.claims) >= 2 * request.want
        if self._claiming and enough and not self._suspects.excluding:  # what excludes others wakes them afterwards
            pause = min(pause, self._share.sleep())
        await self._wakeup.wait(min(pause, turn.wait + 0.001))

    async def _maintain(self) -> None:
        self._expiry.add(await maintain(self._shard, self._settings, self._spans, self.attempts))

    async def _abandon_claims(self) -> None:
        """Abandons all claims, because the lease is lost. The next turn takes a new lease."""
        lost, self._lease.runtime = self.runtime, ""
        self._request = None
        self._share.failed()
        self._outbox.clear()
        self._refusals.clear()
        if self.attempts is not None:
            self.attempts.lost()
        if running := self._running():
            logger.warning(
                "%s: others may run these tasks now, so they are canceled here: %s", lost, described(running)
            )
        self.reader.drop()
        self._pool.abandon(self)
        self._suspects.lost(self)
        with anyio.move_on_after(_ABANDON_TIMEOUT):
            await self._pool.wait_until_idle(self)
        if running := self._running():
            logger.warning("%s: these tasks still run here although they were canceled: %s", lost, described(running))
        await self._lease.forget(lost)

    def _running(self) -> list[Claim]:
        return [claim for claim in self._pool.running() if claim.owner is self]

    def _deliver(self, message: bytes) -> None:
        """Handles a message that the shard has published to this dispatcher."""
        kind = message[:1]
        if kind == HANDED:
            self._take(unpack_handed(message))
        elif kind == WORK:
            self.wake()
        elif kind == CANCEL:
            self._cancel(as_text(message[1:]))
        else:
            raise ValueError(f"{kind!r} is no kind of message that this version of fairactor knows")

    def _on_subscribe(self) -> None:
        self._lease.declares = True  # the shard may have been repaired
        self._server_back.set()
        self.wake()

    def _cancel(self, task_id: str) -> None:
        if not self._cancel_here(task_id):
            self.wake()  # its claim may still be on the way; the next turn repeats the cancellation

    def _cancel_here(self, task_id: str) -> bool:
        claim = self.reader.withdraw(task_id)
        if claim is None:
            return self._pool.cancel(task_id, _CANCEL_REASON, self)
        self.settle(claim, claim.given_back())  # the server knows that it is canceled
        return True
