"""The plugins that ship with fairactor, on fleets whose runtimes run different actors and queues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fairactor_dependencies import each, result
from fairactor_scheduling import Schedules

from fairactor import Runtime, TaskFailed, actor, current_task
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

ran: dict[str, set[str]] = {}
"""The runtimes that have run each actor."""


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def note() -> None:
    task = current_task()
    assert isinstance(task.runtime, Runtime)
    ran.setdefault(task.actor, set()).add(task.runtime.name)


@actor
async def split(text: str) -> list[str]:
    note()
    return text.split()


@actor
async def count(word: str) -> int:
    note()
    return len(word)


@actor(queue="gpu")
async def embed(word: str) -> int:
    note()
    return len(word)


@actor
async def add(numbers: list[int]) -> int:
    note()
    return sum(numbers)


async def test_the_steps_of_a_graph_run_where_their_actors_are(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(split) as one, make_runtime(add) as other:
        run: Any = await sender.send("acme", split("a bb") >> each(count, ["a", "bb"]) >> add(result()))
        await until(lambda: "split" in ran)
        async with make_runtime(count) as third:
            assert await run.result(PATIENCE) == 3
        assert ran == {"split": {one.name}, "count": {third.name}, "add": {other.name}}
        await check_invariants(sender)


async def test_each_runs_in_the_queue_of_its_actor(make_runtime: Make) -> None:
    """No runtime serves the default queue here."""
    actors = (split, embed, add)
    async with (
        make_runtime(workers=0) as sender,
        make_runtime(*actors, queues=["gpu"]) as gpu,
        make_runtime(*actors, queues=["cpu"]) as cpu,
    ):
        graph = split("a bb ccc").options(queue="cpu") >> each(embed) >> add(result()).options(queue="cpu")
        run: Any = await sender.send("acme", graph)
        assert await run.result(PATIENCE) == 6
        assert ran == {"split": {cpu.name}, "embed": {gpu.name}, "add": {cpu.name}}
        joined: Any = await sender.send("acme", each(embed, ["a", "b"]).options(trigger_rule="all_done"))
        assert await joined.result(PATIENCE) == [1, 1]
        await check_invariants(sender)


async def test_each_fails_if_nobody_has_its_actor(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(split, unknown_ttl=0):
        run: Any = await sender.send("acme", each(count, ["a"]))
        with pytest.raises(TaskFailed, match="no actor 'count' is registered here"):
            await run.handles["fairactor_dependencies.spread"].result(PATIENCE)
        await check_invariants(sender)


async def test_scheduled_tasks_run_in_their_queue(make_runtime: Make) -> None:
    actors = (split, embed)
    async with make_runtime(*actors, queues=["gpu"]) as gpu, make_runtime(*actors, queues=["default"]) as cpu:
        await Schedules(cpu).add(0.1, "acme", embed("a"), id="often")
        await Schedules(gpu).add(0.1, "acme", split("a"), id="as often")
        await Schedules(gpu).add(0.1, "acme", split("a") >> embed("b"), id="both")
        await until(lambda: len(ran) == 2)
        for schedule in ("often", "as often", "both"):
            await Schedules(cpu).remove("acme", schedule)
        await cpu.drain(PATIENCE)
        assert ran == {"split": {cpu.name}, "embed": {gpu.name}}
        await check_invariants(cpu)
