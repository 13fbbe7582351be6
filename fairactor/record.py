"""The record of a task in Redis: a binary header that Lua reads, then a JSON body that only Python reads.

The header is that of ``lua/lib/base.lua``. The body of a live task is `Call`; that of a settled one, `Outcome`.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from .states import TaskState

_HEADER: Final = struct.Struct(">cBBdH")  # state, deliveries, priority, stamp in µs, length of the tenant's name

NO_HEADER: Final = _HEADER.pack(b" ", 0, 3, 0.0, 0)[1:]
"""A stand-in for the header of a record that has none, without the state."""

LIVE: Final = b"L"
SETTLED: Final = {b"F": TaskState.FINISHED, b"X": TaskState.FAILED, b"C": TaskState.CANCELED}


class Call(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a live task is to do: the body of its record, as a JSON array."""

    actor: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any] = {}
    trace: dict[str, str] = {}
    attempt: int = 1


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an attempt failed."""

    type: str
    message: str
    traceback: str = ""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a task ended: the body of a settled record, as a JSON object. Times are the server's, in seconds."""

    actor: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Error | None = None
    attempt: int = 1
    started_at: float = 0.0
    ended_at: float = 0.0


class Header(msgspec.Struct, frozen=True, gc=False):
    """The part of a record that scripts read."""

    state: bytes
    deliveries: int
    priority: int
    stamp: float
    tenant: str
    rest: bytes
    """The header as it is stored, but for the state."""


def unpack(record: bytes) -> tuple[Header, bytes]:
    """The header and the body of a record.

    Raises:
        ValueError: these bytes are no record.
    """
    try:
        state, deliveries, priority, stamp, length = _HEADER.unpack_from(record)
        end = _HEADER.size + length
        tenant = record[_HEADER.size : end].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"not a task's record: {record[:40]!r}") from error
    return Header(state, deliveries, priority, stamp, tenant, record[1:end]), record[end:]


def pack(header: Header, body: bytes, state: bytes = LIVE) -> bytes:
    """A record with that header, in another state, and that body."""
    return state + header.rest + body


encode: Final = msgspec.json.Encoder().encode
decode_call: Final = msgspec.json.Decoder(Call).decode
decode_outcome: Final = msgspec.json.Decoder(Outcome).decode
