"""The runtimes that run tasks, and what they run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from fairactor._model.inspection import read_progress
from fairactor._model.lane import read_lane
from fairactor._model.wire import as_text
from fairactor._store.overviews import ClaimedTask
from fairactor._store.shards import Shards
from fairactor._store.stats import runtimes_in, without_shard
from fairactor._util.checks import check_whole_number
from fairactor.views import RunningTask, WorkerView

_MOST: Final = 100


async def read_workers(shards: Shards, most: int) -> list[WorkerView]:
    """Returns the runtimes with a lease, in the order of their names.

    Args:
        shards: the shards.
        most: the most tasks for each runtime.

    Raises:
        ConfigurationError: ``most`` is no number from 0 to 100.
        ServerUnavailable: as `Runtime.send`.
        ServerError: as `Runtime.send`.
    """
    check_whole_number("tasks", most, 0, _MOST)
    stats, claimed = [], dict[str, int]()
    tasks: dict[str, list[ClaimedTask]] = {}
    for shard in shards:
        found = await shard.stats()
        stats.append(found)
        for name, number in found.claimed.items():
            runtime = without_shard(as_text(name))
            if number and most:
                number, some = await shard.claimed_tasks(name, most)  # noqa: PLW2901 - it may have changed
                tasks.setdefault(runtime, []).extend(some)
            claimed[runtime] = claimed.get(runtime, 0) + number
    views = []
    for info in runtimes_in(stats):
        runtime = without_shard(info.name)
        some = sorted(tasks.get(runtime, ()), key=lambda task: (task.claimed_at, task.id))[:most]
        views.append(WorkerView(info, claimed.get(runtime, 0), tuple(map(_running, some))))
    return sorted(views, key=lambda view: view.runtime.name)


def _running(task: ClaimedTask) -> RunningTask:
    return RunningTask(
        id=as_text(task.id),
        tenant=as_text(task.tenant),
        actor=read_lane(task.route).actor,
        claimed_at=_moment(task.claimed_at),
        attempt=task.attempt,
        progress=read_progress(task.progress),
    )


def _moment(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):  # it was damaged
        return None
