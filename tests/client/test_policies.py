"""Tests policies: the settings of tenants, the defaults for other tenants, pausing and purging."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
import redis

from fairactor import Policy, Runtime, TaskCanceled, TaskState, actor
from fairactor.errors import ConfigurationError, TaskNotFound
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until
from tests.support.shard.selection import SelectionDriver, open_selection

Make = Callable[..., Runtime]
IDLE = "{fairactor/0}:idle"
SOON = 10.0  # seconds; with a lease of 60 s, the next heartbeat is later


@pytest.fixture
def shard(url: str) -> Iterator[SelectionDriver]:
    with open_selection(url) as made:
        yield made


@actor
async def echo(value: int = 0) -> int:
    return value


class Gate:
    """Provides an actor that waits until the gate opens."""

    def __init__(self) -> None:
        self.began = anyio.Semaphore(0)
        self.open = anyio.Event()

        @actor
        async def hold() -> str:
            self.began.release()
            await self.open.wait()
            return "done"

        self.hold = hold


# Settings


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"weight": 0}, "weight=0"),
        ({"weight": "x"}, "weight='x'"),
        ({"concurrency": "x"}, "concurrency='x'"),
        ({"concurrency": -math.inf}, "concurrency=-inf"),
        ({"backlog": -1}, "backlog=-1"),
        ({"backlog": 0}, "backlog=0: give a whole number, 1 or more, or None; math.inf is no limit"),
        ({"backlog": True}, "backlog=True"),
        ({"backlog": 1.0}, "backlog=1.0"),
        ({"backlog": 2**54}, "backlog=18014398509481984"),
        ({"rate": 10}, "rate=10: give tasks per unit of time, such as '10/s'"),
        ({"rate": "10"}, "rate='10'"),
        ({"rate": True}, "rate=True"),
        ({"rate": "0/s"}, "rate='0/s'"),
        ({"rate": "-1/s"}, "rate='-1/s'"),
        ({"rate": "1e3/s"}, "rate='1e3/s'"),
        ({"rate": "10/fortnight"}, "rate='10/fortnight'"),
        ({"rate": "10/seconds"}, "rate='10/seconds'"),
        ({"rate": "1000001/s"}, "rate='1000001/s': give a rate from one a year to a million a second"),
        ({"rate": "0.002/day"}, "rate='0.002/day': give a rate from one a year"),
        ({"burst": 5}, "burst=5: give it together with rate="),
        ({"burst": 5, "rate": None}, "burst=5: give it together with rate="),
        ({"burst": 0, "rate": "1/s"}, "burst=0"),
        ({"burst": "x", "rate": "1/s"}, "burst='x'"),
        ({"burst": math.inf, "rate": "1/s"}, "burst=inf"),
        ({"group": ""}, "group '': give a string that is not empty"),
        ({"group": 5}, "group 5"),
        ({"group": "x" * 513}, "group 'x+'…: 513 bytes long, the limit is 512"),
        ({"group": "\ud800"}, "group .*surrogate"),
        (
            {"paused": True},
            "there is no setting 'paused' here; the settings are weight, concurrency, rate, burst, backlog, group",
        ),
        ({"weight": 2, "rat": "1/s"}, "there is no setting 'rat' here"),
    ],
)
async def test_what_cannot_work_is_refused_by_name_and_nothing_is_changed(
    make_runtime: Make, policy: dict[str, Any], words: str
) -> None:
    async with make_runtime(workers=0) as runtime:
        with pytest.raises(ConfigurationError, match=words):
            await runtime.tenant("t").configure(**policy)
        with pytest.raises(
            ConfigurationError, match="there is no setting 'group'" if "group" in policy else words[:30]
        ):
            await runtime.policies.configure_defaults(**policy)
        assert await runtime.policies.tenants() == {}
        assert await runtime.policies.defaults() == Policy()


@pytest.mark.anyio
async def test_groups_and_tenants_that_cannot_be_are_refused(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        for group, weight, words in [("", 1, "group ''"), ("g", 0, "weight=0"), ("g", True, "weight=True")]:
            with pytest.raises(ConfigurationError, match=words):
                await runtime.policies.configure_group(group, weight=weight)
        with pytest.raises(ConfigurationError, match="tenant ''"):
            await runtime.policies.remove("")
        with pytest.raises(ConfigurationError, match="canceled_ttl=-1"):
            await runtime.tenant("t").purge(canceled_ttl=-1)
        assert await runtime.policies.groups() == {}


@pytest.mark.anyio
@pytest.mark.parametrize("shards", [1, 4])
async def test_own_settings_win_none_takes_them_back_and_inf_is_no_limit(make_runtime: Make, shards: int) -> None:
    async with make_runtime(workers=0, shards=shards) as runtime:
        policies, tenant = runtime.policies, runtime.tenant("t")
        assert await tenant.policy() == await policies.defaults() == Policy()
        defaults = await policies.configure_defaults(weight=2, concurrency=3, rate="600/min", burst=4, backlog=5)
        assert defaults == Policy(2.0, 3, "600/min", 4, 5)
        assert await policies.defaults() == await tenant.policy() == await runtime.tenant("u").policy() == defaults
        own = await tenant.configure(weight=0.5, concurrency=math.inf, rate=math.inf, backlog=math.inf, group="acme")
        assert own == await tenant.policy() == Policy(0.5, None, None, None, None, False, "acme")
        assert await tenant.configure(rate="100/s") == Policy(0.5, None, "100/s", 10, None, False, "acme")
        await tenant.pause()
        await policies.configure_group("acme", weight=7)
        assert await policies.tenants() == {"t": Policy(0.5, None, "100/s", 10, None, True, "acme")}
        assert await policies.groups() == {"acme": 7.0}
        assert await tenant.configure(weight=None, backlog=None) == Policy(2.0, None, "100/s", 10, 5, True, "acme")
        await policies.remove("t")
        assert await tenant.policy() == defaults
        assert await policies.tenants() == {}
        await policies.remove("never configured")
        await policies.configure_group("acme", weight=None)
        assert await policies.groups() == {}
        defaults = await policies.configure_defaults(weight=None, concurrency=None, rate=None, backlog=math.inf)
        assert defaults == await policies.defaults() == Policy()
        await check_invariants(runtime)


@pytest.mark.anyio
async def test_policies_of_many_tenants_are_listed(make_runtime: Make) -> None:
    async with make_runtime(workers=0, shards=2) as runtime:
        for n in range(700):
            await runtime.tenant(f"user:{n}").configure(weight=n + 1)
        found = await runtime.policies.tenants()
        assert found == {f"user:{n}": Policy(n + 1.0) for n in range(700)}


# Defaults


def test_default_weights_and_caps_hold_for_those_that_have_none(shard: SelectionDriver) -> None:
    shard.configure_defaults(weight=2, concurrency=3)
    shard.configure("own", weight=4, concurrency=math.inf)
    shard.send(own=100, a=100, b=100)
    assert abs(shard.serve(40)["own"] - 20) <= 1
    shard.turn(0)
    assert Counter(shard.claim(50)) == {"own": 44, "a": 3, "b": 3}
    shard.driver.check()


def test_a_changed_default_frees_thousands_that_were_full(shard: SelectionDriver) -> None:
    tenants = [f"user:{n}" for n in range(2500)]
    shard.configure_defaults(concurrency=1)
    shard.configure("user:7", concurrency=1)
    shard.send(dict.fromkeys(tenants, 3))
    assert [len(shard.claim(1000)) for _ in range(4)] == [1000, 1000, 500, 0]
    shard.configure_defaults(concurrency=2)
    shard.driver.check()
    assert sum(len(shard.claim(1000)) for _ in range(4)) == 2499
    shard.configure_defaults(concurrency=None)
    assert sum(len(shard.claim(1000)) for _ in range(4)) == 2499
    assert shard.waits("user:7") == 2
    shard.driver.check()


def test_a_default_that_limits_thousands_holds_before_all_are_looked_through(shard: SelectionDriver) -> None:
    tenants = [f"user:{n}" for n in range(1500)]
    shard.send(dict.fromkeys(tenants, 2))
    assert len(shard.claim(700)) == 700
    shard.configure_defaults(concurrency=1, review=False)
    claimed = [name for _ in range(3) for name in shard.claim(500)]
    assert len(claimed) == len(set(claimed)) == 800
    assert shard.claim(500) == []
    shard.driver.run(shard.driver.shard.review())
    shard.driver.check()
    assert len(shard.turn(2000)) == 1500


@pytest.mark.anyio
async def test_a_default_that_is_lifted_wakes_who_sleeps(make_runtime: Make, db: redis.Redis) -> None:
    gate = Gate()
    async with make_runtime(gate.hold, lease=60, workers=10) as runtime:
        await runtime.policies.configure_defaults(concurrency=1)
        await runtime.send_many([("t", gate.hold())] * 3)
        await gate.began.acquire()
        await until(lambda: db.scard(IDLE) == 1)
        await runtime.policies.configure_defaults(concurrency=None)
        with anyio.fail_after(SOON):
            await gate.began.acquire()
            await gate.began.acquire()
        gate.open.set()
        await runtime.drain(timeout=SOON)
        await check_invariants(runtime)


# Pausing


@pytest.mark.anyio
async def test_a_paused_tenant_waits_while_what_runs_and_others_go_on(make_runtime: Make, db: redis.Redis) -> None:
    gate = Gate()
    async with make_runtime(gate.hold, echo, lease=60) as runtime, make_runtime(gate.hold, echo, lease=60):
        tenant = runtime.tenant("t")
        running = await tenant.send(gate.hold())
        await gate.began.acquire()
        await tenant.pause()
        await tenant.pause()
        assert (await tenant.policy()).paused
        waiting = await runtime.send_many(("t", echo(n)) for n in range(5))
        assert await runtime.ask("another", echo(7), timeout=SOON) == 7
        gate.open.set()
        assert await running.result(timeout=SOON) == "done"
        assert await runtime.ask("another", echo(8), timeout=SOON) == 8
        counts = await tenant.stats()
        assert (counts.queued, counts.started, counts.finished) == (5, 0, 1)
        await until(lambda: db.scard(IDLE) == 2)
        await check_invariants(runtime)
        await tenant.resume()
        results = await asyncio.gather(*(handle.result(timeout=SOON) for handle in waiting))
        assert results == list(range(5))
        assert not (await tenant.policy()).paused
        await tenant.resume()
        await check_invariants(runtime)


@pytest.mark.anyio
async def test_what_is_due_or_to_be_tried_again_waits_while_its_tenant_is_paused(make_runtime: Make) -> None:
    failed = anyio.Event()

    @actor(max_retries=1, backoff=0.001)
    async def fail_once() -> str:
        if failed.is_set():
            return "done"
        failed.set()
        await runtime.tenant("t").pause()
        raise ValueError

    async with make_runtime(fail_once, echo) as runtime:
        again = await runtime.send("t", fail_once())
        await failed.wait()
        due = await runtime.send("t", echo(3), delay=0.001)
        await until(lambda: _has_state([again, due], TaskState.QUEUED))
        assert await runtime.ask("another", echo(1), timeout=PATIENCE) == 1
        await check_invariants(runtime)
        await runtime.tenant("t").resume()
        assert [await again.result(timeout=PATIENCE), await due.result(timeout=PATIENCE)] == ["done", 3]


async def _has_state(handles: list[Any], state: TaskState) -> bool:
    return {await handle.state() for handle in handles} == {state}


def test_one_that_is_paused_and_resumed_gains_nothing(shard: SelectionDriver) -> None:
    shard.send(a=200, b=200, odd=200)
    shard.serve(30)
    shard.configure("odd", paused=True)
    assert shard.serve(60).keys() <= {"a", "b", "odd"}
    shard.configure("odd", paused=False)
    assert abs(shard.serve(60)["odd"] - 20) <= 1


# Purging


@pytest.mark.anyio
@pytest.mark.parametrize("limits", [{}, {"concurrency": 1, "group": "g"}, {"rate": "1/h"}])
async def test_a_purge_cancels_what_waits_and_leaves_what_runs(
    make_runtime: Make, db: redis.Redis, limits: dict[str, Any]
) -> None:
    gate = Gate()
    async with make_runtime(gate.hold, workers=1, lease=60) as runtime:
        tenant = runtime.tenant("t")
        await tenant.configure(**limits)
        running = await tenant.send(gate.hold())
        await gate.began.acquire()
        queued = await runtime.send_many([("t", gate.hold().options(key=f"{n}")) for n in range(1203)])
        scheduled = await runtime.send_many([("t", gate.hold().options(delay=3600 + n)) for n in range(612)])
        others = await runtime.send_many([("u", gate.hold()), ("u", gate.hold().options(delay=3600))])
        waiting = [queued[0], queued[-1], scheduled[0], scheduled[-1]]
        async with anyio.create_task_group() as group:
            for handle in waiting:
                group.start_soon(_is_canceled, handle)
            await until(lambda: db.hlen("{fairactor/0}:watchers") == 4)
            assert await tenant.purge() == 1815
        counts = await tenant.stats()
        assert (counts.queued, counts.started, counts.scheduled, counts.canceled) == (0, 1, 0, 1815)
        assert await queued[600].state() is TaskState.CANCELED
        await check_invariants(runtime)
        assert await tenant.purge() == 0
        assert [await handle.state() for handle in others] == [TaskState.QUEUED, TaskState.SCHEDULED]
        assert not (await tenant.send(gate.hold(), key="0")).duplicate
        assert await tenant.purge(canceled_ttl=0) == 1
        gate.open.set()
        assert await running.result(timeout=PATIENCE) == "done"
        assert await others[0].result(timeout=PATIENCE) == "done"
        await check_invariants(runtime)


async def _is_canceled(handle: Any) -> None:
    with pytest.raises(TaskCanceled, match="purge"):
        await handle.result(timeout=PATIENCE)


@pytest.mark.anyio
async def test_records_of_what_is_purged_are_kept_as_long_as_is_said(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0, canceled_ttl=500) as runtime:
        for ttl, kept in [(None, 500), (0, 0), (7, 7)]:
            handles = [await runtime.send("t", echo()), await runtime.send("t", echo(), delay=3600)]
            assert await runtime.tenant("t").purge(canceled_ttl=ttl) == 2
            for handle in handles:
                left = db.pttl("{fairactor/0}:task:" + handle.id)
                assert left == -2 if not kept else 0 < left <= kept * 1000
                if kept:
                    with pytest.raises(TaskCanceled):
                        await handle.result(timeout=1)
                else:
                    with pytest.raises(TaskNotFound):
                        await handle.result(timeout=1)
        assert (await runtime.stats()).pending == 0
        await check_invariants(runtime)
