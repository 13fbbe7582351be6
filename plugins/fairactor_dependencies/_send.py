"""Sending batches with messages that depend on others."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any, Final

import anyio
import msgspec

from fairactor import Handle
from fairactor.errors import NotReplicated, ServerError, ServerUnavailable
from fairactor.plugins import BATCH, BATCH_WITH_DATA, Addressed, Host, NotInOneCall, ProceedSend, in_one_call, whole_ms

from ._batch import PARENTS_AT_ONCE, BatchItem, divide, hold_behind_gate, index_by_id, make_batch, resolve_parents
from ._errors import RunNotSent, unknown_parent
from ._options import NAME
from ._places import find, next_place
from ._plan import Ends, Planner, Step, plan_of
from ._steps import Context, message_of, takes_messages

_GATE_TIMEOUT: Final = 300.0
"""Seconds that sending a run may take. After that the server considers the sender dead."""
_ABORT_TIMEOUT: Final = 1.0
"""Seconds in which a sender that failed tries to cancel the run. Otherwise the gate's timeout does."""

_ATTEMPTS: Final = 3
"""How often messages are sent if their tenants have moved to other shards before the server has any of them."""
_MOVE_TIMEOUT: Final = 60.0
"""Seconds to wait for a parent that moves to another shard."""
_LOOK_AGAIN: Final = 0.05
_KNOWN: Final = 1
"""What known.lua says of a task that is there, and stays."""

_Parent = tuple[str, str]
"""The id of a parent, and its tenant, or '' for any."""


async def send(host: Host, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
    """Sends messages that depend on each other or on earlier tasks. Either all are sent, or none runs.

    Raises:
        GraphError: a message comes before its parent, or two parents have one id.
        UnknownParent: a parent does not exist, or belongs to another tenant than its handle says.
        RunNotSent: sending took too long.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        await find(host, (tenant for tenant, _ in messages))
        batch = make_batch((tenant, host.shard_of(tenant), message) for tenant, message in messages)
        if any(takes_messages(item.message) for item in batch):
            return await _send_expanded(host, messages, proceed)
        try:
            return await _send_batch(host, batch, proceed)
        except ServerUnavailable as error:
            await find(host, (tenant for tenant, _ in messages))
            if error.maybe_accepted or attempt == _ATTEMPTS or not _moved(host, batch):
                raise
    raise AssertionError("unreachable")


def _moved(host: Host, batch: Sequence[BatchItem]) -> str | None:
    """Returns a tenant that is not, any more, on the shard for which its messages were prepared."""
    return next((item.tenant for item in batch if host.shard_of(item.tenant) != item.shard), None)


async def _send_batch(host: Host, batch: Sequence[BatchItem], proceed: ProceedSend) -> list[Handle[Any]]:
    indexes = index_by_id(batch)
    earlier = {(parent, item.owner_of(parent)) for item in batch for parent in item.parents if parent not in indexes}
    found = await _locate(host, earlier, {item.shard for item in batch})
    resent = await _locate_resent(host, batch, indexes)
    if not host.packs:
        divide(batch, indexes)
    keep = whole_ms(host.settings.canceled_ttl)
    for item in batch:
        sent_before = {parent: found[parent, item.owner_of(parent)] for parent in item.parents if parent not in indexes}
        resolve_parents(item, batch, indexes, resent | sent_before, keep)
        if not host.packs:
            item.script_input["home"] = item.shard
    if (tenant := _moved(host, batch)) is not None:
        raise ServerUnavailable(f"tenant {tenant!r} has just moved to another shard: send this again")
    calls = sum(-(-many // BATCH_WITH_DATA) for many in Counter(item.shard for item in batch).values())
    related = any(parent in indexes for item in batch for parent in item.parents)
    follows = any(item.follow for item in batch)
    if not follows and (host.packs or not related):
        return await proceed([item.addressed() for item in batch])
    if not follows and calls == 1:
        with suppress(NotInOneCall), in_one_call():
            return await proceed([item.addressed() for item in batch])
    gate = os.urandom(12).hex()
    hold_behind_gate(batch, indexes, gate, keep)
    return await _send_behind_gate(host, batch, indexes, gate, proceed)


async def _send_expanded(host: Host, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
    """Sends messages together with those whose results they take; returns the handles of the former."""
    planner = Planner()
    needed: set[Step] = set()
    for _, message in messages:
        if takes_messages(message):
            needed.update(plan_of(message).steps)
    for tenant, message in messages:
        if message in needed:
            planner.add_plan(plan_of(message).for_tenant(tenant))
    plan = planner.plan(Ends((), (), ()))
    order, parents = plan.in_order()
    ids = {step: step.task_options.id or os.urandom(12).hex() for step in order}
    run = {"xcom_run": os.urandom(12).hex()} if "fairactor_xcom" in host.plugins else {}
    silent = plan.without_results()
    context = Context(ids, run, {}, {})
    sent = [(plan.steps[step] or "", message_of(step, parents[step], silent.get(step, 0), context)) for step in order]
    places = {step: [place] for place, step in enumerate(order)}
    given: list[int] = []
    for tenant, message in messages:  # a message that is given twice is sent twice
        if places.get(message):
            given.append(places[message].pop())
            continue
        given.append(len(sent))
        sent.append(
            (
                tenant,
                message_of(
                    message,
                    parents[message],
                    silent.get(message, 0),
                    context._replace(ids={**ids, message: message.task_options.id or os.urandom(12).hex()}),
                )
                if message in needed
                else message,
            )
        )
    handles = await send(host, sent, proceed)
    return [handles[place] for place in given]


async def _send_behind_gate(
    host: Host, batch: Sequence[BatchItem], indexes: Mapping[str, int], gate: str, proceed: ProceedSend
) -> list[Handle[Any]]:
    """Sends a batch that takes several calls. Nothing of it runs before all of it is on the server."""
    first, *others = dict.fromkeys(item.shard for item in batch)
    await host.call(f"{NAME}/gate", first, gate, whole_ms(_GATE_TIMEOUT), *others)
    handles: list[Handle[Any]] = []
    unconfirmed: NotReplicated | None = None
    try:
        if (tenant := _moved(host, batch)) is not None:
            raise ServerUnavailable(f"tenant {tenant!r} has just moved to another shard: send this again")  # noqa: TRY301 - the gate is shut below
        try:
            handles = await proceed([item.addressed() for item in batch])
        except NotReplicated as error:  # the server has the whole batch, so it is carried out
            unconfirmed = error
        await _send_parents(host, batch, indexes, gate)
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
    if unconfirmed is not None:
        raise unconfirmed
    return handles


async def _send_parents(host: Host, batch: Sequence[BatchItem], indexes: Mapping[str, int], gate: str) -> None:
    """Sends the parents with which the messages were not sent, some at a time."""
    following = [item for item in batch if item.follow]
    far: dict[int, set[_Parent]] = {}
    for item in following:
        for parent in item.parents:
            if parent in indexes and (other := batch[indexes[parent]]).shard != item.shard:
                far.setdefault(other.shard, set()).add((parent, other.tenant))
    for shard, parents in far.items():  # so that their ends are kept until the others have asked for them
        await _find(host, shard, parents, far=True)
    for shard in dict.fromkeys(item.shard for item in following):
        left = map(
            msgspec.msgpack.encode, chain.from_iterable(item.awaited for item in following if item.shard == shard)
        )
        some = [*islice(left, PARENTS_AT_ONCE)]
        while some:
            handled = await host.call(f"{NAME}/fill", shard, gate, shard, *some)
            some = [*some[handled:], *islice(left, handled)]


async def _locate(host: Host, parents: Iterable[_Parent], waiting: Collection[int]) -> dict[_Parent, int]:
    """Finds the shards of tasks that were sent before, and has their ends kept until those that wait are sent.

    Args:
        host: the runtime.
        parents: the tasks.
        waiting: the shards of those that wait for them.

    Raises:
        UnknownParent: one does not exist, or belongs to another tenant.
    """
    shards: dict[_Parent, int] = {}
    left = list(parents)
    until = anyio.current_time() + _MOVE_TIMEOUT
    while left:
        move = await _look_for(host, left, waiting, shards)
        left = [parent for parent in left if parent not in shards]
        if left and not move:
            raise unknown_parent(left[0][0])
        if left and anyio.current_time() > until:
            raise ServerUnavailable(f"task {left[0][0]!r} is still on its way to another shard: send this again")
        if left:
            await anyio.sleep(_LOOK_AGAIN)
    return shards


async def _look_for(
    host: Host, parents: Sequence[_Parent], waiting: Collection[int], shards: dict[_Parent, int]
) -> bool:
    """Looks for tasks on all shards where they may be, and adds those that it finds to `shards`.

    Returns whether others are on their way to another shard.
    """
    await find(host, (tenant for _, tenant in parents))
    asked: dict[str, list[int]] = {tenant: [] for _, tenant in parents}
    move = False
    while True:
        left = [parent for parent in parents if parent not in shards]
        places = {tenant: next_place(host, tenant, asked[tenant]) for _, tenant in left}
        by_shard: dict[int, list[_Parent]] = {}
        for parent in left:
            if (shard := places[parent[1]]) is not None:
                by_shard.setdefault(shard, []).append(parent)
        if not by_shard:
            return move
        for tenant, place in places.items():
            asked[tenant] += [] if place is None else [place]
        for shard, some in by_shard.items():
            found = await _find(host, shard, some, far=any(other != shard for other in waiting))
            shards |= {parent: shard for parent, how in found.items() if how == _KNOWN}
            move = move or len(found) > sum(how == _KNOWN for how in found.values())


async def _locate_resent(host: Host, batch: Sequence[BatchItem], indexes: Mapping[str, int]) -> dict[str, int]:
    """Finds the shards of parents in the batch that are on the server already and have children on other shards.

    The server does not accept such a parent again, so the parent would not learn of these children by itself.
    """
    wanted: dict[int, set[_Parent]] = {}
    for item in batch:
        for parent in item.parents:
            if parent not in indexes:
                continue
            other = batch[indexes[parent]]
            for shard in host.shards_of(other.tenant):
                if shard not in (item.shard, other.shard) or other.shard != item.shard:
                    wanted.setdefault(shard, set()).add((parent, other.tenant))
    shards: dict[str, int] = {}
    for shard, parents in wanted.items():
        found = await _find(host, shard, parents, far=True)
        shards |= {task_id: shard for (task_id, _), how in found.items() if how == _KNOWN}
    return shards


async def _find(host: Host, shard: int, parents: Iterable[_Parent], *, far: bool) -> dict[_Parent, int]:
    """Returns the tasks that are on a shard, each with `_KNOWN`, or another number if it moves to another shard."""
    asked = list(parents)
    known: list[int] = []
    while len(known) < len(asked):
        some = asked[len(known) : len(known) + BATCH]
        known += await host.call(f"{NAME}/known", shard, int(far), *(part for parent in some for part in parent))
    return {parent: how for parent, how in zip(asked, known, strict=True) if how}
