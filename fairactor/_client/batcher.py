"""The batcher: combines concurrent sends to a shard into one script call."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

import attrs

from fairactor._model.tally import Tally
from fairactor._model.wire import MOST_ROUTES, USUAL_BATCH, Item, Receipt
from fairactor._store.script_runner import Elsewhere
from fairactor._store.shard import Shard
from fairactor._util.link import Link
from fairactor._util.wakeup import Wakeup
from fairactor.errors import NotReplicated, ServerUnavailable, TaskExists

from .packing import Batches

_POSTED: Final = 2
"""How many batches `post_all` has posted at once: one that is on its way, and the next one."""


class _Posted(NamedTuple):
    """Tasks that a caller has posted, and its future."""

    items: Sequence[Item]
    places: int
    size: int
    replicas: int
    reservation: str
    accepted: asyncio.Future[Sequence[str]]


class Batcher:
    """Sends tasks to one shard. Tasks that are posted during a call go with the next call.

    Args:
        shard: the shard.
        runtime: the name of the runtime that sends.
        answer: the seconds after which a call without an answer fails.
        tally: counts what is sent; None if nobody wants to know.
    """

    def __init__(self, shard: Shard, runtime: str, answer: float, tally: Tally | None = None) -> None:
        self._shard = shard
        self._link = Link(answer)
        self._runtime = runtime
        self._tally = tally
        self._number = 0
        self._outbox: deque[_Posted] = deque()
        self._posted = Wakeup()
        self._closed: Exception | None = None

    def post(self, items: Sequence[Item], *, replicas: int = 0, reservation: str = "") -> asyncio.Future[Sequence[str]]:
        """Posts tasks. The future gets their ids once the server has accepted all of them.

        If an earlier task has the key of a task, the id is that of the earlier task; if its own id was sent before, ''.

        Args:
            items: the tasks, at most `BATCH`, which go with one call.
            replicas: how many replicas must confirm the tasks first.
            reservation: the name of the reservation for these tasks, or ''.

        Raises (from the future):
            ServerUnavailable: the server did not answer; the error says whether the tasks may have been accepted.
            ServerError: the server refused; the error says whether the tasks may have been accepted.
            NotReplicated: the tasks were accepted, but too few replicas have confirmed them.
            TaskExists: a task of another tenant has one of the ids. The other tasks were accepted.
            MailboxFull: one of the mailboxes has no room. No task was accepted.
        """
        accepted: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
        if self._closed is not None:
            accepted.set_exception(self._closed)
            return accepted
        places = size = 0
        for item in items:
            places += item.places
            size += item.size
        self._outbox.append(_Posted(items, places, size, replicas, reservation, accepted))
        self._posted.set()
        return accepted

    async def run(self) -> None:
        """Sends posted tasks until canceled."""
        while True:
            await self._posted.wait()
            while self._outbox:
                await self._deliver(self._next_batch())

    def close(self, error: Exception) -> None:
        """Raises an error for the tasks that were not sent, and for those posted from now on."""
        self._closed = error
        while self._outbox:
            _fail(self._outbox.popleft(), error)

    @property
    def budget(self) -> int:
        """The bytes that one call should carry."""
        return self._link.budget

    def _next_batch(self) -> list[_Posted]:
        batch: list[_Posted] = []
        places = size = number = 0
        routes: set[bytes] = set()  # looked at if they may be too many
        while self._outbox:
            posted = self._outbox[0]
            places += posted.places
            size += posted.size
            if batch and (places > USUAL_BATCH or size > self._link.budget or posted.reservation):
                break  # a batch with a reservation is sent alone
            number += len(posted.items)
            if batch and number > MOST_ROUTES:
                if not routes:
                    routes.update(item.route for one in batch for item in one.items)
                routes.update(item.route for item in posted.items)
                if len(routes) > MOST_ROUTES:
                    break
            self._outbox.popleft()
            batch.append(posted)
            if posted.reservation:
                break
        return batch

    async def _deliver(self, batch: list[_Posted]) -> None:
        items = [item for posted in batch for item in posted.items]
        replicas = max(posted.replicas for posted in batch)
        size = sum(posted.size for posted in batch)
        started = time.monotonic()
        self._number += 1
        try:
            receipt = await self._shard.send(
                items, self._runtime, self._number, replicas=replicas, reservation=batch[0].reservation
            )
        except Exception as error:  # noqa: BLE001 - the senders get the error
            if isinstance(error, ServerUnavailable):
                self._link.late(size)
            for posted in batch:
                _fail(posted, error)
            if isinstance(error, Elsewhere):
                self._refuse_others(error)
            return
        except BaseException:
            stopped = self._closed or ServerUnavailable(
                "sending was stopped before the server answered", maybe_accepted=True
            )
            for posted in batch:
                _fail(posted, stopped)
            raise
        self._link.note(size, time.monotonic() - started)
        if self._tally is not None:
            self._tally.sent(items, receipt)
        start = 0
        for posted in batch:
            _resolve(posted, receipt, start, start + len(posted.items))
            start += len(posted.items)
        if any(isinstance(refusal, Elsewhere) for refusal in receipt.refused.values()):
            self._refuse_others(Elsewhere())

    def _refuse_others(self, error: Elsewhere) -> None:
        """Refuses tasks that were posted after refused ones, so that they do not come before these."""
        while self._outbox:
            _fail(self._outbox.popleft(), error)


class Accepted(NamedTuple):
    """What became of the batches of a shard."""

    ids: list[str]
    """The ids of the accepted tasks, in order; all, if nothing failed."""
    failures: list[Exception]


class Route(Protocol):
    """Posts tasks on the shards of their tenants, wherever these are."""

    def is_needed(self, items: Sequence[Item]) -> bool:
        """Whether tasks must not be posted on the shard where their tenants are thought to be."""
        ...

    async def post(self, hint: int, items: Sequence[Item], replicas: int, reservation: str) -> Sequence[str]:
        """Posts tasks that are thought to belong on the shard with the number ``hint``; returns as `Batcher.post`."""
        ...


@attrs.frozen
class Poster:
    """Posts the batches of a shard in order.

    Tasks that others post meanwhile wait for two of the batches, not for all. What fails because of a task, or because
    too few replicas have it, does not stop the rest; any other failure does.

    Args:
        number: the number of the shard.
        batcher: its batcher.
        route: posts tasks elsewhere.
        replicas: as for `Batcher.post`.
        reservation: as for `Batcher.post`.
    """

    number: int
    batcher: Batcher
    route: Route
    replicas: int
    reservation: str

    async def post_all(self, batches: Batches) -> Accepted:
        """Posts batches, and waits until they are accepted. They are taken out as they are posted."""
        accepted = Accepted([], [])
        posted: deque[tuple[list[Item], asyncio.Future[Sequence[str]] | None]] = deque()  # without a future: not yet
        moved = False  # whether something was refused here, so that all that follows has to find its shard
        try:
            while batches or posted:
                while batches and len(posted) < _POSTED and (not posted or posted[-1][1] is not None):
                    items = batches.take()
                    elsewhere = moved or self.route.is_needed(items)
                    posted.append((items, None if elsewhere else self._post_here(items)))
                try:
                    accepted.ids.extend(await self._accepted(*posted[0]))
                except Exception as error:  # noqa: BLE001 - the caller raises it
                    accepted.failures.append(error)
                    if not isinstance(error, (NotReplicated, TaskExists)):
                        batches.clear()
                moved = moved or _was_refused(posted.popleft()[1])
        finally:
            for _, each in posted:
                if each is not None and not each.cancel() and not each.cancelled():
                    each.exception()  # so asyncio does not log that nobody has retrieved it
        return accepted

    def _post_here(self, items: list[Item]) -> asyncio.Future[Sequence[str]]:
        return self.batcher.post(items, replicas=self.replicas, reservation=self.reservation)

    async def _accepted(self, items: list[Item], posted: asyncio.Future[Sequence[str]] | None) -> Sequence[str]:
        if posted is not None:
            with suppress(Elsewhere):
                return await posted
        return await self.route.post(self.number, items, self.replicas, self.reservation)


def _was_refused(posted: asyncio.Future[Sequence[str]] | None) -> bool:
    """Whether a post was refused because the tasks belong on another shard."""
    return posted is not None and not posted.cancelled() and isinstance(posted.exception(), Elsewhere)


def _resolve(posted: _Posted, receipt: Receipt, start: int, end: int) -> None:
    refused = [error for number, error in receipt.refused.items() if start <= number < end] if receipt.refused else None
    if refused:
        _fail(posted, refused[0])
    elif receipt.replicas < posted.replicas:
        message = f"the server has the tasks, but only {receipt.replicas} of {posted.replicas} replicas confirmed them"
        _fail(posted, NotReplicated(message, maybe_accepted=True))
    elif not posted.accepted.done():  # otherwise the sender has stopped waiting
        posted.accepted.set_result(receipt.ids[start:end])


def _fail(posted: _Posted, error: Exception) -> None:
    if not posted.accepted.done():
        posted.accepted.set_exception(error)
