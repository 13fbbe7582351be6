"""Tests batches: handlers that run once for many tasks of a tenant, each of which has an outcome of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import anyio.from_thread
import pytest
import redis
from fairactor_dependencies import each, result, results
from fairactor_scheduling import Schedules

from fairactor import (
    Handle,
    Message,
    Retry,
    Runtime,
    TaskCanceled,
    TaskFailed,
    TaskState,
    actor,
    current_batch,
    current_task,
)
from fairactor.errors import ConfigurationError, RuntimeNotRunning
from fairactor.plugins import ProceedExecute
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until
from tests.support.spans import Exporter

pytestmark = pytest.mark.anyio

Make = Callable[..., Runtime]

LONG = 60.0
"""Seconds that no test waits for: batches start because they are full, or never."""


class Batches:
    """A handler that notes its batches, and waits for the test."""

    def __init__(self, *, held: bool = False) -> None:
        self.seen: list[list[int]] = []
        self.tenants: list[str] = []
        self.gate = anyio.Event()
        if not held:
            self.gate.set()

    @actor(batch=5, batch_wait=LONG)
    async def square(self, numbers: list[int]) -> list[int | Exception]:
        return await self._square(numbers)

    @actor(batch=100, batch_wait=0.02)
    async def soon(self, numbers: list[int]) -> list[int | Exception]:
        return await self._square(numbers)

    @actor(batch=3, batch_wait=0)
    async def at_once(self, numbers: list[int]) -> list[int | Exception]:
        return await self._square(numbers)

    async def _square(self, numbers: list[int]) -> list[int | Exception]:
        self.seen.append(numbers)
        self.tenants.append(current_batch()[0].tenant)
        await self.gate.wait()
        return [ValueError(f"{n} is negative") if n < 0 else n * n for n in numbers]

    @property
    def sizes(self) -> list[int]:
        return [len(each) for each in self.seen]


@asynccontextmanager
async def entered(runtime: Runtime) -> AsyncIterator[Runtime]:
    """Enters the runtime. In the end it checks that all slots are free again."""
    async with runtime:
        yield runtime
        await runtime.drain(timeout=PATIENCE)
        pools = runtime._engine.consumer._pool  # type: ignore[union-attr]
        assert pools is not None
        await until(lambda: not pools.running())
        assert [(pool._busy, pool.reserved, pool._lent, pool.vacancies) for pool in pools.all] == [
            (0, 0, 0, pool.size) for pool in pools.all
        ]
        await check_invariants(runtime)


async def send(runtime: Runtime, *messages: Message[Any], tenant: str = "a") -> list[Handle[Any]]:
    handles: list[Handle[Any]] = await runtime.send_many([(tenant, message) for message in messages])
    return handles


async def outcomes(runtime: Runtime, handles: list[Handle[Any]]) -> list[Any]:
    found = await runtime.results(handles, timeout=PATIENCE, return_exceptions=True)
    return [str(each).partition(": ")[2] or str(each) if isinstance(each, Exception) else each for each in found]


async def test_each_sender_gets_the_result_of_its_call(make_runtime: Make) -> None:
    batches = Batches()
    async with entered(make_runtime(batches)) as runtime:
        assert await outcomes(runtime, await send(runtime, *map(Batches.square, range(10)))) == [
            n * n for n in range(10)
        ]
    assert batches.seen == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


async def test_what_is_not_full_starts_after_a_while(make_runtime: Make) -> None:
    batches = Batches()
    async with entered(make_runtime(batches)) as runtime:
        await outcomes(runtime, await send(runtime, *map(Batches.soon, range(7))))
        assert batches.sizes == [7]
        assert await runtime.ask("a", Batches.soon(3), timeout=PATIENCE) == 9


async def test_without_a_wait_it_takes_what_a_claim_brings(make_runtime: Make) -> None:
    batches = Batches()
    async with entered(make_runtime(batches, workers=1)) as runtime:
        assert await outcomes(runtime, await send(runtime, *map(Batches.at_once, range(7)))) == [
            n * n for n in range(7)
        ]
    assert batches.sizes == [3, 3, 1]


async def test_a_batch_has_one_tenant(make_runtime: Make) -> None:
    batches = Batches()
    async with entered(make_runtime(batches)) as runtime:
        handles = await runtime.send_many((f"t{n % 3}", Batches.square(n)) for n in range(30))
        await outcomes(runtime, handles)
    assert Counter(batches.tenants) == {"t0": 2, "t1": 2, "t2": 2}
    assert all(len({n % 3 for n in each}) == 1 for each in batches.seen)


async def test_messages_that_are_sent_one_by_one_are_gathered(make_runtime: Make) -> None:
    batches = Batches()
    async with entered(make_runtime(batches)) as runtime:
        answers = await asyncio.gather(*(runtime.ask("a", Batches.square(n), timeout=PATIENCE) for n in range(5)))
    assert sorted(answers) == [0, 1, 4, 9, 16]
    assert batches.sizes == [5]


async def test_a_batch_takes_one_slot(make_runtime: Make) -> None:
    batches = Batches(held=True)
    async with entered(make_runtime(batches, workers=2)) as runtime:
        handles = await send(runtime, *map(Batches.square, range(15)))
        await until(lambda: len(batches.seen) == 2)
        states = Counter([await handle.state() for handle in handles])
        assert states == {TaskState.STARTED: 10, TaskState.QUEUED: 5}
        batches.gate.set()
        await outcomes(runtime, handles)
    assert batches.sizes == [5, 5, 5]


async def test_a_batch_with_the_only_slot_gathers_what_comes_later(make_runtime: Make) -> None:
    batches = Batches()
    async with entered(make_runtime(batches, workers=1)) as runtime:
        answers = [asyncio.create_task(runtime.ask("a", Batches.soon(n), timeout=PATIENCE)) for n in range(20)]
        assert sorted(await asyncio.gather(*answers)) == [n * n for n in range(20)]
    assert len(batches.seen) <= 3


async def test_a_large_batch_takes_several_claims(make_runtime: Make) -> None:
    sizes: list[int] = []

    @actor(batch=500, batch_wait=0.02)
    async def count(numbers: list[int]) -> None:
        sizes.append(len(numbers))

    async with make_runtime(workers=0) as sender:
        handles = await sender.send_many([("a", count(n)) for n in range(700)])
        async with entered(make_runtime(count, workers=1)):
            await sender.results(handles, timeout=PATIENCE)
    assert sizes == [500, 200]


async def test_a_batch_that_waits_holds_up_no_other_task(make_runtime: Make) -> None:
    @actor
    async def echo(n: int) -> int:
        return n

    batches = Batches()
    async with entered(make_runtime(batches, echo, workers=2)) as runtime:
        waiting = await send(runtime, Batches.square(1))
        await until(lambda: state_is(waiting[0], TaskState.STARTED))
        assert [await runtime.ask(tenant, echo(1), timeout=PATIENCE) for tenant in ("a", "b")] == [1, 1]
        await outcomes(runtime, waiting + await send(runtime, *map(Batches.square, range(2, 6))))
    assert batches.sizes == [5]


async def state_is(handle: Handle[Any], state: TaskState) -> bool:
    return await handle.state() is state


# Outcomes


async def test_one_task_fails_and_the_others_do_not(make_runtime: Make) -> None:
    async with entered(make_runtime(Batches())) as runtime:
        found = await outcomes(runtime, await send(runtime, *map(Batches.square, [1, 2, -3, 4, 5])))
    assert found == [1, 4, "ValueError: -3 is negative", 16, 25]


async def test_one_task_is_retried_and_the_others_are_not(make_runtime: Make) -> None:
    runs: list[list[int]] = []

    @actor(batch=3, batch_wait=0.02, max_retries=1)
    async def flaky(numbers: list[int]) -> list[int | Retry]:
        runs.append(numbers)
        attempts = [task.attempt for task in current_batch()]
        return [Retry(delay=0) if n == 2 and attempt == 1 else n for n, attempt in zip(numbers, attempts, strict=True)]

    async with entered(make_runtime(flaky)) as runtime:
        assert await outcomes(runtime, await send(runtime, *map(flaky, [1, 2, 3]))) == [1, 2, 3]
    assert runs == [[1, 2, 3], [2]]


async def test_what_the_handler_raises_fails_the_attempt_of_each_by_its_own_options(make_runtime: Make) -> None:
    runs: list[list[int]] = []

    @actor(batch=2, batch_wait=0.02, backoff=0)
    async def fail(numbers: list[int]) -> list[int]:
        runs.append(numbers)
        raise OSError("no network")

    async with entered(make_runtime(fail)) as runtime:
        handles = await send(runtime, fail(1).options(max_retries=1), fail(2))
        assert await outcomes(runtime, handles) == ["OSError: no network"] * 2
        assert [len((await handle.info()).history) for handle in handles] == [2, 1]
    assert runs == [[1, 2], [1]]


@pytest.mark.parametrize(
    ("returned", "found"),
    [([1], "1 outcomes"), ("abc", "'abc'"), ({1: 1, 2: 2, 3: 3}, "{1: 1, 2: 2, 3: 3}"), ([1, 2, 3, 4], "4 outcomes")],
)
async def test_what_is_no_list_of_as_many_outcomes_fails_all_tasks_for_good(
    make_runtime: Make, returned: Any, found: str
) -> None:
    @actor(batch=3, batch_wait=LONG, max_retries=5)
    async def wrong(numbers: list[int]) -> list[int]:
        return returned  # type: ignore[no-any-return]

    async with entered(make_runtime(wrong)) as runtime:
        failures = await outcomes(runtime, await send(runtime, *map(wrong, range(3))))
    message = f"wrong() returned {found} for a batch of 3: return a list with one entry for each call, in order"
    assert failures == [f"TypeError: {message}"] * 3


async def test_a_handler_that_returns_nothing_finishes_all_tasks(make_runtime: Make) -> None:
    @actor(batch=3, batch_wait=LONG)
    async def insert(rows: list[int], names: list[str]) -> None:
        assert names == [str(row) for row in rows]

    async with entered(make_runtime(insert)) as runtime:
        assert await outcomes(runtime, await send(runtime, *(insert(n, str(n)) for n in range(3)))) == [None] * 3


async def test_results_are_checked_one_by_one(make_runtime: Make) -> None:
    @actor(batch=4, batch_wait=LONG, max_retries=3)
    async def mixed(numbers: list[int]) -> list[int]:
        return [1, "two", None, 4]  # type: ignore[list-item]

    async with entered(make_runtime(mixed, max_payload=1000)) as runtime:
        found = await outcomes(runtime, await send(runtime, *map(mixed, range(4))))
    assert (found[0], found[3]) == (1, 4)
    assert "expected int, got str 'two'" in found[1]
    assert "expected int, got None" in found[2]


async def test_a_result_that_is_too_large_fails_alone(make_runtime: Make) -> None:
    @actor(batch=2, batch_wait=LONG)
    async def grow(lengths: list[int]) -> list[str]:
        return ["x" * length for length in lengths]

    async with entered(make_runtime(grow, max_payload=1000)) as runtime:
        found = await outcomes(runtime, await send(runtime, grow(500), grow(5000)))
    assert found[0] == "x" * 500
    assert "the limit is 1000" in found[1]


async def test_stored_arguments_that_do_not_fit_fail_alone(make_runtime: Make) -> None:
    @actor(name="parse", batch=2, batch_wait=0.02)
    async def parse(numbers: list[int]) -> list[int]:
        return numbers

    @actor(name="parse")
    async def older(text: str) -> str:
        return text

    async with make_runtime(older, workers=0) as sender:
        wrong = await sender.send("a", older("seven"))
        async with entered(make_runtime(parse)) as runtime:
            right = await runtime.send("a", parse(8))
            assert await right.result(timeout=PATIENCE) == 8
            with pytest.raises(TaskFailed, match="numbers: expected int, got str 'seven'"):
                await wrong.result(timeout=PATIENCE)


async def test_the_timeout_is_that_of_the_batch(make_runtime: Make) -> None:
    @actor(batch=2, batch_wait=LONG, timeout=LONG)
    async def sleep(numbers: list[int]) -> list[int]:
        await anyio.sleep_forever()
        return numbers

    async with entered(make_runtime(sleep)) as runtime:
        found = await outcomes(runtime, await send(runtime, sleep(1), sleep(2).options(timeout=0.05)))
    assert found == ["TimeoutError: the batch took longer than its timeout of 0.05 s"] * 2


async def test_gathered_exceptions_may_be_returned_as_they_are(make_runtime: Make) -> None:
    async def one(n: int) -> int:
        if n == 1:
            raise LookupError("one")
        if n == 2:
            raise asyncio.CancelledError
        return n

    @actor(batch=3, batch_wait=LONG)
    async def gather(numbers: list[int]) -> list[int | BaseException]:
        return await asyncio.gather(*map(one, numbers), return_exceptions=True)

    async with entered(make_runtime(gather)) as runtime:
        found = await outcomes(runtime, await send(runtime, *map(gather, range(3))))
    assert found[:2] == [0, "LookupError: one"]
    assert "CancelledError" in found[2]


# Cancellation


async def test_a_canceled_task_of_a_batch_that_runs_leaves_the_others_alone(make_runtime: Make) -> None:
    batches, seen = Batches(held=True), []

    @actor(batch=3, batch_wait=LONG)
    async def work(numbers: list[int]) -> list[int]:
        batches.seen.append(numbers)
        await batches.gate.wait()
        seen.extend([task.canceled for task in current_batch()])
        return numbers

    async with entered(make_runtime(work)) as runtime:
        handles = await send(runtime, *map(work, range(3)))
        await until(lambda: batches.seen)
        assert await handles[1].cancel() is TaskState.STARTED
        await until(lambda: any(c.cancel_reason for b in runtime._engine.consumer._pool.running() for c in b.tasks))  # type: ignore[union-attr]
        batches.gate.set()
        assert await outcomes(runtime, handles) == [0, "by handle.cancel()", 2]
    assert seen == [False, True, False]


async def test_a_batch_whose_tasks_are_all_canceled_is_canceled(make_runtime: Make) -> None:
    started, ended = anyio.Event(), anyio.Event()

    @actor(batch=2, batch_wait=LONG)
    async def sleep(numbers: list[int]) -> list[int]:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()
        return numbers

    async with entered(make_runtime(sleep)) as runtime:
        handles = await send(runtime, sleep(1), sleep(2))
        await started.wait()
        await runtime.cancel_many(handles)
        assert await outcomes(runtime, handles) == ["by handle.cancel()"] * 2
    assert ended.is_set()


async def test_a_task_that_is_gathered_is_canceled_at_once(make_runtime: Make) -> None:
    batches = Batches()
    async with entered(make_runtime(batches)) as runtime:
        handles = await send(runtime, *map(Batches.square, range(2)))
        await until(lambda: state_is(handles[1], TaskState.STARTED))
        await handles[0].cancel()
        with pytest.raises(TaskCanceled):
            await handles[0].result(timeout=PATIENCE)
        assert await outcomes(runtime, handles[1:] + await send(runtime, *map(Batches.square, range(2, 6))))
    assert batches.seen == [[1, 2, 3, 4, 5]]


async def test_the_last_task_that_is_gathered_frees_the_slot(make_runtime: Make) -> None:
    async with entered(make_runtime(Batches(), workers=1)) as runtime:
        handle = await runtime.send("a", Batches.square(1))
        await until(lambda: state_is(handle, TaskState.STARTED))
        await handle.cancel()
        assert await runtime.ask("b", Batches.at_once(2), timeout=PATIENCE) == 4


# In the handler


async def test_current_task_refuses_and_current_batch_has_all(make_runtime: Make) -> None:
    refusals: list[str] = []

    @actor(batch=2, batch_wait=LONG)
    async def look(numbers: list[int]) -> list[str]:
        with pytest.raises(RuntimeNotRunning) as refusal:
            current_task()
        refusals.append(str(refusal.value))
        for task in current_batch():
            await task.progress(0.5, task.id)
        infos = [
            await task.runtime.handle(task.id, tenant=task.tenant).info() for task in current_batch() if task.runtime
        ]
        return [f"{n} {info.id} {info.progress}" for n, info in zip(numbers, infos, strict=True)]

    async with entered(make_runtime(look)) as runtime:
        handles = await send(runtime, look(1).options(id="one"), look(2).options(id="two"))
        assert await outcomes(runtime, handles) == ["1 one (0.5, 'one')", "2 two (0.5, 'two')"]
    assert refusals == ["current_task() does not work in look(), which runs a batch of tasks: use current_batch()"]


async def test_current_batch_is_the_task_elsewhere(make_runtime: Make) -> None:
    @actor
    async def look() -> bool:
        return current_batch() == [current_task()]

    async with entered(make_runtime(look)) as runtime:
        assert await runtime.ask("a", look(), timeout=PATIENCE)
    with pytest.raises(RuntimeNotRunning, match=r"current_batch\(\) works only inside a handler"):
        current_batch()


async def test_a_plain_handler_runs_in_a_thread(make_runtime: Make) -> None:
    @actor(batch=3, batch_wait=LONG)
    def plain(numbers: list[int]) -> list[bool]:
        anyio.from_thread.run(current_batch()[0].progress, 0.5)
        return [threading.current_thread() is not threading.main_thread()] * len(numbers)

    async with entered(make_runtime(plain, threads=1)) as runtime:
        assert await outcomes(runtime, await send(runtime, *map(plain, range(3)))) == [True] * 3


async def test_a_batch_that_asks_lends_its_slot(make_runtime: Make) -> None:
    @actor
    async def echo(n: int) -> int:
        return n

    @actor(batch=2, batch_wait=LONG)
    async def ask(numbers: list[int]) -> list[int]:
        task = current_batch()[0]
        assert task.runtime is not None
        return [await task.runtime.ask(task.tenant, echo(n), timeout=PATIENCE) for n in numbers]

    async with entered(make_runtime(ask, echo, workers=1)) as runtime:
        assert await outcomes(runtime, await send(runtime, ask(1), ask(2))) == [1, 2]


async def test_awaiting_a_message_runs_the_handler_with_a_list_of_one() -> None:
    @actor(batch=3)
    async def double(numbers: list[int]) -> list[int | Exception]:
        assert len(current_batch()) == len(numbers) == 1
        return [ValueError("negative") if n < 0 else 2 * n for n in numbers]

    assert await double(4) == 8
    with pytest.raises(ValueError, match="negative"):
        await double(-1)
    assert await Batches.soon(3) == 9


# The end


async def test_what_is_gathered_goes_back_at_once_when_the_runtime_stops(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        async with make_runtime(Batches(), grace=LONG) as runtime:
            handles = await send(runtime, *map(Batches.square, range(3)))
            await until(lambda: state_is(handles[2], TaskState.STARTED))
        assert {await sender.handle(handle.id, tenant="a").state() for handle in handles} == {TaskState.QUEUED}
        await check_invariants(sender)
        async with entered(make_runtime(Batches())) as runtime:
            await send(runtime, *map(Batches.square, range(2)))


async def test_a_batch_that_runs_gets_the_grace(make_runtime: Make) -> None:
    batches = Batches(held=True)
    async with make_runtime(workers=0) as sender:
        async with make_runtime(batches, grace=LONG) as runtime:
            handles = await send(runtime, *map(Batches.square, range(5)))
            await until(lambda: batches.seen)
            asyncio.get_running_loop().call_later(0.05, batches.gate.set)
        found = [await sender.handle(handle.id, tenant="a").result(timeout=PATIENCE) for handle in handles]
    assert found == [0, 1, 4, 9, 16]


async def test_the_tasks_of_a_batch_whose_runtime_is_lost_run_apart(make_runtime: Make, db: redis.Redis) -> None:
    lost, other = Batches(held=True), Batches()
    async with make_runtime(lost) as first:
        handles = await send(first, *map(Batches.square, range(5)))
        await until(lambda: lost.seen)
        (info,) = (await first.stats()).runtimes
        db.zadd("{fairactor/0}:leases", {info.name: 5})  # the lease expired long ago
        async with make_runtime(other) as second:  # runs maintenance
            await until(lambda: db.zscore("{fairactor/0}:leases", info.name) is None)
            lost.gate.set()
            again = [second.handle(handle.id, tenant="a") for handle in handles]
            assert await outcomes(second, again) == [n * n for n in range(5)]
            assert lost.sizes[0] == 5
            assert lost.sizes[1:] + other.sizes == [1] * 5, "each may be the cause"
            await check_invariants(second)


# Around it


async def test_a_task_is_charged_its_part_of_the_seconds(make_runtime: Make) -> None:
    settled: list[float] = []

    @actor(batch=10, batch_wait=LONG)
    async def sleep(numbers: list[int]) -> list[int]:
        await anyio.sleep(0.2)
        return numbers

    async with entered(make_runtime(sleep, fair_by="time")) as runtime:
        (dispatcher,) = runtime._engine.consumer._dispatchers  # type: ignore[union-attr]
        settle = dispatcher.settle
        dispatcher.settle = lambda claim, each: (settled.append(each.seconds), settle(claim, each))  # type: ignore[method-assign,func-returns-value]
        await outcomes(runtime, await send(runtime, *map(sleep, range(10))))
    assert 0.2 <= sum(settled) < 1
    assert max(settled) - min(settled) < 0.01


async def test_a_schedule_sends_messages_of_batches(make_runtime: Make) -> None:
    batches = Batches()
    async with entered(make_runtime(batches)) as runtime:
        schedules = Schedules(runtime)
        await schedules.add(timedelta(hours=1), "a", Batches.soon(3), id="soon")
        assert await (await schedules.run_now("a", "soon")).result(timeout=PATIENCE) == 9


class Notes:
    """A plugin that wraps and observes."""

    name = "notes"

    def __init__(self) -> None:
        self.wrapped: list[str] = []
        self.events: Counter[str] = Counter()

    async def wrap_execute(self, task: Any, proceed: ProceedExecute) -> Any:
        self.wrapped.append(f"before {task.id}")
        if task.id == "skipped":
            return -1
        assert current_task() is task
        try:
            result = await proceed()
        except ValueError:
            return 0
        self.wrapped.append(f"after {task.id}")
        return result + (await proceed())

    def started(self, task: Any) -> None:
        self.events["started"] += 1

    def finished(self, task: Any, result: Any) -> None:
        self.events["finished"] += 1


async def test_plugins_wrap_and_observe_each_task(make_runtime: Make) -> None:
    notes, batches = Notes(), Batches()
    async with entered(make_runtime(batches, plugins=[notes])) as runtime:
        names = ["one", "failed", "skipped", "four", "five"]
        handles = await send(
            runtime, *(Batches.square(n).options(id=name) for n, name in zip([1, -2, 3, 4, 5], names, strict=True))
        )
        assert await outcomes(runtime, handles) == [2, 0, -1, 32, 50]
    assert batches.seen == [[1, -2, 4, 5]]
    assert notes.wrapped == [*(f"before {name}" for name in names), "after one", "after four", "after five"]
    assert notes.events == {"started": 5, "finished": 5}


async def test_a_wrapper_of_a_batch_that_is_canceled_ends(make_runtime: Make) -> None:
    notes, batches = Notes(), Batches(held=True)
    async with entered(make_runtime(batches, plugins=[notes])) as runtime:
        handles = await send(runtime, *map(Batches.square, range(5)))
        await until(lambda: batches.seen)
        await runtime.cancel_many(handles)
        assert await outcomes(runtime, handles) == ["by handle.cancel()"] * 5


async def test_results_of_other_tasks_and_xcom_work_with_batches(make_runtime: Make) -> None:
    @actor
    async def load(n: int) -> int:
        return n

    @actor
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    batches = Batches()
    async with entered(make_runtime(batches, load, total)) as runtime:
        squares = [load(n) >> Batches.soon(result()) for n in range(3)]
        run = await runtime.send("a", squares >> total(results()))
        assert await run.result(timeout=PATIENCE) == 5
        mapped = await runtime.send("a", each(Batches.soon, [1, 2, 3]) >> total(result()))
        assert await mapped.result(timeout=PATIENCE) == 14
        await runtime.ask("a", Batches.soon(3).options(xcom="nine"), timeout=PATIENCE)


async def test_each_task_has_a_span_that_is_linked_to_that_of_the_batch(exporter: Exporter, make_runtime: Make) -> None:
    batches = Batches()
    async with entered(make_runtime(batches)) as runtime:
        await outcomes(runtime, await send(runtime, *map(Batches.square, [1, 2, 3, 4, -5])))
    spans = exporter.named("process Batches.square")
    own = [span for span in spans if span.attributes and "messaging.message.id" in span.attributes]
    [whole] = [span for span in spans if span not in own]
    assert len(own) == 5
    assert whole.attributes
    assert whole.attributes["messaging.batch.message_count"] == 5
    assert {link.context.span_id for link in whole.links} == {span.context.span_id for span in own if span.context}
    assert all(whole.context in [link.context for link in span.links] for span in own)
    assert [span.status.is_ok for span in own].count(False) == 1


# Definitions


def of(function: Any, **options: Any) -> Any:
    decorate: Any = actor
    return decorate(**{"batch": 10, **options})(function)


async def no_parameter() -> list[int]:
    raise NotImplementedError


async def no_list(number: int) -> list[int]:
    raise NotImplementedError


async def no_list_returned(numbers: list[int]) -> int:
    raise NotImplementedError


async def has_default(numbers: list[int], more: list[int] = []) -> list[int]:  # noqa: B006 - a mistake of the user
    raise NotImplementedError


async def by_name(numbers: list[int], *, more: list[int]) -> list[int]:
    raise NotImplementedError


async def any_number(*numbers: int) -> list[int]:
    raise NotImplementedError


async def unsendable(numbers: list[threading.Lock]) -> list[int]:
    raise NotImplementedError


async def fine(numbers: list[int]) -> list[int]:
    raise NotImplementedError


def plain(numbers: list[int]) -> list[int]:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (lambda: of(no_parameter), "needs a parameter"),
        (lambda: of(no_list), "number is annotated <class 'int'>, but a batch has a list here"),
        (lambda: of(no_list_returned), "its result is annotated <class 'int'>, but a batch has a list here"),
        (lambda: of(has_default), "more has a default"),
        (lambda: of(by_name), "by position"),
        (lambda: of(any_number), "by position"),
        (lambda: of(unsendable), "cannot convert numbers"),
        (lambda: of(plain, process=True), "batch= does not work with process=True"),
        (lambda: of(fine, batch=0), "batch=0"),
        (lambda: of(fine, batch=1001), "batch=1001"),
        (lambda: of(fine, batch=True), "batch=True"),
        (lambda: of(fine, batch_wait=-1), "batch_wait"),
        (lambda: of(fine, batch=None, batch_wait=1), "batch_wait= is for actors with batch="),
        (lambda: of(Batches), "batch= is for functions and methods"),
    ],
)
async def test_what_cannot_be_a_batch_is_refused_where_it_is_defined(
    define: Callable[[], Awaitable[Any]], message: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        define()
    assert message in str(refusal.value)


async def test_arguments_are_checked_at_the_call_and_at_the_send(make_runtime: Make) -> None:
    message: Any = Batches.square
    with pytest.raises(TypeError, match="numbers"):
        message(numbers=1)
    with pytest.raises(TypeError, match="missing a required argument"):
        message()
    async with make_runtime(workers=0) as runtime:
        with pytest.raises(TypeError, match=r"numbers: expected int, got str 'x'"):
            await runtime.send("a", message("x"))
