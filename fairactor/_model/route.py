"""Routes: where a task can run. The route is the first string of a task's call.

A plain route is the actor's name. Otherwise it has fields, joined by U+001F: actor, queue, version, limits, costs. The
queue is empty for the default one, and the version for 1; limits and costs are joined by commas, in the order of the
names. Trailing empty fields are left out. The first four fields are the task's **lane**: the same runtimes can run its
tasks. In the name of a lane a ``^`` and a signature may follow the version: handlers with this signature have refused
the arguments of its tasks, so it takes others.

Scripts compare routes and lanes as the JSON text between the quotation marks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from fairactor._util.checks import DEFAULT_QUEUE, shown
from fairactor.errors import ConfigurationError

SEPARATOR: Final = "\x1f"
PACKED_SEPARATOR: Final = rb"\u001f"
"""The separator in JSON text."""
LONGEST: Final = 1800
"""The most bytes of a route in JSON. Scripts read that much of a record, and its header."""
_SURELY_SHORT: Final = LONGEST // 6  # characters: JSON writes each in at most six bytes
MOST_VERSIONS: Final = 999_999_999
_REFUSED: Final = "^"
# The beginning of a call whose route has more than the actor. Other escapes may stand in the name.
_ROUTED: Final = re.compile(rb'\["(?:[^"\\]++|\\(?!u001f).)*+\\u001f', re.DOTALL)
_VERSION: Final = re.compile(r"[0-9]{1,9}")
FIRST: Final = 8192
"""The bytes of a call in which the first separator stands, if its route has one."""


class Route(NamedTuple):
    """The fields of a route, or of a lane."""

    actor: str
    queue: str = DEFAULT_QUEUE
    version: int = 1
    refused_by: str = ""
    """The signature of the handlers that have refused the arguments; only lanes say so."""
    limits: Sequence[str] = ()
    """The names of the limits that a start counts for, sorted."""
    costs: Sequence[float] = ()
    """What a start takes of each of them."""

    @property
    def needs(self) -> str:
        """What a process does that can run such tasks, for messages: "has registered an actor 'mail' and …"."""
        needs = []
        if self.actor:
            version = f" of version {self.version} or later" if self.version != 1 else ""
            signature = " that takes their arguments" if self.refused_by else ""
            needs.append(f"has registered an actor {self.actor!r}{version}{signature}")
        if not self.actor or self.queue != DEFAULT_QUEUE:
            needs.append(f"serves the queue {self.queue!r}")
        return " and ".join(needs)


def pack_route(
    actor: str, queue: str | None = None, version: int = 1, limits: Mapping[str, float] | None = None
) -> str:
    """Packs a route. The names were checked, so none contains a separator.

    Args:
        actor: the actor's name.
        queue: the queue; None for the default one.
        version: the version of the actor.
        limits: what a start takes of each limit, by name.

    Raises:
        ConfigurationError: the names are too long together.
    """
    route = _pack(actor, queue, version, limits)
    if len(route) > _SURELY_SHORT:
        from json import dumps  # few programs need it here

        if (length := len(dumps(route, ensure_ascii=False).encode()) - 2) > LONGEST:
            raise ConfigurationError(
                f"actor {shown(actor)}: its name, with those of the queue and of all limits of the task, is {length} "
                f"bytes long as JSON; the limit is {LONGEST}: give shorter names"
            )
    return route


def _pack(actor: str, queue: str | None, version: int, limits: Mapping[str, float] | None) -> str:
    if version == 1 and not limits and (queue is None or queue == DEFAULT_QUEUE):
        return actor
    names = sorted(limits or ())
    fields = [
        actor,
        "" if queue is None or queue == DEFAULT_QUEUE else queue,
        "" if version == 1 else str(version),
        ",".join(names),
        ",".join(_number(limits[name]) for name in names) if limits else "",
    ]
    return SEPARATOR.join(fields).rstrip(SEPARATOR)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


@lru_cache(maxsize=512)
def actor_of(route: str) -> str:
    """Returns the actor of a route. It parses nothing else."""
    at = route.find(SEPARATOR)
    return route if at < 0 else route[:at]


def queue_of(route: str) -> str:
    """Returns the queue of a route. It parses nothing else."""
    at = route.find(SEPARATOR)
    return DEFAULT_QUEUE if at < 0 else route[at + 1 :].partition(SEPARATOR)[0] or DEFAULT_QUEUE


def read_route(route: str) -> Route:
    """Reads a route. What cannot be read of it, because it was damaged, is as if it were not given."""
    actor, *others = route.split(SEPARATOR)
    queue, version, limits, costs = (*others, "", "", "", "")[:4]
    version, _, refused_by = version.partition(_REFUSED)
    return Route(
        actor,
        queue or DEFAULT_QUEUE,
        int(version) if _VERSION.fullmatch(version) else 1,
        refused_by,
        tuple(limits.split(",")) if limits else (),
        tuple(map(_cost, costs.split(","))) if costs else (),
    )


def _cost(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0


def has_route(body: bytes) -> bool:
    """Whether the call at the beginning of a body has a route with more than the actor."""
    return _ROUTED.match(body) is not None
