"""Schedules, and values that tasks share."""

from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from fairactor_scheduling import Schedule, Schedules, schedule
from fairactor_xcom import Values, xcom

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

    assert_type(await all_of_them.update("acme", "daily", budget=3, message=report("weekly")), Schedule)
    await all_of_them.add(datetime(2027, 1, 1, tzinfo=UTC), "acme", report())

    report(1)  # flagged
    await all_of_them.add("0 9 * * *", "acme", report(), gracee=5)  # flagged
    await all_of_them.add("0 9 * * *", "acme", report(), catch_up="never")  # flagged
    await all_of_them.add("0 9 * * *", "acme", report)  # flagged
    await all_of_them.add("0 9 * * *", "acme", report(), when="0 8 * * *")  # flagged
    await all_of_them.update("acme", "daily", gracee=5)  # flagged
    await all_of_them.update("acme", "daily", budget="3")  # flagged
    await all_of_them.update("acme", "daily", tenant="globex")  # flagged


def declared() -> None:
    @schedule(3600, tenant=["acme", "globex"], jitter=timedelta(minutes=5), kwargs={"kind": "weekly"})
    @actor(max_retries=3)
    async def often(kind: str) -> str:
        return kind

    assert_type(often("weekly"), Message[str])

    @schedule("0 9 * * *", tenant="acme", gracee=60)  # flagged
    @actor
    async def misspelled() -> None: ...

    @schedule("0 9 * * *", tenant="acme", overlap="never")  # flagged
    @actor
    async def wrong_value() -> None: ...

    @schedule("0 9 * * *")  # flagged
    @actor
    async def without_a_tenant() -> None: ...


async def values(runtime: Runtime) -> None:
    assert_type(await xcom.pull("kind", type=str), str)
    assert_type(await xcom.pull("kind", type=str, default=None), str | None)
    assert_type(await xcom.pull("kind", from_task=["report-1"], type=int), list[int])
    assert_type(await xcom.pull("kind"), Any)
    assert_type(await Values(runtime, "acme", "nightly").pull("kind", type=int), int)

    await xcom.push("kind", 1, tll=5)  # flagged
    await xcom.pull(7)  # flagged
    await xcom.pull("kind", from_task=7)  # flagged
