"""Fair by time: tenants get equal seconds, whatever their tasks take and however they end."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator

import anyio
import pytest
import redis

from fairactor import Runtime, actor, current_task
from fairactor._model.wire import unpack_mark
from fairactor.errors import ConfigurationError, NamespaceMismatch
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE
from tests.support.shard.selection import Held, SelectionDriver, open_selection

Make = Callable[..., Runtime]
TAKES = {"short": 1.0, "long": 20.0}
"""The seconds that a task takes, by its tenant."""


@pytest.fixture
def shard(url: str) -> Iterator[SelectionDriver]:
    with open_selection(url, fair_by="time") as made:
        yield made


class Clock:
    """Serves tasks that take their tenants' seconds, and sums these up."""

    def __init__(self, shard: SelectionDriver, takes: dict[str, float], actors: dict[str, float] | None = None) -> None:
        self.shard = shard
        self.takes = takes
        self.actors = actors or {}
        self._taken: dict[str, float] = {}

    def serve(self, seconds: float, want: int = 1, **how: str) -> Counter[str]:
        """Takes turns until tasks have run for this many seconds; returns each tenant's part of them."""
        ran: Counter[str] = Counter()

        def end(held: Held) -> float:
            took = self._taken.pop(held.task, self.takes[held.tenant])
            ran[held.tenant] += took  # type: ignore[assignment]
            return took

        while sum(ran.values()) < seconds:
            self.shard.turn(want, seconds=end, **how)
            for held in self.shard.held["r"]:
                actor = held.record.rsplit(b'["', 1)[1].partition(b'"')[0].decode()
                self._taken[held.task] = self.actors.get(actor, self.takes[held.tenant])
        return ran


def share(ran: Counter[str], tenant: str) -> float:
    return ran[tenant] / sum(ran.values())


@pytest.mark.parametrize("want", [1, 10])
def test_tenants_get_equal_seconds_whatever_their_tasks_take(shard: SelectionDriver, want: int) -> None:
    shard.send(short=2500, long=200)
    ran = Clock(shard, TAKES).serve(2000, want)
    assert share(ran, "long") == pytest.approx(0.5, abs=0.03)


def test_seconds_follow_weights(shard: SelectionDriver) -> None:
    shard.configure("long", weight=3)
    shard.send(short=3000, long=300)
    ran = Clock(shard, TAKES).serve(3000)
    assert share(ran, "long") == pytest.approx(0.75, abs=0.03)


def test_a_group_gets_the_seconds_of_one_tenant(shard: SelectionDriver) -> None:
    for name in ("long", "short"):
        shard.configure(name, group="acme")
    shard.send(short=800, long=100, alone=1000)
    ran = Clock(shard, {**TAKES, "alone": 2.0}).serve(1600)
    assert share(ran, "alone") == pytest.approx(0.5, abs=0.03)
    assert share(ran, "long") == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("verdict", ["F0", "X0", "C0", "F60000", "R3600000"])
def test_it_does_not_matter_how_tasks_end(shard: SelectionDriver, verdict: str) -> None:
    shard.send(short=1500, long=300)
    ran = Clock(shard, TAKES).serve(1500, verdict=verdict)
    assert share(ran, "long") == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("want", [1, 10])
def test_tenants_whose_tasks_are_of_several_kinds_get_equal_seconds(shard: SelectionDriver, want: int) -> None:
    """A task's kind is known when it is claimed; its duration is not."""
    shard.send(mixed=1000, actors=("quick", "slow"))
    shard.send(even=1500)
    ran = Clock(shard, {"mixed": 1.0, "even": 1.0}, {"quick": 0.1, "slow": 5.0}).serve(1600, want)
    assert share(ran, "mixed") == pytest.approx(0.5, abs=0.03)


def test_one_that_drains_after_each_task_gains_nothing(shard: SelectionDriver) -> None:
    clock = Clock(shard, {"stays": 5.0, "returns": 20.0})
    shard.send(stays=2000)
    total: Counter[str] = Counter()
    for _ in range(400):
        if not shard.waits("returns"):
            shard.send(returns=1)
        total.update(clock.serve(1))
    assert share(total, "returns") <= 0.53
    assert share(total, "returns") >= 0.3, "nor is it held up"


def test_one_whose_tasks_turn_long_is_charged_for_that_later(shard: SelectionDriver) -> None:
    """Its estimated cost was wrong a hundred times, but the shares even out."""
    takes = {"liar": 0.01, "even": 1.0}
    shard.send(liar=1000, even=2000)
    clock = Clock(shard, takes)
    clock.serve(10)
    takes["liar"] = 50.0
    assert share(clock.serve(2000), "liar") == pytest.approx(0.5, abs=0.04)


def test_what_is_given_back_costs_nothing(shard: SelectionDriver) -> None:
    shard.send(short=3000, long=300)
    clock = Clock(shard, TAKES)
    clock.serve(300)
    shard.turn(0, seconds=lambda held: TAKES[held.tenant])
    before = shard.driver.check().ring
    for want in (1, 3, 10):
        assert len(shard.turn(want)) == want
        shard.turn(0, verdict="B")
        assert shard.driver.check().ring == pytest.approx(before)
    assert share(clock.serve(2000), "long") == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("deliveries", [5, 1])
def test_what_a_runtime_died_of_is_charged(shard: SelectionDriver, deliveries: int) -> None:
    """Its claims look 40 s old, and these count; the other tenant therefore gets the next 40 s."""
    shard.send(dies=300, lives=1000)
    clock = Clock(shard, {"dies": 1.0, "lives": 1.0})
    clock.serve(20)
    shard.turn(0, seconds=1.0)
    shard.join("s")
    while "dies" not in shard.turn(1, "s", seconds=1.0):
        pass
    claims = shard.driver.keys.claims("s")
    ((task, mark),) = shard.driver.db.hgetall(claims).items()
    turn, ms, priority, charged = unpack_mark(mark)[:4]
    shard.driver.db.hset(claims, task, struct.pack(">8sdBd40x", turn, ms - 40_000, priority, charged) + mark[65:])
    shard.driver.lapse("s")
    while shard.driver.maintain(deliveries=deliveries):
        pass
    shard.driver.check()
    assert clock.serve(36)["dies"] <= 1
    assert share(clock.serve(200), "dies") == pytest.approx(0.5, abs=0.05)


def test_a_debt_is_paid_after_coming_back(shard: SelectionDriver) -> None:
    """As a new tenant it was charged a tenth of a second for a task that takes 40 s, and then it drained."""
    shard.send(others=200, debtor=1)
    takes = {"others": 1.0, "debtor": 40.0}
    clock = Clock(shard, takes)
    clock.serve(45)
    assert shard.waits("debtor") == 0
    takes["debtor"] = 1.0
    shard.send(debtor=50)
    ran = clock.serve(40)
    assert ran["debtor"] <= 2


def test_what_tasks_cost_is_forgotten_after_an_hour(shard: SelectionDriver, db: redis.Redis) -> None:
    shard.configure("b", group="acme")
    shard.send(a=2, b=2)
    for _ in range(4):
        shard.turn(2, seconds=1.0)
    shard.driver.check()
    kept = {key.decode(errors="replace").partition(":costs:")[2]: db.pttl(key) for key in db.scan_iter("*:costs:*")}
    assert kept.keys() >= {"", "a", "b"}
    assert all(0 < ttl <= 3_600_000 for ttl in kept.values())


# With runtimes


@pytest.mark.anyio
async def test_a_namespace_is_fair_by_what_it_was_created_with(make_runtime: Make) -> None:
    async with (
        make_runtime(workers=0, fair_by="time", shards=2),
        make_runtime(workers=0),
        make_runtime(workers=0, fair_by="time"),
    ):
        with pytest.raises(NamespaceMismatch, match=r"created with fair_by='time'; leave fair_by= out"):
            async with make_runtime(workers=0, fair_by="tasks"):
                pass
    async with (
        make_runtime(workers=0, namespace="another"),
        make_runtime(workers=0, namespace="another", fair_by="tasks"),
    ):
        with pytest.raises(NamespaceMismatch, match="fair_by='tasks'"):
            async with make_runtime(workers=0, namespace="another", fair_by="time"):
                pass
    with pytest.raises(ConfigurationError, match="fair_by='seconds': give one of 'tasks', 'time'"):
        make_runtime(fair_by="seconds")


@pytest.mark.anyio
@pytest.mark.parametrize("workers", [1, 3])
async def test_seconds_in_a_fleet(make_runtime: Make, workers: int) -> None:
    ran: Counter[str] = Counter()

    @actor
    async def nap(seconds: float) -> None:
        began = time.monotonic()
        await anyio.sleep(seconds)
        ran[current_task().tenant] += time.monotonic() - began  # type: ignore[assignment]

    async with make_runtime(workers=0, fair_by="time") as sender:
        await sender.send_many([("short", nap(0.001))] * 2000 + [("long", nap(0.02))] * 200)
        async with make_runtime(nap, workers=workers, grace=0):
            with anyio.move_on_after(PATIENCE):
                while sum(ran.values()) < 1.2:  # noqa: ASYNC110 - it says how long tasks have run
                    await anyio.sleep(0.01)
            shares = Counter(ran)
        await check_invariants(sender)
    assert 0.2 <= share(shares, "long") <= 0.75, "by tasks it would be 0.95; a busy machine makes short ones long"
