"""Sending: concurrent sends to a shard share one round trip."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import anyio

from .errors import ServerUnavailable
from .shard import Item, Shard
from .signals import Signal

BATCH: Final = 500
"""The most tasks in one script call: some milliseconds of the server's time."""


class Mailbox:
    """The way into one shard. Whatever is posted while a call is under way goes with the next one."""

    def __init__(self, shard: Shard, runtime: str, *, patience: float) -> None:
        self._shard = shard
        self._runtime = runtime
        self._patience = patience
        self._outbox: deque[tuple[Sequence[Item], asyncio.Future[None]]] = deque()
        self._posted = Signal()
        self._closed: Exception | None = None

    def post(self, items: Sequence[Item]) -> asyncio.Future[None]:
        """Hands tasks in, `BATCH` at most; the future is done when the server has accepted them all.

        Raises (from the future):
            ServerUnavailable: the server did not answer. They may have been accepted: sending them again is safe.
            ServerError: the server refused; nothing was accepted.
            TaskExists: an id is taken by a task of another tenant; the others were accepted.
        """
        accepted = asyncio.get_running_loop().create_future()
        if self._closed is not None:
            accepted.set_exception(self._closed)
            return accepted
        self._outbox.append((items, accepted))
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
            _resolve(self._outbox.popleft()[1], error)

    def _next_batch(self) -> list[tuple[Sequence[Item], asyncio.Future[None]]]:
        batch, size = [], 0
        while self._outbox and size + len(self._outbox[0][0]) <= BATCH:
            posted = self._outbox.popleft()
            size += len(posted[0])
            batch.append(posted)
        return batch

    async def _deliver(self, batch: list[tuple[Sequence[Item], asyncio.Future[None]]]) -> None:
        items = [item for posted, _ in batch for item in posted]
        try:
            verdicts = await self._send(items)
        except Exception as error:  # noqa: BLE001 - it is theirs who sent
            for _, accepted in batch:
                _resolve(accepted, error)
            return
        except BaseException:
            stopped = self._closed or ServerUnavailable("the mailbox was stopped before the server answered")
            for _, accepted in batch:
                _resolve(accepted, stopped)
            raise
        start = 0
        for posted, accepted in batch:
            mine = verdicts[start : start + len(posted)]
            start += len(posted)
            _resolve(accepted, next((error for error in mine if error), None))

    async def _send(self, items: Sequence[Item]) -> Sequence[Exception | None]:
        """Sends, trying for as long as was said: an id is taken once, however often it comes."""
        deadline = anyio.current_time() + self._patience
        while True:
            try:
                return await self._shard.send(items, self._runtime)
            except ServerUnavailable:
                if anyio.current_time() >= deadline:
                    raise
                await anyio.sleep(0.1)


def _resolve(accepted: asyncio.Future[None], error: Exception | None) -> None:
    if accepted.done():  # who sent has given up waiting
        return
    if error is None:
        accepted.set_result(None)
    else:
        accepted.set_exception(error)
