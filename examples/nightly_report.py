"""A nightly report for each tenant at two o'clock in its own time zone, even when clocks change.

So that the example does not wait for the night, the schedules begin two days ago: the last night counts as missed, and
its report is caught up immediately. `run_now` sends one more report by hand.

It prints::

    acme: every night at 02:00, clocks change before …
    globex: every night at 02:00, clocks change before …
    initech: every night at 02:00, clocks change before …
    nightly report of acme, for the night of … 02:00 CE…
    nightly report of globex, for the night of … 02:00 E…
    nightly report of initech, for the night of … 02:00 +1…
    nightly report of acme, sent by hand
    @compact#0 H 4 * * sun UTC active […]
    nightly 0 2 * * * Europe/Berlin active ['sent', 'sent', 'missed']
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from fairactor_scheduling import Schedules, planned_time, schedule

from fairactor import Handle, Runtime, actor, current_task

ZONES: Final = {"acme": "Europe/Berlin", "globex": "America/New_York", "initech": "Australia/Lord_Howe"}


@actor(max_retries=3)
async def report(kind: str) -> str:
    """Reports on the day of a tenant. Even a late run knows which night it is for."""
    task = current_task()
    planned = planned_time(task.id)
    if planned is None:
        return f"{kind} report of {task.tenant}, sent by hand"
    night = planned.astimezone(ZoneInfo(ZONES[task.tenant]))
    return f"{kind} report of {task.tenant}, for the night of {night:%Y-%m-%d %H:%M %Z}"


@schedule("H 4 * * sun", tenant=ZONES, jitter=600, catch_up="once")
@actor
async def compact() -> None:
    """Compacts the data of each tenant, every Sunday after four UTC. A run missed in an outage is caught up."""


async def last_night(runtime: Runtime, schedules: Schedules, tenant: str) -> Handle[str]:
    """Waits until the report of the last night has been sent, and returns its task."""
    while True:
        for run in await schedules.last_runs(tenant, "nightly"):
            if run.task is not None:
                return runtime.handle(run.task, tenant)
        await asyncio.sleep(0.1)


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
                start=datetime.now(UTC) - timedelta(days=2),
                catch_up="once",  # after an outage, report only the last missed night
                overlap="queue",  # never run two reports of a tenant at once
                metadata={"owner": "finance"},
            )
        for tenant in ZONES:
            times = await schedules.next_times(tenant, "nightly", 365)
            pairs = [(time, later) for time, later in pairwise(times) if time.utcoffset() != later.utcoffset()]
            changes = [f"{later:%d %b %H:%M}" for _, later in pairs]
            print(f"{tenant}: every night at {times[-1]:%H:%M}, clocks change before {', '.join(changes)}")
        for tenant in ZONES:
            print(await (await last_night(runtime, schedules, tenant)).result(timeout=30))
        print(await (await schedules.run_now("acme", "nightly")).result(timeout=30))
        async for each in schedules.list("acme"):
            print(each.id, each.when, each.timezone, each.state, [run.outcome for run in each.last_runs])


if __name__ == "__main__":
    asyncio.run(main())
