"""Claims without a runtime: the turns of a dispatcher, one after the other, and no workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fairactor.connection import connect
from fairactor.keys import Keys
from fairactor.shard import Shard
from fairactor.wire import Settlement, turn_mark

_LEASE = 60.0


class Claimer:
    """Claims, and with each claim settles what the one before took; no result is kept."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._number = 0
        self._held: list[Settlement] = []

    async def claim(self, want: int) -> list[str]:
        """Takes a turn; returns the ids of the tasks claimed, in their order."""
        self._number += 1
        turn = await self._shard.turn("claimer", self._number, lease=_LEASE, want=want, settle=self._held)
        if turn is None:
            raise RuntimeError("the claimer has lost its lease")
        mark = turn_mark(self._number)
        ids, records = [task.decode() for task in turn.claims[::2]], turn.claims[1::2]
        self._held = [Settlement(task, mark, "F", 0, record) for task, record in zip(ids, records, strict=True)]
        return ids


@asynccontextmanager
async def claimer(url: str) -> AsyncIterator[Claimer]:
    """A claimer with a lease on the default namespace, which a runtime has opened."""
    server = await connect(url, timeout=5, answer=5)
    try:
        shard = Shard(server, Keys("fairactor"), patience=5)
        await shard.join("claimer", lease=_LEASE, info={})
        yield Claimer(shard)
        await shard.leave("claimer")  # what was claimed last goes back
    finally:
        await server.close()
