"""Statistics and health of a namespace, over all its shards."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from fairactor._model.states import Priority
from fairactor.errors import ServerError

if TYPE_CHECKING:
    from fairactor._model.wire import ShardStats

    from .shards import Shards

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
    """Seconds. Below 0 the runtime counts as dead, and other runtimes are about to take its tasks."""


@attrs.frozen
class Stats:
    """The number of tasks in each state in a namespace, and its runtimes."""

    queued: int
    started: int
    scheduled: int
    deferred: int
    finished: int
    """Since the namespace was created, like `failed` and `canceled`."""
    failed: int
    canceled: int
    by_priority: dict[Priority, int]
    """Tasks that are queued or started."""
    dead_letters: int
    """Failed tasks whose records are kept."""
    due: int
    """Scheduled tasks whose time has come."""
    waiting_tenants: int
    """Tenants, and groups of them, with a task that could start now."""
    throttled_tenants: int
    """Tenants that only their rate holds back."""
    known_tenants: int
    """Tenants with a live task, or with one that ended recently."""
    stolen: int
    """Tasks that a runtime took from a tenant in its ``steal``, since the namespace was created."""
    unassigned_tenants: Sequence[str]
    """Some tenants with a task that could start, but that no runtime serves.

    Each serves only the tenants assigned to it.
    """
    runtimes: Sequence[RuntimeInfo]

    @property
    def pending(self) -> int:
        """The number of tasks that are queued, started, or due now."""
        return self.queued + self.started + self.due


@attrs.frozen
class Health:
    """Whether a namespace is served, and what is wrong if it is not."""

    ok: bool
    problems: Sequence[str]
    latency: float
    """Seconds that the server took to answer."""
    stats: Stats | None


async def read_stats(shards: Shards, *, patience: float | None = None) -> Stats:
    """Adds up the counts of all shards.

    Args:
        shards: the shards.
        patience: seconds to keep trying on each; None: the runtime's ``connect_timeout``.

    Raises:
        ServerUnavailable, ServerError: as `Runtime.stats`.
    """
    found = [await shard.stats(patience=patience) for shard in shards]
    counts = [each.counts for each in found]
    return Stats(
        queued=sum(c.queued for c in counts),
        started=sum(c.started for c in counts),
        scheduled=sum(c.scheduled for c in counts),
        deferred=sum(c.deferred for c in counts),
        finished=sum(c.finished for c in counts),
        failed=sum(c.failed for c in counts),
        canceled=sum(c.canceled for c in counts),
        by_priority={priority: sum(c.by_priority[priority] for c in counts) for priority in Priority},
        dead_letters=sum(each.dead for each in found),
        due=sum(each.due for each in found),
        waiting_tenants=sum(each.waiting for each in found),
        throttled_tenants=sum(each.throttled for each in found),
        known_tenants=sum(each.known for each in found),
        stolen=sum(each.stolen for each in found),
        unassigned_tenants=tuple(name.decode() for each in found for name in each.unassigned),
        runtimes=_runtimes(found),
    )


async def read_health(shards: Shards) -> Health:
    """Reports whether tasks are being served. It does not raise if the server is away."""
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


def _runtimes(found: Iterable[ShardStats]) -> tuple[RuntimeInfo, ...]:
    """The runtimes of all shards, each once: on every shard it holds a lease, under its name and a number."""
    import json

    runtimes: dict[str, RuntimeInfo] = {}
    for each in found:
        for name, packed, ms_left in each.runtimes:
            info = json.loads(packed)
            full_name = name.decode()
            runtimes[full_name.rpartition("/")[0]] = RuntimeInfo(
                name=full_name,
                host=info.get("host", "?"),
                pid=info.get("pid", 0),
                workers=info.get("workers", 0),
                actors=tuple(info.get("actors", ())),
                lease_left=ms_left / 1000,
            )
    return tuple(runtimes.values())
