"""Tasks on their way from one shard to another, as scripts return and take them."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from .route import has_route

_LENGTH: Final = struct.Struct(">H")
_NAME_LENGTH: Final = slice(13, 15)
"""Where the header of a record has the length of the tenant's name."""


class Arrival(NamedTuple):
    """A waiting task on its way from one shard to another, as export.lua returns it."""

    id: bytes
    due: bytes
    """Unix ms at which it is due; b"" for a task in its mailbox."""
    key: bytes
    """As KEYED has it; b"" for none."""
    record: bytes


def pack_arrival(task: Arrival) -> bytes:
    """Packs a task that moves from one shard to another, for import.lua."""
    task_id, due, key, packed = task
    call = _NAME_LENGTH.stop + int.from_bytes(packed[_NAME_LENGTH], "big")
    routed = has_route(packed[call:])
    return b"%c%b%b%b%b%b%b%b" % (
        routed, _LENGTH.pack(len(task_id)), task_id, _LENGTH.pack(len(due)), due, _LENGTH.pack(len(key)), key, packed,
    )  # fmt: skip
