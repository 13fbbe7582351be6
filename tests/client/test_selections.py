"""Tests `Runtime.select`: changes of many tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from fairactor import Runtime, TaskState, actor
from fairactor.errors import ConfigurationError
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
ran: list[tuple[str, int]] = []


@actor
async def record(n: int) -> None:
    ran.append(("record", n))


@actor
async def fail(n: int) -> None:
    raise ValueError(n)


@actor
async def block(n: int) -> None:
    await anyio.sleep_forever()


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    ran.clear()
    monkeypatch.setattr("fairactor._operate.selection._SLICE", 7)
    monkeypatch.setattr("fairactor._operate.selection._COUNTED_AT_ONCE", 7)


async def test_count_and_how_far_it_looked(make_runtime: Make) -> None:
    async with make_runtime(workers=0, shards=2) as runtime:
        await runtime.send_many([(tenant, each(1)) for tenant in "abc" for each in (record, fail) for _ in range(5)])
        found = await runtime.select().count()
        assert (found.count, found.complete, found.looked_at) == (30, True, 30)
        found = await runtime.select(actor="fail", tenant="a").count()
        assert (found.count, found.complete, found.looked_at) == (5, True, 10)
        found = await runtime.select(state="queued").count(most=10)
        assert (found.count, found.complete, found.looked_at) == (10, False, 10)
        assert (await runtime.select(state="failed").count()).count == 0
        with pytest.raises(ConfigurationError, match="most"):
            await runtime.select().count(most=0)


@pytest.mark.parametrize("shards", [1, 2])
async def test_cancel_those_that_pass(make_runtime: Make, shards: int) -> None:
    async with make_runtime(record, fail, block, workers=2, shards=shards, grace=0) as runtime:
        running = [await runtime.send("a", block(n)) for n in range(2)]
        await until(lambda: _is_started(runtime, 2))
        await runtime.send_many([(tenant, record(n)) for tenant in "abc" for n in range(10)])
        await runtime.send_many([(tenant, record(n).options(delay=60)) for tenant in "abc" for n in range(10)])
        await runtime.send_many([("a", record(n).options(depends_on=[running[0]])) for n in range(10)])
        said: list[tuple[int, int]] = []
        selection = runtime.select(tenant="a")
        assert await selection.cancel(progress=lambda changed, looked: said.append((changed, looked)), most=5) == 5
        assert said[-1][0] == 5
        rest = await selection.cancel(progress=lambda changed, looked: said.append((changed, looked)))
        assert rest >= 10  # those that wait for the first one end with it
        assert said == sorted(said[:1]) + said[1:]
        await until(lambda: _is_started(runtime, 0, "b"))
        assert (await runtime.select(tenant="a", state=["queued", "scheduled", "deferred"]).count()).count == 0
        assert await runtime.select(tenant="a").cancel() == 0
        assert (await runtime.select(tenant="b", state="scheduled").count()).count == 10
        await check_invariants(runtime)


async def _is_started(runtime: Runtime, number: int, _: str = "") -> bool:
    return (await runtime.stats()).started == number


async def test_retry_starts_what_is_scheduled(make_runtime: Make) -> None:
    async with make_runtime(record, workers=1) as runtime:
        await runtime.send_many([(tenant, record(n).options(delay=600 + n)) for tenant in "ab" for n in range(10)])
        assert await runtime.select(tenant="a", state="scheduled").retry(most=3) == 3
        await runtime.drain(timeout=PATIENCE)
        assert ran == [("record", n) for n in range(3)]
        assert await runtime.select(tenant="a").retry() == 7
        await runtime.drain(timeout=PATIENCE)
        assert [n for _, n in ran] == list(range(10))
        assert (await runtime.stats()).scheduled == 10
        await check_invariants(runtime)


async def test_redrive_and_purge_of_what_has_failed(make_runtime: Make) -> None:
    async with make_runtime(record, fail, workers=3, shards=2) as runtime:
        await runtime.send_many([(tenant, each(n)) for tenant in "abc" for n in range(9) for each in (fail, record)])
        await runtime.drain(timeout=PATIENCE)
        assert await runtime.select(tenant="a", text="[4]").redrive() == 1
        assert await runtime.select(tenant="a").redrive() == 9  # it has failed again
        await runtime.drain(timeout=PATIENCE)
        assert (await runtime.select(state="failed").count()).count == 27
        assert await runtime.select(tenant="b", state="failed").purge() == 9
        assert await runtime.select(tenant="b").purge() == 9
        assert (await runtime.select(tenant="b").count()).count == 0
        assert await runtime.select(state="finished").purge() == 18
        assert (await runtime.select().count()).count == 18
        assert await runtime.select(state="finished").redrive() == 0
        await check_invariants(runtime)


@pytest.mark.parametrize("shards", [1, 2])
async def test_move_to_another_queue_keeps_the_order(make_runtime: Make, shards: int) -> None:
    async with make_runtime(workers=0, shards=shards) as runtime:
        await runtime.send_many([(tenant, record(n)) for tenant in "ab" for n in range(10)])
        await runtime.send_many([("a", record(n).options(delay=500)) for n in range(10, 12)])
        assert await runtime.select(tenant="a").move("spare") == 12
        assert await runtime.select(tenant="a").move("spare") == 12, "they are there already"
        await check_invariants(runtime)
        assert (await runtime.select(queue="spare").count()).count == 12
        assert (await runtime.select(queue="default").count()).count == 10
    async with make_runtime(record, workers=1, queues=["spare"]) as runtime:
        await until(lambda: len(ran) == 10)
        assert [n for _, n in ran] == list(range(10))
        await runtime.send("b", record(99).options(queue="spare"))
        await until(lambda: ran[-1][1] == 99)
        assert await runtime.select(queue="spare", state="scheduled").move("default") == 2
        assert await runtime.select(state="scheduled").retry() == 2
        await check_invariants(runtime)
        with pytest.raises(ConfigurationError):
            await runtime.select().move("")
        with pytest.raises(ConfigurationError, match="queue"):
            await runtime.select(state="queued").move("☃" * 700)
    async with make_runtime(record, workers=1) as runtime:
        await runtime.drain(timeout=PATIENCE)
        assert len(ran) == 23
        assert (await runtime.stats()).queued == 0


async def test_a_change_can_be_canceled_between_slices(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send_many([("a", record(n)) for n in range(30)])

        def stop(changed: int, looked_at: int) -> None:
            if changed >= 14:
                scope.cancel()

        with anyio.CancelScope() as scope:
            await runtime.select().cancel(progress=stop)
        assert scope.cancelled_caught
        assert (await runtime.stats()).queued == 16
        assert await runtime.select().cancel() == 16


async def test_a_bad_filter_is_refused_at_once(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        for wanted in ({"state": "running"}, {"tenant": 5}, {"text": ""}):
            bad: Any = wanted
            with pytest.raises(ConfigurationError):
                runtime.select(**bad)
        assert TaskState.FINISHED.settled
