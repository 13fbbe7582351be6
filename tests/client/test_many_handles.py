"""Tests what is done with many handles at once: their results, and their cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import anyio
import pytest

from fairactor import Handle, Runtime, TaskCanceled, TaskFailed, TaskState, actor, current_task
from fairactor.errors import ConfigurationError, Deadlock, RuntimeNotRunning, TaskNotFound
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def echo(value: int) -> int:
    return value


@actor
async def fail() -> None:
    raise ValueError("as told")


@actor
async def hang() -> None:
    await anyio.sleep_forever()


async def has_started(handle: Handle[Any]) -> bool:
    return await handle.state() is TaskState.STARTED


class Calls:
    """Counts the calls of scripts that a runtime makes."""

    def __init__(self, runtime: Runtime, *scripts: str) -> None:
        self.count = 0
        for shard in runtime._shards():
            run = shard._run

            async def counted(name: str, *arguments: Any, run: Any = run, **options: Any) -> Any:
                self.count += name in scripts
                return await run(name, *arguments, **options)

            shard._run = counted


async def sent(runtime: Runtime, messages: int, shards: int) -> list[Handle[int]]:
    return await runtime.send_many([(f"t{n % (4 * shards)}", echo(n)) for n in range(messages)])


@pytest.mark.parametrize("shards", [1, 3])
async def test_results_come_in_order_with_a_call_for_each_shard_and_batch(make_runtime: Make, shards: int) -> None:
    async with make_runtime(echo, shards=shards) as runtime:
        handles = await sent(runtime, 1200, shards)
        calls = Calls(runtime, "watch", "inspect")
        assert await runtime.results(handles, PATIENCE) == list(range(1200))
        assert calls.count <= 2 * shards + 5
        assert await runtime.results([], PATIENCE) == []
        assert await runtime.results(iter([handles[5], handles[5]]), PATIENCE) == [5, 5]
        assert not runtime._running()._outcomes._awaited


async def test_handles_made_from_ids_alone_are_found_on_any_shard(make_runtime: Make) -> None:
    async with make_runtime(echo, shards=4) as runtime:
        handles = [runtime.handle(handle.id) for handle in await sent(runtime, 40, 4)]
        calls = Calls(runtime, "watch", "inspect")
        assert await runtime.results(handles, PATIENCE) == list(range(40))
        assert calls.count <= 8
        assert {handle.tenant for handle in handles} == {f"t{n}" for n in range(16)}
        found = await runtime.results([runtime.handle("nobody"), handles[0]], PATIENCE, return_exceptions=True)
        assert isinstance(found[0], TaskNotFound)
        assert found[1] == 0
        assert not runtime._running()._outcomes._awaited


async def test_each_error_stands_in_the_place_of_its_task_or_the_first_is_raised(make_runtime: Make) -> None:
    async with make_runtime(echo, fail, hang) as runtime:
        late = await runtime.send("t", echo(3), delay=60)
        canceled = await runtime.send("t", echo(4), delay=60)
        await canceled.cancel()
        handles: list[Handle[Any]] = [
            await runtime.send("t", echo(1)), await runtime.send("t", fail()), canceled,
            runtime.handle("nobody", "t"), runtime.handle(canceled.id, "other"),
        ]  # fmt: skip
        found = await runtime.results(handles, PATIENCE, return_exceptions=True)
        assert found[0] == 1
        assert [type(each) for each in found[1:]] == [TaskFailed, TaskCanceled, TaskNotFound, TaskNotFound]
        assert "ValueError: as told" in str(found[1])
        found = await runtime.results([handles[0], late], 0.05, return_exceptions=True)
        assert found[0] == 1
        assert str(found[1]) == f"task '{late.id}' has no outcome after 0.05 s; the task goes on"
        with pytest.raises(TaskFailed, match="as told"):  # although another task has not ended
            await runtime.results([late, *handles[:2]], PATIENCE)
        with pytest.raises(TimeoutError, match=r"1 of 2 tasks have no outcome after 0.05 s, among them"):
            await runtime.results([handles[0], late], 0.05)
        assert not runtime._running()._outcomes._awaited


async def test_a_handler_waits_for_many_and_lends_its_slot(make_runtime: Make) -> None:
    @actor
    async def total(count: int) -> int:
        task = current_task()
        assert task.runtime is not None
        handles = await task.runtime.send_many([("t", echo(n)) for n in range(count)])
        with pytest.raises(Deadlock, match="its own outcome"):
            await task.runtime.results([*handles, task.runtime.handle(task.id)])
        return sum(await task.runtime.results(handles, PATIENCE))

    async with make_runtime(echo, total, workers=1) as runtime:
        assert await runtime.ask("t", total(20), timeout=PATIENCE) == 190


async def test_leaving_the_runtime_ends_the_wait(make_runtime: Make) -> None:
    runtime = make_runtime(echo)
    async with runtime:
        handles = [await runtime.send("t", echo(n), delay=60) for n in range(2)]
        waiting = asyncio.create_task(runtime.results(handles))
        await asyncio.sleep(0)
    with pytest.raises(RuntimeNotRunning):
        await waiting
    with pytest.raises(RuntimeNotRunning, match="was left"):
        await runtime.results(handles)
    with pytest.raises(RuntimeNotRunning, match="was left"):
        await runtime.cancel_many(handles)


@pytest.mark.parametrize("shards", [1, 3])
async def test_many_tasks_are_canceled_with_a_call_for_each_shard_and_batch(make_runtime: Make, shards: int) -> None:
    async with make_runtime(echo, workers=0, shards=shards) as runtime:
        later = [(f"t{n % 7}", echo(n).options(delay=60 if n % 2 else None)) for n in range(500)]
        handles = await runtime.send_many(later)
        calls = Calls(runtime, "cancel")
        states = await runtime.cancel_many(handles)
        assert states == [TaskState.SCHEDULED if n % 2 else TaskState.QUEUED for n in range(500)]
        assert calls.count <= 3 + shards
        assert (await runtime.stats()).pending == 0
        assert await runtime.cancel_many(handles[:3]) == [TaskState.CANCELED] * 3
        assert await runtime.cancel_many([]) == []
        with pytest.raises(TaskCanceled, match=r"by runtime\.cancel_many\(\)"):
            await handles[0].result(PATIENCE)
        await check_invariants(runtime)


async def test_tasks_in_all_states_are_canceled_at_once_also_by_id_alone(make_runtime: Make) -> None:
    async with make_runtime(echo, hang, workers=1, shards=2, processes=1) as runtime:
        done = await runtime.send("a", echo(1))
        await done.result(PATIENCE)
        running = await runtime.send("a", hang())
        await until(partial(has_started, running))
        parent = await runtime.send("b", echo(2))
        child = await runtime.send("b", echo(3), depends_on=[parent])
        grandchild = await runtime.send("a", echo(4), depends_on=[child])
        scheduled = await runtime.send("c", echo(5), delay=60)
        handles: list[Handle[Any]] = [done, running, parent, child, scheduled, parent, grandchild]
        by_id = [runtime.handle(handle.id) for handle in handles]
        wrong = [runtime.handle("nobody"), runtime.handle(scheduled.id, "a")]
        states = await runtime.cancel_many([*by_id, *wrong])
        assert states[:6] == ["finished", "started", "queued", "deferred", "scheduled", "queued"]
        assert states[6] in ("deferred", "canceled")
        assert states[7:] == [None, None]
        ends = await runtime.results(handles[1:], PATIENCE, return_exceptions=True)
        assert {type(end) for end in ends} == {TaskCanceled}
        await check_invariants(runtime)


@pytest.mark.parametrize("method", ["results", "cancel_many"])
async def test_what_is_no_handle_of_the_runtime_is_refused(make_runtime: Make, method: str) -> None:
    async with make_runtime(echo, workers=0) as runtime, make_runtime(workers=0) as other:
        handle = await runtime.send("t", echo(1), delay=60)
        wrong: Iterable[tuple[Any, str]] = [
            (handle, "instead of a list of handles"),
            ("id", "instead of a list of handles"),
            (5, "instead of a list of handles"),
            ([handle, "id"], r"got 'id' instead of a handle; runtime.handle\(id, tenant\) makes one"),
            ([other.handle(handle.id, "t")], "belongs to another Runtime"),
        ]
        for value, words in wrong:
            with pytest.raises(ConfigurationError, match=words):
                await getattr(runtime, method)(value)
        assert await handle.state() is TaskState.SCHEDULED
