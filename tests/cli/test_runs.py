"""Tests ``fairactor runs``, and `find_run`, which it uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fairactor_dependencies import each, find_run, result, result_of, results

from fairactor import Runtime, TaskState, actor
from fairactor.errors import ConfigurationError, TaskNotFound

from .conftest import HOSTILE, Run

pytestmark = pytest.mark.usefixtures("of_plugins")
repaired: list[bool] = []


@actor
async def extract(number: int) -> int:
    return number


@actor
async def flaky(number: int) -> int:
    if not repaired:
        raise ValueError(f"broken \x1b[2J {number}")
    return number * 10


@actor
async def load(number: int) -> int:
    return number + 1


@actor
async def report(found: list[Any], one: int) -> str:
    return f"{found} {one}"


ACTORS = (extract, flaky, load, report)


@pytest.fixture(autouse=True)
def broken() -> None:
    repaired.clear()


def graph() -> Any:
    step = flaky(result()).options(priority="high", limits={"api": 2}, max_retries=0)
    return extract(1) >> [step, load(result())] >> report(results(), result_of(step))


async def send_failing(runtime: Runtime) -> str:
    run = await runtime.send(HOSTILE, graph())
    await run.wait(5)
    return run.id


def test_a_run_is_shown_as_a_tree(run: Run, prepare: Callable[..., Any]) -> None:
    found = prepare(send_failing, *ACTORS)
    lines = run("runs", "show", found, code=1).out.splitlines()
    assert lines[0] == f"run {found}"
    assert lines[1].startswith("└─ extract  finished")
    assert {line[6:].split()[0] for line in lines[2:4]} <= {"flaky", "load", "report"}
    assert any("flaky  failed" in line and "ValueError: broken \\x1b[2J 1" in line for line in lines)
    assert any("report  canceled  after flaky, load" in line for line in lines)
    records = {record["step"]: record for record in run("runs", "show", found, "--json", code=1).records}
    assert records["report"]["after"] == ["flaky", "load"]
    assert records["flaky"]["tenant"] == HOSTILE
    assert run("runs", "show", f"{found}:load", "--tenant", HOSTILE, code=1).out.splitlines() == lines
    assert "there is no run 'nonsense'" in run("runs", "show", "nonsense", code=1).err


def test_a_run_is_retried_without_its_graph(run: Run, prepare: Callable[..., Any]) -> None:
    found = prepare(send_failing, *ACTORS)
    repaired.append(True)
    assert run("runs", "retry", found, "--tenant", HOSTILE).out == f"2 steps of run {found} sent again\n"

    async def work(runtime: Runtime) -> None:
        details = await runtime.task(f"{found}:flaky~2")
        assert (details.info.priority.name, details.limits) == ("HIGH", {"api": 2.0})
        assert details.options["max_retries"] == 0
        assert details.after == (f"{found}:extract",)

    prepare(work)

    async def finish(runtime: Runtime) -> Any:
        return await runtime.handle(f"{found}:report~2", HOSTILE).result(5)

    assert prepare(finish, *ACTORS) == "[10, 2] 10"
    assert run("runs", "show", found).out.count("finished") == 4
    assert run("runs", "retry", found).out == "no step has failed\n"


def test_a_run_is_canceled(run: Run, prepare: Callable[..., Any]) -> None:
    async def send(runtime: Runtime) -> str:
        return (await runtime.send("acme", graph())).id

    prepare(send_failing, *ACTORS)  # it says how many ended tasks are listed
    found = prepare(send)
    assert "is queued: wait, or cancel the run" in run("runs", "retry", found, code=2).err
    assert run("runs", "cancel", found, "--json").record == {"run": found, "canceled": 4}
    states = {record["state"] for record in run("runs", "show", found, "--json").records}
    assert states == {"canceled"}


@pytest.mark.anyio
async def test_the_items_of_an_each_are_counted_and_canceled(make_runtime: Callable[..., Runtime]) -> None:
    async with make_runtime(*ACTORS) as runtime:
        run = await runtime.send("acme", extract(1) >> each(flaky, [1, 2, 3]) >> load(result_of(extract(2))))
        await run.wait(10)
        found = await find_run(runtime, run.id, "acme")
        [joined] = [step for step in found.steps.values() if step.items]
        assert joined.items == {"failed": 3}
        assert joined.state is TaskState.CANCELED
        assert await found.cancel() == 0
        with pytest.raises(ConfigurationError, match=r"await run.retry\(\)"):
            await found.retry()


@pytest.mark.anyio
async def test_runs_that_are_not_there(make_runtime: Callable[..., Runtime]) -> None:
    async with make_runtime(*ACTORS) as runtime:
        handle = await runtime.send("acme", extract(1), id="single")
        await handle.result(5)
        for name in ("nonsense", "single"):
            with pytest.raises(TaskNotFound):
                await find_run(runtime, name)


@pytest.mark.anyio
async def test_a_finished_task_says_what_it_waited_for(make_runtime: Callable[..., Runtime]) -> None:
    async with make_runtime(*ACTORS) as runtime:
        parents = [await runtime.send("acme", extract(number)) for number in range(120)]
        child = await runtime.send("acme", extract(7), depends_on=parents)
        await child.result(10)
        assert (await runtime.task(child.id)).after == tuple(parent.id for parent in parents[:100])
        assert (await runtime.task(parents[0].id)).after == ()
