"""The spans of tasks that scripts have ended: no runtime has seen them fail."""

from __future__ import annotations

from collections.abc import Sequence

from fairactor._model import record
from fairactor._model.wire import as_text
from fairactor._util.spans import Spans

from .shard import Shard


async def trace_ends(spans: Spans, shard: Shard, tasks: Sequence[bytes], otherwise: record.Error) -> None:
    """Makes a span for each task. If its record is not kept, the span has its id and the error ``otherwise``."""
    for packed_id in tasks:
        task_id = as_text(packed_id)
        header, outcome, call = read_ended(await shard.inspect(task_id))
        span = spans.attempt(
            call.actor if call else "",
            header.tenant if header else "",
            task_id,
            header.attempt if header else None,
            call.trace if call else {},
            call.queue if call else "",
        )
        error = outcome.error if outcome and outcome.error else otherwise
        if error.type == "TaskSkipped":
            span.skip()
        else:
            span.give_up(error.type, error.message)


def read_ended(found: Sequence[bytes]) -> tuple[record.Header | None, record.Outcome | None, record.Call | None]:
    """Reads a task that has ended from the reply of inspect.lua; what is not there, or cannot be read, is None."""
    try:
        header, body = record.unpack(found[1])
        outcome, call, _ = record.decode_body(body, live=header.state == record.LIVE)
    except (IndexError, *record.UNREADABLE):
        return None, None, None
    return header, outcome, call
