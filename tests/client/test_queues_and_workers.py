"""What the queues hold, and what the runtimes run."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio
import pytest

from fairactor import Runtime, actor, current_task
from fairactor._operate import queues as queues_module
from fairactor.errors import ConfigurationError
from fairactor.views import QueueView
from tests.support.polling import until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def nothing(n: int = 0) -> int:
    return n


def figures(queues: list[QueueView]) -> dict[str, tuple[int, int, int]]:
    assert all(queue.exact for queue in queues)
    return {queue.queue: (queue.backlog, queue.running, queue.runtimes) for queue in queues}


async def test_a_namespace_where_nothing_happens_has_the_default_queue(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        assert await runtime.queues() == [QueueView("default", 0, None, 0, 0)]
        assert await runtime.workers() == []


@pytest.mark.parametrize("shards", [1, 2])
async def test_the_figures_of_queues_are_exact(make_runtime: Make, shards: int) -> None:
    started, over = [], anyio.Event()

    @actor
    async def waits() -> None:
        started.append(1)
        await over.wait()

    async with (
        make_runtime(waits, nothing, workers=3, queues=["gpu", "cpu"], shards=shards) as runtime,
        make_runtime(waits, nothing, workers=2, queues=["cpu"]),
    ):
        for n in range(3):
            await runtime.send(f"t{n}", waits().options(queue="gpu"))
        await until(lambda: len(started) == 3)
        await runtime.send_many([(f"t{n % 5}", nothing().options(queue="gpu")) for n in range(20)])
        await runtime.send_many([(f"t{n % 5}", nothing().options(queue="slow")) for n in range(7)])
        await runtime.send_many([(f"t{n % 5}", nothing()) for n in range(4)])
        queues = list(await runtime.queues())
        found = figures(queues)
        assert found["slow"] == (7, 0, 0)
        assert found["default"] == (4, 0, 0)
        assert found["cpu"] == (0, 0, 2)
        backlog, running, runtimes = found["gpu"]
        assert (backlog + running, runtimes) == (23, 1)
        assert running >= 3
        assert {queue.queue for queue in queues if queue.oldest_wait is not None} >= {"slow", "default"}
        over.set()
        for n in range(5):
            await runtime.tenant(f"t{n}").purge()


async def test_many_lanes_are_estimates_that_say_so(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send_many([(f"t{n}", nothing().options(queue="wide")) for n in range(700)])
        (queue,) = await runtime.queues()
        assert (queue.queue, queue.backlog, queue.exact) == ("wide", 700, False)
        await runtime.send_many([(f"t{n}", nothing().options(queue=f"q{n}")) for n in range(30)])
        monkeypatch.setattr(queues_module, "_CALLS", 1)
        assert len(await runtime.queues()) >= 31


async def test_workers_say_what_they_run(make_runtime: Make) -> None:
    over = anyio.Event()
    at_work: list[str] = []

    @actor
    async def waits() -> None:
        task = current_task()
        await task.progress(0.25, "a quarter")
        at_work.append(task.id)
        await over.wait()

    async with make_runtime(waits, workers=3) as runtime, make_runtime(nothing, workers=0):
        began = time.time()
        ids = [(await runtime.send(tenant, waits())).id for tenant in ("a", "b\n\u202e", "c")]
        await until(lambda: len(at_work) == 3)
        (worker,) = await runtime.workers()
        assert worker.started == 3
        assert worker.runtime.workers == 3
        assert {task.id for task in worker.tasks} == set(ids)
        assert {task.tenant for task in worker.tasks} == {"a", "b\n\u202e", "c"}
        times = [task.claimed_at.timestamp() for task in worker.tasks if task.claimed_at]
        assert times == sorted(times)
        assert began - 1 < times[0] < time.time() + 1
        for task in worker.tasks:
            assert (task.actor, task.attempt, task.progress) == (waits.name, 1, (0.25, "a quarter"))
        assert [len(each.tasks) for each in await runtime.workers(tasks=2)] == [2]
        assert [(each.started, len(each.tasks)) for each in await runtime.workers(tasks=0)] == [(3, 0)]
        over.set()


@pytest.mark.parametrize("wrong", [-1, 101, True, "5", 2.0])
async def test_a_wrong_number_of_tasks_is_refused(make_runtime: Make, wrong: int) -> None:
    async with make_runtime(workers=0) as runtime:
        with pytest.raises(ConfigurationError, match=r"^tasks="):
            await runtime.workers(tasks=wrong)
