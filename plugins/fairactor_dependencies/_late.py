"""Results, and lists of them, that are too large for one message: the runtime of the task reads them in pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, TypeGuard

from fairactor.plugins import Host

from ._errors import ResultsExpired
from ._options import NAME

_MARK: Final = f"{NAME}.results"
"""The key of a reference: {mark: [token, index of the first result, of the last, shard]}. Only who knows the token can
read the results, and no other task does."""
_MARK_OF_ONE: Final = f"{NAME}.result"
"""Likewise, of a reference to one result, which is no list: the first index and the last are the same."""
_PARTS: Final = 3


def is_reference(value: Any) -> TypeGuard[dict[str, list[Any]]]:
    """Returns whether a value stands for results that are kept on the server."""
    if type(value) is not dict or len(value) != 1:
        return False
    parts = value.get(_MARK, value.get(_MARK_OF_ONE))
    return isinstance(parts, list) and len(parts) >= _PARTS and list(map(type, parts[:_PARTS])) == [str, int, int]


def with_shard(value: Any, shard: int) -> Any:
    """Returns a reference that names the shard, so other shards' tasks can read it; other values as they are."""
    return {mark: [*parts[:_PARTS], shard] for mark, parts in value.items()} if is_reference(value) else value


def needs_loading(value: Any) -> bool:
    """Returns whether a value is a reference, or a list with one in it."""
    if type(value) is list:
        return any(map(_may_refer, value))
    return _may_refer(value)


def _may_refer(value: Any) -> bool:
    return type(value) is dict and (_MARK in value or _MARK_OF_ONE in value)


async def load(host: Host, value: Any, shards: Sequence[int] = (0,)) -> Any:
    """Returns a value with results in place of a reference, also inside a list.

    Args:
        host: the runtime.
        value: any JSON value.
        shards: the shards that may have the results for a reference that names none.

    Raises:
        ResultsExpired: the results are not kept any more.
    """
    if is_reference(value):
        ((mark, (token, first, last, *named)),) = value.items()
        found = await _read(host, token, first, last, named[:1] or shards)
        value = found if mark == _MARK else found[0]
    if type(value) is list:
        for index, member in enumerate(value):
            if is_reference(member):
                value[index] = await load(host, member, shards)
    return value


async def _read(host: Host, token: str, first: int, last: int, shards: Sequence[int]) -> list[Any]:
    found: list[Any] = []
    left = iter(shards)
    shard = next(left)
    while len(found) <= last - first:
        some = await host.call(f"{NAME}/results", shard, token, first + len(found), last)
        while not some and (shard := next(left, -1)) >= 0:
            some = await host.call(f"{NAME}/results", shard, token, first + len(found), last)
        if not some:
            raise ResultsExpired(
                "the results that this task takes are not kept any more: those of each() are kept for a week after its "
                "end, or for its result_ttl= if that is longer"
            )
        found += json.loads(b"[" + b",".join(some) + b"]")
    return found
