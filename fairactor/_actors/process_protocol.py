"""What a runtime and its worker processes say to each other: frames over a socket, each with a kind and a body."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import msgspec

_HEAD: Final = struct.Struct(">cI")

# The kinds of frames to a process.
SETUP: Final = b"s"  # how to set up the main module, pickled
CALL: Final = b"c"  # a `Call`
NOTED: Final = b"n"  # answers PROGRESS: its number, and an exception or nothing

# The kinds of frames from a process.
BEGUN: Final = b"b"  # the handler starts now
RESULT: Final = b"r"  # a `Result`
REFUSED: Final = b"u"  # why the result of the handler cannot be stored; packed as an ERROR
ERROR: Final = b"e"  # what the handler raised, or before BEGUN, why it cannot start; see process_errors.py
LOG: Final = b"l"  # a log record, see process_logs.py
PROGRESS: Final = b"p"  # a number, and the arguments of `Task.progress`


class Call(msgspec.Struct, array_like=True):
    """A call to a handler, with the facts about its task."""

    module: str
    qualname: str
    arguments: bytes
    """The positional and the named arguments, as JSON."""
    max_result: float
    """The longest encoded result, in bytes."""
    levels: dict[str, int]
    """The levels of the runtime's loggers, by name."""
    id: str
    tenant: str
    actor: str
    attempt: int
    priority: int
    options: dict[str, Any]
    trace: dict[str, str]
    """The OpenTelemetry context of the attempt; {} if there is none."""


class Result(msgspec.Struct, array_like=True):
    """What a handler returned, as JSON, and what it attached to its task for plugins."""

    value: bytes
    attachments: dict[str, Any] | None


def pack_frame(kind: bytes, body: bytes) -> bytes:
    """Packs a frame."""
    return _HEAD.pack(kind, len(body)) + body


class Frames:
    """Puts the frames together that arrive in pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, piece: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Adds what has arrived; yields the frames that are complete: (kind, body)."""
        self._buffer += piece
        while len(self._buffer) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._buffer)
            end = _HEAD.size + length
            if len(self._buffer) < end:
                return
            body = bytes(memoryview(self._buffer)[_HEAD.size : end])
            del self._buffer[:end]
            yield kind, body


encode: Final = msgspec.msgpack.encode
decode_call: Final = msgspec.msgpack.Decoder(Call).decode
decode_result: Final = msgspec.msgpack.Decoder(Result).decode
decode_progress: Final = msgspec.msgpack.Decoder(tuple[int, float, str]).decode
decode_noted: Final = msgspec.msgpack.Decoder(tuple[int, bytes]).decode
