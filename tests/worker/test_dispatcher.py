"""Tests the dispatchers of a fleet: caps and order hold across runtimes, and no runtime polls or stays idle."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import redis

from fairactor import Runtime, TaskCanceled, TaskState, actor, current_task
from fairactor.testing import check_invariants
from tests.support import service
from tests.support.polling import PATIENCE, until
from tests.support.worker_processes import Fleet

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


class Log:
    """Provides an actor that records the order of its runs, and the most concurrent runs of each tenant."""

    def __init__(self) -> None:
        self.order: dict[str, list[int]] = {}
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.all: list[str] = []

        @actor
        async def run(n: int) -> None:
            tenant = current_task().tenant
            self.all.append(tenant)
            self.order.setdefault(tenant, []).append(n)
            self.running[tenant] += 1
            self.most[tenant] = max(self.most[tenant], self.running[tenant])
            await anyio.sleep(0.001)
            self.running[tenant] -= 1

        self.run = run


async def test_a_serial_tenant_runs_one_at_a_time_in_order_over_several_runtimes(make_runtime: Make) -> None:
    log = Log()
    async with make_runtime(log.run) as one, make_runtime(log.run), make_runtime(log.run):
        await one.tenant("serial").configure(concurrency=1)
        await one.send_many(("serial" if n % 2 else f"other {n % 5}", log.run(n)) for n in range(400))
        await one.drain(timeout=PATIENCE)
        await check_invariants(one)
    assert log.order["serial"] == list(range(1, 400, 2))
    assert log.most["serial"] == 1


async def test_a_serial_tenant_runs_one_at_a_time_in_order_over_several_processes(
    make_runtime: Make, processes: Fleet, db: redis.Redis
) -> None:
    await processes.start(2)
    async with make_runtime(workers=0) as runtime:
        await runtime.tenant("serial").configure(concurrency=1)
        tenants = ["serial", "free"]
        handles = await runtime.send_many((tenants[n % 2], service.one_at_a_time(n)) for n in range(200))
        pids = await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles))
    assert [int(n) for n in db.lrange("order serial", 0, -1)] == list(range(0, 200, 2))
    assert {int(n) for n in db.lrange("at once serial", 0, -1)} == {1}
    assert len(set(pids)) == 2, "both have had a part"
    await processes.stop()


@pytest.mark.parametrize("cap", [2, 5])
async def test_a_cap_holds_over_the_whole_fleet(make_runtime: Make, cap: int) -> None:
    log = Log()
    async with make_runtime(log.run) as one, make_runtime(log.run):
        await one.tenant("capped").configure(concurrency=cap)
        await one.send_many(("capped", log.run(n)) for n in range(100))
        await one.drain(timeout=PATIENCE)
    assert log.most["capped"] <= cap
    assert sorted(log.order["capped"]) == list(range(100))


async def test_a_policy_holds_for_every_runtime_at_once(make_runtime: Make) -> None:
    begun = anyio.Semaphore(0)
    release = anyio.Event()

    @actor
    async def wait() -> None:
        begun.release()
        await release.wait()

    async with make_runtime(wait) as one, make_runtime(wait), make_runtime(workers=0) as sender:
        tenant = sender.tenant("user:1")
        policy = await tenant.configure(concurrency=1, weight=2)
        assert (policy.concurrency, policy.weight) == (1, 2.0)
        await sender.send_many(("user:1", wait()) for _ in range(8))
        await begun.acquire()
        assert (await tenant.stats()).started == 1
        assert await tenant.configure() == policy, "what is left out stays"
        policy = await tenant.configure(concurrency=3)
        assert (policy.concurrency, policy.weight) == (3, 2.0)
        await begun.acquire()
        await begun.acquire()
        assert (await tenant.stats()).started == 3
        policy = await tenant.configure(concurrency=None, weight=None)
        assert (policy.concurrency, policy.weight) == (None, 1.0)
        for _ in range(5):
            await begun.acquire()
        release.set()
        await one.drain(timeout=PATIENCE)


async def test_equal_tenants_take_turns_whatever_their_backlogs(make_runtime: Make) -> None:
    log = Log()
    async with make_runtime(workers=0) as sender:
        await sender.send_many(("big", log.run(n)) for n in range(200))
        await sender.send_many((f"small {t}", log.run(n)) for t in range(3) for n in range(5))
        async with make_runtime(log.run, workers=1) as runtime:
            await runtime.drain(timeout=PATIENCE)
    for start in range(0, 20, 4):
        assert len(set(log.all[start : start + 4])) == 4, "each is served once in every round"


async def test_service_follows_the_weights(make_runtime: Make) -> None:
    log = Log()
    async with make_runtime(workers=0) as sender:
        await sender.tenant("heavy").configure(weight=3)
        for tenant in ("heavy", "light"):
            await sender.send_many((tenant, log.run(n)) for n in range(120))
        async with make_runtime(log.run, workers=2) as runtime:
            await runtime.drain(timeout=PATIENCE)
    for n in (40, 80, 120):
        assert Counter(log.all[:n])["heavy"] == pytest.approx(0.75 * n, abs=3)


async def test_who_drains_and_returns_gains_nothing(make_runtime: Make) -> None:
    log = Log()

    @actor
    async def again(n: int) -> None:
        log.all.append("returns")
        if n:
            await runtime.send("returns", again(n - 1))

    async with make_runtime(workers=0) as sender:
        await sender.send_many(("stays", log.run(n)) for n in range(60))
        await sender.send("returns", again(40))
        async with make_runtime(log.run, again, workers=1) as runtime:
            await runtime.drain(timeout=PATIENCE)
    assert Counter(log.all[:60])["returns"] <= 31


async def test_two_runtimes_share_the_work(make_runtime: Make) -> None:
    both = {0: anyio.Event(), 1: anyio.Event()}

    def part(number: int) -> Any:
        @actor
        async def work() -> int:
            both[number].set()
            await both[1 - number].wait()  # until the other runtime has started one, too
            return number

        return work

    work = part(0)
    async with make_runtime(work, workers=1), make_runtime(part(1), workers=1), make_runtime(workers=0) as sender:
        handles = await sender.send_many((f"user:{n}", work()) for n in range(10))
        assert set(await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles))) == {0, 1}


async def test_an_idle_fleet_says_nothing_between_its_heartbeats(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(service.nap, lease=60), make_runtime(service.nap, lease=60), make_runtime(workers=0):
        await until(lambda: db.scard("{fairactor/0}:idle") == 2)
        await anyio.sleep(0.2)  # for the requests of plugins at their start
        before = db.info("stats")["total_commands_processed"]
        await anyio.sleep(1)  # a fixed time: the test checks that nothing happens in it
        assert db.info("stats")["total_commands_processed"] - before <= 2


async def test_a_wake_up_that_is_lost_costs_no_more_than_a_heartbeat(make_runtime: Make, db: redis.Redis) -> None:
    log = Log()
    async with make_runtime(log.run, lease=1.5), make_runtime(workers=0) as sender:
        await until(lambda: db.scard("{fairactor/0}:idle") == 1)
        db.delete("{fairactor/0}:idle")  # as if the server had sent a wake-up and it was lost
        await sender.ask("user:1", log.run(1), timeout=1.5 / 3 + 1)


async def test_tasks_start_at_once_where_somebody_idles(make_runtime: Make) -> None:
    log = Log()
    async with make_runtime(log.run, lease=60) as runtime, make_runtime(workers=0) as sender:
        for n in range(50):
            assert await sender.ask("user:1", log.run(n), timeout=5) is None
        assert (await runtime.stats()).finished == 50


async def test_nothing_is_left_of_a_tenant_that_has_drained(make_runtime: Make, db: redis.Redis) -> None:
    log = Log()
    async with make_runtime(log.run, result_ttl=0, lease=1) as runtime:
        handles = await runtime.send_many((f"user:{n}", log.run(n)) for n in range(100))
        later = await runtime.send("user:x", log.run(1), delay=3600, result_ttl=0)
        assert await later.state() is TaskState.SCHEDULED
        await runtime.drain(timeout=PATIENCE)
        assert len(handles) == 100
        left = {key.decode() for key in db.scan_iter()}
        assert not [key for key in left if ":queue:" in key or ":tags" in key or ":ring" in key]
        assert [key for key in left if ":task:" in key] == [f"{{fairactor/0}}:task:{later.id}"]
        assert db.hlen("{fairactor/0}:counts") == 1
        await later.cancel()


# Cancellations


async def test_a_cancellation_that_comes_too_late_does_not_hit_the_next_task(make_runtime: Make) -> None:
    @actor
    async def run(n: int) -> int:
        pool = runtime._engine.consumer._pool  # type: ignore[union-attr]
        pool.cancel(current_task().id, "just before its end")  # type: ignore[union-attr]
        return n

    @actor
    async def wait() -> str:
        await anyio.sleep(0.01)
        return "ran"

    async with make_runtime(run, wait, workers=1) as runtime:
        messages = [("user:1", run(n) if n % 2 else wait()) for n in range(20)]
        handles = await runtime.send_many(messages)
        found = await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles))
    assert found == [n if n % 2 else "ran" for n in range(20)]


async def test_a_handler_that_turns_its_cancellation_into_an_error_is_canceled_all_the_same(make_runtime: Make) -> None:
    begun = anyio.Event()

    @actor(max_retries=5)
    async def stubborn() -> None:
        try:
            begun.set()
            await anyio.sleep_forever()
        except BaseException as error:
            raise ConnectionError("as many libraries do") from error

    async with make_runtime(stubborn) as runtime:
        handle = await runtime.send("user:1", stubborn())
        await begun.wait()
        await handle.cancel()
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)


async def test_a_task_that_was_claimed_but_not_started_is_canceled_with_its_name(make_runtime: Make) -> None:
    begun, release = anyio.Event(), anyio.Event()

    @actor
    async def run() -> None:
        begun.set()
        await release.wait()

    async with make_runtime(run, workers=1) as runtime:
        first = await runtime.send("user:1", run())
        await begun.wait()
        second = await runtime.send("user:1", run())
        pool, dispatcher = runtime._engine.consumer._pool, runtime._engine.consumer._dispatchers[0]  # type: ignore[union-attr]
        pace = dispatcher._paces[0]
        pace._rate = pace._round_trip = pace._run = 1.0  # after short tasks, it claims one task ahead
        dispatcher.wake()
        await until(lambda: pool.first._ready)  # type: ignore[union-attr]
        assert await second.cancel() is TaskState.STARTED
        with pytest.raises(TaskCanceled, match="of tenant 'user:1' \\(run\\) was canceled"):
            await second.result(timeout=PATIENCE)
        await check_invariants(runtime)
        release.set()
        await first.result(timeout=PATIENCE)


async def test_a_cancellation_that_overtakes_the_claim_is_not_lost(make_runtime: Make, db: redis.Redis) -> None:
    claimed, go_on = anyio.Event(), anyio.Event()

    @actor
    async def run() -> None:
        await anyio.sleep_forever()

    async with make_runtime(run) as runtime, make_runtime(workers=0) as sender:
        (dispatcher,) = runtime._engine.consumer._dispatchers  # type: ignore[union-attr]
        turn = dispatcher._shard.turn
        await until(lambda: db.scard("{fairactor/0}:idle"))  # its first turn has ended

        async def slow(*args: Any, **kwargs: Any) -> Any:
            reply = await turn(*args, **kwargs)
            if reply and reply.claims:
                claimed.set()
                await go_on.wait()
            return reply

        dispatcher._shard.turn = slow  # type: ignore[method-assign]
        handles = await sender.send_many([("user:1", run())] * 2)  # a single task would be handed over directly
        await claimed.wait()
        assert [await handle.cancel() for handle in handles] == [TaskState.STARTED] * 2
        go_on.set()
        for handle in handles:
            with pytest.raises(TaskCanceled):
                await handle.result(timeout=PATIENCE)


async def test_a_cancellation_outlives_the_runtime_that_it_was_told_to(make_runtime: Make) -> None:
    log = Log()
    async with make_runtime(workers=0) as sender:
        (shard,) = sender._shards()
        await shard.join("dead", lease=0.3, info={})
        handle = await sender.send("user:1", log.run(1))
        turn = await shard.turn("dead", 1, lease=0.3, want=1)
        assert turn is not None
        assert turn.claims
        assert await handle.cancel() is TaskState.STARTED
        async with make_runtime(log.run):
            with pytest.raises(TaskCanceled):
                await handle.result(timeout=PATIENCE)


async def test_a_lost_lease_leaves_nothing_behind(make_runtime: Make, db: redis.Redis) -> None:
    log = Log()
    async with make_runtime(log.run) as runtime:
        channels = len(db.pubsub_channels())
        for _ in range(3):
            (info,) = (await runtime.stats()).runtimes
            await until(lambda name=info.name: db.sismember("{fairactor/0}:idle", name))  # the runtime sleeps
            db.zadd("{fairactor/0}:leases", {info.name: 5})  # the lease expired long ago
            async with make_runtime(log.run):  # runs maintenance
                await until(lambda name=info.name: db.zscore("{fairactor/0}:leases", name) is None)
                runtime._engine.consumer._dispatchers[0].wake()  # type: ignore[union-attr]
                await until(lambda: db.hlen("{fairactor/0}:fleet") == 2)
        await until(lambda: len(db.pubsub_channels()) == channels)
        assert len(runtime._engine.subscriber._callbacks) == 2
        await runtime.ask("user:1", log.run(1), timeout=PATIENCE)
        await check_invariants(runtime)
