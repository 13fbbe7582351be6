"""Tests that invalid schedules are rejected and not stored, and schedules that actors declare."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import redis
from fairactor_scheduling import Schedules, Scheduling, planned_time, schedule
from fairactor_scheduling._declared import _declarations

from fairactor import Runtime, actor
from fairactor.errors import ConfigurationError, NotSerializable, PayloadTooLarge, RuntimeNotRunning, UnknownActor
from tests.support.scheduling.schedules import list_schedules, note, remaining_keys, wait_for_runs

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
UTC = dt.UTC
NAIVE = dt.datetime(2030, 1, 1)  # noqa: DTZ001 - naive on purpose
LATER, EVEN_LATER = (dt.datetime(year, 1, 1, tzinfo=UTC) for year in (2030, 2031))


@actor
async def stranger() -> None:
    pass


@pytest.fixture
def make(make_runtime: Make) -> Make:
    return lambda *more, **settings: make_runtime(note, *more, plugins=[Scheduling()], **settings)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"when": "61 * * * *"}, ConfigurationError, r"cron expression '61 \* \* \* \*'.*out of range: give 0 to 59"),
    ({"when": ""}, ConfigurationError, "cron expression ''"),
    ({"when": "* " * 400}, ConfigurationError, "799 bytes long, the limit is 512"),
    ({"when": "0 0 31 2 *"}, ConfigurationError, "would never run"),
    ({"when": "0 0 1 1 * 0 2020"}, ConfigurationError, "would never run"),
    ({"when": 0}, ConfigurationError, "interval=0"),
    ({"when": 0.01}, ConfigurationError, "at least 0.1 seconds"),
    ({"when": -5.0}, ConfigurationError, "interval=-5.0"),
    ({"when": float("nan")}, ConfigurationError, "interval=nan"),
    ({"when": dt.timedelta(days=-1)}, ConfigurationError, "interval=-86400.0"),
    ({"when": True}, ConfigurationError, "when=True: give a cron expression"),
    ({"when": None}, ConfigurationError, "when=None: give a cron expression"),
    ({"when": NAIVE}, ConfigurationError, "has no time zone"),
    ({"when": dt.datetime(2020, 1, 1, tzinfo=UTC)}, ConfigurationError, "would never run.*catch_up='once'"),
    ({"when": LATER, "end": EVEN_LATER}, ConfigurationError, "no start= and end="),
    ({"timezone": "Europe/Atlantis"}, ConfigurationError, "timezone='Europe/Atlantis': there is no such.*tzdata"),
    ({"timezone": "../../etc/passwd"}, ConfigurationError, "there is no such time zone"),
    ({"timezone": "\x00"}, ConfigurationError, "there is no such time zone"),
    ({"timezone": None}, ConfigurationError, "timezone None"),
    ({"start": NAIVE}, ConfigurationError, "start=.*has no time zone"),
    ({"end": "tomorrow"}, ConfigurationError, "end='tomorrow': give a datetime"),
    ({"start": EVEN_LATER, "end": LATER}, ConfigurationError, "start= is after end="),
    ({"end": dt.datetime(2020, 1, 1, tzinfo=UTC)}, ConfigurationError, "would never run"),
    ({"jitter": -1}, ConfigurationError, "jitter=-1"),
    ({"jitter": "5"}, ConfigurationError, "jitter='5'"),
    ({"grace": 1}, ConfigurationError, "grace=1: give at least 5 seconds"),
    ({"start": dt.datetime.min.replace(tzinfo=UTC)}, ConfigurationError, "start=.*from 1971 to 2098"),
    ({"end": dt.datetime.max.replace(tzinfo=UTC)}, ConfigurationError, "end=.*from 1971 to 2098"),
    ({"when": dt.datetime.max.replace(tzinfo=UTC)}, ConfigurationError, "when=.*from 1971 to 2098"),
    ({"when": dt.timedelta.max}, ConfigurationError, "interval="),
    ({"grace": float("inf")}, ConfigurationError, "grace=inf"),
    ({"kept": 1e12}, ConfigurationError, "kept="),
    ({"budget": 0}, ConfigurationError, "budget=0: give a whole number, 1 or more"),
    ({"budget": 1.5}, ConfigurationError, "budget=1.5"),
    ({"catch_up": "none"}, ConfigurationError, "catch_up='none': give one of 'skip', 'once', 'all'"),
    ({"catch_up_limit": 0}, ConfigurationError, "catch_up_limit=0"),
    ({"catch_up_limit": 10_001}, ConfigurationError, "catch_up_limit=10001"),
    ({"overlap": "forbid"}, ConfigurationError, "overlap='forbid': give one of 'allow', 'skip', 'queue'"),
    ({"metadata": {"x": object()}}, NotSerializable, "metadata"),
    ({"metadata": {"x": "y" * 20_000}}, ConfigurationError, "metadata: 20008 bytes of JSON, the limit is 16384"),
    ({"metadata": ["x"]}, ConfigurationError, r"metadata=\['x'\]: give a dict"),
    ({"id": ""}, ConfigurationError, "schedule id ''"),
    ({"id": "x" * 513}, ConfigurationError, "513 bytes long"),
    ({"id": "\ud800"}, ConfigurationError, "surrogate"),
    ({"tenant": ""}, ConfigurationError, "tenant ''"),
    ({"message": "note"}, ConfigurationError, "'note' is not a message"),
    ({"message": note(object())}, NotSerializable, "object"),
    ({"message": note("x" * 2_000_000)}, PayloadTooLarge, "max_payload"),
    ({"message": stranger()}, UnknownActor, "no actor 'stranger' is registered here"),
    ({"message": note().options(id="a")}, ConfigurationError, "has no id=: each run gets a new id"),
    ({"message": note().options(delay=5)}, ConfigurationError, "has no delay=.*change that"),
    ({"message": note().options(eta=LATER)}, ConfigurationError, "has no eta=.*give the schedule a datetime"),
]


@pytest.mark.parametrize(("given", "error", "words"), WRONG)
async def test_what_cannot_be_is_refused_and_nothing_is_stored(
    make: Make, db: redis.Redis, given: dict[str, Any], error: type[Exception], words: str
) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        how = {"when": "0 9 * * *", "tenant": "t", "message": note(), "id": "s"} | given
        when, tenant, message = (how.pop(each) for each in ("when", "tenant", "message"))
        with pytest.raises(error, match=words):
            await schedules.add(when, tenant, message, **how)
        assert not remaining_keys(db)


async def test_outside_of_a_runtime_it_says_so(make: Make) -> None:
    schedules = Schedules(make())
    with pytest.raises(RuntimeNotRunning, match="not entered yet"):
        await schedules.add("* * * * *", "t", note())
    with pytest.raises(RuntimeNotRunning, match="not entered yet"):
        await schedules.get("t", "s")


async def test_a_schedule_without_an_id_gets_one(make: Make) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        added = [await schedules.add("0 9 * * *", "t", note()) for _ in range(2)]
        assert added[0].id != added[1].id
        assert [each.id for each in await list_schedules(schedules)] == sorted(each.id for each in added)


# @schedule


def declare(*declarations: Callable[[Any], Any]) -> Any:
    @actor
    async def report(what: str = "all") -> str:
        return what

    for declaration in declarations:
        report = declaration(report)
    return report


async def test_what_an_actor_declares_is_added_by_whatever_runtime_runs_it(make: Make, make_runtime: Make) -> None:
    report = declare(
        schedule(0.1, tenant="t", args=["often"]),
        schedule("0 9 * * *", tenant=["t", "u"], timezone="Asia/Tokyo", metadata={"of": "team"}),
    )
    leave, entered = anyio.Event(), asyncio.Barrier(5)

    async def live(runtime: Runtime) -> None:
        async with runtime:
            await entered.wait()
            await leave.wait()

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(live, make(report))
        await entered.wait()
        async with make() as other:
            schedules = Schedules(other)
            found = {(each.tenant, each.id): each for each in await list_schedules(schedules)}
            assert found.keys() == {("t", "@report#0"), ("t", "@report#1"), ("u", "@report#1")}
            assert all(each.declared and each.actor == "report" for each in found.values())
            assert found["u", "@report#1"].metadata == {"of": "team"}
            (run, *_) = await wait_for_runs(schedules, "t", "@report#0")
            assert run.task is not None
            assert await other.handle(run.task, "t").result(timeout=30) == "often"
            before = await schedules.get("t", "@report#1")
        leave.set()
    async with make_runtime(report, workers=0, plugins=[Scheduling()]) as runtime:
        assert await Schedules(runtime).get("t", "@report#1") == before


async def test_what_is_declared_otherwise_replaces_it_and_what_is_declared_no_more_goes(make: Make) -> None:
    def at(when: str, tenant: str) -> Any:
        return schedule(when, tenant=tenant)

    async def ids(*actors: Any) -> list[tuple[str, str, Any]]:
        async with make(*actors) as runtime:
            return [(each.tenant, each.id, each.when) for each in await list_schedules(Schedules(runtime))]

    async with make() as runtime:
        await Schedules(runtime).add("0 9 * * *", "t", note(), id="@report#7")
    by_hand = ("t", "@report#7", "0 9 * * *")
    first = ("t", "@report#0", "0 1 * * *")
    assert await ids(declare(at("0 1 * * *", "t"), at("0 2 * * *", "t"))) == [
        first, ("t", "@report#1", "0 2 * * *"), by_hand,
    ]  # fmt: skip
    assert await ids(declare(at("0 1 * * *", "t"), at("0 3 * * *", "u"))) == [
        first, by_hand, ("u", "@report#1", "0 3 * * *"),
    ]  # fmt: skip
    assert await ids() == [first, by_hand, ("u", "@report#1", "0 3 * * *")]  # kept, because it runs another actor
    assert await ids(declare()) == [by_hand]


async def test_what_has_come_to_its_end_does_not_begin_again_with_the_next_runtime(make: Make) -> None:
    report = declare(schedule(0.1, tenant="t", budget=2), schedule(1, tenant="t", end=dt.datetime.now(UTC)))
    for _ in range(2):
        async with make(report) as runtime:
            runs = await wait_for_runs(Schedules(runtime), "t", "@report#0", 2)
            assert len({planned_time(run.task or "") for run in runs}) == len(runs) == 2
            assert [each.id for each in await list_schedules(Schedules(runtime))] == ["@report#0"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"when": "99 * * * *"}, "out of range"), ({"tenant": ""}, "tenant ''"),
        ({"id": "x"}, "takes no id=; there are"), ({"kept": 5}, "takes no kept="),
        ({"when": LATER}, "a cron expression or an interval"), ({"tenant": ["a", 5]}, "tenant 5"),
        ({"budget": 0}, "budget=0"),
    ],
)  # fmt: skip
def test_what_cannot_be_declared_is_refused_where_it_stands(given: dict[str, Any], words: str) -> None:
    how = {"when": "0 9 * * *", "tenant": "t"} | given
    with pytest.raises(ConfigurationError, match=words):
        schedule(how.pop("when"), **how)


def test_only_actors_that_are_functions_declare_and_their_arguments_fit() -> None:
    for wrong in (actor(type("Cart", (), {"add": lambda self: None})), lambda: None):
        with pytest.raises(ConfigurationError, match="stands above @actor"):
            schedule("0 9 * * *", tenant="t")(wrong)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="argument"):
        declare(schedule("0 9 * * *", tenant="t", args=[1, 2, 3]))


def test_actors_that_are_gone_declare_nothing() -> None:
    report = declare(schedule("0 9 * * *", tenant="t"))
    assert report in _declarations
    count = len(_declarations)
    del report
    gc.collect()
    assert len(_declarations) < count
