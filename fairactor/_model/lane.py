"""Lanes and kinds of runtimes as scripts name them: which tasks the same runtimes can run, and what each can run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from .route import PACKED_SEPARATOR, SEPARATOR, Route, read_route

QUEUES: Final = SEPARATOR
"""In the packed kind of a runtime: it serves certain queues only. Before the name of each of them, too."""

COMMON: Final = b""
"""The lane of tasks that all runtimes can run, unless they serve certain queues only."""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(str).decode


def read_lane(lane: bytes) -> Route:
    """Reads the name of a lane, or the actor of one, as scripts name it; never raises."""
    try:
        return read_route(_decode(b'"%b"' % lane))
    except (ValueError, msgspec.MsgspecError):  # it was damaged
        return Route(lane.decode(errors="replace"))


def name_in_json(text: bytes) -> str:
    """Returns a name from how it stands between quotation marks in JSON; never raises."""
    try:
        return _decode(b'"%b"' % text)
    except (ValueError, msgspec.MsgspecError):  # it was damaged
        return text.decode(errors="replace")


def text_in_json(name: str) -> str:
    """Returns a name as it stands between quotation marks in JSON."""
    return _encode(name)[1:-1].decode()


def actor_in_index(name: str) -> str:
    """Returns an actor's name as the index of dead letters has it; see `actor_in_letter` in lib/ended_tasks.lua."""
    return text_in_json(name).partition(PACKED_SEPARATOR.decode())[0]


class RuntimeKind(NamedTuple):
    """What a runtime can run. Runtimes that can run the same are of one kind."""

    digest: str
    packed: bytes
    """MessagePack: by actor, as in JSON, its version and signature; `QUEUES` if it serves certain queues only, and each
    of them."""


def kind_of_runtime(
    versions: Mapping[str, int], queues: Sequence[str] | None, signatures: Mapping[str, str] = MappingProxyType({})
) -> RuntimeKind:
    """Returns the kind of a runtime.

    Args:
        versions: the version of each of its actors.
        queues: the queues that it serves; None for all.
        signatures: a text for each actor that differs if what its handler takes does.
    """
    found: dict[str, str | int] = {
        text_in_json(name): f"{version} {signatures[name]}" if name in signatures else version
        for name, version in sorted(versions.items())
    }
    if queues is not None:
        found |= {QUEUES: 1, **{QUEUES + text_in_json(queue): 1 for queue in sorted(queues)}}
    packed = msgspec.msgpack.encode(found)
    return RuntimeKind(hashlib.sha1(packed, usedforsecurity=False).hexdigest()[:16], packed)


NO_ACTORS: Final = kind_of_runtime({}, None)
"""The kind of a runtime without actors, which claims tasks of all actors as long as no other kind is there."""
