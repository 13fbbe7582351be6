"""What the history of a namespace counts, and its bytes: reports of runtimes, and buckets on the server.

A series is a list of numbers: how many tasks were sent, started, finished and failed, then how many waits and how many
runs were in each range of `BOUNDS`. Before them stands its rank, see ``lua/lib/buckets.lua``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from heapq import nlargest
from typing import Any, Final

import msgspec

BOUNDS: Final = (0.001, 0.0025, 0.006, 0.015, 0.04, 0.1, 0.25, 0.6, 1.5, 4.0, 10.0, 25.0, 60.0, 180.0, 600.0, 3600.0)
"""The upper bounds of the ranges of durations, in seconds; the last range has none."""
RANGES: Final = len(BOUNDS) + 1
SENT, STARTED, FINISHED, FAILED, WAITS = range(5)
"""The places of the numbers in a series, without its rank."""
RUNS: Final = WAITS + RANGES
SUMS: Final = RUNS + RANGES
"""How many numbers a series has; as in ``lua/lib/buckets.lua``."""
MOST: Final = 50
"""The most names of a kind in a report, and in a bucket; as there."""
LONGEST: Final = 100
"""The longest name in bytes that is kept whole."""
_KEPT: Final = 80
_SURELY_SHORT: Final = LONGEST // 4  # characters: UTF-8 has at most four bytes for each
KINDS: Final = ("all", "actor", "queue", "tenant")
"""The kinds of names. The only name of the first is ''."""

Series = list[int]


def no_series() -> Series:
    """Returns a series in which nothing has happened."""
    return [0] * SUMS


def short_name(name: str) -> str:
    """Returns the name under which something is counted: a long one is cut, and its digest says which one it is."""
    if len(name) <= _SURELY_SHORT or len(encoded := name.encode(errors="replace")) <= LONGEST:
        return name
    return f"{encoded[:_KEPT].decode(errors='ignore')}…{blake2b(encoded, digest_size=8).hexdigest()}"


def activity(series: Sequence[int]) -> int:
    """Returns how much has happened in a series."""
    return sum(series[:WAITS])


def pack_report(kinds: Sequence[Mapping[str, Series]]) -> bytes:
    """Packs the series of each of the `KINDS` by name, for count.lua: those in which most has happened."""
    return msgspec.msgpack.encode([_most_active(series) for series in kinds])


def _most_active(series: Mapping[str, Series]) -> dict[str, Series]:
    found = nlargest(MOST, ((activity(each), name) for name, each in series.items()))
    return {name: [rank, *series[name]] for rank, name in found}


def unpack_bucket(packed: bytes) -> dict[str, Series]:
    """Returns the series of a bucket by name; what cannot be read, because somebody has damaged it, is left out."""
    if not packed:
        return {}
    try:
        found = _decode(packed)
    except (ValueError, msgspec.MsgspecError):
        return {}
    return {name: sums[1:] for name, sums in found.items() if len(sums) == SUMS + 1}


_decode: Final[Any] = msgspec.msgpack.Decoder(dict[str, list[int]]).decode
