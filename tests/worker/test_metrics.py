"""Tests the metrics of attempts: one for each way in which a task ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import anyio
import pytest

from fairactor import Retry, Runtime, TaskCanceled, TaskFailed, actor
from fairactor._util import instruments
from tests.support.meters import Reader
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

PROCESS = "messaging.process.duration"
CONSUMED = "messaging.client.consumed.messages"
TEMPLATE = "messaging.destination.template"
CANCELED = "fairactor.errors.TaskCanceled"


@actor
async def double(n: int) -> int:
    return 2 * n


@actor(max_retries=2)
async def flaky(how: str) -> None:
    raise {"value": ValueError("as told"), "retry": Retry(delay=0)}[how]


@actor
async def forever() -> None:
    await anyio.sleep_forever()


async def test_an_attempt(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(double) as runtime:
        for _ in range(3):
            assert await runtime.ask("user:1", double(4), timeout=PATIENCE) == 8
    (point,) = reader.points(PROCESS)
    attributes = dict(point.attributes)
    assert attributes.pop("server.address").endswith(".sock")
    assert attributes == {
        "messaging.system": "fairactor",
        "messaging.operation.name": "process",
        TEMPLATE: "double",
    }
    assert point.count == 3
    assert list(point.explicit_bounds) == list(instruments.PROCESS.bounds)
    assert 0 < point.sum < PATIENCE
    assert reader.values(CONSUMED, TEMPLATE, "error.type") == {("double", None): 3}
    assert reader.values("fairactor.task.wait", "fairactor.actor", "fairactor.queue", "fairactor.namespace") == {
        ("double", "default", "fairactor"): 3
    }


async def test_failures_and_retries(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(flaky) as runtime:
        for how in ("value", "retry"):
            with pytest.raises(TaskFailed):
                await (await runtime.send("user:1", flaky(how), max_retries=2)).result(timeout=PATIENCE)
    retry = "fairactor.Retry"
    assert reader.values(PROCESS, "error.type") == {"ValueError": 3, retry: 3}
    assert reader.values(CONSUMED, "error.type") == {"ValueError": 3, retry: 3}
    assert reader.values("fairactor.task.retries", "fairactor.actor", "error.type") == {
        ("flaky", "ValueError"): 2,
        ("flaky", retry): 2,
    }
    assert reader.values("fairactor.task.failures", "fairactor.actor", "error.type") == {
        ("flaky", "ValueError"): 1,
        ("flaky", retry): 1,
    }


async def test_what_does_not_count_is_no_retry(make_runtime: Make, reader: Reader) -> None:
    left = [Retry(delay=0, count=False)]

    @actor
    async def later() -> None:
        if left:
            raise left.pop()

    async with make_runtime(later) as runtime:
        await runtime.ask("user:1", later(), timeout=PATIENCE)
    assert reader.values(PROCESS, "error.type") == {None: 2}
    assert reader.values("fairactor.task.retries") == {}


async def test_a_task_that_is_canceled_while_it_runs(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(forever) as runtime:
        handle = await runtime.send("user:1", forever())
        await until(lambda: reader.values("fairactor.runtime.running", "fairactor.slots") == {"workers": 1})
        await handle.cancel()
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)
    assert reader.values(PROCESS, "error.type") == {CANCELED: 1}
    assert reader.values("fairactor.task.failures") == {}
    assert reader.values("messaging.client.operation.duration", "messaging.operation.name")["cancel"] == 1


async def test_an_attempt_that_is_interrupted(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(forever) as runtime:
        await runtime.send("user:1", forever())
        await until(lambda: reader.values("fairactor.runtime.running", "fairactor.slots") == {"workers": 1})
        await runtime.stop(0)
    assert reader.values(PROCESS, "error.type") == {"asyncio.exceptions.CancelledError": 1}


async def test_tasks_of_a_batch_count_each(make_runtime: Make, reader: Reader) -> None:
    @actor(batch=10)
    async def add(numbers: list[int]) -> Sequence[int]:
        return [n + 1 for n in numbers]

    async with make_runtime(add, workers=1) as runtime:
        handles = await runtime.send_many([("user:1", add(n)) for n in range(7)])
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == list(range(1, 8))
    assert reader.values(PROCESS, TEMPLATE) == {"add": 7}
    assert reader.values(CONSUMED, TEMPLATE) == {"add": 7}
    assert reader.values("fairactor.task.wait", "fairactor.actor") == {"add": 7}


async def test_the_wait_is_that_since_a_task_was_due(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(double, workers=0) as runtime:
        handle = await runtime.send("user:1", double(1), queue="slow")
        sent = asyncio.get_running_loop().time()
        await until(lambda: asyncio.get_running_loop().time() > sent + 0.05)
        async with make_runtime(double):
            await handle.result(timeout=PATIENCE)
    (point,) = reader.points("fairactor.task.wait")
    assert point.attributes["fairactor.queue"] == "slow"
    assert 0.05 <= point.sum < PATIENCE


async def test_slots_of_all_kinds(make_runtime: Make, reader: Reader) -> None:
    @actor
    def plain() -> None: ...

    async with make_runtime(double, plain, threads=3, workers=5), make_runtime(double, workers=2):
        sizes = reader.values("fairactor.runtime.slots", "fairactor.slots")
        assert sizes == {"workers": 7, "threads": 3}
        assert reader.values("fairactor.runtime.running", "fairactor.slots") == {"workers": 0, "threads": 0}
    assert reader.values("fairactor.runtime.slots") == {}


async def test_a_lost_lease(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(double) as runtime:
        assert runtime._engine is not None
        assert runtime._engine.consumer is not None
        (dispatcher,) = runtime._engine.consumer._dispatchers
        assert reader.values("fairactor.lease.losses") == {(): 0}
        await dispatcher._shard.leave(dispatcher.runtime)
        dispatcher.wake()
        await until(lambda: reader.values("fairactor.lease.losses") == {(): 1})
        assert await runtime.ask("user:1", double(4), timeout=PATIENCE) == 8
    assert reader.values("fairactor.lease.losses") == {(): 1}


async def test_nothing_is_measured_without_an_sdk(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        assert runtime._engine is not None
        assert runtime._engine.meters is None
        assert await runtime.ask("user:1", double(4), timeout=PATIENCE) == 8


async def test_an_sdk_that_is_set_later_is_not_used(make_runtime: Make, request: pytest.FixtureRequest) -> None:
    async with make_runtime(double) as runtime:
        reader: Reader = request.getfixturevalue("reader")
        assert await runtime.ask("user:1", double(4), timeout=PATIENCE) == 8
        assert not reader.metrics()
