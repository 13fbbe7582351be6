"""The history in shard 0: calls that add to it, and that read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class HistoryCalls:
    """The methods of `Shard` for the history of the namespace, which shard 0 keeps."""

    _run: Any

    async def count(self, runtime: str, number: int, report: bytes) -> bool:
        """Adds what a runtime has counted, from `pack_report`; returns whether it was new. It tries once.

        Args:
            runtime: the runtime.
            number: the number of the report, by which the server recognizes a repeated call.
            report: the report.
        """
        return bool(await self._run("count", runtime, number, report, patience=0))

    async def read_buckets(
        self, seconds: int, kind: str, number: int, last: int | None = None
    ) -> tuple[int, Sequence[bytes]]:
        """Returns the number of the last bucket, and the buckets up to it, packed, the oldest first.

        Args:
            seconds: how long the stretch of a bucket is.
            kind: one of `fairactor._model.history.KINDS`.
            number: how many buckets.
            last: the number of the last one; None for that of now.
        """
        found, *buckets = await self._run("history", seconds, kind, "" if last is None else last, number)
        return int(found), buckets
