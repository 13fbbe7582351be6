"""A dispatcher's steps of the maintenance, and the outcomes of tasks whose runtimes died."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fairactor._model import record
from fairactor._store.shard import Shard
from fairactor._store.traced_ends import trace_ends
from fairactor._util.spans import Spans
from fairactor.settings import Settings

from .attempts import Attempts

_SILENT: Final = "its runtimes lost their leases again and again: it blocks their event loops, or stops their processes"


async def maintain(shard: Shard, settings: Settings, spans: Spans | None, attempts: Attempts | None) -> Sequence[bytes]:
    """Does a step of the maintenance; returns the lanes that no runtime has served for too long.

    If more is left, the next turn says so: no turn waits for a backlog.
    """
    done = await shard.maintain(**when_given_up(settings), silent_body=_failure("LeaseLost", _SILENT))
    if done.given_up and shard.meters is not None:
        shard.meters.failed("", "WorkerDied", len(done.given_up))
    if done.given_up and spans is not None:
        await trace_ends(spans, shard, done.given_up, record.Error("WorkerDied", "its runtimes died"))
    if done.given_up and attempts is not None:
        await attempts.given_up(shard, done.given_up)
    return done.unserved


def when_given_up(settings: Settings) -> dict[str, Any]:
    """Returns when a task is given up because its runtimes died, how long to keep it, and its outcome."""
    most = settings.max_deliveries
    body = _failure("WorkerDied", f"{most} runtimes died while they ran it")
    return {"deliveries": most, "failed_ttl": settings.failed_ttl, "body": body}


def _failure(error: str, message: str) -> bytes:
    return record.encode(record.Outcome(error=record.Error(error, message)))
