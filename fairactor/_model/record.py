"""The record of a task in Redis: a binary header that Lua reads, then lines of JSON.

The header is that of ``lua/lib/base.lua``. The lines of a live task are its `Call`, then its history, an `Attempt`
each. Those of a settled one are its `Outcome`, then what its lines were when it ended; of a task that has finished the
call is not kept, so that line is empty, and where there is no history there is only the first line.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

from .placeholder import token_of
from .states import TaskState

# state, deliveries, priority, attempt, stamp in µs, length of the tenant's name
_HEADER: Final = struct.Struct(">cBBHdH")
_ATTEMPT: Final = struct.Struct(">H")

NO_HEADER: Final = _HEADER.pack(b" ", 0, 3, 1, 0.0, 0)[1:]
"""A stand-in for the header of a record that has none, without the state."""

LIVE: Final = b"L"
SETTLED: Final = {b"F": TaskState.FINISHED, b"X": TaskState.FAILED, b"C": TaskState.CANCELED}

HISTORY: Final = 20
"""How many attempts the history of a task holds: the last ones."""


class Call(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a task is to do."""

    actor: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any] = {}
    trace: dict[str, str] = {}


class Attempt(msgspec.Struct, array_like=True, frozen=True):
    """An attempt that did not end well."""

    attempt: int
    """1 for the first; one that its runtime died of is made again under the same number."""
    started_at: float
    """Unix seconds by the server's clock; of a runtime that died: when that was found."""
    seconds: float
    """How long it took."""
    runtime: str
    """Which runtime made it."""
    error: str
    """The exception's type."""
    message: str


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a task failed."""

    type: str
    message: str
    traceback: str = ""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a task ended. Times are the server's, in unix seconds."""

    actor: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Error | None = None
    started_at: float = 0.0
    ended_at: float = 0.0

    def plain_result(self) -> Any:
        """Returns the result in JSON types."""
        return msgspec.json.decode(self.result)


class Header(msgspec.Struct, frozen=True, gc=False):
    """The part of a record that scripts read."""

    state: bytes
    deliveries: int
    """How many runtimes have died under the task."""
    priority: int
    attempt: int
    """The number of the attempt that is made, is to be made, or was the last."""
    stamp: float
    tenant: str
    rest: bytes
    """The header as it is stored, but for the state."""

    @property
    def ended_as(self) -> TaskState:
        """The state of a settled task."""
        return SETTLED[self.state]

    def again(self) -> Header:
        """The header of the next attempt."""
        attempt = self.attempt + 1
        rest = self.rest[:2] + _ATTEMPT.pack(attempt) + self.rest[4:]
        return msgspec.structs.replace(self, attempt=attempt, rest=rest)


def without_trace(call: Call) -> Call:
    """Returns the call without its trace context."""
    return msgspec.structs.replace(call, trace={})


def unpack(record: bytes) -> tuple[Header, bytes]:
    """The header and the body of a record.

    Raises:
        ValueError: these bytes are no record.
    """
    try:
        state, deliveries, priority, attempt, stamp, length = _HEADER.unpack_from(record)
        end = _HEADER.size + length
        tenant = record[_HEADER.size : end].decode()
        if len(record) < end:
            raise ValueError("the tenant's name is cut off")  # noqa: TRY301 - told below, with the record
    except (struct.error, ValueError) as error:
        raise ValueError(f"not a task's record: {record[:40]!r}") from error
    return Header(state, deliveries, priority, attempt, stamp, tenant, record[1:end]), record[end:]


def live(header: Header, body: bytes, attempt: Attempt) -> bytes:
    """The record of a task that is to be tried again, after that attempt."""
    return LIVE + header.again().rest + _with_attempt(body, attempt)


def settled(state: str, rest: bytes, outcome: Outcome, body: bytes = b"", attempt: Attempt | None = None) -> bytes:
    """The record of a task that has ended.

    Args:
        state: ``F``, ``X`` or ``C``.
        rest: the header as it is stored, but for the state.
        outcome: how it ended.
        body: what the body was until now, as far as it is to be kept.
        attempt: how the last attempt failed, if it did.
    """
    kept = body if attempt is None else _with_attempt(body, attempt)
    return state.encode() + rest + encode(outcome) + (b"\n" + kept if kept else b"")


def history_alone(body: bytes) -> bytes:
    """The body of a live task without its call."""
    at = body.find(b"\n")
    return b"" if at < 0 else body[at:]


def call_in(body: bytes) -> Call:
    """The call in the body of a live task.

    Raises:
        ValueError, msgspec.MsgspecError: there is none.
    """
    at = body.find(b"\n")
    return decode_call(body if at < 0 else body[:at])


def outcome_in(body: bytes) -> Outcome:
    """The outcome in the body of a settled task."""
    at = body.find(b"\n")
    return decode_outcome(body if at < 0 else body[:at])


def unfold(body: bytes, *, live: bool) -> tuple[Outcome | None, Call | None, list[Attempt]]:
    """All that a body holds: the outcome, the call where there is one that can be read, and the history."""
    lines = body.split(b"\n")
    outcome = None if live else decode_outcome(lines.pop(0))
    call, *history = lines or [b""]
    attempts = [attempt for line in history if (attempt := _if_readable(_decode_attempt, line)) is not None]
    return outcome, _if_readable(decode_call, call), attempts[-HISTORY:]


def _with_attempt(body: bytes, attempt: Attempt) -> bytes:
    call, *history = body.split(b"\n")
    return b"\n".join([call, *history[1 - HISTORY :], encode(attempt)])


def _if_readable(decode: Any, line: bytes) -> Any:
    try:
        return decode(line)
    except (ValueError, msgspec.MsgspecError):
        return None


encode: Final = msgspec.json.Encoder(enc_hook=token_of).encode
decode_call: Final = msgspec.json.Decoder(Call).decode
decode_outcome: Final = msgspec.json.Decoder(Outcome).decode
_decode_attempt: Final = msgspec.json.Decoder(Attempt).decode
