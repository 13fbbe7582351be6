"""The part of the audit that checks kinds of runtimes, lanes of tasks, and the rings of the kinds."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fairactor._model.wire import GROUP_MARK

from .routes import FILLING, MARK, is_common, is_held_up, is_lane_of, is_plain, limits_of, serves
from .snapshot import Snapshot, text


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
    numbers, meta = snapshot.numbers, snapshot.fixed["META"]
    digests = sorted(text(kind) for kind in snapshot.fixed["KIND_NUMBERS"].values())
    if meta.get("compat") == b"1":
        return
    if not set(digests) <= set(numbers) or len(set(digests)) < len(digests):
        yield f"the digests belong to the kinds {digests}, and there are {numbers}"
    stored = {name.partition(":")[0] for name in snapshot.kind_group_rings}
    for known in (snapshot.kinds, snapshot.kind_rings, snapshot.kind_groups, snapshot.kind_idle):
        stored.update(known)
    if left := stored - set(numbers):
        yield f"something is stored about the kinds {sorted(left)}, and there are {numbers}"
    needs = len(numbers) > 1 or snapshot.fixed["ROUTES"] or snapshot.fixed["LANES"]
    if (needs or any(MARK in kind for kind in snapshot.kinds.values())) and meta.get("lanes") != b"1":
        yield "there are lanes, but scripts do not look at them"
    yield from _check_runtimes(snapshot, numbers)


def _check_runtimes(snapshot: Snapshot, numbers: list[str]) -> Iterator[str]:
    """Runtimes are of known kinds, and each of several kinds has runtimes. Those of none are asked what they are."""
    kind_of = snapshot.fixed["KIND_OF"]
    for runtime, kind in kind_of.items():
        if text(kind) not in numbers:
            yield f"{runtime!r} is of kind {text(kind)}, and there are {numbers}"
    if len(numbers) > 1 and (empty := set(numbers) - {text(kind) for kind in kind_of.values()}):
        yield f"the kinds {sorted(empty)} have no runtimes"


def _check_rings(snapshot: Snapshot) -> Iterator[str]:
    """A tenant is on the ring of a kind exactly if it has work for it, and no limit holds it back."""
    throttled = snapshot.fixed["THROTTLED"]
    for number in snapshot.numbers:
        kind, ring = snapshot.kinds.get(number, {}), snapshot.tenants_on_ring(number)
        name = f"the ring{_kind(number)}"
        yield from _check_groups(snapshot, number, name)
        served = {lane for lane in {lane for lane, _ in snapshot.mailboxes} if serves(kind, lane)}
        limited = {lane for lane in served if limits_of(lane, snapshot.fixed["LIMIT_SETTINGS"])}
        works = {tenant for lane, tenant in snapshot.mailboxes if lane in served - limited}
        # A turn brings tenants onto the ring whose limits let them start; some have not started yet. If the settings of
        # limits have changed, tenants stand where they stood before until a turn meets them.
        waits = {tenant for lane, tenant in snapshot.mailboxes if lane in limited}
        in_lines = {tenant for line in snapshot.tenants_in_lines(number).values() for tenant in line}
        for tenant in ring.keys() | throttled.keys() | snapshot.counts.keys() | works:
            counts, policy = snapshot.counts_of(tenant), snapshot.effective(tenant)
            lets = counts.started < policy.get("concurrency", math.inf) and not is_held_up(policy)
            ready = lets and tenant in works
            apart = tenant in throttled or tenant in in_lines or FILLING in kind
            if ready and tenant not in ring and not apart:
                yield f"{tenant!r} can be served, but is neither on {name} nor throttled"
            in_place = ready or (lets and tenant in waits)
            wrongly_throttled = tenant in throttled and not (lets and tenant in snapshot.queues)
            if (tenant in ring and not in_place) or (not ready and wrongly_throttled):
                yield f"{tenant!r} cannot be served, but is on {name} or throttled"
            if tenant in throttled and (tenant in ring or "rate" not in policy):
                yield f"{tenant!r} is throttled, but {f'also on {name}' if tenant in ring else 'has no rate'}"


def _check_groups(snapshot: Snapshot, number: str, name: str) -> Iterator[str]:
    """A tenant is on the ring of its group, and a group with work is on the ring of the kind."""
    ring, rings, times = snapshot.root_ring(number), snapshot.group_rings(number), snapshot.group_times(number)
    marked = {member.removeprefix(GROUP_MARK) for member in ring if member.startswith(GROUP_MARK)}
    if not rings.keys() == marked == times.keys():
        yield f"groups differ: {set(rings)} have work, {marked} are on {name}, {set(times)} have a virtual time"
    for group, members in [(None, ring), *rings.items()]:
        for tenant in members:
            if not tenant.startswith(GROUP_MARK) and snapshot.policy(tenant).get("group") != group:
                own = snapshot.policy(tenant).get("group")
                yield f"{tenant!r} belongs to group {own!r}, but is on the ring of group {group!r}{_kind(number)}"


def _kind(number: str) -> str:
    return "" if number == "0" else f" of kind {number}"


def _check_places(snapshot: Snapshot) -> Iterator[str]:
    """Each queued task is in the lane of its route, or in the common one, if all kinds can run what is there."""
    meta, routes = snapshot.fixed["META"], snapshot.fixed["ROUTES"]
    is_sorted = "unsorted" not in meta and meta.get("compat") != b"1"
    for (lane, _), mailbox in snapshot.mailboxes.items():
        for task in mailbox:
            route = snapshot.routes.get(task, "")
            if lane and not is_lane_of(lane, route):
                yield f"task {task!r} with the route {route!r} is in the lane {lane!r}"
            elif (
                not lane
                and is_sorted
                and not (route not in routes if is_plain(route) else is_common(snapshot.kinds.values(), route))
            ):
                yield f"task {task!r} is in the common lane, but tasks of {route!r} have their own"


def _check_lists(snapshot: Snapshot) -> Iterator[str]:
    """The lists of lanes, with the places of the first tasks, and of the tenants in them agree with the mailboxes."""
    by_tenant: dict[str, dict[str, float]] = {}
    by_lane: dict[str, set[str]] = {}
    for (lane, tenant), mailbox in snapshot.mailboxes.items():
        if lane:
            by_tenant.setdefault(tenant, {})[lane] = min(mailbox.values())
            by_lane.setdefault(lane, set()).add(tenant)
    for tenant in snapshot.lanes_of.keys() | by_tenant:
        first, listed_first = by_tenant.get(tenant, {}), snapshot.lanes_of.get(tenant, {})
        if first != listed_first:
            yield f"{tenant!r} has first tasks at {first} in its lanes, and lanes-of has them at {listed_first}"
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
