"""What runtimes say of themselves: where they run, what they run, and how their workers fare."""

from __future__ import annotations

from collections.abc import Sequence

import attrs


@attrs.frozen
class Pulse:
    """How the workers of a runtime fare. It reports this every five seconds, or three times in a lease."""

    busy: int
    """How many workers run a task."""
    ready: int
    """How many tasks it has claimed that have not started."""
    oldest_run: float
    """The seconds that the oldest of the running tasks has run."""
    newest_run: float
    """The seconds that the newest of the running tasks has run."""
    usual_run: float | None
    """The seconds that tasks have run lately, on average; None if none has ended yet."""


@attrs.frozen
class RuntimeInfo:
    """A runtime that holds a lease."""

    name: str
    host: str
    pid: int
    workers: int
    actors: Sequence[str]
    lease_left: float
    """The seconds until its lease expires. Below 0 the runtime counts as dead, and others will take its tasks."""
    pulse: Pulse | None = None
    """How its workers fared a few seconds ago; None if it has not run a task yet."""


def read_pulse(found: object) -> Pulse | None:
    """Reads what a runtime has reported; returns None if it has not, or if the report was damaged."""
    if not isinstance(found, dict):
        return None
    usual = found.get("usual")
    try:
        busy, ready, oldest, newest = (float(found[name]) for name in ("busy", "ready", "oldest", "newest"))
        return Pulse(int(busy), int(ready), oldest, newest, None if usual is None else float(usual))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
