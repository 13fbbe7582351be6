"""The batcher: concurrent sends to a shard share one script call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from fairactor._model.wire import BATCH, Item, Receipt
from fairactor._store.shard import Shard
from fairactor._util.wakeup import Wakeup
from fairactor.errors import NotReplicated, ServerUnavailable


class _Posted(NamedTuple):
    """Tasks whose sender waits until the server has accepted them."""

    items: Sequence[Item]
    replicas: int
    reservation: str
    accepted: asyncio.Future[Sequence[str]]


class Batcher:
    """Sends tasks to one shard. What is posted while a call is under way goes with the next call."""

    def __init__(self, shard: Shard, runtime: str) -> None:
        self._shard = shard
        self._runtime = runtime
        self._number = 0
        self._outbox: deque[_Posted] = deque()
        self._posted = Wakeup()
        self._closed: Exception | None = None

    def post(self, items: Sequence[Item], *, replicas: int = 0, reservation: str = "") -> asyncio.Future[Sequence[str]]:
        """Posts tasks; the future gets their ids once the server has accepted all of them.

        A task whose key an earlier task has gets the id of that task.

        Args:
            items: the tasks, at most `BATCH`.
            replicas: how many replicas must confirm them first.
            reservation: the name under which room is reserved for them.

        Raises (from the future):
            ServerUnavailable, ServerError: says whether they may have been accepted; sending them again is safe.
            NotReplicated: they were accepted, but too few replicas confirmed it.
            TaskExists: an id is taken by a task of another tenant; the others were accepted.
            MailboxFull: one of the mailboxes has no room; none was accepted.
        """
        accepted: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
        if self._closed is not None:
            accepted.set_exception(self._closed)
            return accepted
        self._outbox.append(_Posted(items, replicas, reservation, accepted))
        self._posted.set()
        return accepted

    async def run(self) -> None:
        """Sends posted tasks until canceled."""
        while True:
            await self._posted.wait()
            while self._outbox:
                await self._deliver(self._next_batch())

    def close(self, error: Exception) -> None:
        """Fails the tasks that were not sent, and those posted from now on."""
        self._closed = error
        while self._outbox:
            _fail(self._outbox.popleft(), error)

    def _next_batch(self) -> list[_Posted]:
        batch: list[_Posted] = []
        size = 0
        while self._outbox and size + len(self._outbox[0].items) <= BATCH:
            if batch and self._outbox[0].reservation:
                break  # a batch with a reservation is sent alone
            posted = self._outbox.popleft()
            size += len(posted.items)
            batch.append(posted)
            if posted.reservation:
                break
        return batch

    async def _deliver(self, batch: list[_Posted]) -> None:
        items = [item for posted in batch for item in posted.items]
        replicas = max(posted.replicas for posted in batch)
        self._number += 1
        try:
            receipt = await self._shard.send(
                items, self._runtime, self._number, replicas=replicas, reservation=batch[0].reservation
            )
        except Exception as error:  # noqa: BLE001 - the senders get the error
            for posted in batch:
                _fail(posted, error)
            return
        except BaseException:
            stopped = self._closed or ServerUnavailable(
                "sending was stopped before the server answered", maybe_accepted=True
            )
            for posted in batch:
                _fail(posted, stopped)
            raise
        start = 0
        for posted in batch:
            _resolve(posted, receipt, start, start + len(posted.items))
            start += len(posted.items)


def _resolve(posted: _Posted, receipt: Receipt, start: int, end: int) -> None:
    refused = [error for number, error in receipt.refused.items() if start <= number < end] if receipt.refused else None
    if refused:
        _fail(posted, refused[0])
    elif receipt.replicas < posted.replicas:
        message = (
            f"{receipt.replicas} of {posted.replicas} replicas have confirmed the send; the server has accepted it"
        )
        _fail(posted, NotReplicated(message, maybe_accepted=True))
    elif not posted.accepted.done():  # otherwise the sender has stopped waiting
        posted.accepted.set_result(receipt.ids[start:end])


def _fail(posted: _Posted, error: Exception) -> None:
    if not posted.accepted.done():
        posted.accepted.set_exception(error)
