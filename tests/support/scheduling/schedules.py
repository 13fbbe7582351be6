"""Schedules for tests: runtimes that have them, a handler that waits, and making time pass for a schedule."""

from __future__ import annotations

import datetime as dt
from typing import Any

import redis
from fairactor_scheduling import Schedule, ScheduleRun, Schedules

from fairactor import Runtime, actor, current_task
from tests.support.polling import until

PREFIX = "{fairactor/0}:plugin:fairactor_scheduling:"
FOREVER = 86400.0


@actor
async def note(*what: Any) -> str:
    """Its id is its result."""
    return current_task().id


def server_time(db: redis.Redis) -> dt.datetime:
    """The server's time."""
    seconds, us = db.time()  # type: ignore[misc]
    return dt.datetime.fromtimestamp(seconds, dt.UTC) + dt.timedelta(microseconds=us)


def schedule_key(tenant: str, schedule: str) -> str:
    """Where a schedule is stored."""
    return f"{PREFIX}schedule:{len(tenant.encode())}:{tenant}{schedule}"


async def rewind(db: redis.Redis, runtime: Runtime, tenant: str, schedule: str, by: dt.timedelta) -> dt.datetime:
    """So much time has gone by, and nobody has seen to the schedule since; returns its time that is next."""
    schedules = Schedules(runtime)
    await schedules.pause(tenant, schedule)
    planned = int(db.hincrby(schedule_key(tenant, schedule), "planned", -(by // dt.timedelta(milliseconds=1))))
    await schedules.resume(tenant, schedule)
    return dt.datetime.fromtimestamp(planned / 1000, dt.UTC)


async def wait_for_runs(schedules: Schedules, tenant: str, schedule: str, lines: int = 1) -> tuple[ScheduleRun, ...]:
    """What became of its last times, when there are so many of them."""

    async def enough_runs() -> tuple[ScheduleRun, ...]:
        found = await schedules.last_runs(tenant, schedule)
        return found if len(found) >= lines else ()

    found: tuple[ScheduleRun, ...] = await until(enough_runs)
    return found


async def list_schedules(schedules: Schedules, tenant: str | None = None) -> list[Schedule]:
    """All that are listed."""
    return [each async for each in schedules.list(tenant)]


def remaining_keys(db: redis.Redis) -> set[bytes]:
    """The keys of the plugin that hold schedules."""
    return {key for key in db.scan_iter(match="*plugin:fairactor_scheduling:*") if not key.endswith(b":leader")}
