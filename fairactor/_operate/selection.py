"""Tasks that a filter selects, to change them in slices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

import anyio.lowlevel
import msgspec

from fairactor._client.dead_letters import Letter, key_in, redrive_letters
from fairactor._model import record
from fairactor._model.lane import text_in_json
from fairactor._model.states import TaskState
from fairactor._store.pages import Listed
from fairactor._store.shard import Shard
from fairactor._util.checks import DEFAULT_QUEUE, check_route_name, check_whole_number
from fairactor.errors import ConfigurationError
from fairactor.views import Matches

from .filters import ENDED, Filter
from .tasks import Place, Step, Walk, describe

if TYPE_CHECKING:
    from fairactor._engine import Engine

Progress = Callable[[int, int], None]
"""Called with how many tasks were changed, and how many were looked at."""
Change = Callable[[Shard, Sequence[Listed]], Awaitable[int]]
"""Changes some tasks of a shard; returns how many."""

_SLICE: Final = 200
"""How many tasks one call changes."""
_COUNTED_AT_ONCE: Final = 1000
_WAITING: Final = (TaskState.QUEUED, TaskState.SCHEDULED, TaskState.DEFERRED)
_ALIVE: Final = frozenset({"queued", "scheduled", "deferred", "started"})


class Selection:
    """The tasks that a filter selects. Each method works in slices, and can be canceled between them.

    A method changes no task twice, and can be called again: it goes on with those that are left. Tasks that are sent
    while it runs may be changed, too.

    Raises (from every method):
        ConfigurationError: an argument is invalid.
        ServerUnavailable: as `Runtime.send`. Some of the tasks may have been changed.
        ServerError: likewise.
    """

    def __init__(self, engine: Engine, wanted: Filter, canceled_ttl: float) -> None:
        self._engine = engine
        self._wanted = wanted
        self._canceled_ttl = canceled_ttl

    async def count(self, *, most: int | None = 100_000) -> Matches:
        """Counts them; looks at `most` tasks at most."""
        _check_most(most)
        wanted = self._wanted
        walk = Walk(self._engine.shards, wanted)
        count = looked_at = 0
        place: Place | None = Place()
        while place is not None and (most is None or looked_at < most):
            limit = _SLICE if wanted.reads_records else _COUNTED_AT_ONCE
            if most is not None:
                limit = min(limit, most - looked_at)
            step = await walk.step(place, limit, records=wanted.reads_records)
            if step is None:
                place = None
                break
            looked_at += step.looked_at
            count += len(_matches(step, wanted))
            place = step.after
            await anyio.lowlevel.checkpoint()
        return Matches(count, place is None, looked_at)

    async def cancel(self, *, progress: Progress | None = None, most: int | None = None) -> int:
        """Cancels those that have not ended; returns how many."""
        reason = record.Error("TaskCanceled", "by selection.cancel()")
        body, ttl = record.encode(record.Outcome(error=reason)), self._canceled_ttl

        async def cancel(shard: Shard, tasks: Sequence[Listed]) -> int:
            found = await shard.cancel_many(self._pairs(tasks), ttl=ttl, body=body)
            return sum(state in _ALIVE for state in found)

        return await self._change((*_WAITING, TaskState.STARTED), cancel, progress, most)

    async def retry(self, *, progress: Progress | None = None, most: int | None = None) -> int:
        """Starts those now that wait for their next attempt or their time; returns how many."""

        async def hasten(shard: Shard, tasks: Sequence[Listed]) -> int:
            return sum(await shard.hasten(self._pairs(tasks)))

        return await self._change((TaskState.SCHEDULED,), hasten, progress, most)

    async def redrive(self, *, progress: Progress | None = None, most: int | None = None) -> int:
        """Sends those that have failed again, as `DeadLetters.redrive` does; returns how many."""

        async def redrive(shard: Shard, tasks: Sequence[Listed]) -> int:
            letters = [Letter(task.id, key_in(task.record), task.tenant, _score(task)) for task in tasks]
            verdicts = await redrive_letters(self._engine.shards, shard, letters, self._wanted.tenant or "")
            return sum(verdict is True for verdict in verdicts)

        return await self._change((TaskState.FAILED,), redrive, progress, most, records=True)

    async def purge(self, *, progress: Progress | None = None, most: int | None = None) -> int:
        """Deletes the records of those that have ended; returns how many."""
        tenant = self._wanted.tenant or ""

        async def purge(shard: Shard, tasks: Sequence[Listed]) -> int:
            failed = [task.id for task in tasks if record.SETTLED.get(task.letter) is TaskState.FAILED]
            others = [task.id for task in tasks if task.letter in (b"F", b"C")]
            done = await shard.discard(failed, tenant) if failed else 0
            return done + (await shard.forget(others, tenant) if others else 0)

        ended = (TaskState.FAILED, TaskState.FINISHED, TaskState.CANCELED)
        return await self._change(ended, purge, progress, most)

    async def move(self, queue: str, *, progress: Progress | None = None, most: int | None = None) -> int:
        """Moves those that wait to another queue, where they keep their places; returns how many are there then."""
        name = "" if check_route_name("queue", queue) == DEFAULT_QUEUE else text_in_json(queue)

        async def reroute(shard: Shard, tasks: Sequence[Listed]) -> int:
            verdicts = await shard.reroute(name, self._pairs(tasks))
            if -1 in verdicts:
                task = tasks[verdicts.index(-1)]
                raise ConfigurationError(
                    f"task {task.id!r} cannot be moved: the names of its actor, of its limits and of the queue are too "
                    "long together; give a shorter name"
                )
            return sum(verdicts)

        return await self._change(_WAITING, reroute, progress, most)

    def _pairs(self, tasks: Iterable[Listed]) -> list[tuple[str, str]]:
        return [(task.id, self._wanted.tenant or "") for task in tasks]

    async def _change(
        self,
        states: Iterable[TaskState],
        change: Change,
        progress: Progress | None,
        most: int | None,
        *,
        records: bool = False,
    ) -> int:
        """Changes the tasks that are in one of these states; returns how many."""
        _check_most(most)
        wanted = self._wanted.narrowed(states)
        walk = Walk(self._engine.shards, wanted, newest_first=False)
        changed = looked_at = 0
        seen = set[str]()
        async for step in walk.steps(_SLICE, records=records or wanted.reads_records):
            looked_at += step.looked_at
            chosen = {task.id: task for task in _matches(step, wanted) if task.id not in seen}
            tasks = list(chosen.values())[: None if most is None else most - changed]
            if tasks:
                changed += await change(step.shard, tasks)
                seen.update(task.id for task in tasks)
            if progress is not None:
                progress(changed, looked_at)
            if most is not None and changed >= most:
                break
            await anyio.lowlevel.checkpoint()
        return changed


def _matches(step: Step, wanted: Filter) -> list[Listed]:
    lists = wanted.lists
    found = []
    for task, place in step.tasks:
        name = lists[place.list]
        if wanted.reads_records:
            fits = wanted.takes(describe(task, name))
        else:
            fits = name != ENDED or record.SETTLED.get(task.letter) in wanted.states
        if fits:
            found.append(task)
    return found


def _score(task: Listed) -> int:
    """Returns when the record of a dead letter expires, unix µs."""
    return round(float(msgspec.msgpack.decode(task.position)[0]))


def _check_most(most: int | None) -> None:
    if most is not None:
        check_whole_number("most", most, 1)
