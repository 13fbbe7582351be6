"""The part of the audit that checks limits and the lines of tenants that wait for them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, Final

from fairactor._model.wire import GROUP_MARK, unpack_mark, unpack_policy

from .routes import FILLING, is_held_up, limits_of, serves
from .snapshot import Snapshot, text

APART: Final = "\x1f"
"""Between the parts of the name of a line: the number of a kind, and limits; and between a limit and a tenant."""


def check_limits_beside(snapshot: Snapshot, lowered: Collection[str]) -> Iterator[str]:
    """Limits count what runs, and nobody who waits for one is forgotten."""
    yield from _check_running(snapshot, lowered)
    yield from _check_lists(snapshot)
    yield from _check_lines(snapshot)


def _settings(snapshot: Snapshot, limit: str) -> dict[str, Any]:
    own = unpack_policy(snapshot.fixed["LIMIT_SETTINGS"].get(limit, b""))
    return {**(own.get("declared") or {}), **own}


def _check_running(snapshot: Snapshot, lowered: Collection[str]) -> Iterator[str]:
    """The tasks that run are counted, and not more run than a limit allows."""
    running = Counter(
        text(limit)
        for claims in snapshot.claims.values()
        for mark in claims.values()
        for limit in unpack_mark(mark).taken
    )
    counted = {limit: int(number) for limit, number in snapshot.fixed["LIMIT_STARTED"].items()}
    if counted != running:
        yield f"of the limits {dict(running)} tasks run, but {counted} are counted"
    for limit, number in running.items():
        settings = _settings(snapshot, limit.partition(APART)[0])
        applies = (settings.get("per") == "tenant") is (APART in limit)
        if applies and number > settings.get("concurrency", math.inf) and limit not in lowered:
            yield f"{number} tasks run that count for {limit!r}, but its concurrency is {settings['concurrency']:g}"


def _check_lists(snapshot: Snapshot) -> Iterator[str]:
    """The lists of lines are those of the lines in which anybody waits."""
    listed = {kind + APART + limits for kind, lines in snapshot.lines.items() for limits in lines}
    if listed != snapshot.line.keys():
        yield f"the lines {sorted(snapshot.line)} have tenants, but {sorted(listed)} are listed"
    by_limit: dict[str, set[str]] = {}
    for line in snapshot.line:
        for limit in line.split(APART)[1:]:
            by_limit.setdefault(limit, set()).add(line)
    if (found := {limit: set(lines) for limit, lines in snapshot.lines_of.items()}) != by_limit:
        yield f"limits have the lines {by_limit}, but {found} are listed"
    for line, ring in snapshot.line.items():
        groups = {member.removeprefix(GROUP_MARK) for member in ring if member.startswith(GROUP_MARK)}
        rings = {name.removeprefix(f"{line}:") for name in snapshot.line_group if name.startswith(f"{line}:")}
        if groups != rings:
            yield f"the groups {groups} stand in the line {line!r}, but {rings} have tenants there"


def _check_lines(snapshot: Snapshot) -> Iterator[str]:
    """A tenant with work that needs limits stands in their line, or its own limits hold it back."""
    throttled, held = snapshot.fixed["THROTTLED"], snapshot.fixed["HELD_BACK"]
    limited = snapshot.fixed["LIMIT_SETTINGS"]
    for number in snapshot.numbers:
        kind, waiting = snapshot.kinds.get(number, {}), set().union(*snapshot.tenants_in_lines(number).values())
        ring = snapshot.tenants_on_ring(number)
        for lane, tenant in snapshot.mailboxes:
            limits = limits_of(lane, limited) if serves(kind, lane) else ()
            counts, policy = snapshot.counts_of(tenant), snapshot.effective(tenant)
            lets = counts.started < policy.get("concurrency", math.inf) and not is_held_up(policy)
            stands = tenant in waiting or tenant in held or tenant in throttled
            # If the limit of an actor is new, a turn finds its tenants where they stood before.
            if limits and lets and not stands and tenant not in ring and FILLING not in kind:
                where = f"in the lane {lane!r}, but stands in no line for kind {number}"
                yield f"{tenant!r} waits for the limits {limits} {where}"
