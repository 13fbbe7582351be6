"""Sending: concurrent sends to a shard share one round trip."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from .errors import NotReplicated, ServerUnavailable
from .shard import Shard
from .signals import Signal
from .wire import Item, Receipt

BATCH: Final = 500
"""The most tasks in one script call: some milliseconds of the server's time."""


class _Posted(NamedTuple):
    """Tasks that somebody waits to have accepted."""

    items: Sequence[Item]
    replicas: int
    reservation: str
    accepted: asyncio.Future[Sequence[str]]


class Mailbox:
    """The way into one shard. Whatever is posted while a call is under way goes with the next one."""

    def __init__(self, shard: Shard, runtime: str) -> None:
        self._shard = shard
        self._runtime = runtime
        self._number = 0
        self._outbox: deque[_Posted] = deque()
        self._posted = Signal()
        self._closed: Exception | None = None

    def post(self, items: Sequence[Item], *, replicas: int = 0, reservation: str = "") -> asyncio.Future[Sequence[str]]:
        """Hands tasks in, `BATCH` at most; the future has their ids when the server has accepted them all.

        The id is another where a task's key stands for an earlier one. With ``replicas`` it is done only when so many
        have confirmed them. With a ``reservation``, room is kept for them under that name.

        Raises (from the future):
            ServerUnavailable, ServerError: says whether they may have been accepted: sending them again is safe.
            NotReplicated: they were accepted, but too few replicas confirmed it.
            TaskExists: an id is taken by a task of another tenant; the others were accepted.
            MailboxFull: one of the mailboxes has no room; none of them was accepted.
        """
        accepted: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
        if self._closed is not None:
            accepted.set_exception(self._closed)
            return accepted
        self._outbox.append(_Posted(items, replicas, reservation, accepted))
        self._posted.set()
        return accepted

    async def run(self) -> None:
        """Delivers what is posted, until canceled."""
        while True:
            await self._posted.wait()
            while self._outbox:
                await self._deliver(self._next_batch())

    def close(self, error: Exception) -> None:
        """Fails what was not delivered, and what is posted from now on."""
        self._closed = error
        while self._outbox:
            _fail(self._outbox.popleft(), error)

    def _next_batch(self) -> list[_Posted]:
        batch: list[_Posted] = []
        size = 0
        while self._outbox and size + len(self._outbox[0].items) <= BATCH:
            if batch and self._outbox[0].reservation:
                break  # it goes alone
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
        except Exception as error:  # noqa: BLE001 - it is theirs who sent
            for posted in batch:
                _fail(posted, error)
            return
        except BaseException:
            stopped = self._closed or ServerUnavailable(
                "the mailbox was stopped before the server answered", maybe_accepted=True
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
        message = f"{receipt.replicas} of {posted.replicas} replicas have confirmed what was sent; the server has it"
        _fail(posted, NotReplicated(message, maybe_accepted=True))
    elif not posted.accepted.done():  # else who sent has given up waiting
        posted.accepted.set_result(receipt.ids[start:end])


def _fail(posted: _Posted, error: Exception) -> None:
    if not posted.accepted.done():
        posted.accepted.set_exception(error)
