"""Reads the history of a namespace: what happened by minutes, or by ten minutes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from heapq import nlargest
from typing import Final, NamedTuple

from fairactor._model.history import (
    BOUNDS,
    FAILED,
    FINISHED,
    MOST,
    RUNS,
    SENT,
    STARTED,
    WAITS,
    Series,
    activity,
    no_series,
    short_name,
    unpack_bucket,
)
from fairactor._store.shard import Shard
from fairactor._util.checks import check_bool, check_name, check_one_of
from fairactor.errors import ConfigurationError
from fairactor.views import HISTORY_BY, Bucket, Histogram, History, HistoryBy


class _Resolution(NamedTuple):
    """How the history is divided."""

    seconds: int
    """The length of a bucket."""
    number: int
    """How many buckets there are."""


_HOUR: Final = _Resolution(60, 60)
_DAYS: Final = _Resolution(600, 432)
_PAGE: Final = 36
"""How many buckets a call reads: some hundred kilobytes at most."""


async def read_history(shard: Shard, *, by: HistoryBy | None, name: str | None, days: bool) -> History:
    """Reads the history from shard 0; see `Runtime.history`."""
    _check(by, name, days)
    resolution = _DAYS if days else _HOUR
    last, buckets = await _read(shard, resolution, by or "all")
    starts = range(last - resolution.number + 1, last + 1)
    names = [""] if by is None else [name] if name is not None else _most_active(buckets)
    return History(by, {each: _series(starts, resolution.seconds, buckets, short_name(each)) for each in names})


def _check(by: HistoryBy | None, name: str | None, days: bool) -> None:  # noqa: FBT001 - as given by the user
    if by is not None:
        check_one_of("by", by, HISTORY_BY)
    check_bool("days", days)
    if name is not None:
        if by is None:
            raise ConfigurationError(f"history(name=…) needs by=, one of {', '.join(map(repr, HISTORY_BY))}")
        check_name(by, name)


async def _read(shard: Shard, resolution: _Resolution, kind: str) -> tuple[int, list[dict[str, Series]]]:
    """Returns the number of the last bucket, and for all buckets, the oldest first, their series by name."""
    newest: int | None = None
    pages: list[list[dict[str, Series]]] = []
    left = resolution.number
    while left:
        size = min(_PAGE, left)
        last = None if newest is None else newest - (resolution.number - left)
        found, packed = await shard.read_buckets(resolution.seconds, kind, size, last)
        newest = found if newest is None else newest
        pages.append([unpack_bucket(each) for each in packed])
        left -= size
    assert newest is not None  # noqa: S101 - there was a page
    return newest, [bucket for page in reversed(pages) for bucket in page]


def _most_active(buckets: Sequence[dict[str, Series]]) -> list[str]:
    """Returns the names that did most in all buckets together, the most active first."""
    totals: dict[str, int] = {}
    for bucket in buckets:
        for name, series in bucket.items():
            totals[name] = totals.get(name, 0) + activity(series)
    return nlargest(MOST, totals, key=lambda name: (totals[name], name))


def _series(starts: range, seconds: int, buckets: Sequence[dict[str, Series]], name: str) -> list[Bucket]:
    return [_bucket(start * seconds, seconds, bucket.get(name)) for start, bucket in zip(starts, buckets, strict=True)]


def _bucket(start: int, seconds: int, series: Series | None) -> Bucket:
    found = _EMPTY if series is None else series
    return Bucket(
        start=datetime.fromtimestamp(start, UTC),
        seconds=float(seconds),
        sent=found[SENT],
        started=found[STARTED],
        finished=found[FINISHED],
        failed=found[FAILED],
        wait=_NO_DURATIONS if series is None else Histogram(BOUNDS, tuple(found[WAITS:RUNS])),
        run=_NO_DURATIONS if series is None else Histogram(BOUNDS, tuple(found[RUNS:])),
    )


_EMPTY: Final = no_series()
_NO_DURATIONS: Final = Histogram(BOUNDS, tuple(_EMPTY[WAITS:RUNS]))
