"""One task in full: `Runtime.task`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fairactor._actors.host import Host
from fairactor._actors.plugin_options import tasks_in
from fairactor._model import record
from fairactor._model.info import TaskInfo
from fairactor._model.inspection import read_info
from fairactor._model.lane import name_in_json, read_lane
from fairactor._model.route import Route, read_route
from fairactor._model.states import TaskState
from fairactor._store.outcomes import no_such_task
from fairactor._store.shards import Shards
from fairactor._util.checks import check_name
from fairactor.plugins import Related
from fairactor.views import Dependency, Event, TaskDetails

if TYPE_CHECKING:
    from fairactor._engine import Engine

_MOST: Final = 100
_FOLLOWER: Final = ":key"  # as in lib/plugins.lua
_DETECTED: Final = frozenset({"WorkerDied", "LeaseLost"})
"""Errors of attempts whose time is when the loss of their runtime was detected."""
_WHY: Final = {
    b"paused": "tenant {!r} is paused",
    b"moving": "tenant {!r} moves to another shard",
    b"concurrency": "tenant {!r} runs as many tasks as its concurrency allows",
    b"rate": "tenant {!r} has started as many tasks as its rate allows",
}


async def read_details(engine: Engine, task_id: str, tenant: str | None) -> TaskDetails:
    """Returns everything that is known about a task; see `Runtime.task`."""
    check_name("task_id", task_id)
    if tenant is not None:
        check_name("tenant", tenant)
    reply = await _find(engine.shards, task_id, tenant)
    now = time.time()
    info = read_info(task_id, *reply[:6])
    call = _call_in(reply[1])
    options = call.options if call else {}
    route = read_route(call.route) if call else Route("")
    waits_for, children = await _relatives(engine.host, info, options)
    claimed, ttl = reply[6], reply[4]
    running_for = int(claimed) / 1000 if claimed else None
    return TaskDetails(
        info=info,
        timeline=tuple(_timeline(info, running_for, now)),
        running_for=running_for,
        waits_for=waits_for,
        children=children,
        held_by=_held_by(info, reply, waits_for),
        logs=(),
        kept_until=datetime.fromtimestamp(now + ttl / 1000, UTC) if ttl >= 0 and info.state.settled else None,
        after=_after(reply[1], options),
        options=options,
        limits=dict(zip(route.limits, route.costs, strict=False)),
    )


async def _find(shards: Shards, task_id: str, tenant: str | None) -> list[Any]:
    for _ in range(2):  # it may be on its way to a shard that was asked before
        layout = shards.layout
        for shard in shards if tenant is None else await shards.places(tenant):
            if reply := await shard.details(task_id, tenant or ""):
                return reply
        if not layout.growing and shards.layout is layout:
            break
    raise no_such_task(task_id)


def _call_in(packed: bytes) -> record.Call | None:
    """Returns the call that is stored with a task; None if it is not kept."""
    try:
        header, body = record.unpack(packed)
    except record.UNREADABLE:
        return None
    live = header.state not in record.SETTLED
    return record.decode_body(body if live else body.partition(b"\n")[2], live=True)[1]


def _after(packed: bytes, options: dict[str, Any]) -> tuple[str, ...]:
    """Returns the tasks that a task waited for; of a finished one its outcome says so."""
    if options:
        return tasks_in(options, record.MOST_AFTER)
    try:
        header, body = record.unpack(packed)
        return record.outcome_in(body).after if header.state in record.SETTLED else ()
    except record.UNREADABLE:
        return ()


async def _relatives(
    host: Host, info: TaskInfo, options: dict[str, Any]
) -> tuple[Sequence[Dependency], Sequence[Dependency]]:
    waits_for: list[Related] = []
    children: list[Related] = []
    for plugin in host.plugins.values():
        if hasattr(plugin, "relatives"):
            found = await plugin.relatives(host, info.id, info.tenant, options)
            waits_for += found.waits_for
            children += found.children
    if info.state is not TaskState.DEFERRED:
        waits_for = []
    return (
        tuple(Dependency(*each) for each in waits_for if each.state not in _ENDED)[:_MOST],
        tuple(Dependency(*each) for each in children)[:_MOST],
    )


_ENDED: Final = {state.value for state in TaskState if state.settled}


def _held_by(info: TaskInfo, reply: Sequence[Any], waits_for: Sequence[Dependency]) -> str | None:
    """Says why a task that waits does not start; None if it only waits its turn, or until it is due."""
    if info.state is TaskState.DEFERRED:
        return _holder(reply[7].decode(errors="replace"), waits_for)
    return _why_queued(info.tenant, *reply[8:12]) if info.state is TaskState.QUEUED else None


def _holder(name: str, waits_for: Sequence[Dependency]) -> str:
    if name == _FOLLOWER:
        return "another task with its key, which has not ended"
    return f"{name}: tasks that have not ended" if waits_for else name or "a plugin"


def _why_queued(tenant: str, why: bytes, closed: Sequence[bytes], lane: bytes, runtimes: int) -> str | None:
    reason: str | None = None
    if lane:
        reason = f"no running process {read_lane(lane).needs}"
    elif not runtimes:
        reason = "no runtime runs tasks"
    elif why:
        reason = _WHY[why].format(tenant)
    elif closed:
        names = ", ".join(repr(name_in_json(name)) for name in closed)
        reason = f"{'limits' if len(closed) > 1 else 'limit'} {names}"
    return reason


def _timeline(info: TaskInfo, running_for: float | None, now: float) -> Iterator[Event]:
    """Yields what has happened to a task, oldest first."""
    events = sorted(_events(info, running_for, now), key=lambda event: event.at)
    last: Event | None = None
    for event in events:
        if event != last:
            yield event
        last = event


def _events(info: TaskInfo, running_for: float | None, now: float) -> Iterator[Event]:
    sent = info.enqueued_at
    before = [attempt for attempt in info.history if attempt.started_at < sent.timestamp() - 0.001]
    if info.due_at is None or info.due_at > sent:
        yield Event(sent, "redriven" if before else "sent")
    for number, attempt in enumerate(info.history):
        is_last = number == len(info.history) - 1
        yield from _of_attempt(info, attempt, is_last=is_last)
    if info.due_at is not None:
        yield Event(info.due_at, "due", f"attempt {info.attempt}")
    if running_for is not None:
        yield Event(_at(now - running_for), "started", info.runtime or "")
    if info.ended_at is not None:
        if info.started_at is not None and not _is_last_attempt(info):
            yield Event(info.started_at, "started")
        yield Event(info.ended_at, info.state.value, f"{info.error.type}: {info.error.message}" if info.error else "")


def _is_last_attempt(info: TaskInfo) -> bool:
    """Whether the attempt that ended the task is the last one of its history."""
    return info.state is TaskState.FAILED and bool(info.history)


def _of_attempt(info: TaskInfo, attempt: record.Attempt, *, is_last: bool) -> Iterator[Event]:
    note = f"{attempt.error}: {attempt.message}"
    began = _at(attempt.started_at)
    if attempt.error in _DETECTED and not attempt.seconds:
        yield Event(began, "lost", f"{note} ({attempt.runtime})")
        return
    yield Event(began, "started", attempt.runtime)
    if not (is_last and info.ended_at is not None and info.state is TaskState.FAILED):
        yield Event(_at(attempt.started_at + attempt.seconds), "put off" if attempt.uncounted else "retried", note)


def _at(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):  # damaged
        return datetime.fromtimestamp(0, UTC)
