"""The reader: reads the records of claims that did not fit into the reply to a turn, piece by piece."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import anyio
import attrs

from fairactor._store.shard import Shard
from fairactor._util.backoff import Backoff
from fairactor._util.link import Link
from fairactor._util.wakeup import Wakeup
from fairactor.errors import ServerError

from .claim import Claim
from .pool import Pool

logger: Final = logging.getLogger(__name__)

MOST: Final = 8
"""While so many claims wait here, their dispatcher claims nothing else."""
_PER_CALL: Final = 100


@attrs.define(eq=False)
class _Partial:
    """A claim of whose record only a part is here."""

    claim: Claim
    size: int
    """The bytes of the record."""
    pool: Pool
    """Where it keeps a slot."""
    parts: list[bytes] = attrs.Factory(list)
    read: int = 0


class Reader:
    """Reads records of the claims of one dispatcher. Each of these claims keeps a slot until then.

    Args:
        shard: the shard of the claims.
        link: how many bytes a call may carry.
        start: starts a claim whose record is complete.
    """

    def __init__(self, shard: Shard, link: Link, start: Callable[[Claim], None]) -> None:
        self._shard = shard
        self._link = link
        self._start = start
        self._waiting: list[_Partial] = []
        self._wakeup = Wakeup()

    @property
    def is_full(self) -> bool:
        """Whether so many claims wait here that their dispatcher should claim nothing else."""
        return len(self._waiting) >= MOST

    def add(self, claim: Claim, size: int, pool: Pool) -> None:
        """Adds a claim whose record has ``size`` bytes. It keeps a slot of the pool."""
        pool.reserve()
        self._waiting.append(_Partial(claim, size, pool))
        self._wakeup.set()

    def withdraw(self, task_id: str) -> Claim | None:
        """Removes the claim of a task, and returns it if it waits here."""
        for partial in self._waiting:
            if partial.claim.id == task_id:
                self._remove(partial)
                return partial.claim
        return None

    def drop(self) -> list[Claim]:
        """Removes all claims, and returns them."""
        dropped = list(self._waiting)
        for partial in dropped:
            self._remove(partial)
        return [partial.claim for partial in dropped]

    async def run(self) -> None:
        """Reads until canceled. While the server does not answer, it keeps trying."""
        backoff = Backoff()
        while True:
            if not self._waiting:
                await self._wakeup.wait()
                continue
            size = min(self._link.budget, sum(partial.size - partial.read for partial in self._waiting))
            started = time.monotonic()
            try:
                await self._read_some(size)
            except ServerError as error:
                self._link.late(size)
                logger.log(logging.DEBUG if backoff.failures else logging.WARNING, "%s; trying again", error)
                await anyio.sleep(backoff.next())
            else:
                self._link.note(size, time.monotonic() - started)
                backoff.reset()

    async def _read_some(self, size: int) -> None:
        """Reads the next ``size`` bytes of the claims that have waited longest."""
        runtime = self._waiting[0].claim.runtime
        asked = [partial for partial in self._waiting[:_PER_CALL] if partial.claim.runtime == runtime]
        pieces = await self._shard.read_pieces(
            runtime, size, [(partial.claim.id, partial.claim.turn, partial.read) for partial in asked]
        )
        left = size
        for partial, piece in zip(asked, pieces, strict=True):
            if partial not in self._waiting:  # it was withdrawn meanwhile
                continue
            if piece is None:  # the claim is lost
                self._remove(partial)
                continue
            partial.parts.append(piece)
            partial.read += len(piece)
            if partial.read >= partial.size or (not piece and left > 0):  # or somebody has shortened the record
                self._remove(partial)
                partial.claim.record = b"".join(partial.parts)
                self._start(partial.claim)
            left -= len(piece)

    def _remove(self, partial: _Partial) -> None:
        self._waiting.remove(partial)
        partial.pool.release()
