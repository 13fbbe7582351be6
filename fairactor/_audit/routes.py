"""What scripts read of routes, lanes and kinds of runtimes, written again for the audit. All are JSON text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

SEPARATOR: Final = r"\u001f"
"""What separates the fields of a route or of the name of a lane."""
MARK: Final = "\x1f"
"""Among the actors of a kind of runtimes: they serve certain queues only. It also precedes the name of each."""
_LANE: Final = 4  # fields of a route
_ROUTE: Final = re.compile(rb'\["((?:[^"\\]|\\.)*+)"', re.DOTALL)
_VERSION: Final = re.compile(r"(\d+)(!?)")


def route_text(body: bytes) -> str:
    """Returns the route of a live task, from the beginning of its body; '' if there is none."""
    found = _ROUTE.match(body)
    return found[1].decode(errors="surrogateescape") if found else ""


def is_plain(route: str) -> bool:
    """Whether a route is only the name of an actor."""
    return SEPARATOR not in route


def lanes_of(route: str) -> set[str]:
    """Returns the lanes with a name in which tasks of a route may stand."""
    fields = route.split(SEPARATOR)[:_LANE]
    actor, queue, version, limits = [*fields, "", "", ""][:_LANE]
    exact = [actor, queue, f"{version or 1}!", *([limits] if limits else [])]
    return {SEPARATOR.join(fields), SEPARATOR.join(exact)}


def serves(kind: Mapping[str, bytes], lane: str) -> bool:
    """Whether runtimes of a kind can run the tasks of a lane."""
    restricted = MARK in kind
    if not lane:
        return not restricted or f"{MARK}default" in kind
    actor, queue, version = [*lane.split(SEPARATOR), "", ""][:3]
    if actor not in kind or (restricted and MARK + (queue or "default") not in kind):
        return False
    found = _VERSION.match(version)
    wanted, exact = (int(found[1]), bool(found[2])) if found else (1, False)
    return int(kind[actor]) == wanted if exact else int(kind[actor]) >= wanted
