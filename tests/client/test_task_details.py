"""Tests `Runtime.task`: one task in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from fairactor import Runtime, TaskState, actor
from fairactor.errors import ConfigurationError, TaskNotFound
from fairactor.views import TaskDetails
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def succeed(n: int) -> int:
    return n


@actor(max_retries=4, backoff=0.0)
async def fail(n: int) -> None:
    raise ValueError(f"number {n}")


@actor(queue="nowhere")
async def unserved(n: int) -> None: ...


@actor
async def block(n: int) -> None:
    await anyio.sleep_forever()


@actor(limits=["api"])
async def limited(n: int) -> None:
    await anyio.sleep_forever()


def make(make_runtime: Make, **settings: Any) -> Runtime:
    found = (succeed, fail, unserved, block, limited)
    return make_runtime(*found, **{"workers": 2, "queues": ["default"], "grace": 0} | settings)


def names(details: TaskDetails) -> list[str]:
    assert [event.at for event in details.timeline] == sorted(event.at for event in details.timeline)
    return [event.what for event in details.timeline]


async def until_state(runtime: Runtime, task_id: str, state: TaskState) -> TaskDetails:
    async def look() -> TaskDetails | None:
        details = await runtime.task(task_id)
        return details if details.info.state is state else None

    found: TaskDetails = await until(look)
    return found


async def test_the_attempts_of_a_task_that_failed(make_runtime: Make) -> None:
    async with make(make_runtime) as runtime:
        handle = await runtime.send("a", fail(3))
        details = await until_state(runtime, handle.id, TaskState.FAILED)
    history = details.info.history
    assert [attempt.attempt for attempt in history] == [1, 2, 3, 4, 5]
    assert [bool(attempt.traceback) for attempt in history] == [False, False, True, True, True]
    assert "number 3" in history[-1].traceback
    assert names(details) == ["sent", *["started", "retried"] * 4, "started", "failed"]
    assert details.timeline[-1].note == "ValueError: number 3"
    assert details.kept_until is not None
    assert (details.running_for, details.held_by, details.logs) == (None, None, ())


async def test_a_finished_task_and_one_that_was_redriven(make_runtime: Make) -> None:
    async with make(make_runtime) as runtime:
        handle = await runtime.send("a", succeed(3))
        assert await handle.result(timeout=PATIENCE) == 3
        details = await runtime.task(handle.id, "a")
        assert names(details) == ["sent", "started", "finished"]
        failing = await runtime.send("a", fail(3).options(max_retries=0))
        await until_state(runtime, failing.id, TaskState.FAILED)
        await failing.redrive()

        async def has_failed_again() -> TaskDetails | None:
            found = await runtime.task(failing.id)
            return found if len(found.info.history) == 2 and found.info.state is TaskState.FAILED else None

        again: TaskDetails = await until(has_failed_again)
        assert names(again) == ["started", "retried", "redriven", "started", "failed"]


async def test_a_task_that_runs_and_those_that_wait_for_it(make_runtime: Make) -> None:
    async with make(make_runtime, shards=3) as runtime:
        handle = await runtime.send("a", block(1))
        near = await runtime.send("a", succeed(1).options(depends_on=[handle]))
        far = [await runtime.send(f"t{n}", succeed(1).options(depends_on=[handle])) for n in range(3)]
        details = await until_state(runtime, handle.id, TaskState.STARTED)
        assert details.running_for is not None
        assert 0 <= details.running_for < PATIENCE

        async def has_all() -> TaskDetails | None:  # its shard learns of those on other shards a little later
            found = await runtime.task(handle.id)
            return found if len(found.children) == 4 else None

        details = await until(has_all)
        assert {child.id for child in details.children} == {near.id, *(each.id for each in far)}
        assert {(child.tenant, child.state) for child in details.children} == {
            (tenant, "deferred") for tenant in ("a", "t0", "t1", "t2")
        }
        for child in (near, far[0], far[1]):
            waiting = await runtime.task(child.id)
            (parent,) = waiting.waits_for
            assert (parent.id, parent.tenant, parent.state) == (handle.id, "a", "started")
            assert waiting.held_by is not None
            assert waiting.held_by.startswith("fairactor_dependencies")
        await handle.cancel()
        ended = await until_state(runtime, near.id, TaskState.CANCELED)
        assert ended.waits_for == ()


async def test_why_a_task_does_not_start(make_runtime: Make) -> None:
    async with make(make_runtime, workers=5) as runtime:
        await runtime.tenant("paused").pause()
        await runtime.tenant("capped").configure(concurrency=1)
        await runtime.tenant("slow").configure(rate="1/h")
        await runtime.limit("api").configure(concurrency=1)
        for tenant, message in (("capped", block(1)), ("slow", block(1)), ("x", limited(1))):
            await until_state(runtime, (await runtime.send(tenant, message)).id, TaskState.STARTED)
        sent = {
            "paused": await runtime.send("paused", succeed(1)),
            "concurrency": await runtime.send("capped", succeed(1)),
            "rate": await runtime.send("slow", succeed(1)),
            "limit 'api'": await runtime.send("y", limited(1)),
            "no running process": await runtime.send("z", unserved(1)),
        }
        for reason, handle in sent.items():
            found = await runtime.task(handle.id)
            assert found.info.state is TaskState.QUEUED
            assert found.held_by is not None
            assert reason in found.held_by
        later = await runtime.task((await runtime.send("a", succeed(1).options(delay=60))).id)
        assert (later.held_by, names(later)) == (None, ["due"])
        first = await runtime.send("a", block(1).options(key="k"))
        await until_state(runtime, first.id, TaskState.STARTED)
        second = await runtime.send("a", block(2).options(key="k", replace=True))
        assert (await runtime.task(second.id)).held_by == "another task with its key, which has not ended"
    async with make_runtime(workers=0) as runtime:
        assert (await runtime.task(sent["concurrency"].id)).held_by == "no runtime runs tasks"


async def test_a_task_that_does_not_exist_or_is_another_tenants(make_runtime: Make) -> None:
    async with make(make_runtime, shards=2) as runtime:
        handle = await runtime.send("a", succeed(1))
        assert (await runtime.task(handle.id)).info.tenant == "a"
        for task, tenant in (("no", None), ("no", "a"), (handle.id, "b")):
            with pytest.raises(TaskNotFound):
                await runtime.task(task, tenant)
        with pytest.raises(ConfigurationError):
            await runtime.task("")
