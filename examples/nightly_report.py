"""A nightly report for each tenant at two o'clock in its own time zone, even when clocks change.

So that the example does not wait for the night, `run_now` sends each report once immediately.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

from fairactor_scheduling import Schedules, planned_time, schedule

from fairactor import Runtime, actor, current_task

ZONES: Final = {"acme": "Europe/Berlin", "globex": "America/New_York", "initech": "Australia/Lord_Howe"}


@actor(max_retries=3)
async def report(kind: str) -> str:
    """Reports on the day of a tenant. Even a late run knows which night it is for."""
    task = current_task()
    night = planned_time(task.id)
    return f"{kind} report of {task.tenant}, {f'for {night}' if night else 'sent by hand'}"


@schedule("H 4 * * sun", tenant=ZONES, jitter=600, catch_up="once")
@actor
async def compact() -> None:
    """Compacts the data of each tenant, every Sunday after four UTC. A run missed in an outage is caught up."""


async def main() -> None:
    """Adds the schedules, as a service does every time it starts, and looks at them."""
    async with Runtime(actors=[report, compact]) as runtime:
        schedules = Schedules(runtime)
        for tenant, zone in ZONES.items():
            await schedules.add(
                "0 2 * * *",
                tenant,
                report("nightly").options(priority="low", timeout=600),
                id="nightly",
                timezone=zone,
                start=datetime(2027, 3, 1, tzinfo=UTC),
                catch_up="once",  # after an outage, report only the last missed night
                overlap="queue",  # never run two reports of a tenant at once
                metadata={"owner": "finance"},
            )
        for tenant in ZONES:
            times = await schedules.next_times(tenant, "nightly", 40)
            pairs = [(time, later) for time, later in pairwise(times) if time.utcoffset() != later.utcoffset()]
            changes = [f"{later:%d %b %H:%M}" for _, later in pairs]
            print(f"{tenant}: first {times[0]}, clocks change before {', '.join(changes) or 'none of them'}")
        for tenant in ZONES:
            handle = await schedules.run_now(tenant, "nightly")
            print(await handle.result(timeout=30))
        async for each in schedules.list("acme"):
            print(each.id, each.when, each.timezone, each.state, [run.outcome for run in each.last_runs])


if __name__ == "__main__":
    asyncio.run(main())
