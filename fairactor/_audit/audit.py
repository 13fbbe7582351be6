"""The audit: whether all that a shard holds fits together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final

import msgspec

from fairactor._model import keys
from fairactor._model.record import LIVE, SETTLED
from fairactor._model.states import Priority, TaskState
from fairactor._model.wire import GROUP_MARK, Counts, unpack_holder, unpack_mark

from .snapshot import Snapshot, text

_CRITICAL_JUMP: Final = 4e15  # as lua/lib/base.lua
_WINDOW: Final = 8  # bytes, before a key


def audit(snapshot: Snapshot, *, overdue: float = math.inf, lowered: Collection[str] = ()) -> list[str]:
    """What does not fit together in a shard. The arguments are those of `check_invariants`."""
    return [
        *snapshot.strange,
        *_places(snapshot),
        *_scores(snapshot),
        *_counts(snapshot),
        *_ring(snapshot),
        *_caps(snapshot, lowered),
        *_fleet(snapshot),
        *_drained(snapshot),
        *_notes(snapshot),
        *_letters(snapshot),
        *_keys(snapshot),
        *_overdue(snapshot, overdue),
    ]


def _standing(snapshot: Snapshot) -> Iterator[tuple[str, str, str, str | None]]:
    """Where ids stand: (task, state, where in words, whose it should be there, if that is said)."""
    for tenant, queue in snapshot.queues.items():
        for task in queue:
            yield task, "queued", f"the queue of {tenant!r}", tenant
    for task in snapshot.fixed["SCHEDULED"]:
        yield task, "scheduled", "the scheduled", None
    for task, packed in snapshot.fixed["HELD"].items():
        yield task, "deferred", f"what {text(unpack_holder(packed))!r} holds back", None
    for runtime, claims in snapshot.claims.items():
        for task, mark in claims.items():
            yield task, "started", f"the claims of {runtime!r}", text(unpack_mark(mark).tenant)


def _places(snapshot: Snapshot) -> Iterator[str]:
    """Each live record stands in one place, and in each place stands a live record of the right tenant."""
    places: dict[str, list[str]] = {}
    for task, _, where, tenant in _standing(snapshot):
        places.setdefault(task, []).append(where)
        header = snapshot.records.get(task)
        if header is None:
            yield f"task {task!r} in {where} has no record"
        elif header.state != LIVE:
            yield f"task {task!r} in {where} has ended: {header.state!r}"
        elif tenant not in (None, header.tenant):
            yield f"task {task!r} in {where} of {tenant!r} belongs to {header.tenant!r}"
    yield from (f"task {task!r} is in {' and '.join(found)}" for task, found in places.items() if len(found) > 1)
    for task, header in snapshot.records.items():
        if header.state == LIVE and task not in places:
            yield f"task {task!r} of {header.tenant!r} lives and is nowhere"


def _scores(snapshot: Snapshot) -> Iterator[str]:
    """Each task stands in its queue where its stamp and priority put it."""
    for tenant, queue in snapshot.queues.items():
        for task, score in queue.items():
            header = snapshot.records.get(task)
            if header is None:
                continue
            jump = _CRITICAL_JUMP if header.priority == Priority.CRITICAL else header.priority * snapshot.step
            if score != header.stamp - jump:
                yield f"task {task!r} of {tenant!r} stands at {score:.0f} instead of {header.stamp - jump:.0f}"


def _live(counts: Counts) -> dict[str, int]:
    return {
        **{f"live at {priority}": number for priority, number in counts.by_priority.items() if number},
        **{state: number for state in ("scheduled", "deferred") if (number := getattr(counts, state))},
    }


def _counts(snapshot: Snapshot) -> Iterator[str]:
    """What is counted of each tenant is what is there; the shard's total is the sum."""
    found: dict[str, Counter[str]] = {}
    standing = {task: state for task, state, _, _ in _standing(snapshot)}
    kept: Counter[tuple[str, str]] = Counter()
    for task, header in snapshot.records.items():
        if header.state == LIVE:
            state = standing.get(task, "nowhere")
            state = f"live at {header.priority}" if state in {"queued", "started"} else state
            found.setdefault(header.tenant, Counter())[state] += 1
        else:
            kept[header.tenant, SETTLED[header.state].value] += 1
    for tenant in found.keys() | snapshot.counts.keys():
        counted, there = _live(snapshot.counts_of(tenant)), dict(found.get(tenant, {}))
        if counted != there:
            yield f"of {tenant!r} are counted {counted}, and there are {there}"
    for (tenant, state), number in kept.items():
        counted_ended = getattr(snapshot.counts_of(tenant), state)
        if counted_ended < number:
            yield f"of {tenant!r} {counted_ended} are counted as {state}, and {number} records are kept"
    yield from _total(snapshot)


def _total(snapshot: Snapshot) -> Iterator[str]:
    total = Counts.unpack(snapshot.fixed["META"].get("total", b""))
    live: Counter[str] = Counter()
    for counts in snapshot.counts.values():
        live.update(_live(counts))
    if _live(total) != live:
        yield f"in total are counted {_live(total)}, and of the tenants together {dict(live)}"
    for state in ("finished", "failed", "canceled"):
        ended = sum(getattr(counts, state) for counts in snapshot.counts.values())
        if getattr(total, state) < ended:
            yield f"in total {getattr(total, state)} are counted as {state}, and of the tenants together {ended}"


def _ring(snapshot: Snapshot) -> Iterator[str]:
    """A tenant with work is on a ring, but for one that is full, paused or held back by its rate."""
    ring, throttled = snapshot.ring, snapshot.fixed["THROTTLED"]
    for tenant in ring.keys() | throttled.keys() | snapshot.counts.keys():
        counts, policy = snapshot.counts_of(tenant), snapshot.effective(tenant)
        could = counts.queued > 0 and counts.started < policy.get("concurrency", math.inf) and not policy.get("paused")
        if could is not (tenant in ring or tenant in throttled):
            can, where = ("could", "not on") if could else ("cannot", "on")
            yield f"{tenant!r} {can} be served, and is {where} the ring"
        if tenant in throttled and (tenant in ring or "rate" not in policy):
            yield f"{tenant!r} is held back by its rate, and {'on the ring' if tenant in ring else 'has none'}"
    if snapshot.fixed["META"].get("torn") == b"1":
        yield "a script broke off before its last write"
    if not snapshot.fixed["RING"] and snapshot.virtual:
        yield f"nobody waits, yet virtual time is {snapshot.virtual:g}"
    yield from _groups(snapshot)


def _groups(snapshot: Snapshot) -> Iterator[str]:
    """A tenant stands on the ring of its group, and a group that has work on that of the shard."""
    marked = {member.removeprefix(GROUP_MARK) for member in snapshot.fixed["RING"] if member.startswith(GROUP_MARK)}
    if not snapshot.groups.keys() == marked == snapshot.fixed["GROUPS"].keys():
        timed = set(snapshot.fixed["GROUPS"])
        yield f"of groups, {set(snapshot.groups)} have work, {marked} are on the ring, and {timed} have a virtual time"
    for group, ring in [(None, snapshot.fixed["RING"]), *snapshot.groups.items()]:
        for tenant in ring:
            if not tenant.startswith(GROUP_MARK) and snapshot.policy(tenant).get("group") != group:
                yield f"{tenant!r} is of group {snapshot.policy(tenant).get('group')!r}, and on the ring of {group!r}"


def _caps(snapshot: Snapshot, lowered: Collection[str]) -> Iterator[str]:
    """No tenant runs more than it may, and none has started more than its rate and burst allow."""
    for tenant, counts in snapshot.counts.items():
        cap = snapshot.effective(tenant).get("concurrency", math.inf)
        if counts.started > cap and tenant not in lowered:
            yield f"{counts.started} tasks of {tenant!r} run, and its concurrency is {cap:g}"
    for tenant, due in snapshot.fixed["RATES"].items():
        _, interval, burst = snapshot.effective(tenant).get("rate") or ("", math.inf, 1)
        if (
            tenant in snapshot.counts
            and interval
            and due - snapshot.now * 1e6 > interval * burst
            and tenant not in lowered
        ):
            yield f"{tenant!r} is {due / 1e6 - snapshot.now:.3f} s ahead of its rate"


def _fleet(snapshot: Snapshot) -> Iterator[str]:
    """Whatever is kept of a runtime, it has a lease."""
    leases = snapshot.fixed["LEASES"]
    kept: dict[str, Collection[str]] = {
        "claims": snapshot.claims, "cancels": snapshot.cancels, "assigned": snapshot.assigned, "steal": snapshot.steal,
    }  # fmt: skip
    for name in ("SESSIONS", "FLEET", "IDLE", "HOMES", "IDLE_HOMES"):
        kept[name.lower()] = snapshot.fixed[name]
    for what, runtimes in kept.items():
        for runtime in runtimes:
            if runtime not in leases:
                yield f"{runtime!r} has no lease, and is in {what}"
    for runtime in leases:
        if runtime not in snapshot.fixed["FLEET"]:
            yield f"{runtime!r} has a lease, and is not in fleet"


def _drained(snapshot: Snapshot) -> Iterator[str]:
    """A tenant without live tasks leaves its totals alone, and those are listed to be forgotten."""
    drained = snapshot.fixed["DRAINED"]
    for tenant, packed in snapshot.fixed["COUNTS"].items():
        until = int.from_bytes(packed[-4:], "big")
        if not _live(snapshot.counts_of(tenant)) and drained.get(tenant) != until:
            found = drained.get(tenant, math.nan)
            yield f"{tenant!r} has no live task; its totals are kept until {until}, and it is drained until {found:.0f}"
    for tenant, until in drained.items():
        if tenant not in snapshot.counts and until > snapshot.now:
            yield f"{tenant!r} is drained, to be forgotten at {until:.0f}, and has no totals"


def _notes(snapshot: Snapshot) -> Iterator[str]:
    """Only live tasks are watched; only started ones have progress."""
    for task, packed in snapshot.fixed["WATCHERS"].items():
        header = snapshot.records.get(task)
        if header is None or header.state != LIVE:
            yield f"task {task!r} is watched, and {'has ended' if header else 'has no record'}"
        if not msgspec.msgpack.decode(packed):
            yield f"task {task!r} is watched by nobody"
    claimed = {task for claims in snapshot.claims.values() for task in claims}
    for runtime, cancels in snapshot.cancels.items():
        for task in cancels.keys() - snapshot.claims.get(runtime, {}).keys():
            yield f"task {task!r} is to be canceled by {runtime!r}, which has not claimed it"
    yield from (
        f"task {task!r} has progress, and is not claimed" for task in snapshot.fixed["PROGRESS"] if task not in claimed
    )


def _letters(snapshot: Snapshot) -> Iterator[str]:
    """Failed tasks that are kept are dead letters, and nothing else is one."""
    listed = {task for task, until in snapshot.fixed["DEAD"].items() if until / 1e6 > snapshot.now}
    failed = {task for task, header in snapshot.records.items() if SETTLED.get(header.state) is TaskState.FAILED}
    yield from (
        f"task {task!r} is kept as failed, and is no dead letter" for task in failed - snapshot.fixed["DEAD"].keys()
    )
    yield from (f"task {task!r} is a dead letter, and is not kept as failed" for task in listed - failed)


def _keys(snapshot: Snapshot) -> Iterator[str]:
    """A task that has a key lives, and the key stands for it; one that has none any more only for a while."""
    keyed = {task: text(packed[_WINDOW:]) for task, packed in snapshot.fixed["KEYED"].items()}
    for task, key in keyed.items():
        header = snapshot.records.get(task)
        if header is None or header.state != LIVE:
            yield f"task {task!r} has the key {key!r}, and {'has ended' if header else 'has no record'}"
        if snapshot.keys.get(key) != (task, -1):
            yield f"task {task!r} has the key {key!r}, and that stands for {snapshot.keys.get(key)}"
    for key, (task, ttl) in snapshot.keys.items():
        if ttl == -1 and keyed.get(task) != key:
            yield f"the key {key!r} stands for task {task!r} for ever, and that has the key {keyed.get(task)!r}"


def _overdue(snapshot: Snapshot, patience: float) -> Iterator[str]:
    """What `tend` should have seen to."""
    for name, unit, what in (
        ("LEASES", 1000, "the lease of {!r} ran out {:.3f} s ago"),
        ("SCHEDULED", 1000, "task {!r} was due {:.3f} s ago"),
        ("DRAINED", 1, "the totals of {!r} should have been forgotten {:.3f} s ago"),
    ):
        for member, score in snapshot.fixed[name].items():
            late = snapshot.now - score / unit
            if late > patience:
                yield what.format(member, late)


def misplaced(snapshot: Snapshot, number: int, shards: int) -> Iterator[str]:
    """Each tenant is in the shard of its name, and no key is outside of all shards."""
    for tenant in snapshot.counts:
        if keys.shard_of(tenant, shards) != number:
            yield f"{tenant!r} belongs to shard {keys.shard_of(tenant, shards)}"
    prefix = snapshot.meta[: snapshot.meta.rindex("/") + 1]
    metas = tuple(f"{prefix}{other}}}" for other in range(shards))
    yield from (f"{key!r} is in none of the {shards} shards" for key in snapshot.others if not key.startswith(metas))
