"""How the tasks of a namespace fare: how long they wait and run, how many fail, and when that is a problem."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from fairactor._model.counts import Counts
from fairactor._model.route import Route
from fairactor.errors import ServerError

from .runtimes import Pulse, RuntimeInfo

if TYPE_CHECKING:
    from .shards import Shards

FAILING_SHARE: Final = 0.5
"""The share of failed tasks from which on they are a problem."""
FAILING_LEAST: Final = 20
"""The least number of tasks that must have ended to tell."""
FAILING_WITHIN: Final = 600.0
"""The seconds that the counts of late may cover, to tell."""
STUCK: Final = 10.0
"""The seconds for which no worker of a runtime has taken a task, at least, while all are busy and tasks wait."""
STUCK_TIMES: Final = 10
"""And for how many times as long as a task usually runs."""
STUCK_UNKNOWN: Final = 600.0
"""The same, while it is not known how long a task usually runs."""
UNSERVED: Final = 60.0
"""The seconds that a task may wait while workers are free."""
BEHIND: Final = 600.0
"""The seconds that a task may wait while all workers are busy."""
FORGOTTEN: Final = 3600.0
"""The seconds that a task of a paused tenant may wait."""

_NAMED: Final = 10  # the most tenants in a message


@attrs.frozen
class HeldTenant:
    """A tenant whose tasks wait because it is paused, or runs as many as its ``concurrency`` allows."""

    tenant: str
    queued: int
    """How many of its tasks wait."""
    waited: float
    """The seconds that the first of them has waited."""
    paused: bool
    """Whether it is paused."""


@attrs.frozen
class UnservedTasks:
    """Tasks that no runtime can run: none has their actor, of the version that they need, and serves their queue."""

    actor: str
    queue: str
    version: int
    """The version of the actor that they need, or a later one."""
    refused_by: str
    """The signature of the handlers that have refused their arguments, or ''."""
    tenant: str
    """One of the tenants whose tasks they are."""
    waited: float
    """The seconds that the first task of this tenant has waited."""


@attrs.frozen
class Load:
    """How the tasks of a namespace fare. Times are in seconds.

    It looks at samples of each shard: at 100 mailboxes, those that are served next and those that are served last, and
    at about 100 policies.
    """

    queued: int
    """How many tasks wait in mailboxes."""
    started: int
    """How many tasks were given to runtimes."""
    workers: int
    """How many tasks all runtimes can run at once, in all kinds of slots that their actors need."""
    oldest_wait: float | None
    """How long the first of the tasks that could start has waited; None if none waits."""
    oldest_run: float | None
    """How long the oldest of the running tasks has run, by the latest reports; None if none was reported."""
    stuck: Sequence[RuntimeInfo]
    """The runtimes whose workers are all busy, for longer than tasks usually run, while tasks wait."""
    recent: float
    """How far back `recent_finished` and `recent_failed` reach: one to two minutes, while runtimes run."""
    recent_finished: int
    """How many tasks have finished of late."""
    recent_failed: int
    """How many tasks have failed for good of late."""
    held: Sequence[HeldTenant]
    """Some of the tenants whose tasks wait because they are paused or have reached their ``concurrency``."""
    dedicated: bool
    """Whether some runtimes serve only certain tenants, so that workers may be free while tasks wait."""
    unserved: Sequence[UnservedTasks] = ()
    """Tasks that no runtime can run; about 20 kinds of each shard."""
    busy_pool: bool = False
    """Whether all runtimes that have certain actors and queues are busy, and there are runtimes with others: workers of
    those may be free while tasks wait."""
    full: Sequence[RuntimeInfo] = ()
    """The runtimes in which all slots of one kind are taken, and those of another are free."""

    def problems(self) -> Iterator[str]:
        """Yields a message for each thing that needs a person."""
        ended = self.recent_finished + self.recent_failed
        many_fail = ended >= FAILING_LEAST and self.recent_failed >= FAILING_SHARE * ended
        if many_fail and self.recent <= FAILING_WITHIN:
            seconds = max(1, round(self.recent))
            yield f"{self.recent_failed} of the {ended} tasks that ended in the last {seconds} s have failed"
        yield from self._waiting()
        yield from _lacking(self.unserved)
        for held in self.held:
            if held.paused and held.waited >= FORGOTTEN:
                yield f"{_described(held)}, the first for {held.waited:.0f} s: resume or purge it"

    def notes(self) -> Iterator[str]:
        """Yields a message for each thing that needs nobody now."""
        if self.oldest_wait is not None and 0 < self.workers <= self.started:
            waiting = f"{self.queued} tasks wait, the first for {self.oldest_wait:.1f} s"
            yield f"all {self.workers} workers are busy, and {waiting}"
        for held in self.held[:_NAMED]:
            if not (held.paused and held.waited >= FORGOTTEN):
                yield _described(held)

    def _waiting(self) -> Iterator[str]:
        wait, free = self.oldest_wait, self.workers - self.started
        for runtime in self.stuck:
            yield _stuck(runtime, self.queued)
        if wait is None or not self.workers or self.stuck:
            return
        tasks = f"{self.queued} tasks wait, the first for {wait:.0f} s"
        if self.full and free > 0:
            if wait >= BEHIND:
                yield f"{tasks}, and {_kinds(self.full)} are busy: add some, or see what their tasks wait for"
        elif free > 0 and wait >= UNSERVED and not self.dedicated and not self.busy_pool:
            yield f"{tasks}, although {free} of {self.workers} workers are free"
        elif wait >= BEHIND and self.busy_pool and free > 0:
            yield f"{tasks}, and workers that can run them do not keep up: add some, or see what their tasks wait for"
        elif wait >= BEHIND:
            yield f"{tasks}: {self.workers} workers do not keep up, so add some, or see what their tasks wait for"


def _lacking(unserved: Sequence[UnservedTasks]) -> Iterator[str]:
    """Yields a message for each thing that no process has. It names the tenant that has waited for it for longest."""
    longest: dict[str, UnservedTasks] = {}
    for tasks in sorted(unserved, key=lambda tasks: -tasks.waited):
        longest.setdefault(Route(tasks.actor, tasks.queue, tasks.version, tasks.refused_by).needs, tasks)
    for needs, tasks in list(longest.items())[:_NAMED]:
        waited = f"tasks of tenant {tasks.tenant!r} have waited {tasks.waited:.0f} s for one"
        yield f"no running process {needs}, and {waited}: start one, or they fail after unknown_ttl="


def _stuck_kinds(runtime: RuntimeInfo, *, more: bool) -> Iterator[tuple[str, int, Pulse]]:
    """Yields the kinds of slots that have all been busy for longer than usual, while tasks wait: here, or ``more``."""
    for name, size, pulse in runtime.full():
        usual = pulse.usual_run
        limit = STUCK_UNKNOWN if usual is None else max(STUCK, STUCK_TIMES * usual)
        if (more or pulse.ready) and pulse.newest_run >= limit:
            yield name, size, pulse


def _kinds(runtimes: Sequence[RuntimeInfo]) -> str:
    found = [f"all {size} {name} of {each.name}" for each in runtimes[:_NAMED] for name, size, _ in each.full()]
    return ", ".join(found)


def _stuck(runtime: RuntimeInfo, queued: int) -> str:
    name, size, pulse = next(_stuck_kinds(runtime, more=True))
    usual = "" if pulse.usual_run is None else f" (a task usually takes {pulse.usual_run:.2g} s)"
    return (
        f"{runtime.name}: all {size} {name} are busy, and none has taken a task for "
        f"{pulse.newest_run:.0f} s{usual}, while {queued + pulse.ready} tasks wait: see what the running tasks do, and "
        "give them a timeout="
    )


def _described(held: HeldTenant) -> str:
    why = "is paused" if held.paused else "runs as many tasks as its concurrency allows"
    return f"tenant {held.tenant!r} {why}, and {held.queued} of its tasks wait"


async def read_load(shards: Shards, *, queued: int, started: int, runtimes: Sequence[RuntimeInfo]) -> Load:
    """Adds up how the tasks of all shards fare.

    Args:
        shards: the shards.
        queued: how many tasks wait in mailboxes.
        started: how many tasks were given to runtimes.
        runtimes: all runtimes.

    Raises:
        ServerUnavailable: as `Runtime.send`.
        ServerError: as `Runtime.send`.
    """
    found = [_ShardLoad.unpack(await shard.load(patience=0), shard.keys.meta) for shard in shards]
    alive = [runtime for runtime in runtimes if runtime.lease_left >= 0]
    pulses = [runtime.pulse for runtime in alive if runtime.pulse is not None and runtime.pulse.busy]
    oldest_wait = max((each.waited for each in found if each.waited is not None), default=None)
    return Load(
        queued=queued,
        started=started,
        workers=sum(runtime.size for runtime in alive),
        oldest_wait=oldest_wait,
        oldest_run=max((pulse.oldest_run for pulse in pulses), default=None),
        stuck=tuple(each for each in alive if any(_stuck_kinds(each, more=oldest_wait is not None))),
        recent=max(each.recent for each in found),
        recent_finished=sum(each.finished for each in found),
        recent_failed=sum(each.failed for each in found),
        held=tuple(held for each in found for held in each.held),
        dedicated=any(each.dedicated for each in found),
        busy_pool=_has_busy_pool(alive),
        unserved=tuple(unserved for each in found for unserved in each.unserved),
        full=tuple(each for each in alive if each.pulse and each.pulse.busy < each.size and each.full()),
    )


def _has_busy_pool(runtimes: Sequence[RuntimeInfo]) -> bool:
    pools: dict[Any, list[RuntimeInfo]] = {}
    for each in runtimes:
        runs = tuple(each.actors), each.queues, frozenset(each.versions.items())
        pools.setdefault(runs, []).append(each)
    return len(pools) > 1 and any(all(each.full() for each in pool) for pool in pools.values())


@attrs.frozen
class _ShardLoad:
    """The reply of health.lua."""

    waited: float | None
    recent: float
    finished: int
    failed: int
    held: Sequence[HeldTenant]
    dedicated: bool
    unserved: Sequence[UnservedTasks]

    @classmethod
    def unpack(cls, reply: Sequence[Any], where: str) -> _ShardLoad:
        """Unpacks the reply of health.lua.

        Raises:
            ServerError: the counts were damaged.
        """
        try:
            return cls._unpack(reply)
        except (ValueError, TypeError, struct.error) as error:
            raise ServerError(
                f"the counts of {where} cannot be read ({error}): call `await runtime.repair()`"
            ) from error

    @staticmethod
    def _unpack(reply: Sequence[Any]) -> _ShardLoad:
        now, packed, last, before, waited, dedicated, unserved, *flat = reply
        counts = Counts.unpack(packed)
        at, finished, failed = _sample(before) or _sample(last) or (int(now), counts.finished, counts.failed)
        fields, lanes = iter(flat), iter(unserved)
        return _ShardLoad(
            waited=_seconds(waited),
            recent=max(0.0, (int(now) - at) / 1000),
            finished=max(0, counts.finished - finished),
            failed=max(0, counts.failed - failed),
            held=tuple(
                HeldTenant(name.decode(errors="replace"), queued, int(ms) / 1000, bool(paused))
                for name, queued, ms, paused in zip(fields, fields, fields, fields, strict=True)
            ),
            dedicated=bool(dedicated),
            unserved=tuple(_unserved(*each) for each in zip(lanes, lanes, lanes, strict=True)),
        )


def _unserved(lane: bytes, tenant: bytes, ms: bytes) -> UnservedTasks:
    from fairactor._model.lane import read_lane  # imports msgspec

    route = read_lane(lane)
    name = tenant.decode(errors="replace")
    return UnservedTasks(route.actor, route.queue, route.version, route.refused_by, name, int(ms) / 1000)


def _sample(packed: bytes) -> tuple[int, int, int] | None:
    """Unpacks a sample: its time in ms, and how many tasks had finished and failed."""
    numbers = packed.split()
    if len(numbers) != 3 or not all(number.isdigit() for number in numbers):  # noqa: PLR2004 - as lib/sample.lua packs it
        return None
    at, finished, failed = map(int, numbers)
    return at, finished, failed


def _seconds(ms: bytes) -> float | None:
    """Converts ms to seconds; -1 stands for nothing."""
    return None if int(ms) < 0 else int(ms) / 1000
