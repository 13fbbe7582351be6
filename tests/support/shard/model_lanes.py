"""The part of the model that knows which runtimes can run which tasks: kinds of runtimes, lanes of tasks."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence

import attrs

SEPARATOR = r"\u001f"
"""What separates the fields of a route, as JSON has it."""
DEFAULT = "default"
_ROUTE = re.compile(r'\["((?:[^"\\]|\\.)*)"', re.DOTALL)


def route_in(body: bytes) -> str:
    """Returns the route in the body of a live task, as JSON text; '' if there is none."""
    found = _ROUTE.match(body.decode(errors="surrogateescape"))
    return found[1] if found else ""


def is_routed(body: bytes) -> bool:
    """Whether a task has a route with more than its actor."""
    return SEPARATOR in route_in(body)


def lane_for_others(route: str, signature: str) -> str:
    """Returns the lane of tasks whose arguments do not fit handlers with a signature."""
    actor, queue, version, limits = ([*route.split(SEPARATOR), "", "", ""])[:4]
    return SEPARATOR.join([actor, queue, f"{version or 1}^{signature}", *([limits] if limits else [])])


@attrs.frozen
class Kind:
    """What runtimes can run."""

    actors: Mapping[str, str]
    """actor, as JSON text -> its version, and perhaps a signature"""
    queues: Collection[str] | None = None
    """The queues that they serve; None for all."""

    def serves(self, lane: str) -> bool:
        if lane == "":
            return self.queues is None or DEFAULT in self.queues
        actor, queue, version = ([*lane.split(SEPARATOR), "", ""])[:3]
        if self.queues is not None and (queue or DEFAULT) not in self.queues:
            return False
        own, _, signature = self.actors.get(actor, "0").partition(" ")
        wanted, _, refused_by = version.partition("^")
        return int(own) >= int(wanted or 1) and (refused_by == "" or refused_by != signature)

    def signature(self, actor: str) -> str:
        return self.actors.get(actor, "").partition(" ")[2]


ALL = Kind({"f": "1 a1", "g": "1"})
"""The kind of runtimes that can run all that has no route of its own."""


Routing = tuple[set[str], bool]
"""The actors whose tasks have lanes of their own, and whether scripts look at lanes."""


@attrs.define
class Lanes:
    """The kinds of runtimes that there are, and what follows from them."""

    kinds: dict[str, Kind] = attrs.Factory(lambda: {"0": Kind({})})  # by number, in order
    kind_of: dict[str, str] = attrs.Factory(dict)  # runtime -> number
    known: bool = False  # whether any runtime has joined
    routes: set[str] = attrs.Factory(set)  # actors whose tasks have lanes of their own
    unserved: dict[str, float] = attrs.Factory(dict)  # lane with queued tasks -> since when nobody serves it, or 0
    sorting: bool = False  # whether tasks of the common lane have to move to others, because nobody serves it
    used: bool = False  # whether scripts look at lanes
    routed: bool = False  # whether a task with a route has ever been sent
    made: int = 0  # the highest number of a kind

    @property
    def routing(self) -> Routing:
        return self.routes, self.used

    @routing.setter
    def routing(self, routing: Routing) -> None:
        self.routes, self.used = set(routing[0]), routing[1]

    def of_route(self, route: str) -> str:
        """Returns the lane of the tasks of a route."""
        if SEPARATOR in route:
            lane = SEPARATOR.join(route.split(SEPARATOR)[:4])
            served = [(kind.serves(""), kind.serves(lane)) for kind in self.kinds.values()]
            same = (True, True) in served and all(common is fits for common, fits in served)
            is_apart = lane.count(SEPARATOR) == 3 or lane.split(SEPARATOR)[1] != ""
            return "" if same and not is_apart else lane
        serves_default = any(kind.serves("") for kind in self.kinds.values())
        return route if route in self.routes or not serves_default else ""

    def serves(self, kind: str, lane: str) -> bool:
        return self.kinds[kind].serves(lane)

    def is_served(self, lane: str) -> bool:
        return any(kind.serves(lane) for kind in self.kinds.values())

    def add_route(self, route: str) -> None:
        """Gives the tasks of an actor a lane of their own, because a runtime lacks it."""
        if route and SEPARATOR not in route:
            self.routes.add(route)

    # Kinds that come and go

    def join(self, runtime: str, kind: Kind) -> tuple[str, bool, Sequence[str]]:
        """Returns the number of the kind, whether it has a ring to be filled, and the kinds that go."""
        living = set(self.kind_of.values())
        number = next((n for n, known in self.kinds.items() if known == kind), None) if self.known else None
        found = number
        if number is None and not living and not self.used and kind.queues is None:
            number = found = next(iter(self.kinds))
        elif number is None:
            number = str(self.made + 1)
        gone = [other for other in self.kinds if other != number and other not in living]
        is_new = self.kinds.get(number) != kind
        self.kinds[number] = kind
        for other in gone:
            del self.kinds[other]
        self.kinds = dict(sorted(self.kinds.items(), key=lambda named: int(named[0])))
        self.kind_of[runtime] = number
        self.known, self.made = True, max(self.made, int(number))
        if is_new or gone:
            others = [other for known, other in self.kinds.items() if known != number]
            compares_all = gone or (others and kind.serves("") and not any(other.serves("") for other in others))
            self.revise(() if compares_all else self.routes)
        return number, found is None, gone

    def leave(self, runtime: str) -> str | None:
        """Returns the kind that goes with its last runtime, if others stay."""
        kind = self.kind_of.pop(runtime, None)
        living = set(self.kind_of.values())
        if kind is None or kind in living or not living:
            return None
        gone = self.kinds.pop(kind)
        self.revise(gone.actors)
        return kind

    def revise(self, kept: Collection[str] = ()) -> None:
        """Decides again which actors have lanes of their own. Those in ``kept`` keep theirs: tasks may come back."""
        known = {actor for kind in self.kinds.values() for actor in kind.actors}
        common = [kind for kind in self.kinds.values() if kind.serves("")]
        lacked = {actor for kind in common for actor in known if actor not in kind.actors}
        self.routes = lacked | {route for route in self.routes if route in self.unserved or route in kept}
        self.sorting = not common
        restricted = any(kind.queues is not None for kind in self.kinds.values())
        self.used = bool(self.routed or self.unserved or restricted or len(self.kinds) > 1 or self.routes)
        self.update(self.unserved.keys())

    def update(self, lanes: Collection[str]) -> None:
        """Notes which lanes have queued tasks, and which of them are served."""
        for lane in [lane for lane in self.unserved if lane not in lanes]:
            del self.unserved[lane]
        for lane in lanes:
            since = self.unserved.get(lane, 0.0)
            self.unserved[lane] = 0.0 if self.is_served(lane) else since or math.nan
        self.used |= bool(self.unserved or self.routes)
