"""Schedules as users see them: what `Schedules.get` returns."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs
import msgspec

from fairactor.errors import FairactorError
from fairactor.plugins import check_name

from ._options import CatchUp, Overlap
from ._rule import Stored
from ._times import moment

NAME: Final = "fairactor_scheduling"

State = Literal["active", "paused", "finished"]
RunOutcome = Literal["sent", "skipped", "missed", "duplicate", "refused"]

FIELDS: Final = (
    b"version", b"definition", b"digest", b"message", b"metadata", b"state", b"planned", b"runs", b"budget", b"waiting",
    b"created", b"lines", b"steps",
)  # fmt: skip
"""The fields to read. The message itself, which may be long, is left out."""


class ScheduleNotFound(FairactorError, LookupError):
    """There is no such schedule: it was never added, was removed, or finished a while ago."""


@attrs.frozen
class ScheduleRun:
    """What became of one planned time of a schedule."""

    planned: dt.datetime
    """The planned time."""
    at: dt.datetime
    """When it was handled."""
    outcome: RunOutcome
    """``sent``; ``skipped``: the previous run had not ended, or too many runs were waiting; ``missed``: this time, and
    those up to the next listed run, were passed over; ``duplicate``: the message's ``key`` belongs to another task;
    ``refused``: its id belongs to a task of another tenant."""
    task: str | None
    """The id of the run's task, or of the `Run` if it sends a graph. If it was skipped, the id of the previous run."""


@attrs.frozen(kw_only=True)
class Schedule:
    """A schedule, as it was when it was read. Times are the server's, in UTC."""

    id: str
    tenant: str
    when: str | dt.timedelta | dt.datetime
    """The cron expression, the interval, or the only time."""
    timezone: str
    start: dt.datetime | None
    end: dt.datetime | None
    jitter: float
    grace: float
    budget: int | None
    catch_up: CatchUp
    catch_up_limit: int
    overlap: Overlap
    kept: float
    metadata: Mapping[str, Any]
    actor: str
    """The name of the actor that the message is for; of a graph, of its first step."""
    steps: tuple[str, ...]
    """The names of the steps of a graph, in the order of `Run.handles`; empty if it sends a message."""
    state: State
    next_time: dt.datetime | None
    """The next time, without the jitter; also while the schedule is paused."""
    runs: int
    """How many runs it has sent, including those that wait."""
    waiting: int
    """How many of these runs wait for the previous one, or for room in the mailbox."""
    created_at: dt.datetime
    last_runs: tuple[ScheduleRun, ...]
    """The last ten, the latest first."""
    declared: bool
    """Whether it comes from ``@schedule``."""


def new_run_id() -> str:
    """Returns the id of a run that was not planned. All ids of runs of graphs are equally long: see tick.lua."""
    return f"schedule:now:{os.urandom(17).hex()}"


def run_id_of(task_id: str) -> str:
    """Returns the id of the run of a graph to which a task belongs."""
    return task_id[: len(new_run_id())]


def key_of(tenant: str, schedule_id: str) -> str:
    """Returns the name of a schedule within its shard. The length of the tenant makes it unambiguous."""
    return f"{len(tenant.encode())}:{tenant}{schedule_id}"


def checked_key(tenant: str, schedule_id: str) -> str:
    """Checks the names that a user gives, and returns the schedule's name within its shard.

    Raises:
        ConfigurationError: one cannot be a name.
    """
    return key_of(check_name("tenant", tenant), check_name("schedule id", schedule_id))


def split_key(key: bytes) -> tuple[str, str]:
    """Returns the tenant and the id of a schedule, by its name within its shard."""
    length, _, rest = key.partition(b":")
    return rest[: int(length)].decode(), rest[int(length) :].decode()


def parse_schedule(key: bytes, fields: Mapping[bytes, bytes]) -> Schedule:
    """Makes a schedule of its stored fields."""
    tenant, schedule_id = split_key(key)
    rule = msgspec.json.decode(fields[b"definition"], type=Stored)
    planned = int(fields[b"planned"])
    return Schedule(
        id=schedule_id,
        tenant=tenant,
        **rule.definition(),
        metadata=msgspec.json.decode(fields[b"metadata"]),
        actor=rule.actor,
        steps=tuple(msgspec.json.decode(fields.get(b"steps") or b"[]")),
        state=fields[b"state"].decode(),  # type: ignore[arg-type]  # one of them
        next_time=None if planned < 0 else moment(planned),
        runs=int(fields[b"runs"]),
        waiting=len(msgspec.msgpack.decode(fields[b"waiting"])) if b"waiting" in fields else 0,
        created_at=moment(int(fields[b"created"])),
        last_runs=tuple(_parse_run(line) for line in fields.get(b"lines", b"").decode().split("\n") if line),
        declared=rule.declared,
    )


def _parse_run(line: str) -> ScheduleRun:
    planned, at, outcome, task = line.split(" ", 3)
    return ScheduleRun(moment(int(planned)), moment(int(at)), outcome, task or None)  # type: ignore[arg-type]  # one of them


def planned_time(task_id: str) -> dt.datetime | None:
    """Returns the time for which a schedule sent a task; None if no schedule did, or `Schedules.run_now` sent it.

    Args:
        task_id: the id of the task, or of a step of a graph.
    """
    kind, generation, planned, *_ = [*task_id.split(":", 3), "", ""]
    given = kind == "schedule" and generation != "now" and planned.isascii() and planned.isdecimal()
    return moment(int(planned)) if given else None
