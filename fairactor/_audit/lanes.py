"""The part of the audit that checks kinds of runtimes, lanes of tasks, and the rings of the kinds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from fairactor._model.wire import GROUP_MARK

from .routes import MARK, is_lane_of, is_plain, serves
from .snapshot import Snapshot, text

FILLING: Final = f"{MARK}{MARK}filling"
"""In what is stored about a kind: its ring is not complete yet."""


def check_lanes(snapshot: Snapshot) -> Iterator[str]:
    """Kinds, lanes, and what stands in them agree with each other."""
    yield from _check_kinds(snapshot)
    yield from _check_rings(snapshot)
    if any(lane for lane, _ in snapshot.mailboxes) or snapshot.fixed["META"].get("lanes") == b"1":
        yield from _check_places(snapshot)
    yield from _check_lists(snapshot)
    yield from _check_served(snapshot)


def _check_kinds(snapshot: Snapshot) -> Iterator[str]:
    """The kinds that are listed are those that are stored, and each has runtimes, unless it is the only one."""
    numbers, kind_of = snapshot.numbers, {who: text(kind) for who, kind in snapshot.fixed["KIND_OF"].items()}
    meta, digests = snapshot.fixed["META"], [text(kind) for kind in snapshot.fixed["KIND_NUMBERS"].values()]
    for runtime, kind in kind_of.items():
        if kind not in numbers:
            yield f"{runtime!r} is of kind {kind}, and there are {numbers}"
        if runtime not in snapshot.fixed["LEASES"]:
            yield f"{runtime!r} has no lease, but is in kind_of"
    if meta.get("compat") == b"1":
        return
    for runtime, until in snapshot.fixed["LEASES"].items():
        if digests and runtime not in kind_of and until > _NO_LEASE:
            yield f"{runtime!r} has a lease, but is of no kind"
    if digests and sorted(digests) != sorted(numbers):
        yield f"the digests belong to the kinds {sorted(digests)}, and there are {sorted(numbers)}"
    stored: set[str] = snapshot.kinds.keys() | snapshot.kind_rings.keys() | snapshot.kind_groups.keys()
    stored |= snapshot.kind_idle.keys() | {name.partition(":")[0] for name in snapshot.kind_group_rings}
    if left := stored - set(numbers):
        yield f"something is stored about the kinds {sorted(left)}, and there are {numbers}"
    if len(numbers) > 1 and (empty := set(numbers) - set(kind_of.values())):
        yield f"the kinds {sorted(empty)} have no runtimes"
    needs = len(numbers) > 1 or snapshot.fixed["ROUTES"] or snapshot.fixed["LANES"]
    if (needs or any(MARK in kind for kind in snapshot.kinds.values())) and meta.get("lanes") != b"1":
        yield "there are lanes, but scripts do not look at them"


_NO_LEASE: Final = 4  # as in lua/lib/base.lua


def _check_rings(snapshot: Snapshot) -> Iterator[str]:
    """A tenant is on the ring of a kind exactly if it has work for it, and no limit holds it back."""
    throttled = snapshot.fixed["THROTTLED"]
    for number in snapshot.numbers:
        kind, ring = snapshot.kinds.get(number, {}), snapshot.tenants_on_ring(number)
        name = "the ring" if snapshot.numbers == ["0"] else f"the ring of kind {number}"
        yield from _check_groups(snapshot, number, name)
        served = {lane for lane in {lane for lane, _ in snapshot.mailboxes} if serves(kind, lane)}
        works = {tenant for lane, tenant in snapshot.mailboxes if lane in served}
        for tenant in ring.keys() | throttled.keys() | snapshot.counts.keys() | works:
            counts, policy = snapshot.counts_of(tenant), snapshot.effective(tenant)
            lets = counts.started < policy.get("concurrency", math.inf) and not policy.get("paused")
            ready = lets and tenant in works
            if ready and tenant not in ring and tenant not in throttled and FILLING not in kind:
                yield f"{tenant!r} can be served, but is neither on {name} nor throttled"
            if tenant in ring and not ready:
                yield f"{tenant!r} cannot be served, but is on {name}"
            if tenant in throttled and (tenant in ring or "rate" not in policy):
                yield f"{tenant!r} is throttled, but {f'also on {name}' if tenant in ring else 'has no rate'}"
            if tenant in throttled and not (lets and tenant in snapshot.queues):
                yield f"{tenant!r} is throttled, but its rate is not what holds it back"


def _check_groups(snapshot: Snapshot, number: str, name: str) -> Iterator[str]:
    """A tenant is on the ring of its group, and a group with work is on the ring of the kind."""
    ring, rings, times = snapshot.root_ring(number), snapshot.group_rings(number), snapshot.group_times(number)
    marked = {member.removeprefix(GROUP_MARK) for member in ring if member.startswith(GROUP_MARK)}
    if not rings.keys() == marked == times.keys():
        yield f"groups differ: {set(rings)} have work, {marked} are on {name}, {set(times)} have a virtual time"
    for group, members in [(None, ring), *rings.items()]:
        for tenant in members:
            if not tenant.startswith(GROUP_MARK) and snapshot.policy(tenant).get("group") != group:
                where = name if group is None else f"the ring of group {group!r}"
                yield f"{tenant!r} is on {where}, but its group is {snapshot.policy(tenant).get('group')!r}"


def _check_places(snapshot: Snapshot) -> Iterator[str]:
    """Each queued task is in the lane of its route, or, if that is only an actor, perhaps in the common one."""
    meta, routes = snapshot.fixed["META"], snapshot.fixed["ROUTES"]
    for (lane, _), mailbox in snapshot.mailboxes.items():
        for task in mailbox:
            route = snapshot.routes.get(task, "")
            if lane and not is_lane_of(lane, route):
                yield f"task {task!r} with the route {route!r} is in the lane {lane!r}"
            elif not lane and not is_plain(route) and meta.get("compat") != b"1":
                yield f"task {task!r} with the route {route!r} is in the common lane"
            elif not lane and route in routes and meta.get("unsorted") != b"1":
                yield f"task {task!r} is in the common lane, but tasks of {route!r} have their own"


def _check_lists(snapshot: Snapshot) -> Iterator[str]:
    """The lists of lanes and of the tenants in them agree with the mailboxes."""
    by_tenant: dict[str, set[str]] = {}
    by_lane: dict[str, set[str]] = {}
    for lane, tenant in snapshot.mailboxes:
        if lane:
            by_tenant.setdefault(tenant, set()).add(lane)
            by_lane.setdefault(lane, set()).add(tenant)
    if (listed := {tenant: set(lanes) for tenant, lanes in snapshot.lanes_of.items()}) != by_tenant:
        yield f"tenants have tasks in the lanes {by_tenant}, and lanes-of has {listed}"
    if (listed := {lane: set(tenants) for lane, tenants in snapshot.in_lane.items()}) != by_lane:
        yield f"lanes have tasks of the tenants {by_lane}, and in-lane has {listed}"
    if (lanes := snapshot.fixed["LANES"].keys()) != by_lane.keys():
        yield f"the lanes {set(by_lane)} have tasks, but {set(lanes)} are listed"


def _check_served(snapshot: Snapshot) -> Iterator[str]:
    """The lanes say whether a kind serves them, and actors that some kinds lack have lanes of their own."""
    for lane, since in snapshot.fixed["LANES"].items():
        served = any(serves(kind, lane) for kind in snapshot.kinds.values())
        if served is not (since == b"0"):
            yield f"the lane {lane!r} is {'' if served else 'not '}served, but is listed with {text(since)!r}"
    actors = {actor for kind in snapshot.kinds.values() for actor in kind if not actor.startswith(MARK)}
    for number, kind in snapshot.kinds.items():
        lacked = actors - kind.keys() - snapshot.fixed["ROUTES"].keys() if serves(kind, "") else set()
        if lacked:
            yield f"kind {number} lacks the actors {sorted(lacked)}, but their tasks have no lanes of their own"
