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
from ._errors import RunNotSent, unknown_parent
from ._options import NAME

_GATE_TIMEOUT: Final = 300.0
"""Seconds that sending a run may take. After that the server considers the sender dead."""
_ABORT_TIMEOUT: Final = 1.0
"""Seconds in which a sender that failed tries to cancel the run. Otherwise the gate's timeout does."""

_Parent = tuple[str, str]
"""The id of a parent, and its tenant, or '' for any."""


async def send(host: Host, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
    """Sends messages that depend on each other or on earlier tasks. Either all are sent, or none runs.

    Raises:
        GraphError: a message comes before its parent, or two parents have one id.
        UnknownParent: a parent does not exist, or belongs to another tenant than its handle says.
        RunNotSent: sending took too long.
    """
    batch = make_batch((tenant, host.shard_of(tenant), message) for tenant, message in messages)
    indexes = index_by_id(batch)
    earlier = {(parent, item.owner_of(parent)) for item in batch for parent in item.parents if parent not in indexes}
    found, resent = await _locate(host, earlier), await _locate_resent(host, batch, indexes)
    keep = whole_ms(host.settings.canceled_ttl)
    for item in batch:
        sent_before = {parent: found[parent, item.owner_of(parent)] for parent in item.parents if parent not in indexes}
        resolve_parents(item, batch, indexes, resent | sent_before, keep)
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


async def _locate(host: Host, parents: Iterable[_Parent]) -> dict[_Parent, int]:
    """Finds the shards of tasks that were sent before.

    Raises:
        UnknownParent: one does not exist, or belongs to another tenant.
    """
    by_shard: dict[int, list[_Parent]] = {}
    wanted = list(parents)
    for parent in wanted:
        for shard in [host.shard_of(parent[1])] if parent[1] else range(host.shard_count):
            by_shard.setdefault(shard, []).append(parent)
    shards: dict[_Parent, int] = {}
    for shard, some in by_shard.items():
        shards |= await _find(host, shard, some)
    for parent in wanted:
        if parent not in shards:
            raise unknown_parent(parent[0])
    return shards


async def _locate_resent(host: Host, batch: Sequence[BatchItem], indexes: Mapping[str, int]) -> dict[str, int]:
    """Finds the shards of parents in the batch that are on the server already and have children on other shards.

    The server does not accept such a parent again, so the parent would not learn of these children by itself.
    """
    wanted: dict[int, set[_Parent]] = {}
    for item in batch:
        for parent in item.parents:
            if parent in indexes and (other := batch[indexes[parent]]).shard != item.shard:
                wanted.setdefault(other.shard, set()).add((parent, other.tenant))
    shards: dict[str, int] = {}
    for shard, parents in wanted.items():
        shards |= {task_id: shard for task_id, _ in await _find(host, shard, parents)}
    return shards


async def _find(host: Host, shard: int, parents: Iterable[_Parent]) -> dict[_Parent, int]:
    """Returns the tasks that are on a shard, with its number."""
    asked = list(parents)
    known = await host.call(f"{NAME}/known", shard, *(part for parent in asked for part in parent))
    return {parent: shard for parent, is_known in zip(asked, known, strict=True) if is_known}
