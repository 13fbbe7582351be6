"""Limits of actors and shared resources, as a program uses them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import redis

from fairactor import LimitPolicy, Message, Runtime, actor, current_batch
from fairactor.errors import ConfigurationError
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


class Running:
    """Notes how many handlers run at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.gate = anyio.Event()
        self.batches: list[int] = []

    async def hold(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await anyio.sleep(0.005)
        self.now -= 1


running = Running()


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    running.__init__()  # type: ignore[misc]  # a new one


@actor(concurrency=2)
async def narrow(n: int) -> int:
    await running.hold()
    return n


@actor
async def work(n: int) -> int:
    await running.hold()
    return n


@actor(batch=10, batch_wait=0.01)
async def insert(rows: list[int]) -> list[int]:
    running.batches.append(len(rows))
    await running.hold()
    return rows


@actor(batch=10, batch_wait=0.01, concurrency=4)
async def capped(rows: list[int]) -> list[int]:
    running.batches.append(len(rows))
    await running.hold()
    return rows


@actor(batch=10, batch_wait=0.01, rate="1/day", burst=3)
async def rated(rows: list[int]) -> list[int]:
    running.batches.append(len(rows))
    return rows


@actor(batch=10, batch_wait=0.01, limits={"api": 10})
async def charged(rows: list[int]) -> list[int]:
    for task in current_batch():
        await task.charge("api", 1)
    return rows


async def send(runtime: Runtime, *messages: Message[Any], tenant: str = "a") -> list[Any]:
    handles = await runtime.send_many([(tenant, message) for message in messages])
    found: list[Any] = await runtime.results(handles, timeout=PATIENCE)
    return found


# What the code of actors says


async def test_what_actors_declare_counts_again_after_the_server_has_lost_it(
    make_runtime: Make, db: redis.Redis
) -> None:
    async with make_runtime(narrow) as runtime:
        assert await runtime.limits() == {"narrow": LimitPolicy(concurrency=2)}
        db.delete("{fairactor/0}:limits")
        await runtime.repair()
        await until(lambda: db.exists("{fairactor/0}:limits"))
        assert await runtime.limits() == {"narrow": LimitPolicy(concurrency=2)}
        db.flushall()
        await send(runtime, *map(narrow, range(9)))
        assert running.most == 2
        assert await runtime.limits() == {"narrow": LimitPolicy(concurrency=2)}


# Who looks, and when


async def test_a_task_sent_during_a_pause_of_its_tenant_starts_when_it_ends(make_runtime: Make) -> None:
    """The leases are long, so nothing but the end of the pause brings it."""
    async with make_runtime(work, lease=600.0) as runtime:
        await send(runtime, work(1))
        await runtime.limit(work).pause(0.1, tenant="a")
        assert await send(runtime, work(1)) == [1]


async def test_a_pause_of_a_tenant_whose_tasks_wait_already_ends(make_runtime: Make) -> None:
    async with make_runtime(work, lease=600.0) as runtime:
        await runtime.limit("db").pause()
        handle = await runtime.send("a", work(1).options(limits="db"))
        await runtime.limit("db").pause(0.1, tenant="a")
        await runtime.limit("db").resume()
        assert await handle.result(timeout=PATIENCE) == 1


async def test_what_one_dedicated_runtime_gives_back_wakes_another(make_runtime: Make) -> None:
    async with (
        make_runtime(work, assigned=["a"], lease=600.0) as one,
        make_runtime(work, assigned=["b"], lease=600.0),
    ):
        await one.limit("db").configure(concurrency=1)
        messages = [work(n).options(limits="db") for n in range(10)]
        handles = await one.send_many([(tenant, message) for message in messages for tenant in "ab"])
        assert len(await one.results(handles, timeout=PATIENCE)) == 20
        assert running.most == 1


@pytest.mark.parametrize("pause", [True, False])
async def test_runtimes_of_each_kind_look_when_a_limit_lets_more_start(make_runtime: Make, pause: bool) -> None:
    async with (
        make_runtime(workers=0) as one,
        make_runtime(work, lease=600.0),
        make_runtime(narrow, lease=600.0),
    ):
        await one.limit("db").configure(concurrency=1)
        if pause:
            await one.limit("db").pause(0.1)
        messages: list[Message[int]] = [each(n).options(limits="db") for n in range(5) for each in (work, narrow)]
        assert len(await send(one, *messages)) == 10
        assert running.most == 1


# Batches


async def test_each_call_of_a_batch_takes_its_limit(make_runtime: Make) -> None:
    async with make_runtime(insert) as runtime:
        await runtime.limit("db").configure(concurrency=3)
        messages = [insert(n).options(limits="db") for n in range(20)]
        assert await send(runtime, *messages) == list(range(20))
        assert max(running.batches) <= 3
        assert sum(running.batches) == 20
        assert (await runtime.limit("db").usage()).running == 0
        await check_invariants(runtime)


async def test_an_actors_own_limit_holds_over_its_batches(make_runtime: Make) -> None:
    async with make_runtime(capped) as runtime:
        assert await send(runtime, *map(capped, range(20))) == list(range(20))
        assert max(running.batches) <= 4
        await check_invariants(runtime)


async def test_a_batch_takes_along_only_what_its_limits_let_start(make_runtime: Make) -> None:
    """Tasks of the same actor stand side by side, and those that a limit holds back stay where they are."""
    async with make_runtime(insert) as runtime:
        await runtime.limit("db").pause()
        held = await runtime.send_many([("a", insert(n).options(limits="db")) for n in range(5)])
        assert await send(runtime, *map(insert, range(100, 110))) == list(range(100, 110))
        stats = await runtime.stats()
        assert (stats.queued, sum(running.batches)) == (5, 10)
        await check_invariants(runtime)
        await runtime.limit("db").resume()
        assert await runtime.results(held, timeout=PATIENCE) == list(range(5))


async def test_a_batch_takes_no_more_than_a_rate_has_left(make_runtime: Make) -> None:
    async with make_runtime(rated) as runtime:
        handles = await runtime.send_many([("a", rated(n)) for n in range(5)])
        assert await runtime.results(handles[:3], timeout=PATIENCE) == [0, 1, 2]
        assert (await runtime.stats()).queued == 2
        assert sum(running.batches) == 3
        usage = await runtime.limit(rated).usage()
        assert (round(usage.owed), usage.waiting) == (3, 1)
        await check_invariants(runtime)


async def test_each_call_of_a_batch_is_charged_for_itself(make_runtime: Make) -> None:
    async with make_runtime(charged) as runtime:
        await runtime.limit("api").configure(rate="1/day", burst=100)
        await send(runtime, *map(charged, range(10)))
        assert round((await runtime.limit("api").usage()).owed) == 10
        await check_invariants(runtime)


# Settings


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"concurrency": 0}, "concurrency=0"),
        ({"concurrency": -1}, "concurrency=-1"),
        ({"concurrency": math.nan}, "concurrency=nan"),
        ({"concurrency": True}, "concurrency=True"),
        ({"concurrency": "2"}, "concurrency='2'"),
        ({"concurrency": 1.5}, "concurrency=1.5"),
        ({"rate": 0}, "rate=0"),
        ({"rate": "0/s"}, "rate='0/s'"),
        ({"rate": "-1/s"}, "rate='-1/s'"),
        ({"rate": "ten a second"}, "rate='ten a second'"),
        ({"rate": math.nan}, "rate=nan"),
        ({"rate": True}, "rate=True"),
        ({"rate": "1/s", "burst": 0}, "burst=0"),
        ({"rate": "1/s", "burst": math.nan}, "burst=nan"),
        ({"rate": "1/s", "burst": math.inf}, "burst=inf"),
        ({"burst": 5}, "burst=5"),
        ({"per": "group"}, "per='group'"),
        ({"weight": 2}, "no setting 'weight'"),
    ],
)
async def test_a_wrong_setting_is_named(make_runtime: Make, settings: dict[str, Any], named: str) -> None:
    async with make_runtime(work) as runtime:
        with pytest.raises(ConfigurationError) as raised:
            await runtime.limit("api").configure(**settings)
        assert named in str(raised.value)
        assert "\n" not in str(raised.value)
        assert await runtime.limits() == {}


@pytest.mark.parametrize("name", ["", "a\x1fb", "x" * 10_000, "\ud800", 3, None])
async def test_a_wrong_name_is_refused(make_runtime: Make, name: Any) -> None:
    async with make_runtime(work) as runtime:
        with pytest.raises(ConfigurationError):
            runtime.limit(name)
        with pytest.raises(ConfigurationError):
            work(1).options(limits={name: 1})


def test_a_limit_that_tasks_name_has_no_comma() -> None:
    """The limit of an actor may have one, if the actor's name does."""
    with pytest.raises(ConfigurationError, match="contains a comma"):
        work(1).options(limits="a,b")


@pytest.mark.parametrize("name", ['a "quoted" name', "a\nb", "\\", "ZAŻÓŁĆ", "x" * 512, "\x00\x01", "0", "'", "^"])
async def test_a_name_may_be_any_text(make_runtime: Make, name: str) -> None:
    async with make_runtime(work, narrow) as runtime:
        limit = runtime.limit(name)
        await limit.configure(concurrency=1, rate="1000/s", burst=2.5)
        assert await runtime.limits() == {
            name: LimitPolicy(concurrency=1, rate="1000/s", burst=2.5),
            "narrow": LimitPolicy(concurrency=2),
        }
        assert await send(runtime, *[work(n).options(limits={name: 1, "other": 2.5}) for n in range(4)]) == [0, 1, 2, 3]
        assert running.most == 1
        await limit.configure(per="tenant", concurrency=2)
        await send(runtime, *[work(n).options(limits=name) for n in range(4)], tenant=name.strip() or "t")
        await limit.pause(tenant="a")
        late = await runtime.send("a", work(1).options(limits=name))
        assert (await limit.usage("a")).paused == math.inf
        await limit.remove()
        assert await late.result(timeout=PATIENCE) == 1
        assert await runtime.limits() == {"narrow": LimitPolicy(concurrency=2)}
        await check_invariants(runtime)


@pytest.mark.parametrize("cost", [0, -1, math.nan, math.inf, True, "1", None, 1e10])
def test_a_wrong_cost_is_named(cost: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^limits\['api'\]=.*give a number above 0"):
        work(1).options(limits={"api": cost})


async def test_names_that_are_too_long_together_are_refused(make_runtime: Make) -> None:
    async with make_runtime(work) as runtime:
        message = work(1).options(limits=[str(n) * 512 for n in range(4)])
        with pytest.raises(ConfigurationError, match="bytes long as JSON; the limit is 1800"):
            await runtime.send("a", message)


async def test_names_that_just_fit_count(make_runtime: Make) -> None:
    names = ["\x01" * 140, "\x02" * 140]  # six bytes each in JSON
    async with make_runtime(work, process_free) as runtime:
        await runtime.limit(names[1]).configure(concurrency=1)
        await send(runtime, *[work(n).options(limits=names) for n in range(5)], tenant="t" * 512)
        assert running.most == 1
        await check_invariants(runtime)


@actor
def process_free(n: int) -> int:
    return n


async def test_no_limits_are_none(make_runtime: Make) -> None:
    async with make_runtime(work) as runtime:
        assert await send(runtime, work(1).options(limits={}), work(2).options(limits=[])) == [1, 2]


async def test_all_pauses_end_when_a_limit_is_removed(make_runtime: Make) -> None:
    async with make_runtime(work) as runtime:
        for n in range(250):
            await runtime.limit(work).pause(tenant=f"t{n}")
        handles = await runtime.send_many([(f"t{n}", work(n)) for n in range(250)])
        await runtime.limit(work).remove()
        assert len(await runtime.results(handles, timeout=PATIENCE)) == 250
        await check_invariants(runtime)


# Reading back


async def test_what_is_paused_can_be_read(make_runtime: Make) -> None:
    async with make_runtime(work, narrow) as runtime:
        await runtime.limit(work).pause()
        await runtime.limit(narrow).pause(0.05)
        await runtime.limit("db").pause(tenant="a")
        assert await runtime.limits() == {
            "work": LimitPolicy(paused=True),
            "narrow": LimitPolicy(concurrency=2, paused=True),
        }
        assert (await runtime.limit("db").usage("a")).paused == math.inf
        await runtime.limit(work).resume()
        await anyio.sleep(0.06)
        assert await runtime.limits() == {"narrow": LimitPolicy(concurrency=2)}
        assert await runtime.limit(narrow).configure(rate="5/s") == LimitPolicy(concurrency=2, rate="5/s")


async def test_usage_counts_the_tasks_of_all_tenants(make_runtime: Make) -> None:
    async with make_runtime(hold, workers=5) as runtime:
        await runtime.limit("db").configure(concurrency=1, per="tenant")
        handles = await runtime.send_many([(tenant, hold(1).options(limits="db")) for tenant in "aabbc"])
        await until(lambda: running.now == 3)
        assert (await runtime.limit("db").usage()).running == 3
        assert (await runtime.limit("db").usage("a")).running == 1
        running.gate.set()
        assert await runtime.results(handles, timeout=PATIENCE) == [1] * 5


@actor
async def hold(n: int) -> int:
    running.now += 1
    await running.gate.wait()
    return n


# Several shards


async def test_several_shards_divide_a_limit_and_never_exceed_it(make_runtime: Make) -> None:
    async with make_runtime(work, shards=4, workers=30) as runtime:
        limit = runtime.limit("db")
        assert await limit.configure(concurrency=6, rate="100000/s") == LimitPolicy(concurrency=6, rate="100000/s")
        handles = await runtime.send_many([(f"t{n}", work(n).options(limits="db")) for n in range(60)])
        assert await runtime.results(handles, timeout=PATIENCE) == list(range(60))
        assert running.most <= 6
        assert (await limit.usage()).running == 0
        await limit.configure(concurrency=1, per="tenant")
        assert await limit.policy() == LimitPolicy(concurrency=1, rate="100000/s", per="tenant")
        with pytest.raises(ConfigurationError, match="concurrency=1: this namespace has 4 shards"):
            await limit.configure(per=None)
        assert await limit.configure(per=None, concurrency=8) == LimitPolicy(concurrency=8, rate="100000/s")
        await check_invariants(runtime)


@pytest.mark.parametrize(
    "settings", [{"concurrency": 3}, {"rate": "3/s"}, {"rate": "3.9/min"}, {"rate": "10/s", "burst": 3.5}]
)
async def test_what_shards_cannot_divide_is_refused(make_runtime: Make, settings: dict[str, Any]) -> None:
    async with make_runtime(work, shards=4) as runtime:
        with pytest.raises(ConfigurationError) as raised:
            await runtime.limit("db").configure(**settings)
        assert "this namespace has 4 shards" in str(raised.value)
        assert "per='tenant'" in str(raised.value)
        assert "\n" not in str(raised.value)
        assert await runtime.limits() == {}


async def test_an_actor_whose_limit_shards_cannot_divide_says_so_at_the_start(make_runtime: Make) -> None:
    with pytest.raises(ConfigurationError, match="actor 'narrow': concurrency=2: this namespace has 4 shards"):
        async with make_runtime(narrow, shards=4):
            pass
