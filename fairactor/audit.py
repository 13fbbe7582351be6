"""The audit: whether all that a shard holds fits together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final

import msgspec

from . import keys
from .look import Look, text
from .record import LIVE, SETTLED
from .states import Priority, TaskState
from .wire import GROUP_MARK, Counts, holder_in, mark_of

_CRITICAL_JUMP: Final = 4e15  # as lua/lib/base.lua
_WINDOW: Final = 8  # bytes, before a key


def audit(look: Look, *, overdue: float = math.inf, lowered: Collection[str] = ()) -> list[str]:
    """What does not fit together in a shard. The arguments are those of `check_invariants`."""
    return [
        *look.strange,
        *_places(look),
        *_scores(look),
        *_counts(look),
        *_ring(look),
        *_caps(look, lowered),
        *_fleet(look),
        *_drained(look),
        *_notes(look),
        *_letters(look),
        *_keys(look),
        *_overdue(look, overdue),
    ]


def _standing(look: Look) -> Iterator[tuple[str, str, str, str | None]]:
    """Where ids stand: (task, state, where in words, whose it should be there, if that is said)."""
    for tenant, queue in look.queues.items():
        for task in queue:
            yield task, "queued", f"the queue of {tenant!r}", tenant
    for task in look.fixed["SCHEDULED"]:
        yield task, "scheduled", "the scheduled", None
    for task, packed in look.fixed["HELD"].items():
        yield task, "deferred", f"what {text(holder_in(packed))!r} holds back", None
    for runtime, claims in look.claims.items():
        for task, mark in claims.items():
            yield task, "started", f"the claims of {runtime!r}", text(mark_of(mark).tenant)


def _places(look: Look) -> Iterator[str]:
    """Each live record stands in one place, and in each place stands a live record of the right tenant."""
    places: dict[str, list[str]] = {}
    for task, _, where, tenant in _standing(look):
        places.setdefault(task, []).append(where)
        header = look.records.get(task)
        if header is None:
            yield f"task {task!r} in {where} has no record"
        elif header.state != LIVE:
            yield f"task {task!r} in {where} has ended: {header.state!r}"
        elif tenant not in (None, header.tenant):
            yield f"task {task!r} in {where} of {tenant!r} belongs to {header.tenant!r}"
    yield from (f"task {task!r} is in {' and '.join(found)}" for task, found in places.items() if len(found) > 1)
    for task, header in look.records.items():
        if header.state == LIVE and task not in places:
            yield f"task {task!r} of {header.tenant!r} lives and is nowhere"


def _scores(look: Look) -> Iterator[str]:
    """Each task stands in its queue where its stamp and priority put it."""
    for tenant, queue in look.queues.items():
        for task, score in queue.items():
            header = look.records.get(task)
            if header is None:
                continue
            jump = _CRITICAL_JUMP if header.priority == Priority.CRITICAL else header.priority * look.step
            if score != header.stamp - jump:
                yield f"task {task!r} of {tenant!r} stands at {score:.0f} instead of {header.stamp - jump:.0f}"


def _live(counts: Counts) -> dict[str, int]:
    return {
        **{f"live at {priority}": number for priority, number in counts.by_priority.items() if number},
        **{state: number for state in ("scheduled", "deferred") if (number := getattr(counts, state))},
    }


def _counts(look: Look) -> Iterator[str]:
    """What is counted of each tenant is what is there; the shard's total is the sum."""
    found: dict[str, Counter[str]] = {}
    standing = {task: state for task, state, _, _ in _standing(look)}
    kept: Counter[tuple[str, str]] = Counter()
    for task, header in look.records.items():
        if header.state == LIVE:
            state = standing.get(task, "nowhere")
            state = f"live at {header.priority}" if state in {"queued", "started"} else state
            found.setdefault(header.tenant, Counter())[state] += 1
        else:
            kept[header.tenant, SETTLED[header.state].value] += 1
    for tenant in found.keys() | look.counts.keys():
        counted, there = _live(look.counts_of(tenant)), dict(found.get(tenant, {}))
        if counted != there:
            yield f"of {tenant!r} are counted {counted}, and there are {there}"
    for (tenant, state), number in kept.items():
        counted_ended = getattr(look.counts_of(tenant), state)
        if counted_ended < number:
            yield f"of {tenant!r} {counted_ended} are counted as {state}, and {number} records are kept"
    yield from _total(look)


def _total(look: Look) -> Iterator[str]:
    total = Counts.unpack(look.fixed["META"].get("total", b""))
    live: Counter[str] = Counter()
    for counts in look.counts.values():
        live.update(_live(counts))
    if _live(total) != live:
        yield f"in total are counted {_live(total)}, and of the tenants together {dict(live)}"
    for state in ("finished", "failed", "canceled"):
        ended = sum(getattr(counts, state) for counts in look.counts.values())
        if getattr(total, state) < ended:
            yield f"in total {getattr(total, state)} are counted as {state}, and of the tenants together {ended}"


def _ring(look: Look) -> Iterator[str]:
    """A tenant with work is on a ring, but for one that is full, paused or held back by its rate."""
    ring, throttled = look.ring, look.fixed["THROTTLED"]
    for tenant in ring.keys() | throttled.keys() | look.counts.keys():
        counts, policy = look.counts_of(tenant), look.effective(tenant)
        could = counts.queued > 0 and counts.started < policy.get("concurrency", math.inf) and not policy.get("paused")
        if could is not (tenant in ring or tenant in throttled):
            can, where = ("could", "not on") if could else ("cannot", "on")
            yield f"{tenant!r} {can} be served, and is {where} the ring"
        if tenant in throttled and (tenant in ring or "rate" not in policy):
            yield f"{tenant!r} is held back by its rate, and {'on the ring' if tenant in ring else 'has none'}"
    if look.fixed["META"].get("torn") == b"1":
        yield "a script broke off before its last write"
    if not look.fixed["RING"] and look.virtual:
        yield f"nobody waits, yet virtual time is {look.virtual:g}"
    yield from _groups(look)


def _groups(look: Look) -> Iterator[str]:
    """A tenant stands on the ring of its group, and a group that has work on that of the shard."""
    marked = {member.removeprefix(GROUP_MARK) for member in look.fixed["RING"] if member.startswith(GROUP_MARK)}
    if not look.groups.keys() == marked == look.fixed["GROUPS"].keys():
        timed = set(look.fixed["GROUPS"])
        yield f"of groups, {set(look.groups)} have work, {marked} are on the ring, and {timed} have a virtual time"
    for group, ring in [(None, look.fixed["RING"]), *look.groups.items()]:
        for tenant in ring:
            if not tenant.startswith(GROUP_MARK) and look.policy(tenant).get("group") != group:
                yield f"{tenant!r} is of group {look.policy(tenant).get('group')!r}, and on the ring of {group!r}"


def _caps(look: Look, lowered: Collection[str]) -> Iterator[str]:
    """No tenant runs more than it may, and none has started more than its rate and burst allow."""
    for tenant, counts in look.counts.items():
        cap = look.effective(tenant).get("concurrency", math.inf)
        if counts.started > cap and tenant not in lowered:
            yield f"{counts.started} tasks of {tenant!r} run, and its concurrency is {cap:g}"
    for tenant, due in look.fixed["RATES"].items():
        _, interval, burst = look.effective(tenant).get("rate") or ("", math.inf, 1)
        if tenant in look.counts and interval and due - look.now * 1e6 > interval * burst and tenant not in lowered:
            yield f"{tenant!r} is {due / 1e6 - look.now:.3f} s ahead of its rate"


def _fleet(look: Look) -> Iterator[str]:
    """Whatever is kept of a runtime, it has a lease."""
    leases = look.fixed["LEASES"]
    kept: dict[str, Collection[str]] = {
        "claims": look.claims, "cancels": look.cancels, "assigned": look.assigned, "steal": look.steal,
    }  # fmt: skip
    for name in ("SESSIONS", "FLEET", "IDLE", "HOMES", "IDLE_HOMES"):
        kept[name.lower()] = look.fixed[name]
    for what, runtimes in kept.items():
        for runtime in runtimes:
            if runtime not in leases:
                yield f"{runtime!r} has no lease, and is in {what}"
    for runtime in leases:
        if runtime not in look.fixed["FLEET"]:
            yield f"{runtime!r} has a lease, and is not in fleet"


def _drained(look: Look) -> Iterator[str]:
    """A tenant without live tasks leaves its totals alone, and those are listed to be forgotten."""
    drained = look.fixed["DRAINED"]
    for tenant, packed in look.fixed["COUNTS"].items():
        until = int.from_bytes(packed[-4:], "big")
        if not _live(look.counts_of(tenant)) and drained.get(tenant) != until:
            found = drained.get(tenant, math.nan)
            yield f"{tenant!r} has no live task; its totals are kept until {until}, and it is drained until {found:.0f}"
    for tenant, until in drained.items():
        if tenant not in look.counts and until > look.now:
            yield f"{tenant!r} is drained, to be forgotten at {until:.0f}, and has no totals"


def _notes(look: Look) -> Iterator[str]:
    """Only live tasks are watched; only started ones have progress."""
    for task, packed in look.fixed["WATCHERS"].items():
        header = look.records.get(task)
        if header is None or header.state != LIVE:
            yield f"task {task!r} is watched, and {'has ended' if header else 'has no record'}"
        if not msgspec.msgpack.decode(packed):
            yield f"task {task!r} is watched by nobody"
    claimed = {task for claims in look.claims.values() for task in claims}
    for runtime, cancels in look.cancels.items():
        for task in cancels.keys() - look.claims.get(runtime, {}).keys():
            yield f"task {task!r} is to be canceled by {runtime!r}, which has not claimed it"
    yield from (
        f"task {task!r} has progress, and is not claimed" for task in look.fixed["PROGRESS"] if task not in claimed
    )


def _letters(look: Look) -> Iterator[str]:
    """Failed tasks that are kept are dead letters, and nothing else is one."""
    listed = {task for task, until in look.fixed["DEAD"].items() if until / 1e6 > look.now}
    failed = {task for task, header in look.records.items() if SETTLED.get(header.state) is TaskState.FAILED}
    yield from (
        f"task {task!r} is kept as failed, and is no dead letter" for task in failed - look.fixed["DEAD"].keys()
    )
    yield from (f"task {task!r} is a dead letter, and is not kept as failed" for task in listed - failed)


def _keys(look: Look) -> Iterator[str]:
    """A task that has a key lives, and the key stands for it; one that has none any more only for a while."""
    keyed = {task: text(packed[_WINDOW:]) for task, packed in look.fixed["KEYED"].items()}
    for task, key in keyed.items():
        header = look.records.get(task)
        if header is None or header.state != LIVE:
            yield f"task {task!r} has the key {key!r}, and {'has ended' if header else 'has no record'}"
        if look.keys.get(key) != (task, -1):
            yield f"task {task!r} has the key {key!r}, and that stands for {look.keys.get(key)}"
    for key, (task, ttl) in look.keys.items():
        if ttl == -1 and keyed.get(task) != key:
            yield f"the key {key!r} stands for task {task!r} for ever, and that has the key {keyed.get(task)!r}"


def _overdue(look: Look, patience: float) -> Iterator[str]:
    """What `tend` should have seen to."""
    for name, unit, what in (
        ("LEASES", 1000, "the lease of {!r} ran out {:.3f} s ago"),
        ("SCHEDULED", 1000, "task {!r} was due {:.3f} s ago"),
        ("DRAINED", 1, "the totals of {!r} should have been forgotten {:.3f} s ago"),
    ):
        for member, score in look.fixed[name].items():
            late = look.now - score / unit
            if late > patience:
                yield what.format(member, late)


def misplaced(look: Look, number: int, shards: int) -> Iterator[str]:
    """Each tenant is in the shard of its name, and no key is outside of all shards."""
    for tenant in look.counts:
        if keys.shard_of(tenant, shards) != number:
            yield f"{tenant!r} belongs to shard {keys.shard_of(tenant, shards)}"
    prefix = look.meta[: look.meta.rindex("/") + 1]
    metas = tuple(f"{prefix}{other}}}" for other in range(shards))
    yield from (f"{key!r} is in none of the {shards} shards" for key in look.others if not key.startswith(metas))
