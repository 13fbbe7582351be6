"""A schedule as one reads it, and how its message is stored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs
import msgspec

from fairactor import Message
from fairactor.errors import ConfigurationError, FairactorError
from fairactor.plugins import Host

from ._rule import CatchUp, Overlap, Stored
from ._times import moment

NAME: Final = "fairactor_scheduling"

State = Literal["active", "paused", "finished"]
RunOutcome = Literal["sent", "skipped", "missed", "duplicate", "refused"]

FIELDS: Final = (
    b"version", b"definition", b"digest", b"message", b"metadata", b"state", b"planned", b"runs", b"budget", b"waiting",
    b"created", b"lines",
)  # fmt: skip
"""Those that are read; the message itself is long, perhaps."""


class ScheduleNotFound(FairactorError, LookupError):
    """There is no such schedule: it was not added, was removed, or has finished a while ago."""


@attrs.frozen
class ScheduleRun:
    """What became of a time of a schedule."""

    planned: dt.datetime
    """The time."""
    at: dt.datetime
    """When that was done about it."""
    outcome: RunOutcome
    """``sent``; ``skipped``: the run before had not ended, or too many waited for it; ``missed``: this time, and those
    up to the next run that is listed, were passed over; ``duplicate``: the message's ``key`` stood for another task;
    ``refused``: its id is a task of another tenant."""
    task: str | None
    """The id of its task; where it was skipped, of the run that was in its way."""


@attrs.frozen(kw_only=True)
class Schedule:
    """What is known of a schedule. Times are the server's, in UTC."""

    id: str
    tenant: str
    when: str | dt.timedelta | dt.datetime
    """Its cron expression, the time between two runs, or its only time."""
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
    """The name of the actor that its runs are for."""
    state: State
    next_time: dt.datetime | None
    """When it runs next, without the jitter; also while it is paused."""
    runs: int
    """How many runs it has sent, or has waiting."""
    waiting: int
    """How many of them wait for the one before, or for room in the mailbox."""
    created_at: dt.datetime
    last_runs: tuple[ScheduleRun, ...]
    """The last ten, the latest first."""
    declared: bool
    """Whether it comes from ``@schedule``."""


def key_of(tenant: str, schedule_id: str) -> str:
    """What a schedule is called in its shard. No name is split out of it that is not preceded by its length."""
    return f"{len(tenant.encode())}:{tenant}{schedule_id}"


def split_key(key: bytes) -> tuple[str, str]:
    """The tenant and the id of a schedule."""
    length, _, rest = key.partition(b":")
    return rest[: int(length)].decode(), rest[int(length) :].decode()


def read(key: bytes, fields: Mapping[bytes, bytes]) -> Schedule:
    """A schedule from its fields."""
    tenant, schedule_id = split_key(key)
    rule = msgspec.json.decode(fields[b"definition"], type=Stored)
    planned = int(fields[b"planned"])
    when: str | dt.timedelta | dt.datetime = rule.cron
    if not rule.cron:
        when = dt.timedelta(milliseconds=rule.every) if rule.every else moment(rule.at)
    return Schedule(
        id=schedule_id,
        tenant=tenant,
        when=when,
        timezone=rule.zone,
        start=None if rule.start is None else moment(rule.start),
        end=None if rule.end is None else moment(rule.end),
        jitter=rule.jitter / 1000,
        grace=rule.grace / 1000,
        budget=rule.budget,
        catch_up=rule.catch_up,
        catch_up_limit=rule.limit,
        overlap=rule.overlap,
        kept=rule.kept / 1000,
        metadata=msgspec.json.decode(fields[b"metadata"]),
        actor=rule.actor,
        state=fields[b"state"].decode(),  # type: ignore[arg-type]  # one of them
        next_time=None if planned < 0 else moment(planned),
        runs=int(fields[b"runs"]),
        waiting=len(msgspec.msgpack.decode(fields[b"waiting"])) if b"waiting" in fields else 0,
        created_at=moment(int(fields[b"created"])),
        last_runs=tuple(_run(line) for line in fields.get(b"lines", b"").decode().split("\n") if line),
        declared=rule.declared,
    )


def _run(line: str) -> ScheduleRun:
    planned, at, outcome, task = line.split(" ", 3)
    return ScheduleRun(moment(int(planned)), moment(int(at)), outcome, task or None)  # type: ignore[arg-type]  # one of them


def pack(host: Host, tenant: str, message: Message[Any]) -> bytes:
    """Packs a message as a schedule stores it, without an id.

    Raises:
        ConfigurationError: it has an option that cannot apply to each run. What `Runtime.send` raises.
    """
    if isinstance(message, Message):
        for option, advice in _NOT_FOR_EACH_RUN.items():
            if getattr(message.task_options, option) is not None:
                raise ConfigurationError(f"a scheduled message has no {option}=: {advice}")
    return host.pack_template(tenant, message)


_NOT_FOR_EACH_RUN: Final = {
    "id": "each run has an id of its own; name the schedule with id=",
    "delay": "it is sent when its time has come; move that",
    "eta": "it is sent when its time has come; give the schedule a datetime",
}


def planned_time(task_id: str) -> dt.datetime | None:
    """For which time of its schedule a task was sent, by its id; None: by no schedule, or by `Schedules.run_now`."""
    kind, _, rest = task_id.partition(":")
    _, _, planned = rest.partition(":")
    return moment(int(planned)) if kind == "schedule" and planned.isascii() and planned.isdecimal() else None
