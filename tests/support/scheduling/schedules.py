"""Helpers for tests of schedules: an actor, the server's time, and functions that rewind and read schedules."""

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
    """Returns its task id."""
    return current_task().id


def server_time(db: redis.Redis) -> dt.datetime:
    """Returns the server's time."""
    seconds, us = db.time()  # type: ignore[misc]
    return dt.datetime.fromtimestamp(seconds, dt.UTC) + dt.timedelta(microseconds=us)


def schedule_key(tenant: str, schedule: str) -> str:
    """Returns the key of a stored schedule."""
    return f"{PREFIX}schedule:{len(tenant.encode())}:{tenant}{schedule}"


async def rewind(db: redis.Redis, runtime: Runtime, tenant: str, schedule: str, by: dt.timedelta) -> dt.datetime:
    """Makes a schedule look as if no runtime had handled it for a while; returns its next planned time."""
    schedules = Schedules(runtime)
    await schedules.pause(tenant, schedule)
    planned = int(db.hincrby(schedule_key(tenant, schedule), "planned", -(by // dt.timedelta(milliseconds=1))))
    await schedules.resume(tenant, schedule)
    return dt.datetime.fromtimestamp(planned / 1000, dt.UTC)


async def wait_for_runs(schedules: Schedules, tenant: str, schedule: str, lines: int = 1) -> tuple[ScheduleRun, ...]:
    """Waits until a schedule has at least ``lines`` past runs, and returns them."""

    async def enough_runs() -> tuple[ScheduleRun, ...]:
        found = await schedules.last_runs(tenant, schedule)
        return found if len(found) >= lines else ()

    found: tuple[ScheduleRun, ...] = await until(enough_runs)
    return found


async def list_schedules(schedules: Schedules, tenant: str | None = None) -> list[Schedule]:
    """Returns all listed schedules."""
    return [each async for each in schedules.list(tenant)]


def remaining_keys(db: redis.Redis) -> set[bytes]:
    """Returns the plugin's keys, without the leader's."""
    return {key for key in db.scan_iter(match="*plugin:fairactor_scheduling:*") if not key.endswith(b":leader")}
