"""Sending batches with messages that depend on others."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio

from fairactor import Handle
from fairactor.errors import ServerError
from fairactor.plugins import BATCH, Addressed, Host, ProceedSend, whole_ms

from ._batch import BatchItem, hold_behind_gate, index_by_id, make_batch, resolve_parents
from ._errors import RunNotSent, UnknownParent
from ._options import NAME

_GATE_TIMEOUT: Final = 300.0
"""Seconds that sending a run may take. After that the server considers the sender dead."""
_ABORT_TIMEOUT: Final = 1.0
"""Seconds in which a sender that failed tries to cancel the run. Otherwise the gate's timeout does."""


async def send(host: Host, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
    """Sends messages that depend on each other or on earlier tasks. Either all are sent, or none runs.

    Raises:
        GraphError: a message comes before its parent, or two parents have one id.
        UnknownParent: a parent does not exist.
        RunNotSent: sending took too long.
    """
    batch = make_batch((tenant, host.shard_of(tenant), message) for tenant, message in messages)
    indexes = index_by_id(batch)
    earlier = {parent for item in batch for parent in item.parents if parent not in indexes}
    shards = await _locate(host, earlier) | await _locate_resent(host, batch, indexes)
    keep = whole_ms(host.settings.canceled_ttl)
    for item in batch:
        resolve_parents(item, batch, indexes, shards, keep)
    calls = sum(-(-many // BATCH) for many in Counter(item.shard for item in batch).values())
    if calls == 1 or not any(parent in indexes for item in batch for parent in item.parents):
        return await proceed([item.addressed() for item in batch])
    gate = os.urandom(12).hex()
    hold_behind_gate(batch, indexes, gate, keep)
    return await _send_behind_gate(host, batch, gate, proceed)


async def _send_behind_gate(
    host: Host, batch: Sequence[BatchItem], gate: str, proceed: ProceedSend
) -> list[Handle[Any]]:
    """Sends a batch that takes several calls. Nothing of it runs before all of it is on the server."""
    first, *others = dict.fromkeys(item.shard for item in batch)
    await host.call(f"{NAME}/gate", first, gate, whole_ms(_GATE_TIMEOUT), *others)
    try:
        handles = await proceed([item.addressed() for item in batch])
        ended = await host.call(f"{NAME}/open", first, gate, "F")
    except BaseException:
        with anyio.move_on_after(_ABORT_TIMEOUT, shield=True), suppress(ServerError):
            await host.call(f"{NAME}/open", first, gate, "C")
        raise
    if ended != b"F":
        raise RunNotSent(
            f"it took more than {_GATE_TIMEOUT:g} s to send {len(batch)} tasks, so all of them are canceled: send "
            "fewer at once, or find out what slows down this process or the server"
        )
    return handles


async def _locate(host: Host, ids: Iterable[str]) -> dict[str, int]:
    """Finds the shards of tasks that were sent before.

    Raises:
        UnknownParent: one does not exist.
    """
    wanted = list(ids)
    if not wanted:
        return {}
    shards: dict[str, int] = {}
    for shard in range(host.shard_count):
        shards |= await _find(host, shard, wanted)
    if unknown := [task_id for task_id in wanted if task_id not in shards]:
        raise UnknownParent(
            f"there is no task {unknown[0]!r} to depend on: it was never sent, or its record has expired (result_ttl=, "
            "failed_ttl=, canceled_ttl=); nothing was sent"
        )
    return shards


async def _locate_resent(host: Host, batch: Sequence[BatchItem], indexes: Mapping[str, int]) -> dict[str, int]:
    """Finds the shards of parents in the batch that are on the server already and have children on other shards.

    The server does not accept such a parent again, so the parent would not learn of these children by itself.
    """
    wanted: dict[int, set[str]] = {}
    for item in batch:
        for parent in item.parents:
            if parent in indexes and (shard := batch[indexes[parent]].shard) != item.shard:
                wanted.setdefault(shard, set()).add(parent)
    shards: dict[str, int] = {}
    for shard, ids in wanted.items():
        shards |= await _find(host, shard, ids)
    return shards


async def _find(host: Host, shard: int, ids: Iterable[str]) -> dict[str, int]:
    """Returns the tasks that are on a shard, with its number."""
    missing = {task_id.decode() for task_id in await host.call(f"{NAME}/unknown", shard, *ids)}
    return {task_id: shard for task_id in ids if task_id not in missing}
