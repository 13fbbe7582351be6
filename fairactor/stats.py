"""Counts and health of a namespace, over all its shards."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Final

import attrs

from .errors import ServerError
from .shard import Shard
from .states import Priority
from .wire import Counts

_NAMED: Final = 10  # tenants in a message


@attrs.frozen
class RuntimeInfo:
    """A runtime that holds a lease."""

    name: str
    host: str
    pid: int
    workers: int
    actors: Sequence[str]
    lease_left: float
    """Seconds; below 0 it is dead, and its tasks are about to be given to others."""


@attrs.frozen
class Stats:
    """How many tasks a namespace has in each state, and who is there."""

    queued: int
    started: int
    scheduled: int
    deferred: int
    finished: int
    """Of all time, as `failed` and `canceled`."""
    failed: int
    canceled: int
    by_priority: dict[Priority, int]
    """Tasks queued or started."""
    dead_letters: int
    """Failed tasks that are kept."""
    due: int
    """Scheduled tasks whose time has come."""
    waiting_tenants: int
    """Tenants, and groups of them, with a task that could start now."""
    throttled_tenants: int
    """Tenants with a task that only their rate holds back."""
    known_tenants: int
    """Tenants with a live task, or one that ended not long ago."""
    stolen: int
    """Of all time: tasks that a runtime took from a tenant in its ``steal``."""
    unassigned_tenants: Sequence[str]
    """Some of those with a task that could start, where every runtime has tenants of its own and these are nobody's."""
    runtimes: Sequence[RuntimeInfo]

    @property
    def pending(self) -> int:
        """Tasks that are queued, started, or due now."""
        return self.queued + self.started + self.due


@attrs.frozen
class Health:
    """Whether a namespace is served, and what is wrong where it is not."""

    ok: bool
    problems: Sequence[str]
    latency: float
    """Seconds that the server took to answer."""
    stats: Stats | None


async def read_stats(shards: Sequence[Shard], *, patience: float | None = None) -> Stats:
    """The counts of all shards; ``patience`` as `Calls.run` has it."""
    replies = [await shard.stats(patience=patience) for shard in shards]
    counts = [Counts.unpack(reply[0], started=reply[1]) for reply in replies]
    runtimes = {info.name.rpartition("/")[0]: info for reply in replies for info in _runtimes(reply[9:])}
    return Stats(
        queued=sum(c.queued for c in counts),
        started=sum(c.started for c in counts),
        scheduled=sum(c.scheduled for c in counts),
        deferred=sum(c.deferred for c in counts),
        finished=sum(c.finished for c in counts),
        failed=sum(c.failed for c in counts),
        canceled=sum(c.canceled for c in counts),
        by_priority={priority: sum(c.by_priority[priority] for c in counts) for priority in Priority},
        dead_letters=sum(reply[5] for reply in replies),
        due=sum(reply[4] for reply in replies),
        waiting_tenants=sum(reply[2] for reply in replies),
        throttled_tenants=sum(reply[7] for reply in replies),
        known_tenants=sum(reply[3] for reply in replies),
        stolen=sum(reply[6] for reply in replies),
        unassigned_tenants=tuple(name.decode() for reply in replies for name in reply[8]),
        runtimes=tuple(runtimes.values()),
    )


async def read_health(shards: Sequence[Shard]) -> Health:
    """Whether tasks are being served."""
    began = time.monotonic()
    try:
        stats = await read_stats(shards, patience=0)
    except ServerError as error:
        return Health(ok=False, problems=(str(error),), latency=time.monotonic() - began, stats=None)
    latency = (time.monotonic() - began) / len(shards)
    problems = [
        f"{runtime.name} has been silent for {-runtime.lease_left:.1f} s longer than its lease"
        for runtime in stats.runtimes
        if runtime.lease_left < 0
    ]
    if stats.pending and not any(runtime.workers and runtime.lease_left >= 0 for runtime in stats.runtimes):
        problems.append(f"{stats.pending} tasks wait, and no runtime with workers is there to run them")
    if stats.unassigned_tenants:
        names = ", ".join(map(repr, stats.unassigned_tenants[:_NAMED]))
        problems.append(
            f"tenants with tasks are assigned to no runtime: {names}; name them in some runtime's assigned="
        )
    return Health(ok=not problems, problems=tuple(problems), latency=latency, stats=stats)


def _runtimes(flat: Sequence[Any]) -> list[RuntimeInfo]:
    found = []
    for i in range(0, len(flat), 3):
        info = json.loads(flat[i + 1] or b"{}")
        found.append(
            RuntimeInfo(
                name=flat[i].decode(),
                host=info.get("host", "?"),
                pid=info.get("pid", 0),
                workers=info.get("workers", 0),
                actors=tuple(info.get("actors", ())),
                lease_left=flat[i + 2] / 1000,
            )
        )
    return found
