"""Schedules: added, changed, kept to, and what becomes of times that pass."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from fairactor_scheduling import Schedules, Scheduling, planned_time

from fairactor import Runtime, actor, current_task
from fairactor.testing import check_invariants

from .fleet import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
HOUR = dt.timedelta(hours=1)


@actor
async def note(*what: str) -> str:
    return current_task().id


@pytest.fixture
def make(make_runtime: Make) -> Make:
    return lambda *more, **settings: make_runtime(note, *more, plugins=[Scheduling()], **settings)


def now(db: redis.Redis) -> dt.datetime:
    seconds, us = db.time()  # type: ignore[misc]
    return dt.datetime.fromtimestamp(seconds, dt.UTC) + dt.timedelta(microseconds=us)


async def test_an_interval_runs_again_and_again(make: Make) -> None:
    seen: list[str] = []

    @actor
    async def see() -> None:
        seen.append(current_task().id)

    async with make(see) as runtime:
        schedules = Schedules(runtime)
        added = await schedules.add(0.1, "t", see(), id="s")
        assert (added.id, added.tenant, added.state, added.actor) == ("s", "t", "active", "see")
        await until(lambda: len(seen) >= 5)
        times = [planned_time(task) for task in seen[:5]]
        assert times == [added.next_time + n * dt.timedelta(seconds=0.1) for n in range(5)]
        assert added.next_time == added.created_at + dt.timedelta(seconds=0.1)
        assert await schedules.remove("t", "s")
        await runtime.drain(PATIENCE)
        await check_invariants(runtime)
