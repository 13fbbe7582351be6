"""How the tasks of a namespace fare: how long they wait and run, how many fail, and when that is a problem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from fairactor._model.wire import Counts

if TYPE_CHECKING:
    from .shards import Shards
    from .stats import Stats

FAILING_SHARE: Final = 0.5
"""The share of failed tasks from which on they are a problem."""
FAILING_LEAST: Final = 20
"""The least number of tasks that must have ended to tell."""
FAILING_WITHIN: Final = 600.0
"""The seconds that the counts of late may cover, to tell."""
STUCK: Final = 5.0
"""The seconds for which no task has started, at least, while all workers are busy and tasks wait."""
STUCK_TIMES: Final = 10
"""For how many times the usual run."""
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
class Load:
    """How the tasks of a namespace fare. Times are in seconds.

    What waits and runs is looked at in samples of each shard: 100 mailboxes, those that are served next and those that
    are served last; 100 running tasks; 100 policies.
    """

    queued: int
    """How many tasks wait in mailboxes."""
    started: int
    """How many tasks were given to workers."""
    workers: int
    """The workers of all runtimes."""
    oldest_wait: float | None
    """How long the first of the tasks that could start has waited; None if none waits."""
    oldest_run: float | None
    """How long the oldest of the running tasks has run; None if none runs."""
    newest_run: float | None
    """How long ago the last of the running tasks has started; None if none runs."""
    usual_run: float | None
    """How long tasks have run lately, on average; None if that is not known yet."""
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

    def problems(self) -> Iterator[str]:
        """Yields a message for each thing that needs a person."""
        ended = self.recent_finished + self.recent_failed
        many_fail = ended >= FAILING_LEAST and self.recent_failed >= FAILING_SHARE * ended
        if many_fail and self.recent <= FAILING_WITHIN:
            yield f"{self.recent_failed} of the {ended} tasks that ended in the last {self.recent:.0f} s have failed"
        yield from self._waiting()
        for held in self.held:
            if held.paused and held.waited >= FORGOTTEN:
                yield f"{_described(held)}, the first for {held.waited:.0f} s: resume or purge it"

    def notes(self) -> Iterator[str]:
        """Yields a message for each thing that needs nobody now."""
        for held in self.held[:_NAMED]:
            if not (held.paused and held.waited >= FORGOTTEN):
                yield _described(held)

    def _waiting(self) -> Iterator[str]:
        wait, quiet, free = self.oldest_wait, self.newest_run, self.workers - self.started
        if wait is None or not self.workers:
            return
        usual = "" if self.usual_run is None else f" (a task usually takes {self.usual_run:.2g} s)"
        if quiet is not None and free <= 0 and quiet >= max(STUCK, STUCK_TIMES * (self.usual_run or 0)):
            yield (
                f"all {self.workers} workers are busy, and none has taken a task for {quiet:.0f} s{usual}, while "
                f"{self.queued} tasks wait: look at what the running tasks do, and give them a timeout="
            )
        elif free > 0 and wait >= UNSERVED and not self.dedicated:
            tasks = f"{self.queued} tasks wait, the first for {wait:.0f} s"
            yield f"{tasks}, although {free} of {self.workers} workers are free"
        elif wait >= BEHIND:
            yield (
                f"{self.queued} tasks wait, the first for {wait:.0f} s: {self.workers} workers do not keep up, so add "
                "some, or see what the tasks wait for"
            )


def _described(held: HeldTenant) -> str:
    why = "is paused" if held.paused else "runs as many tasks as its concurrency allows"
    return f"tenant {held.tenant!r} {why}, and {held.queued} of its tasks wait"


async def read_load(shards: Shards, stats: Stats) -> Load:
    """Adds up how the tasks of all shards fare.

    Args:
        shards: the shards.
        stats: what was counted just before.

    Raises:
        ServerUnavailable: as `Runtime.send`.
        ServerError: as `Runtime.send`.
    """
    found = [_ShardLoad.unpack(await shard.load(patience=0)) for shard in shards]
    runs = [each.usual for each in found if each.usual is not None]
    return Load(
        queued=stats.queued,
        started=stats.started,
        workers=sum(runtime.workers for runtime in stats.runtimes if runtime.lease_left >= 0),
        oldest_wait=max((each.waited for each in found if each.waited is not None), default=None),
        oldest_run=max((each.oldest for each in found if each.oldest is not None), default=None),
        newest_run=min((each.newest for each in found if each.newest is not None), default=None),
        usual_run=sum(runs) / len(runs) if runs else None,
        recent=max(each.recent for each in found),
        recent_finished=sum(each.finished for each in found),
        recent_failed=sum(each.failed for each in found),
        held=tuple(held for each in found for held in each.held),
        dedicated=any(each.dedicated for each in found),
    )


@attrs.frozen
class _ShardLoad:
    """The reply of health.lua."""

    waited: float | None
    oldest: float | None
    newest: float | None
    usual: float | None
    recent: float
    finished: int
    failed: int
    held: Sequence[HeldTenant]
    dedicated: bool

    @staticmethod
    def unpack(reply: Sequence[Any]) -> _ShardLoad:
        now, packed, last, before, usual, waited, oldest, newest, dedicated, *flat = reply
        counts = Counts.unpack(packed)
        at, finished, failed = _sample(before) or _sample(last) or (int(now), counts.finished, counts.failed)
        fields = iter(flat)
        return _ShardLoad(
            waited=_seconds(waited),
            oldest=_seconds(oldest),
            newest=_seconds(newest),
            usual=float(usual) if usual else None,
            recent=max(0.0, (int(now) - at) / 1000),
            finished=max(0, counts.finished - finished),
            failed=max(0, counts.failed - failed),
            held=tuple(
                HeldTenant(name.decode(), queued, int(ms) / 1000, bool(paused))
                for name, queued, ms, paused in zip(fields, fields, fields, fields, strict=True)
            ),
            dedicated=bool(dedicated),
        )


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
