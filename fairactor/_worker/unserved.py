"""Tasks that this process cannot run, and those that no process of the fleet can."""

from __future__ import annotations

import logging
from typing import Final

from fairactor._model import record
from fairactor._model.lane import read_lane
from fairactor._model.route import Route
from fairactor._store.shard import Shard
from fairactor._store.traced_ends import trace_ends
from fairactor._util.spans import Spans
from fairactor.settings import Settings

logger: Final = logging.getLogger(__name__)

_TYPE: Final = "fairactor.errors.UnknownActor"
_CALLS: Final = 10
"""The most calls in a row that end tasks: turns must not wait for a backlog."""
_REMEMBERED: Final = 1000  # routes that the log has named: their names come from messages


async def expire_unserved(shard: Shard, lane: bytes, settings: Settings, spans: Spans | None) -> None:
    """Ends tasks of a lane that no runtime serves, if they have waited for ``unknown_ttl``."""
    route, ttl = read_lane(lane), settings.unknown_ttl
    error = record.Error(_TYPE, _failure(route, ttl))
    body = record.encode(record.Outcome(route.actor, error=error))
    for _ in range(_CALLS):
        ended, more = await shard.expire(lane, unknown_ttl=ttl, failed_ttl=settings.failed_ttl, body=body)
        if ended:
            logger.warning("%d tasks failed: %s", len(ended), error.message)
        if ended and spans is not None:
            await trace_ends(spans, shard, ended, error)
        if not more:
            return


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
