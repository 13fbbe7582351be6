"""Groups: tenants that share their turns, so that ten of them together get no more than one tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from fairactor import Runtime, actor, current_task
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE
from tests.support.shard.selection import SelectionDriver, open_selection

Make = Callable[..., Runtime]
ACME = [f"acme {n}" for n in range(10)]
HOSTILE = ["\n\0", "x" * 512, ":ring", "{test/0}:group:acme", "acme", "☃" * 170, "%s", "", "ÿ", "\\xff"]


@pytest.fixture
def shard(url: str) -> Iterator[SelectionDriver]:
    with open_selection(url) as made:
        yield made


def form(shard: SelectionDriver, group: str, members: list[str], **policy: object) -> None:
    for member in members:
        shard.configure(member, group=group, **policy)


# Shares


@pytest.mark.parametrize(("turns", "want"), [(400, 1), (57, 7), (4, 100)])
def test_a_group_gets_as_much_as_one_tenant_without_a_group(shard: SelectionDriver, turns: int, want: int) -> None:
    form(shard, "acme", ACME)
    shard.send(dict.fromkeys(ACME, 60), alone=300)
    served = shard.serve(turns, want)
    total = sum(served.values())
    assert abs(served["alone"] - total / 2) <= 1
    assert all(abs(served[name] - total / 20) <= 1 for name in ACME)
    shard.driver.check()


@pytest.mark.parametrize("want", [1, 40])
def test_weights_hold_inside_a_group_and_of_the_group(shard: SelectionDriver, want: int) -> None:
    """The group gets three of four turns; within it, one member gets two of three."""
    form(shard, "acme", ["small"])
    form(shard, "acme", ["big"], weight=2)
    shard.configure_group("acme", 3)
    shard.send(small=300, big=300, alone=300)
    served = shard.serve(240 // want, want)
    assert served.keys() == {"small", "big", "alone"}
    for name, share in {"alone": 60, "small": 60, "big": 120}.items():
        assert abs(served[name] - share) <= 2


def test_several_groups_share_as_tenants_do(shard: SelectionDriver) -> None:
    groups = {"one": ["a"], "two": ["b", "c"], "three": ["d", "e", "f"]}
    for group, members in groups.items():
        form(shard, group, members)
    shard.send(dict.fromkeys("abcdef", 100), alone=100)
    served = shard.serve(20, 10)
    for members in (*groups.values(), ["alone"]):
        assert abs(sum(served[name] for name in members) - 50) <= 1
        assert all(abs(served[name] - 50 / len(members)) <= 1 for name in members)


@pytest.mark.parametrize("group", [name for name in HOSTILE if name])
def test_names_are_any_text(shard: SelectionDriver, group: str) -> None:
    members = [name or "plain" for name in HOSTILE]
    form(shard, group, members)
    shard.send(dict.fromkeys(members, 30), alone=200)
    served = shard.serve(20, 10)
    assert abs(served["alone"] - 100) <= 1
    assert all(abs(served[name] - 10) <= 1 for name in members)
    shard.driver.check()


def test_one_that_comes_later_is_served_as_often_as_the_others_of_its_group(shard: SelectionDriver) -> None:
    form(shard, "acme", ["a", "b", "late"])
    shard.send(a=200, b=200, alone=200)
    shard.serve(100)
    shard.send(late=100)
    served = shard.serve(60)
    assert abs(served["alone"] - 30) <= 1
    assert all(abs(served[name] - 10) <= 1 for name in ("a", "b", "late"))


def test_a_group_that_drains_and_returns_gains_nothing(shard: SelectionDriver) -> None:
    form(shard, "acme", ACME)
    shard.send(one=200, two=200)
    served: Counter[str] = Counter()
    for n in range(240):
        if not any(shard.waits(name) for name in ACME):
            shard.send({ACME[n % 10]: 1})
        served.update(shard.turn(1))
    assert abs(sum(served[name] for name in ACME) - 80) <= 2
    assert abs(served["one"] - served["two"]) <= 1


def test_nothing_is_left_of_a_group_that_has_drained(shard: SelectionDriver) -> None:
    form(shard, "acme", ACME)
    shard.send(dict.fromkeys(ACME, 2))
    assert shard.serve(3, 10) == dict.fromkeys(ACME, 2)
    snapshot = shard.driver.check()
    assert (snapshot.fixed["RING"], snapshot.fixed["GROUPS"], snapshot.groups, snapshot.virtual) == ({}, {}, {}, 0.0)
    shard.send(dict.fromkeys(ACME, 2), alone=20)
    assert shard.serve(1, 20)["alone"] == 10


# Changes


def test_who_joins_a_group_while_its_tasks_wait_shares_from_then_on(shard: SelectionDriver) -> None:
    shard.send(dict.fromkeys(ACME, 50), alone=200)
    assert shard.serve(55)["alone"] == 5
    form(shard, "acme", ACME)
    shard.driver.check()
    served = shard.serve(100)
    assert abs(served["alone"] - 50) <= 2
    assert all(abs(served[name] - 5) <= 1 for name in ACME)


def test_who_leaves_a_group_while_its_tasks_wait_has_turns_of_its_own(shard: SelectionDriver) -> None:
    form(shard, "acme", ACME)
    shard.send(dict.fromkeys(ACME, 50), alone=200)
    shard.serve(40)
    shard.configure(ACME[0], group=None)
    shard.driver.check()
    served = shard.serve(90)
    assert abs(served["alone"] - 30) <= 2
    assert abs(served[ACME[0]] - 30) <= 2
    for name in ACME:
        shard.configure(name, group=None)
    assert shard.driver.check().groups == {}
    served = shard.serve(110)
    assert all(abs(served[name] - 10) <= 2 for name in (*ACME, "alone"))


def test_who_moves_between_groups_is_in_one_of_them(shard: SelectionDriver) -> None:
    form(shard, "one", ["a", "b"])
    form(shard, "two", ["c"])
    shard.send(a=100, b=100, c=100)
    shard.serve(20)
    shard.configure("b", group="two")
    assert {name: set(ring) for name, ring in shard.driver.check().groups.items()} == {"one": {"a"}, "two": {"b", "c"}}
    served = shard.serve(80)
    assert abs(served["a"] - 40) <= 1
    assert abs(served["b"] - 20) <= 2
    shard.configure("a", group="two")
    assert shard.driver.check().groups.keys() == {"two"}
    assert all(abs(number - 10) <= 2 for number in shard.serve(30).values())


def test_a_greater_weight_of_a_group_counts_at_once(shard: SelectionDriver) -> None:
    form(shard, "acme", ["a"])
    shard.configure_group("acme", 0.001)
    shard.send(a=100, alone=100)
    shard.serve(2)
    shard.configure_group("acme", 1)
    assert abs(shard.serve(40)["a"] - 20) <= 1


def test_a_greater_weight_inside_a_group_counts_at_once(shard: SelectionDriver) -> None:
    form(shard, "acme", ["a", "b"])
    shard.configure("a", weight=0.001)
    shard.send(a=100, b=100)
    shard.serve(2)
    shard.configure("a", weight=1)
    assert abs(shard.serve(40)["a"] - 20) <= 1


# Limits


def test_limits_of_a_member_hold_and_the_others_of_its_group_have_its_turns(shard: SelectionDriver) -> None:
    form(shard, "acme", ["serial"], concurrency=1)
    form(shard, "acme", ["slow"], rate="1/min", burst=2)
    form(shard, "acme", ["paused"])
    form(shard, "acme", ["free"])
    shard.configure("paused", paused=True)
    shard.send(dict.fromkeys(("serial", "slow", "paused", "free", "alone"), 50))
    served = Counter(shard.claim(40))
    assert served == {"serial": 1, "slow": 2, "free": 17, "alone": 20}
    shard.driver.check()
    served = shard.serve(20)
    assert abs(served["serial"] - 5) <= 1, "one at a time, and a fair share of its group"
    assert abs(served["free"] - 5) <= 1
    assert served.keys() == {"serial", "free", "alone"}


def test_a_group_whose_members_are_all_at_their_limits_leaves_its_turns_to_others(shard: SelectionDriver) -> None:
    form(shard, "acme", ACME, concurrency=1)
    shard.send(dict.fromkeys(ACME, 5), alone=100)
    assert Counter(shard.claim(40)) == Counter(ACME) + Counter(alone=30)
    snapshot = shard.driver.check()
    assert (snapshot.groups, snapshot.fixed["GROUPS"]) == ({}, {})
    served = shard.serve(5, 4)
    assert abs(served["alone"] - 10) <= 2


# With runtimes


@pytest.mark.anyio
@pytest.mark.parametrize("shards", [1, 4])
async def test_a_group_in_a_fleet(make_runtime: Make, shards: int) -> None:
    order: list[str] = []

    @actor
    async def note() -> None:
        order.append(current_task().tenant)

    async with make_runtime(workers=0, shards=shards) as sender:
        for name in ACME:
            await sender.tenant(name).configure(group="acme")
        await sender.policies.configure_group("acme", weight=3)
        assert await sender.policies.groups() == {"acme": 3.0}
        await sender.send_many((name, note()) for name in (*ACME, "alone") for _ in range(30))
        assert (await sender.stats()).waiting_tenants <= 2 * shards, "a group counts as one, in each shard"
        async with make_runtime(note, workers=1) as runtime:
            await runtime.drain(timeout=PATIENCE)
        await check_invariants(sender)
    assert Counter(order) == dict.fromkeys((*ACME, "alone"), 30)
    if shards == 1:
        assert abs(Counter(order[:80])["alone"] - 20) <= 2
