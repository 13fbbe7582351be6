"""Tests schedules that send graphs: each run is a run of its own, and is sent as a whole or not at all."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
import redis
from fairactor_dependencies import Dependencies, at, each, result, result_of
from fairactor_scheduling import Schedules, Scheduling, planned_time
from fairactor_xcom import XCom

from fairactor import Runtime, TaskState, actor, current_task
from fairactor.errors import ConfigurationError, MissingPlugin, PayloadTooLarge
from fairactor.plugins import Graph
from fairactor.testing import check_invariants
from tests.plugins.scheduling.test_overlap import Gate
from tests.support.polling import PATIENCE, until
from tests.support.scheduling.schedules import note, remaining_keys, wait_for_runs

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def extract(many: int) -> list[int]:
    return list(range(many))


@actor
async def double(number: int) -> int:
    return number * 2


@actor
async def load(numbers: list[int]) -> list[Any]:
    task = current_task()
    planned = planned_time(task.id)
    return [sum(numbers), task.options["xcom_run"], planned.isoformat() if planned else None]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def make(make_runtime: Make, gate: Gate) -> Make:
    def made(**settings: Any) -> Runtime:
        plugins = [Dependencies(), Scheduling(), XCom()]
        return make_runtime(note, gate.wait, extract, double, load, **{"plugins": plugins} | settings)

    return made


def pipeline() -> Graph:
    return extract(3) >> each(double) >> load(result())


async def test_each_run_of_a_graph_is_a_run_of_its_own(make: Make) -> None:
    async with make() as runtime:
        schedules, graph = Schedules(runtime), pipeline()
        added = await schedules.add(0.1, "t", graph, id="s", budget=2)
        assert (added.actor, added.steps[0], added.steps[-1]) == ("extract", "extract", "load")
        for sent in await wait_for_runs(schedules, "t", "s", 2):
            run = schedules.run("t", graph, sent.task or "")
            assert await run.result(PATIENCE) == [6, run.id, sent.planned.isoformat()]
            assert run.id == sent.task
            states = await run.states()
            assert set(states.values()) == {TaskState.FINISHED}
            assert {"extract", "double[2]", "load"} <= set(states)
        assert (await schedules.get("t", "s")).state == "finished"
        await runtime.drain(PATIENCE)
        await check_invariants(runtime)


async def test_a_message_that_takes_a_result_is_sent_with_the_message_that_gives_it(make: Make) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await schedules.add(0.1, "t", load(result_of(extract(4))), id="s", budget=1)
        handle = await schedules.run_now("t", "s")
        assert (await handle.result(PATIENCE))[0] == 6
        (sent, *_) = await wait_for_runs(schedules, "t", "s", 2)
        assert (await runtime.handle(f"{sent.task}:load", "t").result(PATIENCE))[0] == 6


async def test_a_run_is_canceled_by_itself(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        schedules, graph = Schedules(runtime), gate.wait() >> note()
        await schedules.add("0 0 1 1 *", "t", graph, id="s")
        first, second = [await schedules.run_now("t", "s") for _ in range(2)]
        await until(lambda: gate.running == 2)
        await schedules.run("t", graph, first.id).cancel()
        gate.let(2)
        assert await second.result(PATIENCE) == second.id
        assert await first.state() is TaskState.CANCELED


@pytest.mark.parametrize("overlap", ["skip", "queue"])
async def test_a_run_has_ended_when_all_its_steps_have(make: Make, gate: Gate, overlap: Any) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        await schedules.add(0.1, "t", note() >> gate.wait(), id="s", overlap=overlap, budget=2)
        await until(lambda: gate.running == 1)
        if overlap == "skip":
            runs = await wait_for_runs(schedules, "t", "s", 3)
            assert [run.outcome for run in runs][-3:] == ["skipped", "skipped", "sent"]
        else:
            await until(lambda: _waiting(schedules))
        gate.let()
        await until(lambda: len(gate.order) == 2)
        gate.let()
        await runtime.drain(PATIENCE)
        assert gate.most == 1
        assert (await schedules.get("t", "s")).runs == 2


async def _waiting(schedules: Schedules) -> bool:
    return (await schedules.get("t", "s")).waiting == 1


async def test_a_run_that_finds_no_room_for_all_its_steps_waits_as_a_whole(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        await runtime.tenant("t").configure(backlog=2, concurrency=1)
        schedules = Schedules(runtime)
        await runtime.send("t", gate.wait())
        await until(lambda: gate.running == 1)
        before = await runtime.send("t", note())
        await schedules.add(0.1, "t", note() >> note(), id="s", budget=1)
        await until(lambda: _waiting(schedules))
        assert await schedules.last_runs("t", "s") == ()
        gate.let()
        await before.result(PATIENCE)
        await schedules.pause("t", "s")
        await schedules.resume("t", "s")  # it tries again at once
        (sent,) = await wait_for_runs(schedules, "t", "s")
        assert await runtime.handle(f"{sent.task}:note.2", "t").result(PATIENCE)


async def test_the_same_graph_changes_nothing_and_another_one_replaces_it(make: Make) -> None:
    async with make() as runtime:
        schedules = Schedules(runtime)
        added = await schedules.add("0 9 * * *", "t", pipeline(), id="s")
        assert await schedules.add("0 9 * * *", "t", pipeline(), id="s") == added
        longer = await schedules.add("0 9 * * *", "t", pipeline() >> note(), id="s")
        assert longer.steps == (*added.steps, "note")
        plain = await schedules.update("t", "s", message=note("a"))
        assert (plain.steps, plain.actor) == ((), "note")
        assert await (handle := await schedules.run_now("t", "s")).result(PATIENCE) == handle.id
        assert (await schedules.update("t", "s", message=pipeline())).steps == added.steps
        assert (await (await schedules.run_now("t", "s")).result(PATIENCE))[0] == 6


async def test_runtimes_without_the_plugin_of_a_graph_send_none_of_its_runs(make: Make, db: redis.Redis) -> None:
    async with make(workers=0) as runtime:
        await Schedules(runtime).add("0 9 * * *", "t", note() >> note())
    assert ",fairactor_dependencies," in str(db.hget("{fairactor/0}", "plugins"))
    with pytest.raises(MissingPlugin, match="fairactor_dependencies"):
        async with make(workers=0, plugins=[], without_plugins=["fairactor_dependencies"]):
            pass


async def test_what_is_no_run_is_refused_by_name(make: Make) -> None:
    async with make(workers=0) as runtime:
        with pytest.raises(ConfigurationError, match=r"'s', ….: give the graph of the schedule"):
            Schedules(runtime).run("t", "s", "id")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"5.: give the id of a run"):
            Schedules(runtime).run("t", note() >> note(), 5)  # type: ignore[arg-type]


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: note().options(depends_on=["x"]), ConfigurationError, "has no depends_on=, and this one names 'x'"),
    (lambda: note() >> note().options(depends_on=["x"]), ConfigurationError, "names 'x'.*Give a graph"),
    (lambda: load(result_of("x")).options(depends_on=["x"]), ConfigurationError, "names 'x'"),
    (lambda: note() >> at("other", note()), ConfigurationError, "for tenant 'other', and the graph for 't'"),
    (lambda: note() >> note().options(eta=dt.datetime(2030, 1, 1, tzinfo=dt.UTC)), ConfigurationError, "has eta="),
    (lambda: note() >> [note() for _ in range(500)], ConfigurationError, "has 501 steps, and 500 at most"),
    (lambda: note("x" * 600_000) >> note("x" * 600_000), PayloadTooLarge, "the calls of the graph take"),
    (lambda: note() >> load(result_of("x")), ConfigurationError, "not the result of a parent"),
]


@pytest.mark.parametrize(("message", "error", "words"), REFUSED)
async def test_what_cannot_be_sent_each_time_is_refused_when_it_is_added(
    make: Make, db: redis.Redis, message: Callable[[], Any], error: type[Exception], words: str
) -> None:
    async with make(workers=0) as runtime:
        with pytest.raises(error, match=words):
            await Schedules(runtime).add("0 9 * * *", "t", message(), id="s")
        assert not remaining_keys(db)
