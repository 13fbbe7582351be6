"""The line of a record that keeps what the handler of a task has logged, in all its attempts.

It is a JSON object, so nothing takes it for an attempt of the history, whose lines are arrays. The release before skips
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from . import record
from .log_line import LogLine

_BEGIN: Final = b'{"logs":'


class _Kept(msgspec.Struct, frozen=True):
    logs: list[msgspec.Raw]
    dropped: int = 0


def pack_line(attempt: int, at: float, level: str, logger: str, message: str) -> bytes:
    """Packs what was logged at a time, in unix seconds."""
    return record.encode((attempt, at, level, logger, message))


def with_logs(body: bytes, lines: Sequence[bytes], dropped: int, most: int) -> bytes:
    """Adds packed lines to the body of a live task.

    Args:
        body: the body.
        lines: what was logged since.
        dropped: how many lines were dropped before them.
        most: the most bytes of all lines that are kept, the last ones.
    """
    call, *others = body.split(b"\n")
    kept = _kept_in(others)
    every = [*map(bytes, kept.logs), *lines]
    first, size = len(every), 0
    while first and (size := size + len(every[first - 1])) <= most:
        first -= 1
    number = kept.dropped + dropped + first
    packed = b'%b[%b],"dropped":%d}' % (_BEGIN, b",".join(every[first:]), number)
    return b"\n".join([call, *(line for line in others if not line.startswith(_BEGIN)), packed])


def logs_in(packed: bytes) -> list[LogLine]:
    """Returns what a record keeps; nothing if it cannot be decoded."""
    try:
        return read_logs(record.unpack(packed)[1])
    except record.UNREADABLE:
        return []


def read_logs(body: bytes) -> list[LogLine]:
    """Returns what the body of a record keeps, oldest first. If some was dropped, the first line says so."""
    kept = _kept_in(body.split(b"\n"))
    lines = [line for raw in kept.logs if (line := _read(raw)) is not None]
    if kept.dropped and lines:
        count = f"{kept.dropped} lines" if kept.dropped > 1 else "1 line"
        first = LogLine(lines[0].at, "", "fairactor", f"({count} before were not kept)", lines[0].attempt)
        return [first, *lines]
    return lines


def _kept_in(lines: Sequence[bytes]) -> _Kept:
    for line in lines:
        if line.startswith(_BEGIN):
            try:
                return _decode(line)
            except record.UNREADABLE:
                break
    return _Kept([])


def _read(raw: msgspec.Raw) -> LogLine | None:
    try:
        attempt, at, level, logger, message = _decode_line(raw)
        return LogLine(datetime.fromtimestamp(at, UTC), level, logger, message, attempt)
    except (*record.UNREADABLE, OverflowError, OSError):
        return None


_decode: Final = msgspec.json.Decoder(_Kept).decode
_decode_line: Final = msgspec.json.Decoder(tuple[int, float, str, str, str]).decode
