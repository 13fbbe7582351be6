"""Tasks that this process cannot run, and those that no process of the fleet can."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final

from fairactor._model import record
from fairactor._model.lane import COMMON, read_lane
from fairactor._model.route import Route
from fairactor._model.states import TaskState
from fairactor._model.wire import Settlement, as_bytes
from fairactor._store.shard import Shard
from fairactor._store.traced_ends import trace_ends
from fairactor._util.spans import Spans
from fairactor.errors import ServerError
from fairactor.settings import Settings

from .attempts import Attempts

logger: Final = logging.getLogger(__name__)

_TYPE: Final = "fairactor.errors.UnknownActor"
_REMEMBERED: Final = 1000  # routes that the log has named: their names come from messages


class Expiry:
    """Ends tasks that have waited for ``unknown_ttl`` in lanes that no runtime serves.

    Args:
        shard: the shard of the lanes.
        settings: the runtime's settings.
        spans: makes spans; None without an OpenTelemetry SDK.
        attempts: counts for the history, unless it is None.
    """

    def __init__(self, shard: Shard, settings: Settings, spans: Spans | None, attempts: Attempts | None = None) -> None:
        self._shard = shard
        self._settings = settings
        self._spans = spans
        self._attempts = attempts
        self.lanes: dict[bytes, None] = {}
        """The lanes that may have such tasks, in order."""

    def add(self, lanes: Iterable[bytes]) -> None:
        """Adds lanes that no runtime has served for too long."""
        self.lanes |= dict.fromkeys(lanes)

    async def step(self) -> None:
        """Ends some tasks of a lane; there may be any number, and turns must not wait for all of them.

        Those of the common lane first move to lanes of their own, and wait there as others do.
        """
        lane = next(iter(self.lanes))
        if lane == COMMON:
            if not await self._shard.sort():
                del self.lanes[COMMON]
            return
        route, settings = read_lane(lane), self._settings
        error = record.Error(_TYPE, _failure(route, settings.unknown_ttl))
        body = record.encode(record.Outcome(route.actor, error=error))
        ended, more = await self._shard.expire(
            lane, unknown_ttl=settings.unknown_ttl, failed_ttl=settings.failed_ttl, body=body
        )
        if not more:
            del self.lanes[lane]
        if ended:
            logger.warning("%d tasks of actor %r failed: %s", len(ended), route.actor, error.message)
        if ended and self._shard.meters is not None:
            self._shard.meters.failed(route.actor, _TYPE, len(ended))
        if ended and self._attempts is not None:
            self._attempts.expired(route, len(ended))
        if ended and self._spans is not None:
            await trace_ends(self._spans, self._shard, ended, error)


class Refusals:
    """Tasks whose arguments do not fit here. Only the shard knows whether another process takes them.

    Args:
        shard: the shard of the tasks.
    """

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._tell: dict[str, Callable[[], None]] = {}

    def __bool__(self) -> bool:
        return bool(self._tell)

    def add(self, task_id: str, tell_dead: Callable[[], None]) -> None:
        """Adds a task, and what to call if it becomes a dead letter."""
        self._tell[task_id] = tell_dead

    def clear(self) -> None:
        """Forgets all tasks, because their claims were lost."""
        self._tell.clear()

    async def reported(self, settled: Iterable[Settlement], refused: Collection[bytes]) -> None:
        """Finds out which tasks have become dead letters, once a turn has reported their outcomes."""
        for settlement in settled:
            tell_dead = self._tell.pop(settlement.id, None)
            if tell_dead is not None and as_bytes(settlement.id) not in refused and await self._is_dead(settlement.id):
                tell_dead()

    async def _is_dead(self, task_id: str) -> bool:
        """Whether a task has ended as a dead letter. Without a record it has, too: what goes on has one."""
        try:
            found = await self._shard.inspect(task_id)
        except ServerError:
            return True  # rather a message too many
        return not found or record.SETTLED.get(found[1][:1]) is TaskState.FAILED


def _failure(route: Route, ttl: float) -> str:
    how_long = f" for {ttl:g} s (unknown_ttl=)" if ttl else ""
    return (
        f"no running process {route.needs}{how_long}: start one, as Runtime(actors=[…]), or correct the name, then "
        "redrive the task"
    )


class Unserved:
    """Logs, once for each actor, version and queue, that its tasks cannot run here."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def note(self, route: Route) -> None:
        """Notes a task that was claimed, although this process cannot run it."""
        needs = route.needs
        if needs in self._logged:
            return
        if len(self._logged) >= _REMEMBERED:
            self._logged.clear()
        self._logged.add(needs)
        logger.warning(
            "tasks wait for a process that %s: this one does not. If none does, they wait for unknown_ttl=, then they "
            "fail",
            needs,
        )
