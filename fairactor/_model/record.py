"""The record of a task in Redis: a binary header, which Lua reads, and a body of JSON lines.

``lua/lib/base.lua`` describes the header. The body of a live task is its `Call`, followed by its history, one `Attempt`
per line. The body of a settled task is its `Outcome`, followed by the lines that it had before. The call of a finished
task is not kept, so its line is empty; without a history the outcome is the only line.
"""

from __future__ import annotations

import re
import struct
from itertools import accumulate
from typing import Any, Final

import msgspec

from fairactor.errors import InvalidPayload

from .placeholder import token_of
from .route import actor_of, queue_of
from .states import TaskState

# state, deliveries, priority, attempt, stamp in µs, length of the tenant's name
_HEADER: Final = struct.Struct(">cBBHdH")
_ATTEMPT: Final = struct.Struct(">H")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in _STEPS)
_ROUTE: Final = re.compile(rb'\[("(?:[^"\\]|\\.)*")')  # the beginning of a `Call`

UNREADABLE: Final = (ValueError, msgspec.MsgspecError, RecursionError)
"""What the functions of this module raise for bytes that are no record."""

NO_HEADER: Final = _HEADER.pack(b" ", 0, 3, 1, 0.0, 0)[1:]
"""The header of a task whose record cannot be read, without the state."""

LIVE: Final = b"L"
UNREADABLE_TYPE: Final = "fairactor.errors.InvalidPayload"
"""The type of the error in the description of a task whose record cannot be decoded."""

DEEPEST: Final = 200
"""The most levels of lists and objects in JSON that is sent. Decoders take more, but fewer where the stack is high."""
SETTLED: Final = {b"F": TaskState.FINISHED, b"X": TaskState.FAILED, b"C": TaskState.CANCELED}

REFUSED: Final = "its arguments do not fit the actor here"
"""The message in the history of a task that was passed on, as settle.lua writes it."""
_REFUSED: Final = REFUSED.encode()

HISTORY: Final = 20
"""The most attempts in a task's history. Older ones are dropped."""
WITH_TRACEBACK: Final = 3
"""How many attempts of a history keep their tracebacks, the last ones."""
LONGEST_TRACEBACK: Final = 4096
"""Characters of a traceback in the history."""


class Call(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a task does: its actor, the arguments and the options."""

    route: str
    """The actor, and where the task can run; see route.py."""
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any] = {}
    trace: dict[str, str] = {}

    @property
    def actor(self) -> str:
        """The name of the actor."""
        return actor_of(self.route)

    @property
    def queue(self) -> str:
        """The queue of the task."""
        return queue_of(self.route)


class Attempt(msgspec.Struct, array_like=True, frozen=True):
    """A failed attempt."""

    attempt: int
    """The number of the attempt, from 1. An attempt whose runtime died is repeated under the same number."""
    started_at: float
    """When it started, in unix seconds by the server's clock. If its runtime died: when that was detected."""
    seconds: float
    """How long it took, in seconds."""
    runtime: str
    """The runtime that ran it."""
    error: str
    """The type name of the exception."""
    message: str
    uncounted: int = 0
    """How many retries of the task have not counted, this one included; 0 if this attempt counts."""
    traceback: str = ""
    """The end of the exception's traceback. Only the last attempts have it, and only those that count."""


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a task failed or was canceled."""

    type: str
    message: str
    traceback: str = ""


MOST_AFTER: Final = 100
"""How many tasks that it waited for the record of a finished task names."""


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a task ended. Times are unix seconds by the server's clock."""

    actor: str = ""
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Error | None = None
    started_at: float = 0.0
    ended_at: float = 0.0
    after: tuple[str, ...] = ()
    """Of a finished task, whose call is not kept: the tasks that it waited for; at most `MOST_AFTER`."""

    def plain_result(self) -> Any:
        """Returns the result in JSON types; raises as `decode_json`."""
        return decode_json(self.result)


class Header(msgspec.Struct, frozen=True, gc=False):
    """The part of a record that scripts read."""

    state: bytes
    deliveries: int
    """How many runtimes died, or lost their lease, while they had it claimed; 0 after an attempt that ended."""
    priority: int
    attempt: int
    """The number of the current, the next or the last attempt."""
    stamp: float
    tenant: str
    rest: bytes
    """The packed header without the state."""

    @property
    def ended_as(self) -> TaskState:
        """The state of a settled task."""
        return SETTLED[self.state]

    def for_next_attempt(self, *, count: bool = True) -> Header:
        """Returns the header for the next attempt. A task whose attempt has ended, however, has killed nothing."""
        attempt = self.attempt + count
        rest = b"\0" + self.rest[1:2] + _ATTEMPT.pack(attempt) + self.rest[4:]
        return msgspec.structs.replace(self, attempt=attempt, deliveries=0, rest=rest)


def too_deep(encoded: bytes) -> bool:
    """Whether JSON is nested more deeply than `DEEPEST`."""
    if len(encoded) <= 2 * DEEPEST or encoded.count(b"[") + encoded.count(b"{") <= DEEPEST:
        return False
    brackets = _STRING.sub(b"", encoded).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > DEEPEST


def with_trace(call: Call, trace: dict[str, str]) -> Call:
    """Returns the call with another trace context."""
    return msgspec.structs.replace(call, trace=trace)


def unpack(record: bytes) -> tuple[Header, bytes]:
    """Splits a record into its header and its body.

    Raises:
        ValueError: the bytes are not a record.
    """
    try:
        state, deliveries, priority, attempt, stamp, length = _HEADER.unpack_from(record)
        end = _HEADER.size + length
        tenant = record[_HEADER.size : end].decode()
        if len(record) < end:
            raise ValueError("the tenant's name is cut off")  # noqa: TRY301 - reported below, with the record
    except (struct.error, ValueError) as error:
        raise ValueError(f"not a task's record: {record[:40]!r}") from error
    return Header(state, deliveries, priority, attempt, stamp, tenant, record[1:end]), record[end:]


def pack_retried(header: Header, body: bytes, attempt: Attempt) -> bytes:
    """Packs the record of a task that will be tried again, after an attempt that failed or does not count."""
    return LIVE + header.for_next_attempt(count=not attempt.uncounted).rest + _with_attempt(body, attempt)


def uncounted_in(body: bytes) -> int:
    """Returns how many retries of a live task have not counted, as far as its history reaches."""
    for line in reversed(body.split(b"\n")[1:]):
        attempt: Attempt | None = _if_readable(_decode_attempt, line)
        if attempt is not None and attempt.uncounted:
            return attempt.uncounted
    return 0


def pack_settled(state: str, rest: bytes, outcome: Outcome, body: bytes = b"", attempt: Attempt | None = None) -> bytes:
    """Packs the record of a task that has ended.

    Args:
        state: ``F``, ``X`` or ``C``, for finished, failed and canceled.
        rest: the packed header without the state.
        outcome: how the task ended.
        body: the part of its previous body that is kept.
        attempt: the last attempt, if it failed.
    """
    kept = body if attempt is None else _with_attempt(body, attempt)
    return state.encode() + rest + encode(outcome) + (b"\n" + kept if kept else b"")


def without_call(body: bytes) -> bytes:
    """Returns the body of a live task without its call."""
    at = body.find(b"\n")
    return b"" if at < 0 else body[at:]


def call_in(body: bytes) -> Call:
    """Decodes the call in the body of a live task.

    Raises:
        UNREADABLE: it cannot be decoded.
    """
    at = body.find(b"\n")
    return decode_call(body if at < 0 else body[:at])


def actor_in(record: bytes) -> str:
    """Returns the actor in the record of a live task; '' if it cannot be read. It decodes nothing else."""
    at = _HEADER.size + int.from_bytes(record[_HEADER.size - 2 : _HEADER.size], "big")
    found = _ROUTE.match(record, at)
    return actor_of(_if_readable(_decode_text, found[1]) or "") if found else ""


def refusals_in(header: Header, body: bytes) -> int:
    """Returns how often runtimes have passed a live task on because its arguments did not fit their handler.

    It counts from when the task was sent or redriven: what was deployed since may fit.
    """
    if _REFUSED not in body:
        return 0
    since = header.stamp / 1e6 - 0.001  # the history has milliseconds
    attempts = decode_body(body, live=True)[2]
    return sum(attempt.message == REFUSED and attempt.started_at >= since for attempt in attempts)


def outcome_in(body: bytes) -> Outcome:
    """Decodes the outcome in the body of a settled task.

    Raises:
        UNREADABLE: it cannot be decoded.
    """
    at = body.find(b"\n")
    return decode_outcome(body if at < 0 else body[:at])


def decode_body(body: bytes, *, live: bool) -> tuple[Outcome | None, Call | None, list[Attempt]]:
    """Decodes a body: the outcome if the task has ended, the call if it is there and readable, and the history."""
    lines = body.split(b"\n")
    outcome = None if live else decode_outcome(lines.pop(0))
    call, *history = lines or [b""]
    attempts = [attempt for line in history if (attempt := _if_readable(_decode_attempt, line)) is not None]
    return outcome, _if_readable(decode_call, call), attempts[-HISTORY:]


def _with_attempt(body: bytes, attempt: Attempt) -> bytes:
    call, *history = body.split(b"\n")
    logs = []
    if b"\n{" in body:  # what the handler has logged, see task_logs.py
        logs = [line for line in history if line.startswith(b"{")]
        history = [line for line in history if not line.startswith(b"{")]
    if len(history) >= WITH_TRACEBACK:
        history[-WITH_TRACEBACK] = _without_traceback(history[-WITH_TRACEBACK])
    return b"\n".join([call, *history[1 - HISTORY :], encode(attempt), *logs])


def _without_traceback(line: bytes) -> bytes:
    attempt: Attempt | None = _if_readable(_decode_attempt, line)
    return encode(msgspec.structs.replace(attempt, traceback="")) if attempt and attempt.traceback else line


def _if_readable(decode: Any, line: bytes) -> Any:
    try:
        return decode(line)
    except UNREADABLE:
        return None


def decode_json(stored: bytes | msgspec.Raw) -> Any:
    """Decodes stored JSON.

    Raises:
        InvalidPayload: it cannot be decoded.
    """
    try:
        return msgspec.json.decode(stored)
    except UNREADABLE as error:
        raise InvalidPayload(f"what is stored cannot be decoded: {error}") from error


encode: Final = msgspec.json.Encoder(enc_hook=token_of).encode
_decode_text: Final = msgspec.json.Decoder(str).decode
decode_call: Final = msgspec.json.Decoder(Call).decode
decode_outcome: Final = msgspec.json.Decoder(Outcome).decode
_decode_attempt: Final = msgspec.json.Decoder(Attempt).decode
