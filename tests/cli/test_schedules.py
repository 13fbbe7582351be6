"""Tests ``fairactor schedules``, which the plugin fairactor_scheduling contributes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fairactor_scheduling import Schedules

from fairactor import Runtime

from .conftest import HOSTILE, Run, bill

pytestmark = pytest.mark.usefixtures("of_plugins")


async def add_some(runtime: Runtime) -> None:
    schedules = Schedules(runtime)
    await schedules.add("0 9 * * mon-fri", "acme", bill(1), id="report", timezone="Europe/Berlin")
    await schedules.add(timedelta(minutes=5), "acme", bill(2), id="often")
    await schedules.add(datetime(2090, 1, 1, tzinfo=UTC), HOSTILE, bill(3), id="often")


def test_schedules_are_listed(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(add_some)
    records = run("schedules", "--json").records
    assert (records[0]["tenant"], records[0]["id"]) == ("acme", "often")
    assert records[-1]["tenant"] == HOSTILE
    assert len(run("schedules", "list", "--tenant", "acme", "--json").records) == 2
    assert "every 5m" in run("schedules").out
    assert run("schedules", "--tenant", "nobody").out == "there are no schedules\n"


def test_the_next_times_are_in_the_zone_of_the_schedule(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(add_some)
    lines = run("schedules", "next", "report", "-n", "3").out.splitlines()
    assert len(lines) == 4
    assert all(" 09:00:00 CE" in line and line.endswith("Europe/Berlin") for line in lines[1:])
    assert len(run("schedules", "next", "report", "--json").records) == 5
    assert "give 1000 at most" in run("schedules", "next", "report", "-n", "1001", code=2).err


def test_a_schedule_is_paused_resumed_and_run_now(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(add_some)
    assert run("schedules", "pause", "report").out == "report paused\n"
    assert "state      paused" in run("schedules", "show", "report").out
    assert "it sends nothing until" in run("schedules", "next", "report").err
    assert run("schedules", "resume", "report", "--json").record["paused"] is False
    task = run("schedules", "run", "report", "--json").record["task"]
    info = prepare(lambda runtime: runtime.handle(task, "acme").info())
    assert (info.actor, info.state) == ("bill", "queued")


def test_names_that_are_unknown_or_several_tenants_have(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(add_some)
    assert "did you mean 'report'?" in run("schedules", "show", "rport", code=1).err
    said = run("schedules", "pause", "often", code=1).err
    assert "2 tenants have a schedule 'often': add --tenant" in said
    assert "\x1b" not in said
    assert run("schedules", "pause", "often", "--tenant", HOSTILE).out == "often paused\n"
