"""What runtimes say of themselves: where they run, what they run, and how their workers fare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    """The seconds that tasks have run lately, on average, in the kind of slots where they run longest; None if none has
    ended yet."""
    kinds: Mapping[str, Pulse] = attrs.field(factory=dict)
    """The same for each kind of slots in `RuntimeInfo.slots`, if there are several."""


@attrs.frozen
class RuntimeInfo:
    """A runtime that holds a lease."""

    name: str
    host: str
    pid: int
    workers: int
    """Its setting ``workers``."""
    actors: Sequence[str]
    lease_left: float
    """The seconds until its lease expires. Below 0 the runtime counts as dead, and others will take its tasks."""
    pulse: Pulse | None = None
    """How its workers fared a few seconds ago; None if it has not run a task yet."""
    slots: Mapping[str, int] = attrs.field(factory=dict)
    """How many tasks it runs at once, by the setting that says so: ``workers``, ``threads`` and ``processes``, if its
    actors need them."""
    queues: Sequence[str] | None = None
    """The queues that it serves, its setting ``queues``; None for all."""
    versions: Mapping[str, int] = attrs.field(factory=dict)
    """The versions of those of its actors that have one other than 1."""

    @property
    def size(self) -> int:
        """How many tasks it runs at once in all."""
        return sum(self.slots.values()) if self.slots else self.workers

    def full(self) -> Sequence[tuple[str, int, Pulse]]:
        """Returns the kinds of slots that were all taken a few seconds ago: the name, how many, and how they fared."""
        if self.pulse is None:
            return ()
        if not self.pulse.kinds:
            name = next(iter(self.slots), "workers")
            return ((name, self.size, self.pulse),) if 0 < self.size <= self.pulse.busy else ()
        pulses = [(name, self.slots.get(name, 0), pulse) for name, pulse in self.pulse.kinds.items()]
        return [(name, size, pulse) for name, size, pulse in pulses if 0 < size <= pulse.busy]


def read_pulse(found: object) -> Pulse | None:
    """Reads what a runtime has reported; returns None if it has not, or if the report was damaged."""
    if not isinstance(found, dict):
        return None
    try:
        kinds = {str(name): _pulse(each) for name, each in dict(found.get("kinds") or {}).items()}
        return attrs.evolve(_pulse(found), kinds=kinds)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _pulse(found: Any) -> Pulse:
    usual = found.get("usual") if isinstance(found, dict) else None
    busy, ready, oldest, newest = (float(found[name]) for name in ("busy", "ready", "oldest", "newest"))
    return Pulse(int(busy), int(ready), oldest, newest, None if usual is None else float(usual))
