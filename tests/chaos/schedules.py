"""Plans schedules, and checks their runs."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import attrs
from fairactor_scheduling import ScheduleNotFound, Schedules

from fairactor import Runtime, TaskState
from fairactor._audit.snapshot import Snapshot
from fairactor._model.record import SETTLED

from . import actors


@attrs.frozen
class PlannedSchedule:
    """A schedule that sends a fixed number of tasks."""

    id: str
    at: float
    tenant: str
    every: float
    runs: int
    jitter: float

    async def add(self, runtime: Runtime) -> None:
        """Adds the schedule; adding it again changes nothing."""
        await Schedules(runtime).add(
            timedelta(seconds=self.every),
            self.tenant,
            actors.echo(self.runs, 0.002),
            id=self.id,
            budget=self.runs,
            catch_up="all",
            catch_up_limit=1_000,
            jitter=self.jitter,
        )

    async def is_over(self, runtime: Runtime) -> bool:
        """Returns whether all its tasks were sent."""
        try:
            return (await Schedules(runtime).get(self.tenant, self.id)).state == "finished"
        except ScheduleNotFound:  # it was removed, and the reply was lost
            return True

    async def remove(self, runtime: Runtime) -> None:
        """Removes the schedule."""
        await Schedules(runtime).remove(self.tenant, self.id)


def schedules(seed: int, span: float, tenants: list[str]) -> list[PlannedSchedule]:
    """Returns the schedules of a seed."""
    rng = random.Random(f"{seed} schedules")
    return [
        PlannedSchedule(
            id=f"schedule {number}",
            at=rng.uniform(0, span / 2),
            tenant=rng.choice(tenants),
            every=rng.uniform(0.1, 0.2),
            runs=rng.randint(3, 10),
            jitter=rng.choice([0.0, 0.05]),
        )
        for number in range(rng.randint(1, 4))
    ]


def check_schedules(planned: list[PlannedSchedule], snapshot: Snapshot, runs: Mapping[str, int]) -> Iterator[str]:
    """Yields violations of the rule that each schedule runs once for each of its times."""
    found: dict[str, list[Any]] = {}
    for task, header in snapshot.records.items():
        if task.startswith("schedule:"):
            found.setdefault(task.split(":")[1], []).append((task, header))
    sent = sorted(len(tasks) for tasks in found.values())
    if sent != sorted(schedule.runs for schedule in planned):
        due = sorted(schedule.runs for schedule in planned)
        yield f"lost or doubled: schedules were to send {due} tasks, and sent {sent}"
    for task, header in (each for tasks in found.values() for each in tasks):
        if SETTLED.get(header.state) is not TaskState.FINISHED:
            yield f"{task}: it is {SETTLED.get(header.state)}"
        if not runs.get(task):
            yield f"{task}: it has never run"
