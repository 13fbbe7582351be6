"""The statistics and the health of a namespace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from fairactor._model.states import Priority
from fairactor.errors import FairactorError

from .load import Load, read_load
from .runtimes import RuntimeInfo, read_pulse

if TYPE_CHECKING:
    from fairactor._model.counts import ShardStats

    from .shards import Shards

REPAIR: Final = "call `await runtime.repair()`"
"""The advice for damage."""

_NAMED: Final = 10  # the most tenants in a message
_FAR: Final = 1e11  # seconds: no lease is that long
_SET_BACK: Final = 60.0  # seconds; corrections of a few seconds are normal


@attrs.frozen
class Stats:
    """The number of tasks in each state in a namespace, and its runtimes."""

    queued: int
    started: int
    scheduled: int
    deferred: int
    finished: int
    """The tasks that have finished since the namespace was created. `failed` and `canceled` count likewise."""
    failed: int
    canceled: int
    by_priority: dict[Priority, int]
    """The queued and started tasks by priority."""
    dead_letters: int
    """The failed tasks whose records still exist."""
    due: int
    """The scheduled tasks whose time has come; a lower bound if more than 100 tenants of a shard have some."""
    waiting_tenants: int
    """The tenants and groups with a task that could start now."""
    throttled_tenants: int
    """The tenants that only their rate holds back."""
    known_tenants: int
    """The tenants with a live task, or with one that ended recently."""
    stolen: int
    """The tasks that runtimes have taken from tenants in their ``steal``, since the namespace was created."""
    unassigned_tenants: Sequence[str]
    """Some of the tenants with tasks that could start, but that no runtime serves, because all serve only others."""
    runtimes: Sequence[RuntimeInfo]
    """The runtimes that run tasks."""
    clock_set_back: float = 0.0
    """The seconds by which the server's clock was set back. The shards have gone on without a step, so the times that
    they note are ahead of the server's clock by that."""

    @property
    def pending(self) -> int:
        """The number of tasks that are queued, started, or due now."""
        return self.queued + self.started + self.due


@attrs.frozen
class Health:
    """Whether the tasks of a namespace are being served, and the problems if not."""

    ok: bool
    problems: Sequence[str]
    """A message for each problem."""
    latency: float
    """The seconds that the server took to answer."""
    stats: Stats | None
    """None if the server did not answer."""
    notes: Sequence[str] = ()
    """A message for each thing that needs nobody now, such as a tenant that is paused while its tasks wait."""
    load: Load | None = None
    """How tasks fare, in numbers, to set other alerts; None if the server did not answer."""

    def with_problems(self, problems: Sequence[str]) -> Health:
        """Returns the same with more problems."""
        return attrs.evolve(self, ok=self.ok and not problems, problems=(*self.problems, *problems))


async def read_stats(shards: Shards, *, patience: float | None = None) -> Stats:
    """Adds up the counts of all shards.

    Args:
        shards: the shards.
        patience: the seconds to keep trying, for each shard. None uses the runtime's ``connect_timeout``.

    Raises:
        ServerUnavailable: as `Runtime.send`.
        ServerError: as `Runtime.send`.
    """
    return _add_up([await shard.stats(patience=patience) for shard in shards])


def _add_up(found: Sequence[ShardStats]) -> Stats:
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
        unassigned_tenants=tuple(_printable(name) for each in found for name in each.unassigned),
        runtimes=runtimes_in(found),
        clock_set_back=max(each.set_back for each in found),
    )


async def read_health(shards: Shards, deaf: Mapping[str, float]) -> Health:
    """Checks whether tasks are being served. An error of the server, or damage, becomes a problem in the report.

    Args:
        shards: the shards.
        deaf: the shards of which no messages arrive here, by their keys, and for how many seconds.
    """
    began = time.monotonic()
    found: list[ShardStats] = []
    away: list[str] = []
    for number, shard in enumerate(shards):
        try:
            found.append(await shard.stats(patience=0))
        except FairactorError as error:
            since = "" if shard.away_for is None else f" has not answered for {shard.away_for:.1f} s"
            away.append(str(error) if len(shards) == 1 else f"shard {number}{since}: {error}")
    if away:
        return Health(ok=False, problems=tuple(away), latency=time.monotonic() - began, stats=None)
    latency = (time.monotonic() - began) / len(shards)
    stats = _add_up(found)
    problems = [
        f"{runtime.name} has been silent for {-runtime.lease_left:.1f} s longer than its lease"
        for runtime in stats.runtimes
        if -_FAR < runtime.lease_left < 0
    ]
    problems += [
        f"this runtime has received no messages of shard {number} for {deaf[shard.keys.meta]:.1f} s, so it learns late "
        "of work and of outcomes"
        for number, shard in enumerate(shards)
        if shard.keys.meta in deaf
    ]
    problems += [f"{problem}; {REPAIR}" for each in found for problem in _damage(each)]
    if stats.pending and not any(runtime.workers and runtime.lease_left >= 0 for runtime in stats.runtimes):
        problems.append(f"{stats.pending} tasks wait, but no runtime with workers is running")
    if stats.unassigned_tenants:
        names = ", ".join(map(repr, stats.unassigned_tenants[:_NAMED]))
        problems.append(
            f"no runtime serves these tenants, which have tasks: {names}; name them in assigned= of a runtime"
        )
    if stats.clock_set_back > _SET_BACK:
        problems.append(
            f"the clock of the server was set back by {stats.clock_set_back:.0f} s: set it right. Tasks, delays and "
            "leases go on, but schedules wait until it has caught up"
        )
    try:
        load = await read_load(shards, queued=stats.queued, started=stats.started, runtimes=stats.runtimes)
    except Exception as error:  # noqa: BLE001 - whatever is stored, it reports it
        return Health(
            ok=False, problems=(*problems, f"the load cannot be read ({error}); {REPAIR}"), latency=latency, stats=stats
        )
    problems += load.problems()
    return Health(
        ok=not problems, problems=tuple(problems), latency=latency, stats=stats, notes=tuple(load.notes()), load=load
    )


def runtimes_in(found: Iterable[ShardStats]) -> tuple[RuntimeInfo, ...]:
    """Returns each runtime once. A runtime holds a lease on every shard, under its name and a number."""
    runtimes: dict[str, RuntimeInfo] = {}
    for each in found:
        for name, packed, ms_left in each.runtimes:
            info = read_description(packed) or {}
            full_name = _printable(name)
            base_name = without_shard(full_name)
            known = runtimes.get(base_name)
            runtimes[base_name] = RuntimeInfo(
                name=full_name,
                host=info.get("host", "?"),
                pid=info.get("pid", 0),
                workers=info.get("workers", 0),
                actors=tuple(info.get("actors", ())),
                slots=info.get("slots", {}),
                queues=None if info.get("queues") is None else tuple(info["queues"]),
                versions=info.get("versions", {}),
                lease_left=ms_left / 1000,
                pulse=read_pulse(info.get("pulse")) or (known.pulse if known else None),
            )
    return tuple(runtimes.values())


def without_shard(name: str) -> str:
    """Returns the name of a runtime without the number of a shard: it holds a lease on each under such a name."""
    return name.rpartition("/")[0]


def read_description(packed: bytes) -> dict[str, Any] | None:
    """Reads what a runtime has said when it joined; returns None if that was damaged."""
    import json

    try:
        found = json.loads(packed)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(fits(found[name]) for name, fits in _FITS.items() if name in found):
        return None
    return found


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    "host": lambda value: isinstance(value, str),
    "pid": _is_whole,
    "workers": _is_whole,
    "slots": lambda value: isinstance(value, dict) and all(map(_is_whole, value.values())),
    "actors": _is_names,
    "queues": lambda value: value is None or _is_names(value),
    "versions": lambda value: isinstance(value, dict) and all(map(_is_whole, value.values())),
}


def _damage(stats: ShardStats) -> Iterator[str]:
    """Yields a message for each thing about a shard that was damaged."""
    for name, packed, ms_left in stats.runtimes:
        if abs(ms_left) / 1000 >= _FAR:
            yield f"the lease of {_printable(name)} ends at an impossible time"
        if read_description(packed) is None:
            yield f"the description of {_printable(name)} cannot be read"
    if not stats.counted:
        yield "the counts of a shard cannot be read"


def _printable(name: bytes) -> str:
    return name.decode(errors="replace")
