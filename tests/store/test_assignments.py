"""Runtimes with assigned tenants serve these first, and others only when none of these has work left.

test_assignment_fairness.py tests how fairly the assigned tenants share a runtime.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
import redis

from fairactor import Runtime, actor, current_task
from fairactor._model.keys import shard_of
from fairactor.errors import ConfigurationError, RuntimeNotRunning
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until
from tests.support.shard.selection import SelectionDriver, open_selection

Make = Callable[..., Runtime]
ASLEEP = 60.0
"""A lease whose heartbeats are 20 s apart."""
SOON = 10.0
IDLE, IDLE_HOMES = "{fairactor/0}:idle", "{fairactor/0}:idle-homes"
HOSTILE = ["\n\0", "x" * 512, ":assigned:h", "{test/0}:homes", "☃" * 170, "%s"]


@pytest.fixture
def shard(url: str) -> Iterator[SelectionDriver]:
    with open_selection(url) as made:
        yield made


class Log:
    """An actor that records the tenants whose tasks ran."""

    def __init__(self) -> None:
        self.order: list[str] = []

        @actor
        async def note() -> None:
            self.order.append(current_task().tenant)

        self.note = note


# Which tenants are served


def test_those_that_are_assigned_come_first_and_others_never_without_steal(shard: SelectionDriver) -> None:
    shard.join("h", ["a", "b"])
    shard.send(a=5, b=5, c=5)
    assert Counter(shard.claim(20, "h")) == {"a": 5, "b": 5}
    assert shard.claim(20, "h") == []
    assert shard.claim(20) == ["c"] * 5
    assert _stolen(shard) == 0


def test_what_is_stolen_comes_last_and_is_counted(shard: SelectionDriver) -> None:
    shard.join("h", ["a"], ["b", "c"])
    shard.join("g", ["b"], [""])
    shard.send(a=3, b=5, c=5, d=5)
    claimed = shard.claim(7, "h")
    assert claimed[:3] == ["a"] * 3
    assert Counter(claimed[3:]) == {"b": 2, "c": 2}
    assert _stolen(shard) == 4
    assert Counter(shard.claim(100, "h")) == {"b": 3, "c": 3}
    assert Counter(shard.claim(100, "g")) == {"d": 5}
    assert _stolen(shard) == 15
    shard.driver.check()


def _stolen(shard: SelectionDriver) -> int:
    return int(shard.driver.run(shard.driver.shard.stats()).stolen)


def test_one_that_is_assigned_is_served_by_runtimes_on_all_tenants_too(shard: SelectionDriver) -> None:
    shard.join("h", ["a"])
    shard.send(a=5, b=5)
    assert Counter(shard.claim(10)) == {"a": 5, "b": 5}


def test_names_are_any_text(shard: SelectionDriver) -> None:
    shard.join("h", HOSTILE[:3], HOSTILE[3:])
    shard.send(dict.fromkeys(HOSTILE, 2), other=2)
    claimed = shard.claim(50, "h")
    assert Counter(claimed[:6]) == dict.fromkeys(HOSTILE[:3], 2)
    assert Counter(claimed[6:]) == dict.fromkeys(HOSTILE[3:], 2)


def test_thousands_of_tenants_are_assigned_in_steps(shard: SelectionDriver) -> None:
    def claim_all() -> set[str]:
        claimed: set[str] = set()
        while some := shard.claim(200, "h"):
            claimed |= set(some)
        return claimed

    tenants = [f"user:{n}" for n in range(2500)]
    shard.join("h", tenants[:2200])
    shard.send(dict.fromkeys(tenants, 1))
    assert claim_all() == set(tenants[:2200])
    shard.assign("h", tenants[2200:])
    assert claim_all() == set(tenants[2200:])
    assert shard.driver.check().fixed["INDEXED"].keys() == {"h"}


def test_runtimes_of_the_release_before_are_found_without_the_index(shard: SelectionDriver) -> None:
    db, keys = shard.driver.db, shard.driver.keys
    shard.join("new", ["n"])
    db.zadd(keys.fixed("LEASES"), {"old": 1e13})
    db.hset(keys.fixed("FLEET"), "old", "{}")
    db.hset(keys.fixed("HOMES"), "old", "7")
    db.sadd(keys.meta + ":assigned:old", "o")
    shard.send(o=1, n=1)
    assert db.zscore(keys.fixed("RING"), "o") == 8
    assert db.zscore(keys.fixed("RING"), "n") == 1
    shard.driver.check()


def test_a_runtime_that_the_release_before_has_removed_counts_no_more(shard: SelectionDriver) -> None:
    db, keys = shard.driver.db, shard.driver.keys
    shard.join("gone", ["t"])
    db.hset(keys.fixed("HOMES"), "gone", "7")
    for key in ("HOMES", "FLEET", "KIND_OF", "SESSIONS"):
        db.hdel(keys.fixed(key), "gone")
    db.delete(keys.meta + ":assigned:gone")
    db.zrem(keys.fixed("LEASES"), "gone")
    assert db.smembers(keys.meta + ":assigned-to:t") == {b"gone"}
    shard.send(t=1)
    assert db.zscore(keys.fixed("RING"), "t") == 1
    shard.driver.check()


# With groups and limits


def test_the_assigned_of_a_group_share_its_turns(shard: SelectionDriver) -> None:
    shard.join("h", ["a", "b", "alone"])
    for name in ("a", "b", "elsewhere"):
        shard.configure(name, group="acme")
    shard.send(a=100, b=100, elsewhere=100, alone=100)
    served = shard.serve(80, 1, "h")
    assert served.keys() == {"a", "b", "alone"}
    assert abs(served["alone"] - 40) <= 2
    assert abs(served["a"] - 20) <= 2
    shard.driver.check()


def test_members_of_one_group_are_served_first_and_stolen_from_in_one_turn(shard: SelectionDriver) -> None:
    shard.join("h", ["a"], [""])
    for name in "ab":
        shard.configure(name, group="acme")
    shard.send(a=1, b=1)
    assert shard.claim(10, "h") == ["a", "b"]


def test_members_of_one_group_are_served_first_and_stolen_from_by_name_in_one_turn(shard: SelectionDriver) -> None:
    shard.join("h", ["a"], ["b"])
    for name in "ab":
        shard.configure(name, group="acme")
    shard.send(a=2, b=2)
    assert shard.claim(10, "h") == ["a", "a", "b", "b"]


def test_limits_hold_for_the_assigned(shard: SelectionDriver) -> None:
    shard.join("h", ["a", "b", "c"], [""])
    shard.configure("a", concurrency=2)
    shard.configure("b", paused=True)
    shard.configure("d", concurrency=1)
    shard.send(a=5, b=5, c=5, d=5)
    assert Counter(shard.claim(20, "h")) == {"a": 2, "c": 5, "d": 1}
    assert shard.claim(20, "h") == []
    shard.driver.check()
    assert Counter(shard.turn(20, "h")) == {"a": 2, "d": 1}


# Waking


@pytest.mark.parametrize("change", ["leaves", "is given other tenants"])
def test_who_was_woken_and_does_not_serve_wakes_another(shard: SelectionDriver, change: str) -> None:
    shard.join("s")
    with shard.driver.db.pubsub() as inboxes:
        inboxes.subscribe(*(shard.driver.keys.inbox(runtime) for runtime in "rs"))
        assert sorted(_told(inboxes)) == ["r", "s"], "that they listen"
        for runtime in "rs":
            assert shard.claim(1, runtime) == []
        shard.send(t=2)  # a single task would be handed over directly
        (woken,) = _told(inboxes)
        if change == "leaves":
            shard.driver.run(shard.driver.shard.leave(woken))
        else:
            shard.assign(woken, ["another"])
            assert shard.claim(1, woken) == []
        assert _told(inboxes) == ["s" if woken == "r" else "r"]


def _told(inboxes: Any) -> list[str]:
    """Returns the runtimes that have just been notified of work."""
    found = []
    while (message := inboxes.get_message(timeout=0.3)) is not None:
        found.append(message["channel"].decode().rpartition(":")[2])
    return found


# Health


def test_tenants_of_nobody_are_named(shard: SelectionDriver) -> None:
    def nobodys() -> list[bytes]:
        return sorted(shard.driver.run(shard.driver.shard.stats()).unassigned)

    shard.driver.run(shard.driver.shard.leave("r"))
    shard.send(a=1, b=1, c=1)
    assert nobodys() == [], "where no runtime is there, that is what is wrong"
    shard.join("h", ["a"])
    assert nobodys() == [b"b", b"c"]
    shard.join("g", ["b"])
    assert nobodys() == [b"c"]
    shard.join("r2")
    assert nobodys() == []
    shard.driver.run(shard.driver.shard.leave("r2"))
    shard.configure("c", paused=True)
    assert nobodys() == []


def test_tenants_of_nobody_are_named_also_in_a_group(shard: SelectionDriver) -> None:
    shard.driver.run(shard.driver.shard.leave("r"))
    shard.configure("c", group="acme")
    shard.join("h", ["a"])
    shard.send(a=1, c=1)
    assert shard.driver.run(shard.driver.shard.stats()).unassigned == [b"c"]


# With runtimes


@pytest.mark.anyio
async def test_health_names_tenants_that_nobody_serves(make_runtime: Make) -> None:
    log = Log()
    async with make_runtime(log.note, assigned=["a"], shards=4) as runtime:
        assert (await runtime.health()).ok
        await runtime.send_many((tenant, log.note()) for tenant in ("b", "c"))
        health = await runtime.health()
        assert not health.ok
        assert health.problems[0].startswith("no runtime serves these tenants, which have tasks: ")
        assert all(name in health.problems[0] for name in ("'b'", "'c'"))
        assert health.stats is not None
        assert set(health.stats.unassigned_tenants) == {"b", "c"}
        await runtime.assign(["a"], steal=["b", "c"])
        await runtime.drain(timeout=PATIENCE)
        assert (await runtime.stats()).stolen == 2
        assert (await runtime.health()).ok
        await check_invariants(runtime)


@pytest.mark.anyio
@pytest.mark.parametrize("shards", [1, 4])
async def test_a_runtime_serves_what_it_is_told_while_it_runs(make_runtime: Make, shards: int) -> None:
    log = Log()
    tenants = [f"user:{n}" for n in range(12)]
    assert {shard_of(tenant, 4) for tenant in tenants[:6]} == {0, 1, 2, 3}
    async with (
        make_runtime(workers=0, shards=shards) as sender,
        make_runtime(log.note, assigned=tenants[:6], lease=ASLEEP) as runtime,
    ):
        await sender.send_many((tenant, log.note()) for tenant in tenants for _ in range(5))
        await until(lambda: len(log.order) >= 30)
        assert Counter(log.order) == dict.fromkeys(tenants[:6], 5)
        await runtime.assign(tenants[6:9])
        await until(lambda: len(log.order) >= 45, SOON)
        assert Counter(log.order) == dict.fromkeys(tenants[:9], 5)
        assert (await sender.stats()).stolen == 0
        await runtime.assign(steal=True)
        await until(lambda: len(log.order) == 60, SOON)
        assert (await sender.stats()).stolen == 15
        await runtime.assign()
        await sender.send_many((tenant, log.note()) for tenant in tenants)
        await sender.drain(timeout=SOON)
        assert (await sender.stats()).stolen == 15
        await check_invariants(sender)


@pytest.mark.anyio
@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("serves", [{"assigned": ["t"]}, {"assigned": ["s"], "steal": ["t"]}, {"steal": True}])
async def test_a_send_wakes_the_runtime_that_serves_its_tenant(
    make_runtime: Make, db: redis.Redis, serves: dict[str, Any], general: bool
) -> None:
    log = Log()

    async def all_asleep() -> None:
        await until(lambda: db.scard(IDLE) + db.scard(IDLE_HOMES) == 2)

    other = {} if general else {"assigned": ["another"]}
    async with (
        make_runtime(workers=0) as sender,
        make_runtime(log.note, lease=ASLEEP, **serves),
        make_runtime(log.note, lease=ASLEEP, **other),
    ):
        for _ in range(20):
            await all_asleep()
            await sender.ask("t", log.note(), timeout=SOON)
        await all_asleep()
        await asyncio.gather(*(sender.ask("t", log.note(), timeout=SOON) for _ in range(20)))
        await check_invariants(sender)


@pytest.mark.anyio
async def test_no_wake_up_is_missed_while_assigned_and_general_runtimes_doze(make_runtime: Make) -> None:
    log = Log()
    async with (
        make_runtime(workers=0) as sender,
        make_runtime(log.note, workers=1, lease=ASLEEP, assigned=["a", "b"]),
        make_runtime(log.note, workers=1, lease=ASLEEP, assigned=["b"], steal=["c"]),
        make_runtime(log.note, workers=1, lease=ASLEEP),
    ):
        for tenants in ("abc", "a", "bb", "ccc", "dddddd", "abcd", "aaaaaaaa"):
            for _ in range(10):
                asked = (sender.ask(tenant, log.note(), timeout=SOON) for tenant in tenants)
                await asyncio.gather(*asked)
        await check_invariants(sender)


@pytest.mark.anyio
async def test_what_is_assigned_is_served_where_it_is_assigned(make_runtime: Make) -> None:
    here, there = Log(), Log()

    @actor(name="note")
    async def note_here() -> None:
        here.order.append(current_task().tenant)

    @actor(name="note")
    async def note_there() -> None:
        there.order.append(current_task().tenant)

    async with (
        make_runtime(workers=0) as sender,
        make_runtime(note_here, assigned=["a", "b"]),
        make_runtime(note_there, assigned=["c"]),
    ):
        await sender.send_many((tenant, note_here()) for tenant in "abc" for _ in range(20))
        await sender.drain(timeout=PATIENCE)
        assert Counter(here.order) == {"a": 20, "b": 20}
        assert Counter(there.order) == {"c": 20}


@pytest.mark.anyio
async def test_the_assignment_outlives_a_lease(make_runtime: Make, db: redis.Redis) -> None:
    log = Log()
    async with make_runtime(workers=0) as sender, make_runtime(log.note, assigned=["z"], lease=0.6) as runtime:
        await runtime.assign(["a"], steal=["b"])
        (dispatcher,) = runtime._engine.consumer._dispatchers  # type: ignore[union-attr]
        lost = dispatcher.runtime
        await runtime._shards()[0].leave(lost)  # as if its lease had run out
        await until(lambda: dispatcher.runtime not in {"", lost})
        await sender.send_many((tenant, log.note()) for tenant in "abc")
        await until(lambda: len(log.order) == 2)
        await until(lambda: not db.exists("{fairactor/0}:claims:" + dispatcher.runtime))
        assert sorted(log.order) == ["a", "b"]
        assert (await sender.stats()).unassigned_tenants == ("c",)
        await check_invariants(sender)


@pytest.mark.anyio
async def test_what_cannot_be_assigned_is_refused(make_runtime: Make) -> None:
    bad: Any
    for bad in ("acme", b"acme", 5, None):
        for setting in ("assigned", "steal"):
            with pytest.raises(ConfigurationError, match=f"{bad!r} is not a list of tenants: give their names"):
                make_runtime(**{setting: bad})
    for bad in (True, False):
        with pytest.raises(ConfigurationError, match="is not a list of tenants: give their names"):
            make_runtime(assigned=bad)
    for setting in ("assigned", "steal"):
        for bad, words in [([""], "tenant ''"), (["a", 5], "tenant 5"), (["x" * 513], "513 bytes")]:
            with pytest.raises(ConfigurationError, match=words):
                make_runtime(**{setting: bad})
    log = Log()
    async with make_runtime(log.note, assigned=["a"]) as runtime:
        for arguments in (["a"], [["a"], "b"], [["a", ""]], [True]):
            with pytest.raises(ConfigurationError):
                await runtime.assign(*arguments)
        await runtime.ask("a", log.note(), timeout=PATIENCE)
    async with make_runtime(workers=0) as sender:
        with pytest.raises(RuntimeNotRunning, match="runs no tasks"):
            await sender.assign(["a"])


@pytest.mark.anyio
async def test_names_may_come_from_any_iterable_and_be_there_twice(make_runtime: Make) -> None:
    log = Log()
    async with make_runtime(log.note, assigned=(name for name in "aab"), steal={"c"}) as runtime:
        assert runtime.settings.assigned == ("a", "b")
        for tenant in "abc":
            await runtime.ask(tenant, log.note(), timeout=PATIENCE)
        with anyio.fail_after(PATIENCE):
            await runtime.assign(iter("d"))
            await runtime.ask("d", log.note())
