"""Makes scripts fail at each of their calls to the server, and checks the state of the shard afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import attrs

from fairactor.errors import ServerError

from .populated import ENDS, PopulatedShard, Transition, stats


@attrs.frozen
class Case:
    """A script to break off, and how the outcome may then differ from that of a complete run."""

    script: str
    transition: Transition
    then: Transition = lambda _: None
    dropped: frozenset[str] = frozenset()
    """Live tasks that may vanish without a trace."""
    uncounted: int = 0
    """How far counts of ended tasks may be off, because a task left no record or was sent again."""
    deaths: int = 0
    """How far the delivery count of a task may be off."""
    every: int = 1
    """At each how many-th of its calls the script is broken off."""
    untidy: bool = False
    """Whether the audit may find something until the call is sent again."""


def wanted(populated: PopulatedShard, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the state after a complete run: right after it, and after the transition that follows."""
    populated.restore()
    case.transition(populated)
    done = populated.gather()
    case.then(populated)
    return done, populated.gather()


def compare(found: dict[str, Any], want: dict[str, Any], case: Case) -> None:
    """Asserts that the shard has reached the wanted state."""
    for part in want.keys() - {"ended", "deliveries"}:
        assert found[part] == want[part], f"{part}: {_difference(found[part], want[part])}"
    for task, deliveries in want["deliveries"].items():
        assert abs(found["deliveries"][task] - deliveries) <= case.deaths, task
    for tenant in want["ended"].keys() - {"o"}:  # all totals of "o" may be forgotten by now
        for state in ENDS:
            counted, there = (each["ended"].get(tenant, {}).get(state, 0) for each in (found, want))
            assert counted - there <= case.uncounted, f"{state} of {tenant!r} is counted twice"
            assert there - counted <= case.uncounted or not tenant  # a repair counts only kept records in the total


def _difference(found: Any, want: Any) -> Any:
    """Returns what differs, as (found, wanted)."""
    if not isinstance(found, dict):
        return found, want
    return {name: (found.get(name), want.get(name)) for name in found | want if found.get(name) != want.get(name)}


def breaking_points(populated: PopulatedShard, case: Case) -> Iterator[tuple[int, ServerError]]:
    """Breaks the script off at each call in turn; yields the call's number and the error, with the shard left as is."""
    for at in count(1, case.every):
        populated.restore()
        error = populated.breaks(case.script, at, case.transition)
        if error is None:
            return
        yield at, error


def break_everywhere(populated: PopulatedShard, case: Case) -> bool:
    """Breaks a script off at each of its calls, and checks what the next calls make of it.

    Returns whether it left the shard half written, at any of them.
    """
    done, want = wanted(populated, case)
    populated.restore()
    before = populated.gather()
    tore = 0
    for at, _ in breaking_points(populated, case):
        if populated.torn:
            tore += 1
            populated.insist(stats)  # any script that comes next triggers the repair
            assert populated.live - populated.check().records.keys() <= case.dropped, f"lost when it broke off at {at}"
        elif not case.untidy:
            assert populated.gather() in (before, done), f"neither done nor torn when it broke off at {at}"
        populated.insist(case.transition)
        case.then(populated)
        compare(populated.gather(), want, case)
    return bool(tore)
