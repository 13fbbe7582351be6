"""What scripts read of routes, lanes and kinds of runtimes, written again for the audit. All are JSON text."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from fairactor._model.wire import as_text

SEPARATOR: Final = r"\u001f"
"""What separates the fields of a route or of the name of a lane."""
MARK: Final = "\x1f"
"""Among the actors of a kind of runtimes: they serve certain queues only. It also precedes the name of each."""
FILLING: Final = f"{MARK}{MARK}filling"
"""In what is stored about a kind: its ring is not complete yet."""
_LANE: Final = 4  # fields of a route
_ROUTE: Final = re.compile(rb'\["((?:[^"\\]|\\.)*+)"', re.DOTALL)


def route_text(body: bytes) -> str:
    """Returns the route of a live task, from the beginning of its body; '' if there is none."""
    found = _ROUTE.match(body)
    return found[1].decode(errors="surrogateescape") if found else ""


def is_plain(route: str) -> bool:
    """Whether a route is only the name of an actor."""
    return SEPARATOR not in route


def is_lane_of(lane: str, route: str) -> bool:
    """Whether tasks of a route may stand in a lane with a name."""
    fields = route.split(SEPARATOR)[:_LANE]
    actor, queue, version, limits = [*fields, "", "", ""][:_LANE]
    found = [*lane.split(SEPARATOR), "", "", ""][:_LANE]
    wanted, refused, _ = found[2].partition("^")
    return lane == SEPARATOR.join(fields) or (
        bool(refused) and found[:2] == [actor, queue] and wanted == (version or "1") and found[3] == limits
    )


def is_common(kinds: Iterable[Mapping[str, bytes]], route: str) -> bool:
    """Whether the kinds that serve the common lane, and no others, run a route without queue and limits."""
    fields = route.split(SEPARATOR)[:_LANE]
    found = [(serves(kind, ""), serves(kind, SEPARATOR.join(fields))) for kind in kinds]
    same = (True, True) in found and all(common is fits for common, fits in found)
    return same and len(fields) < _LANE and not fields[1]


def serves(kind: Mapping[str, bytes], lane: str) -> bool:
    """Whether runtimes of a kind can run the tasks of a lane."""
    restricted = MARK in kind
    if not lane:
        return not restricted or f"{MARK}default" in kind
    actor, queue, version = [*lane.split(SEPARATOR), "", ""][:3]
    if actor not in kind or (restricted and MARK + (queue or "default") not in kind):
        return False
    own, signature = as_text(kind[actor]).partition(" ")[::2]
    wanted, refused_by = version.partition("^")[::2]
    return int(own) >= int(wanted or 1) and (not refused_by or refused_by != signature)


def limits_of(lane: str, settings: Collection[str]) -> tuple[str, ...]:
    """Returns the limits that tasks of a lane count for, in the order of their line, given the known limits."""
    actor, _, _, names = [*lane.split(SEPARATOR), "", "", ""][:_LANE]
    named = [name for name in names.split(",") if name]
    return (*named, *([actor] if lane and actor in settings and actor not in named else []))


def is_held_up(policy: Mapping[str, Any]) -> bool:
    """Returns whether no task of a tenant may start, because it is paused or moves to another shard."""
    return bool(policy.get("paused") or policy.get("moving"))
