"""The audit: checks that everything in a shard is consistent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

import msgspec

from fairactor._model.counts import Counts
from fairactor._model.layout import Layout
from fairactor._model.record import LIVE, SETTLED
from fairactor._model.states import Priority, TaskState
from fairactor._model.wire import unpack_holder, unpack_mark, unpack_policy

from .ended import check_ended
from .lanes import check_lanes
from .limits import check_limits_beside
from .snapshot import Snapshot, text

_CRITICAL_JUMP: Final = 4e15  # as in lua/lib/base.lua
_WINDOW: Final = 8  # bytes, before a key
_FOLLOWER: Final = ":key"  # holds back what follows another task with its key (lib/plugins.lua)


def audit(snapshot: Snapshot, *, overdue: float = math.inf, lowered: Collection[str] = ()) -> list[str]:
    """Returns a message for each inconsistency in a shard. The arguments are those of `check_invariants`."""
    return [
        *snapshot.malformed,
        *_check_locations(snapshot),
        *_check_scores(snapshot),
        *_check_delayed(snapshot),
        *_check_suspects(snapshot),
        *_check_counts(snapshot),
        *_check_shard(snapshot),
        *check_lanes(snapshot),
        *check_limits_beside(snapshot, lowered),
        *_check_limits(snapshot, lowered),
        *_check_runtimes(snapshot),
        *_check_index(snapshot),
        *_check_drained(snapshot),
        *_check_waits(snapshot),
        *_check_dead_letters(snapshot),
        *check_ended(snapshot),
        *_check_deduplication_keys(snapshot),
        *_check_leaving(snapshot),
        *_check_overdue(snapshot, overdue),
    ]


class _Location(NamedTuple):
    """A place in Redis that holds the id of a live task."""

    task: str
    state: str
    """The state that a task in this place has."""
    name: str
    """A description for messages."""
    tenant: str | None
    """The tenant whose tasks belong here; None: any."""


def _locations(snapshot: Snapshot) -> Iterator[_Location]:
    for (lane, tenant), mailbox in snapshot.mailboxes.items():
        name = f"the mailbox of {tenant!r}{f' in the lane {lane!r}' if lane else ''}"
        for task in mailbox:
            yield _Location(task, "queued", name, tenant)
    for tenant, suspects in snapshot.suspects.items():
        for task in suspects:
            yield _Location(task, "queued", f"the suspects of {tenant!r}", tenant)
    for tenant, tasks in snapshot.delayed.items():
        for task in tasks:
            yield _Location(task, "scheduled", f"the delayed tasks of {tenant!r}", tenant)
    for task, packed in snapshot.fixed["HELD"].items():
        yield _Location(task, "deferred", f"the tasks held back by {text(unpack_holder(packed))!r}", None)
    for runtime, claims in snapshot.claims.items():
        for task, mark in claims.items():
            yield _Location(task, "started", f"the claims of {runtime!r}", text(unpack_mark(mark).tenant))


def _check_locations(snapshot: Snapshot) -> Iterator[str]:
    """Each live task is in exactly one place, and each place contains live tasks of the right tenant."""
    found: dict[str, list[str]] = {}
    for task, _, name, tenant in _locations(snapshot):
        found.setdefault(task, []).append(name)
        header = snapshot.records.get(task)
        if header is None:
            yield f"task {task!r} in {name} has no record"
        elif header.state != LIVE:
            yield f"task {task!r} in {name} has ended with state {header.state!r}"
        elif tenant not in (None, header.tenant):
            yield f"task {task!r} in {name} belongs to {header.tenant!r}, not to {tenant!r}"
    yield from (f"task {task!r} is in {' and '.join(names)}" for task, names in found.items() if len(names) > 1)
    for task, header in snapshot.records.items():
        if header.state == LIVE and task not in found:
            yield f"task {task!r} of {header.tenant!r} is live, but neither queued, scheduled, deferred nor claimed"


def _check_scores(snapshot: Snapshot) -> Iterator[str]:
    """The place of each task in its mailbox follows from its stamp and priority."""
    for tenant, mailbox in [*snapshot.queues.items(), *snapshot.suspects.items()]:
        for task, score in mailbox.items():
            header = snapshot.records.get(task)
            if header is None:
                continue
            jump = _CRITICAL_JUMP if header.priority == Priority.CRITICAL else header.priority * snapshot.step
            if score != header.stamp - jump:
                yield (
                    f"task {task!r} has place {score:.0f} in the mailbox of {tenant!r} instead of "
                    f"{header.stamp - jump:.0f}"
                )


def _check_delayed(snapshot: Snapshot) -> Iterator[str]:
    """Each tenant with delayed tasks is scheduled for the first of them, or for a time that has passed since."""
    scheduled = snapshot.fixed["SCHEDULED"]
    for tenant, tasks in snapshot.delayed.items():
        at, first = scheduled.get(tenant, math.inf), min(tasks.values())
        if not first <= at <= max(first, snapshot.now * 1000):
            yield f"a delayed task of {tenant!r} is due at {first:.0f}, but the tenant is scheduled for {at:.0f}"
    yield from (f"{tenant!r} is scheduled, but has no delayed tasks" for tenant in scheduled.keys() - snapshot.delayed)


def _check_suspects(snapshot: Snapshot) -> Iterator[str]:
    """A queued task is a suspect exactly if a runtime died while it had it, and tenants with suspects are listed."""
    for places, suspected in ((snapshot.queues, False), (snapshot.suspects, True)):
        for tenant, tasks in places.items():
            for task in tasks:
                header = snapshot.records.get(task)
                if header and (header.deliveries > 0) is not suspected:
                    where = "among the suspects" if suspected else "in the mailbox"
                    yield f"task {task!r} of {tenant!r} was delivered {header.deliveries} times, but is {where}"
    if snapshot.suspects.keys() != snapshot.fixed["SUSPECTED"].keys():
        yield f"tenants {set(snapshot.suspects)} have suspects, but {set(snapshot.fixed['SUSPECTED'])} are listed"


def _live(counts: Counts) -> dict[str, int]:
    return {
        **{f"live at {priority}": number for priority, number in counts.by_priority.items() if number},
        **{state: number for state in ("scheduled", "deferred") if (number := getattr(counts, state))},
    }


def _check_counts(snapshot: Snapshot) -> Iterator[str]:
    """The counts of each tenant match its tasks, and the counts of the shard are their sum."""
    live: dict[str, Counter[str]] = {}
    states = {location.task: location.state for location in _locations(snapshot)}
    kept: Counter[tuple[str, str]] = Counter()
    for task, header in snapshot.records.items():
        if header.state == LIVE:
            state = states.get(task, "nowhere")
            state = f"live at {header.priority}" if state in {"queued", "started"} else state
            live.setdefault(header.tenant, Counter())[state] += 1
        else:
            kept[header.tenant, SETTLED[header.state].value] += 1
    for tenant in live.keys() | snapshot.counts.keys():
        counted, found = _live(snapshot.counts_of(tenant)), dict(live.get(tenant, {}))
        if counted != found:
            yield f"the counts of {tenant!r} are {counted}, but its tasks are {found}"
    for (tenant, state), number in kept.items():
        ended = getattr(snapshot.counts_of(tenant), state)
        if ended < number:
            yield f"the counts of {tenant!r} have {ended} {state} tasks, but {number} records of such tasks exist"
    yield from _check_total(snapshot)


def _check_total(snapshot: Snapshot) -> Iterator[str]:
    total = Counts.unpack(snapshot.fixed["META"].get("total", b""))
    live: Counter[str] = Counter()
    for counts in snapshot.counts.values():
        live.update(_live(counts))
    if _live(total) != live:
        yield f"the counts of the shard are {_live(total)}, but the sum over its tenants is {dict(live)}"
    for state in ("finished", "failed", "canceled"):
        ended = sum(getattr(counts, state) for counts in snapshot.counts.values())
        if getattr(total, state) < ended:
            yield f"the counts of the shard have {getattr(total, state)} {state} tasks, those of its tenants {ended}"


def _check_shard(snapshot: Snapshot) -> Iterator[str]:
    if snapshot.fixed["META"].get("torn") == b"1":
        yield "a script failed before its last write"
    if not snapshot.fixed["RING"] and snapshot.virtual and snapshot.numbers == ["0"]:
        yield f"no tenant waits, but virtual time is {snapshot.virtual:g} instead of 0"


def _check_limits(snapshot: Snapshot, lowered: Collection[str]) -> Iterator[str]:
    """No tenant runs more tasks than its concurrency allows, or has started more than its rate and burst allow."""
    for tenant, counts in snapshot.counts.items():
        concurrency = snapshot.effective(tenant).get("concurrency", math.inf)
        if counts.started > concurrency and tenant not in lowered:
            yield f"{counts.started} tasks of {tenant!r} run, but its concurrency is {concurrency:g}"
    for tenant, due in snapshot.fixed["RATES"].items():
        _, interval, burst = snapshot.effective(tenant).get("rate") or ("", math.inf, 1)
        if (
            tenant in snapshot.counts
            and interval
            and due - snapshot.now * 1e6 > interval * burst
            and tenant not in lowered
        ):
            yield f"{tenant!r} is {due / 1e6 - snapshot.now:.3f} s ahead of its rate"


def _check_runtimes(snapshot: Snapshot) -> Iterator[str]:
    """Each runtime that something is stored about has a lease."""
    leases = snapshot.fixed["LEASES"]
    stored: dict[str, Collection[str]] = {
        "claims": snapshot.claims, "cancels": snapshot.cancels, "assigned": snapshot.assigned, "steal": snapshot.steal,
    }  # fmt: skip
    for name in ("SESSIONS", "FLEET", "IDLE", "HOMES", "IDLE_HOMES", "IDLE_SLOTS", "KIND_OF"):
        stored[name.lower()] = snapshot.fixed[name]
    stored |= {f"idle:{kind}": runtimes for kind, runtimes in snapshot.kind_idle.items()}
    for name, runtimes in stored.items():
        for runtime in runtimes:
            if runtime not in leases:
                yield f"{runtime!r} has no lease, but is in {name}"
    for runtime in leases:
        if runtime not in snapshot.fixed["FLEET"]:
            yield f"{runtime!r} has a lease, but is not in fleet"


def _check_index(snapshot: Snapshot) -> Iterator[str]:
    """The index lists each runtime that it knows under all of its tenants. It may name runtimes that are gone."""
    known = snapshot.fixed["INDEXED"].keys() & snapshot.fixed["HOMES"].keys()
    for names, index in ((snapshot.assigned, snapshot.assigned_to), (snapshot.steal, snapshot.stolen_by)):
        for runtime in known & names.keys():
            for tenant in names[runtime]:
                if runtime not in index.get(tenant, ()):
                    yield f"{runtime!r} serves {tenant!r}, but the index of dedicated runtimes does not say so"
        for tenant, runtimes in index.items():
            for runtime in known & runtimes.keys():
                if tenant not in names.get(runtime, ()):
                    yield f"the index says that {runtime!r} serves {tenant!r}, but it does not"


def _check_drained(snapshot: Snapshot) -> Iterator[str]:
    """A tenant without live tasks is listed as drained, with the time at which its counts expire."""
    drained = snapshot.fixed["DRAINED"]
    for tenant, packed in snapshot.fixed["COUNTS"].items():
        until = int.from_bytes(packed[-4:], "big")
        if not _live(snapshot.counts_of(tenant)) and drained.get(tenant) != until:
            listed = drained.get(tenant, math.nan)
            yield f"{tenant!r} has no live tasks and its counts expire at {until}, but it is drained until {listed:.0f}"
    for tenant, until in drained.items():
        if tenant not in snapshot.counts and until > snapshot.now:
            yield f"{tenant!r} is drained until {until:.0f}, but has no counts"


def _check_waits(snapshot: Snapshot) -> Iterator[str]:
    """Only live tasks are watched, and only claimed tasks have a cancellation or progress."""
    for task, packed in snapshot.fixed["WATCHERS"].items():
        header = snapshot.records.get(task)
        if header is None or header.state != LIVE:
            yield f"task {task!r} is watched, but {'has ended' if header else 'has no record'}"
        if not msgspec.msgpack.decode(packed):
            yield f"task {task!r} is watched by no runtime"
    claimed = {task for claims in snapshot.claims.values() for task in claims}
    for runtime, cancels in snapshot.cancels.items():
        for task in cancels.keys() - snapshot.claims.get(runtime, {}).keys():
            yield f"task {task!r} will be canceled by {runtime!r}, which has not claimed it"
    yield from (
        f"task {task!r} has progress, but is not claimed" for task in snapshot.fixed["PROGRESS"] if task not in claimed
    )


def _check_dead_letters(snapshot: Snapshot) -> Iterator[str]:
    """The dead letters are the failed tasks whose records exist."""
    listed = {task for task, until in snapshot.fixed["DEAD"].items() if until / 1e6 > snapshot.now}
    failed = {task for task, header in snapshot.records.items() if SETTLED.get(header.state) is TaskState.FAILED}
    yield from (
        f"task {task!r} has failed, but is not a dead letter" for task in failed - snapshot.fixed["DEAD"].keys()
    )
    yield from (f"task {task!r} is a dead letter, but its record is not a failed one" for task in listed - failed)


def _check_deduplication_keys(snapshot: Snapshot) -> Iterator[str]:
    """A task with a key is live, and owns the key or follows its owner. A key without a live task expires."""
    again = {task: text(follower) for task, follower in snapshot.fixed["AGAIN"].items()}
    following = {follower: task for task, follower in again.items()}
    keyed = {task: text(packed[_WINDOW:]) for task, packed in snapshot.fixed["KEYED"].items()}
    for task, key in keyed.items():
        header = snapshot.records.get(task)
        if header is None or header.state != LIVE:
            yield f"task {task!r} has the key {key!r}, but {'has ended' if header else 'has no record'}"
        owner, ttl = snapshot.keys.get(key, ("", 0))
        follows = (owner, ttl) == (following.get(task), -1) and keyed.get(owner) == key
        if (owner, ttl) != (task, -1) and not follows:
            yield f"task {task!r} has the key {key!r}, but the key's task and expiry are {snapshot.keys.get(key)}"
    for key, (task, ttl) in snapshot.keys.items():
        if ttl == -1 and keyed.get(task) != key:
            yield f"the key {key!r} of task {task!r} never expires, but the task has the key {keyed.get(task)!r}"
    holders = {task: text(unpack_holder(packed)) for task, packed in snapshot.fixed["HELD"].items()}
    deferred = {task for task, holder in holders.items() if holder == _FOLLOWER}
    for task, follower in again.items():
        if task not in keyed or keyed.get(follower) != keyed[task] or follower not in deferred:
            yield f"task {follower!r} should run after {task!r}, but has another key, or does not wait for it"
    yield from (f"task {task!r} follows another one, but nobody knows which" for task in deferred - following.keys())


def _moving(snapshot: Snapshot) -> dict[str, str]:
    """Returns how far each tenant is that moves."""
    policies = {tenant: unpack_policy(packed) for tenant, packed in snapshot.fixed["POLICY"].items()}
    return {tenant: policy["moving"] for tenant, policy in policies.items() if "moving" in policy}


def _check_leaving(snapshot: Snapshot) -> Iterator[str]:
    """Only tasks of tenants that have gone are on their way to other shards."""
    moving = _moving(snapshot)
    yield from (
        f"tasks of {tenant!r} are on their way, but it has not gone: {sorted(tasks)}"
        for tenant, tasks in snapshot.leaving.items()
        if moving.get(tenant) != "gone"
    )


def _check_overdue(snapshot: Snapshot, patience: float) -> Iterator[str]:
    """Nothing that maintenance does has been due for longer than ``patience`` seconds."""
    leases, drained = snapshot.fixed["LEASES"], snapshot.fixed["DRAINED"]
    for times, unit, message in (
        (leases, 1000, "the lease of {!r} expired {:.3f} s ago"),
        (snapshot.due, 1000, "task {!r} was due {:.3f} s ago"),
        (drained, 1, "the counts of {!r} should have expired {:.3f} s ago"),
    ):
        for member, score in times.items():
            late = snapshot.now - score / unit
            if late > patience:
                yield message.format(member, late)


def misplaced(snapshot: Snapshot, number: int, layout: Layout) -> Iterator[str]:
    """Yields a message for each tenant that belongs to another shard, and each key outside all shards.

    Ended tasks stay where the tenant was, and while tenants move, others may be there, too.
    """
    for tenant in snapshot.counts:
        live = sum(_live(snapshot.counts_of(tenant)).values())
        places = layout.places(tenant) if layout.growing or not live else [layout.place(tenant)]
        if number not in places:
            yield f"{tenant!r} belongs to shard {layout.place(tenant)}"
    held_up = (tenant for tenant, state in _moving(snapshot).items() if state != "gone" and not layout.growing)
    yield from (f"{tenant!r} is held up, but no tenant moves any more" for tenant in held_up)
    shards = layout.shards
    prefix = snapshot.meta[: snapshot.meta.rindex("/") + 1]
    metas = tuple(f"{prefix}{other}}}" for other in range(shards))
    yield from (f"{key!r} is in none of the {shards} shards" for key in snapshot.others if not key.startswith(metas))
