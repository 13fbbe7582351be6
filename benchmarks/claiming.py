"""Claims tasks without running them: takes the turns of a dispatcher one after the other, without workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from fairactor._model.keys import Keys
from fairactor._model.lane import kind_of_runtime
from fairactor._model.wire import Settlement, Turn, turn_mark
from fairactor._server.connection import connect
from fairactor._store.shard import Shard

_LEASE: Final = 60.0


class Claimer:
    """Claims tasks, and settles earlier claims with each turn. No results are kept."""

    def __init__(self, shard: Shard, name: str) -> None:
        self._shard = shard
        self._name = name
        self._number = 0
        self.held: list[Settlement] = []
        """The claims that are not settled yet, oldest first."""
        self.now = 0.0
        """The server's time of the last turn."""

    async def claim(self, want: int, settle: int | None = None) -> list[str]:
        """Takes a turn; returns the ids of the claimed tasks, in order.

        Args:
            want: how many tasks to claim at most.
            settle: how many of the held claims to settle. None settles all.

        Raises:
            RuntimeError: the lease is lost.
        """
        self._number += 1
        settled = self.held[:settle]
        turn = await self._shard.turn(self._name, self._number, lease=_LEASE, want=want, settle=settled)
        mark, self.now = turn_mark(self._number), turn.now
        ids, records = _claimed(turn), turn.claims[1::2]
        del self.held[: len(settled)]
        self.held += [Settlement(task, mark, "F", 0, record) for task, record in zip(ids, records, strict=True)]
        return ids


@asynccontextmanager
async def claimer(
    url: str, name: str = "claimer", actors: Sequence[str] = (), queues: Sequence[str] | None = None
) -> AsyncIterator[Claimer]:
    """Makes a claimer with a lease on the default namespace, which a runtime must have opened."""
    server = await connect(url, timeout=5, answer=5)
    try:
        shard = Shard(server, Keys("fairactor"), patience=5)
        kind = kind_of_runtime(dict.fromkeys(actors, 1), queues)
        fills = await shard.join(name, lease=_LEASE, info={}, kind=kind)
        while fills:
            fills = await shard.fill(name)
        yield Claimer(shard, name)
        await shard.leave(name)  # the last claims go back
    finally:
        await server.close()


@contextmanager
def noting_claims() -> Iterator[list[tuple[float, list[str]]]]:
    """Yields a list that collects the turns of all runtimes in this process: the server's time and the claimed ids."""
    noted: list[tuple[float, list[str]]] = []
    original = Shard.turn

    async def turn(self: Shard, *args: Any, **kwargs: Any) -> Turn:
        reply = await original(self, *args, **kwargs)
        noted.append((reply.now, _claimed(reply)))
        return reply

    Shard.turn = turn  # type: ignore[method-assign]
    try:
        yield noted
    finally:
        Shard.turn = original  # type: ignore[method-assign]


def _claimed(turn: Turn) -> list[str]:
    return [task.decode() for task in turn.claims[::2]]
