"""Scripts that are made to fail at each of their calls to the server, and what has to hold afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import attrs

from fairactor.errors import ServerError

from .populated import (
    ENDS,
    PopulatedShard,
    Transition,
)


@attrs.frozen
class Case:
    """A script to break off, and how it may be afterwards that it would not be without."""

    script: str
    transition: Transition
    then: Transition = lambda _: None
    dropped: frozenset[str] = frozenset()
    """Live tasks of which it leaves nothing."""
    uncounted: int = 0
    """How many that ended may be counted wrongly: those that left no record, or were sent again."""
    deaths: int = 0
    """How many deliveries of a task may be counted wrongly."""
    untidy: bool = False
    """Whether the audit may find something until it is sent again."""


def wanted(populated: PopulatedShard, case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """What it comes to where nothing breaks off: at once, and with what comes after it."""
    populated.restore()
    case.transition(populated)
    done = populated.gather()
    case.then(populated)
    return done, populated.gather()


def compare(found: dict[str, Any], want: dict[str, Any], case: Case) -> None:
    """Asserts that it has come to what it should have."""
    for part in want.keys() - {"ended", "deliveries"}:
        assert found[part] == want[part], part
    for task, deliveries in want["deliveries"].items():
        assert abs(found["deliveries"][task] - deliveries) <= case.deaths, task
    for tenant in want["ended"].keys() - {"o"}:  # of which all may be forgotten by now
        for state in ENDS:
            counted, there = (each["ended"].get(tenant, {}).get(state, 0) for each in (found, want))
            assert counted - there <= case.uncounted, f"{state} of {tenant!r} is counted twice"
            assert there - counted <= case.uncounted or not tenant  # of the total, only what is kept is counted anew


def breaking_points(populated: PopulatedShard, case: Case) -> Iterator[tuple[int, ServerError]]:
    """The shard is as it is when the script breaks off, at one call after the other."""
    for at in count(1):
        populated.restore()
        error = populated.breaks(case.script, at, case.transition)
        if error is None:
            return
        yield at, error
