"""Tests that a runtime may be entered in one asyncio task and left in another, and what follows if the loop ends."""

from __future__ import annotations

import asyncio
import unittest
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from fairactor import Runtime, TaskState, actor
from tests.support.polling import PATIENCE, until

Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


@pytest.mark.anyio
async def test_a_runtime_is_entered_and_left_in_different_tasks(make_runtime: Make) -> None:
    runtime = make_runtime(double)
    await asyncio.create_task(runtime.__aenter__())
    assert await asyncio.create_task(runtime.ask("acme", double(2), timeout=PATIENCE)) == 4
    await asyncio.create_task(runtime.__aexit__(None, None, None))


def test_the_loop_may_stop_in_between_as_in_fixtures_and_notebooks(url: str) -> None:
    @asynccontextmanager
    async def fixture() -> AsyncIterator[Runtime]:
        async with Runtime(url, actors=[double]) as runtime:
            yield runtime

    provided = fixture()
    with asyncio.Runner() as runner:
        runtime = runner.run(provided.__aenter__())
        assert runner.run(runtime.ask("acme", double(3), timeout=PATIENCE)) == 6
        assert runner.run(runtime.ask("acme", double(4), timeout=PATIENCE)) == 8
        runner.run(provided.__aexit__(None, None, None))


def test_unittest_can_enter_it(url: str) -> None:
    class Case(unittest.IsolatedAsyncioTestCase):
        async def asyncSetUp(self) -> None:
            self.runtime = await self.enterAsyncContext(Runtime(url, actors=[double]))

        async def test_it(self) -> None:
            assert await self.runtime.ask("acme", double(5), timeout=PATIENCE) == 10

    result = unittest.TestResult()
    Case("test_it").run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])


@pytest.mark.anyio
@pytest.mark.parametrize("in_another_task", [False, True])
async def test_an_error_of_the_body_is_raised_as_it_is(make_runtime: Make, *, in_another_task: bool) -> None:
    error = ValueError("of the body")
    runtime = make_runtime(double)

    async def enter() -> None:
        await runtime.__aenter__()

    if in_another_task:
        await asyncio.create_task(enter())
        await runtime.__aexit__(ValueError, error, None)
    else:
        with pytest.raises(ValueError, match="of the body") as caught:
            async with runtime:
                raise error
        assert caught.value is error


@pytest.mark.anyio
async def test_entering_may_be_canceled(make_runtime: Make) -> None:
    runtime = Runtime("redis://127.0.0.1:1", connect_timeout=PATIENCE)
    with anyio.move_on_after(0.05) as scope:
        async with runtime:
            pytest.fail("nobody answers there")
    assert scope.cancelled_caught
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "fairactor runtime"]


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["task", "scope"])
async def test_a_cancellation_ends_the_grace(make_runtime: Make, how: str) -> None:
    begun, leaving = anyio.Event(), anyio.Event()

    @actor
    async def run() -> None:
        begun.set()
        await anyio.sleep_forever()

    async def serve() -> None:
        async with make_runtime(run, grace=PATIENCE, lease=PATIENCE):
            await begun.wait()
            leaving.set()

    async with make_runtime(workers=0) as sender:
        handle = await sender.send("acme", run())
        if how == "task":
            serving = asyncio.create_task(serve())
            await leaving.wait()
            await anyio.wait_all_tasks_blocked()
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(serve)
                await leaving.wait()
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
        assert await handle.state() is TaskState.QUEUED


def run_until_it_ends(serve: Callable[[], Any]) -> BaseException:
    """Runs a service until it raises; returns the error."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - any error
        asyncio.run(serve())
    return caught.value


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_counts_as_a_delivery_and_is_named(
    url: str, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    children = []

    @actor
    async def end_the_loop() -> None:
        async def child() -> None:
            raise kind

        children.append(asyncio.create_task(child()))
        await asyncio.wait(children)

    async def serve() -> None:
        async with Runtime(url, actors=[end_the_loop], lease=0.3):
            await anyio.sleep_forever()

    async def send() -> str:
        async with Runtime(url, workers=0) as runtime:
            return (await runtime.send("acme", end_the_loop())).id

    async def history(task_id: str) -> list[str]:
        async with Runtime(url, actors=[double], lease=0.3) as runtime:
            handle = runtime.handle(task_id)
            await until(lambda: has_history(handle))
            return [attempt.error for attempt in (await handle.info()).history]

    task_id = asyncio.run(send())
    error = run_until_it_ends(serve)
    assert isinstance(error, kind)
    assert [type(child.exception()) for child in children] == [kind]  # else asyncio logs it when it is collected
    assert f"{task_id} (end_the_loop of tenant 'acme')" in caplog.text
    assert asyncio.run(history(task_id))[0] == "WorkerDied"


async def has_history(handle: Any) -> bool:
    return bool((await handle.info()).history)
