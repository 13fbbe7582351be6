"""Schedules, and values that tasks share."""

from datetime import timedelta
from typing import assert_type

from fairactor_scheduling import Schedule, Schedules, schedule
from fairactor_xcom import xcom

from fairactor import Handle, Message, Runtime, actor


@schedule("0 9 * * *", tenant="acme", timezone="Europe/Berlin", grace=60, catch_up="once")
@actor
async def report(kind: str = "daily") -> str:
    await xcom.push("kind", kind, ttl=timedelta(hours=1))
    return kind


async def schedules(runtime: Runtime) -> None:
    all_of_them = Schedules(runtime)
    added = await all_of_them.add("0 9 * * *", "acme", report(), id="daily", overlap="queue", jitter=60)
    assert_type(added, Schedule)
    assert_type(report("weekly"), Message[str])
    await all_of_them.add(timedelta(hours=1), "acme", report().options(priority="low"), metadata={"owner": "finance"})
    async for each in all_of_them.list("acme"):
        assert_type(each, Schedule)
    assert_type(await runtime.send("acme", report()), Handle[str])

    report(1)  # flagged
    await all_of_them.add("0 9 * * *", "acme", report(), gracee=5)  # flagged
    await all_of_them.add("0 9 * * *", "acme", report(), catch_up="never")  # flagged
    await all_of_them.add("0 9 * * *", "acme", report)  # flagged
