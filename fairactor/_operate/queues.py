"""The queues: how many tasks wait in each, how many run, and how many runtimes serve it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

from fairactor._model.lane import COMMON, read_lane
from fairactor._store.overviews import LaneSize
from fairactor._store.shard import Shard
from fairactor._store.shards import Shards
from fairactor._store.stats import runtimes_in
from fairactor._util.checks import DEFAULT_QUEUE
from fairactor.views import QueueView

_CALLS: Final = 20
"""So often a shard is asked for the sizes of its lanes; of the others it is known that they have tasks."""
_CLAIMS: Final = 5000
"""So many claims of a shard are looked at; the others are counted like these."""


class _Queue:
    """What is known of a queue so far."""

    def __init__(self) -> None:
        self.backlog = 0.0
        self.is_exact = True
        self.waited: float | None = None
        self.running = 0.0
        self.runtimes = 0

    def add(self, backlog: float, waited: float | None) -> None:
        self.backlog += backlog
        if waited is not None:
            self.waited = max(waited, self.waited or 0.0)


class _Queues(dict[str, _Queue]):
    """The queues by name."""

    def named(self, name: str) -> _Queue:
        """Returns a queue, a new one if it was not known."""
        return self.setdefault(name, _Queue())


async def read_queues(shards: Shards) -> list[QueueView]:
    """Returns the queues that have tasks or that a runtime names, those with the most queued tasks first.

    Raises:
        ServerUnavailable: as `Runtime.send`.
        ServerError: as `Runtime.send`.
    """
    queues, stats = _Queues(), []
    for shard in shards:
        found = await shard.stats()
        stats.append(found)
        lanes, has_lanes = await shard.lane_names()
        await _add_backlog(queues, shard, lanes, found.counts.queued)
        if has_lanes:
            await _add_running(queues, shard, found.claimed)
        elif found.counts.started:
            queues.named(DEFAULT_QUEUE).running += sum(found.claimed.values())
    runtimes = runtimes_in(stats)
    named = {name for runtime in runtimes for name in runtime.queues or ()}
    for name in named | ({DEFAULT_QUEUE} if not queues else set()):
        queues.named(name)
    for runtime in runtimes:
        for name, queue in queues.items():
            queue.runtimes += runtime.queues is None or name in runtime.queues
    views = [
        QueueView(
            queue=name,
            backlog=round(queue.backlog),
            oldest_wait=queue.waited,
            running=round(queue.running),
            runtimes=queue.runtimes,
            exact=queue.is_exact,
        )
        for name, queue in queues.items()
    ]
    return sorted(views, key=lambda view: (-view.backlog, view.queue))


def _queue_of(lane: bytes) -> str:
    return read_lane(lane).queue


async def _add_backlog(queues: _Queues, shard: Shard, lanes: list[bytes], queued: int) -> None:
    """Adds the queued tasks of a shard. What is in no other lane is in the common one, of the default queue."""
    sizes: list[LaneSize] = []
    wanted = [COMMON, *lanes]
    for _ in range(_CALLS):
        if len(sizes) == len(wanted):
            break
        sizes += await shard.lane_sizes(wanted[len(sizes) :])
    left = float(queued)
    for lane, size in zip(wanted[1:], sizes[1:], strict=False):
        queue = queues.named(_queue_of(lane))
        queue.is_exact = queue.is_exact and size.looked_at >= size.tenants
        number = size.tasks * size.tenants / size.looked_at if size.looked_at else 0.0
        queue.add(number, size.waited)
        left -= number
    for lane in wanted[len(sizes) :]:
        queues.named(_queue_of(lane)).is_exact = False
    common = sizes[0]
    if left > 0 or common.waited is not None:
        queue = queues.named(DEFAULT_QUEUE)
        queue.is_exact = queue.is_exact and all(size.looked_at >= size.tenants for size in sizes[1:])
        queue.add(max(0.0, left), common.waited)


async def _add_running(queues: _Queues, shard: Shard, claimed: Mapping[bytes, int]) -> None:
    """Adds the started tasks of a shard."""
    total = sum(claimed.values())
    routes: Counter[bytes] = Counter()
    for runtime in sorted(claimed, key=claimed.__getitem__, reverse=True):
        if not claimed[runtime] or routes.total() >= _CLAIMS:
            break
        routes.update(await shard.claims_by(runtime, "routes"))
    looked_at = routes.total()
    for route, number in routes.items():
        queue = queues.named(_queue_of(route))
        queue.running += number * total / looked_at
        queue.is_exact = queue.is_exact and looked_at >= total
