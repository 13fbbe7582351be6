"""Tests the worker pool: its limit on concurrent tasks, and slots lent out while handlers wait for other tasks."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fairactor import Runtime, TaskCanceled, TaskFailed, TaskState, actor, current_task
from fairactor.errors import Deadlock, TaskNotFound
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@asynccontextmanager
async def entered(runtime: Runtime) -> AsyncIterator[Runtime]:
    """Enters the runtime, and checks that its pool has every slot back once its tasks have ended."""
    async with runtime:
        yield runtime
        await runtime.drain(timeout=PATIENCE)
        pool = runtime._engine.consumer._pool.first  # type: ignore[union-attr]
        assert pool is not None
        await until(lambda: not pool._running)
        assert (pool._busy, pool._lent, len(pool._returning), len(pool._ready)) == (0, 0, 0, 0)
        assert pool.vacancies == pool.size


class Gauge:
    """Counts the tasks that are inside now, and the most at any time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


async def test_as_many_tasks_run_at_once_as_there_are_workers_and_never_more(make_runtime: Make) -> None:
    gauge, seven = Gauge(), anyio.Event()

    @actor
    async def run() -> None:
        with gauge:
            if gauge.now == 7:
                seven.set()
            await seven.wait()
            await anyio.sleep(0.001)

    async with entered(make_runtime(run, workers=7)) as runtime:
        handles = await runtime.send_many((f"user:{n % 3}", run()) for n in range(100))
        await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles))
    assert gauge.most == 7


async def test_plain_handlers_get_as_many_threads_as_there_are_workers(make_runtime: Make) -> None:
    together = threading.Barrier(60)

    @actor
    def meet() -> None:
        together.wait(timeout=PATIENCE)

    async with entered(make_runtime(meet, workers=60)) as runtime:
        handles = await runtime.send_many((f"user:{n}", meet()) for n in range(60))
        await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles))


@pytest.mark.parametrize("workers", [1, 2])
async def test_tasks_that_wait_for_tasks_do_not_exhaust_the_workers(make_runtime: Make, workers: int) -> None:
    @actor
    async def down(depth: int) -> int:
        return 1 + await runtime.ask(f"user:{depth}", down(depth - 1)) if depth else 0

    async with entered(make_runtime(down, workers=workers)) as runtime:
        assert await runtime.ask("user:1", down(30), timeout=PATIENCE) == 30


async def test_a_handle_waited_for_in_a_handler_lends_as_ask_does(make_runtime: Make) -> None:
    @actor
    async def down(depth: int) -> int:
        if not depth:
            return 0
        handle = await runtime.send("user:1", down(depth - 1))
        return 1 + await handle.result()

    async with entered(make_runtime(down, workers=1)) as runtime:
        assert await runtime.ask("user:1", down(10), timeout=PATIENCE) == 10


@pytest.mark.parametrize("workers", [1, 2])
async def test_one_handler_may_wait_for_many_tasks_at_once(make_runtime: Make, workers: int) -> None:
    gauge = Gauge()

    @actor
    async def child(n: int) -> int:
        with gauge:
            await anyio.sleep(0.001)
        return n

    @actor
    async def parent() -> list[int]:
        return await asyncio.gather(*(runtime.ask(f"user:{n}", child(n)) for n in range(20)))

    async with entered(make_runtime(child, parent, workers=workers)) as runtime:
        assert await runtime.ask("user:1", parent(), timeout=PATIENCE) == list(range(20))
    assert gauge.most == workers, "the slot of who waits is lent out, and no other"


async def test_many_handlers_that_each_wait_for_many(make_runtime: Make) -> None:
    @actor
    async def child() -> int:
        await anyio.lowlevel.checkpoint()
        return 1

    @actor
    async def parent(n: int) -> int:
        return sum(await asyncio.gather(*(runtime.ask(f"user:{n}", child()) for _ in range(10))))

    async with entered(make_runtime(child, parent, workers=2)) as runtime:
        asked = (runtime.ask(f"user:{n % 3}", parent(n), timeout=PATIENCE) for n in range(10))
        assert await asyncio.gather(*asked) == [10] * 10


async def test_a_result_that_is_there_already(make_runtime: Make) -> None:
    @actor
    async def child() -> str:
        return "there"

    @actor
    async def parent(task_id: str) -> str:
        return await runtime.handle(task_id).result()  # type: ignore[no-any-return]

    async with entered(make_runtime(child, parent, workers=1)) as runtime:
        handle = await runtime.send("user:1", child())
        await handle.result(timeout=PATIENCE)
        assert await runtime.ask("user:1", parent(handle.id), timeout=PATIENCE) == "there"


async def test_a_handler_that_waits_can_be_canceled(make_runtime: Make) -> None:
    waits, release = anyio.Event(), anyio.Event()

    @actor
    async def child() -> str:
        waits.set()  # the only worker runs the child, so the parent is waiting
        await release.wait()
        return "child"

    @actor
    async def parent() -> None:
        await runtime.ask("user:2", child(), id="the child")

    async with entered(make_runtime(child, parent, workers=1)) as runtime:
        handle = await runtime.send("user:1", parent())
        await waits.wait()
        assert await handle.cancel() is TaskState.STARTED
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)
        release.set()
        assert await runtime.handle("the child").result(timeout=PATIENCE) == "child", "what it waited for goes on"


async def test_a_handler_is_canceled_while_it_waits_for_its_slot_to_come_back(make_runtime: Make) -> None:
    busy, release = anyio.Event(), anyio.Event()

    @actor
    async def hog() -> None:
        busy.set()
        await release.wait()

    @actor
    async def parent() -> None:
        await runtime.send("user:2", hog())
        await runtime.handle("another").result()

    async with entered(make_runtime(hog, parent, workers=1)) as runtime:
        another = await runtime.send("user:3", hog(), id="another", delay=3600)
        handle = await runtime.send("user:1", parent())
        await busy.wait()
        await another.cancel()
        pool = runtime._engine.consumer._pool.first  # type: ignore[union-attr]
        await until(lambda: pool._returning)  # type: ignore[union-attr]
        await handle.cancel()
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)
        release.set()


async def test_a_handler_goes_on_after_an_error_of_what_it_waited_for_only_with_a_slot(make_runtime: Make) -> None:
    gauge = Gauge()

    @actor
    async def parent(how: str) -> None:
        if how == "missing":
            with pytest.raises(TaskNotFound):
                await runtime.handle("no such task").result()
        else:
            with pytest.raises(TimeoutError):
                await runtime.handle("never done").result(timeout=0.02)
        with gauge:
            await anyio.sleep(0.02)

    async with entered(make_runtime(parent, workers=2)) as runtime:
        never = await runtime.send("user:0", parent("missing"), id="never done", delay=3600)
        asked = [
            runtime.ask(f"user:{n}", parent(how), timeout=PATIENCE) for n in range(4) for how in ("missing", "timeout")
        ]
        await asyncio.gather(*asked)
        await never.cancel()
    assert gauge.most <= 2


async def test_a_strictly_serial_tenant_gets_an_error_instead_of_a_deadlock(make_runtime: Make) -> None:
    @actor
    async def child() -> str:
        return "ran"

    @actor
    async def asks() -> str:
        with pytest.raises(Deadlock, match="Send it without waiting, await the message instead, or raise"):
            await runtime.ask(current_task().tenant, child())
        return "told"

    @actor
    async def waits() -> str:
        handle = await runtime.send(current_task().tenant, child(), id="the child")
        with pytest.raises(Deadlock, match="'the child' of tenant 'serial' cannot start before"):
            await handle.result()
        return "told"

    async with entered(make_runtime(child, asks, waits)) as runtime:
        await runtime.tenant("serial").configure(concurrency=1)
        assert await runtime.ask("serial", asks(), timeout=PATIENCE) == "told"
        assert (await runtime.tenant("serial").stats()).finished == 1, "nothing was sent"
        assert await runtime.ask("serial", waits(), timeout=PATIENCE) == "told"
        assert await runtime.handle("the child").result(timeout=PATIENCE) == "ran"


@pytest.mark.parametrize("first", ["the handler", "the outsider"])
async def test_a_deadlock_is_told_to_the_handler_alone(make_runtime: Make, first: str) -> None:
    goes, told = {"the handler": anyio.Event(), "the outsider": anyio.Event()}, anyio.Event()

    @actor
    async def child() -> str:
        return "ran"

    @actor
    async def parent() -> str:
        await goes["the handler"].wait()
        with pytest.raises(Deadlock):
            await runtime.handle("the child").result(timeout=5)
        told.set()
        return "told"

    async with entered(make_runtime(child, parent)) as runtime:
        await runtime.tenant("serial").configure(concurrency=1)
        outer = await runtime.send("serial", parent())
        handle = await runtime.send("serial", child(), id="the child")
        goes[first].set()  # not before: the handler may start before its own send returns

        async def outsider() -> str:
            await goes["the outsider"].wait()
            return await handle.result(timeout=PATIENCE)

        outside = asyncio.ensure_future(outsider())
        if first == "the outsider":
            await until(lambda: any(task == "the child" for _, task in runtime._engine._outcomes._awaited))
            goes["the handler"].set()
        else:
            await told.wait()
            goes["the outsider"].set()
        assert await outer.result(timeout=PATIENCE) == "told"
        assert await outside == "ran"


async def test_other_tenants_and_limits_above_one_are_no_deadlock(make_runtime: Make) -> None:
    @actor
    async def child() -> str:
        return "ran"

    @actor
    async def parent(tenant: str) -> str:
        return await runtime.ask(tenant, child())

    async with entered(make_runtime(child, parent)) as runtime:
        await runtime.tenant("serial").configure(concurrency=1)
        await runtime.tenant("two").configure(concurrency=2)
        assert await runtime.ask("serial", parent("another"), timeout=PATIENCE) == "ran"
        assert await runtime.ask("two", parent("two"), timeout=PATIENCE) == "ran"


async def test_what_a_handler_leaves_behind_does_not_lend_a_slot_that_it_has_not(make_runtime: Make) -> None:
    leave, left = anyio.Event(), []

    @actor
    async def child() -> None:
        await leave.wait()

    @actor
    async def parent() -> None:
        handle = await runtime.send("user:2", child(), delay=0.05)
        left.append(asyncio.ensure_future(handle.result(timeout=PATIENCE)))

    gauge = Gauge()

    @actor
    async def other() -> None:
        with gauge:
            await anyio.sleep(0.005)

    async with entered(make_runtime(child, parent, other, workers=1)) as runtime:
        await runtime.ask("user:1", parent(), timeout=PATIENCE)
        await asyncio.gather(*(runtime.ask(f"user:{n}", other(), timeout=PATIENCE) for n in range(5)))
        leave.set()
        await left[0]
    assert gauge.most == 1


async def test_a_handler_that_raises_a_cancellation_of_its_own_fails(make_runtime: Make) -> None:
    @actor
    async def parent() -> None:
        inner = asyncio.ensure_future(asyncio.sleep(3600))
        inner.cancel()
        await inner

    async with entered(make_runtime(parent, workers=1)) as runtime:
        with pytest.raises((TaskFailed, TaskCanceled), match="Cancel"):
            await runtime.ask("user:1", parent(), timeout=5)


@pytest.mark.parametrize("seed", range(5))
async def test_any_mix_of_waiting_failing_and_canceling_leaves_the_pool_whole(make_runtime: Make, seed: int) -> None:
    rng = random.Random(seed)
    gauge = Gauge()

    @actor
    async def node(depth: int, kinds: list[str]) -> int:
        with gauge:
            await anyio.sleep(0.001 * len(kinds))
        done = 1
        for kind in kinds:
            if kind == "fail":
                raise ValueError("as drawn")
            if not depth:
                continue
            below = node(depth - 1, draw())
            if kind == "ask":
                done += await or_zero(runtime.ask, f"user:{depth}", below)
            elif kind == "impatient":
                done += await or_zero(runtime.ask, f"user:{depth}", below, timeout=0.005)
            elif kind == "many":
                asked = (or_zero(runtime.ask, f"user:{n}", node(depth - 1, draw())) for n in range(3))
                done += sum(await asyncio.gather(*asked))
            elif kind == "cancel":
                handle = await runtime.send(f"user:{depth}", below)
                await anyio.sleep(rng.random() / 200)
                await handle.cancel()
                done += await or_zero(handle.result)
        return done

    def draw() -> list[str]:
        return rng.choices(["ask", "impatient", "many", "cancel", "fail", "leaf"], k=2)

    async with entered(make_runtime(node, workers=3)) as runtime:
        await asyncio.gather(*(or_zero(runtime.ask, "user:0", node(3, draw()), timeout=PATIENCE) for _ in range(10)))
        await runtime.drain(timeout=PATIENCE)
        await check_invariants(runtime)
        assert (await runtime.stats()).started == 0


async def or_zero(ask: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    try:
        return await ask(*args, **kwargs)  # type: ignore[no-any-return]
    except (TaskFailed, TaskCanceled, TimeoutError):
        return 0
