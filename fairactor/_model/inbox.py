"""Messages to a runtime, which scripts publish."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from .wire import as_text, turn_mark

_LENGTH: Final = struct.Struct(">H")


class Handed(NamedTuple):
    """A task that the server has handed to an idle runtime, between two of the runtime's turns."""

    mark: bytes
    """The mark of its claim."""
    now: float
    """The server's time, unix seconds."""
    id: bytes
    record: bytes


_HANDED: Final = struct.Struct(">8sdH")


# The kinds of messages to a runtime: the first byte.
HANDED: Final = b"k"
WORK: Final = b"w"
CANCEL: Final = b"c"
OUTCOME: Final = b"o"


def unpack_handed(message: bytes) -> Handed:
    """Unpacks a message with a task, which hand.lua packs.

    Raises:
        ValueError: it is not such a message.
    """
    start = 1 + _HANDED.size
    if len(message) < start:
        raise ValueError("the message is cut off")
    mark, now, length = _HANDED.unpack_from(message, 1)
    end = start + length
    if len(message) < end:
        raise ValueError("the task's id is cut off")
    return Handed(mark, now / 1e6, message[start:end], message[end:])


def unpack_outcome(message: bytes) -> tuple[str, bytes]:
    """Unpacks a message with an outcome, which ending.lua packs; returns the task's id and its record.

    The record is empty if it is too large for a message: then the runtime asks for it.

    Raises:
        ValueError: it is not such a message.
    """
    start = 1 + _LENGTH.size
    if len(message) < start:
        raise ValueError("the message is cut off")
    end = start + _LENGTH.unpack_from(message, 1)[0]
    if len(message) < end:
        raise ValueError("the task's id is cut off")
    return as_text(message[start:end]), message[end:]


def handed_mark(turn: int) -> bytes:
    """Returns the mark of the claim of a task that was handed over after a turn."""
    return turn_mark(turn | 1 << 63)
