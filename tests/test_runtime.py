"""The main job: send, run, result; over the public API alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fairactor import Runtime, TaskFailed, TaskState, actor, current_task

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


@actor
async def fail() -> None:
    raise ValueError("as told")


async def test_a_sent_task_is_run_and_its_result_comes_back(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        handle = await runtime.send("user:1", double(21))
        assert await handle.result(timeout=10) == 42
        assert await handle.state() is TaskState.FINISHED


async def test_a_failure_comes_back_with_its_error_and_traceback(make_runtime: Make) -> None:
    async with make_runtime(fail) as runtime:
        with pytest.raises(TaskFailed, match="ValueError: as told") as caught:
            await runtime.ask("user:1", fail(), timeout=10)
    assert caught.value.error == "ValueError"
    assert "as told" in caught.value.traceback


async def test_the_handler_knows_its_task(make_runtime: Make) -> None:
    @actor
    async def who() -> tuple[str, str, int]:
        task = current_task()
        return task.id, task.tenant, task.attempt

    async with make_runtime(who) as runtime:
        handle = await runtime.send("a tenant: {with} *odd* 'name' ☃", who())
        assert await handle.result(timeout=10) == (handle.id, "a tenant: {with} *odd* 'name' ☃", 1)
