"""Limits keep nothing that nobody needs any more, and wake whoever could start what they let start."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from fairactor._model.record import Call
from fairactor._model.route import pack_route
from fairactor._model.wire import Assignment, pack_key
from tests.support.shard.driver import item
from tests.support.shard.limits import ALL, LimitDriver
from tests.support.shard.model_lanes import Kind

WORK, MAIL = Kind({"work": "1"}), Kind({"mail": "1"})


@pytest.fixture
def shard(url: str) -> Iterator[LimitDriver]:
    made = LimitDriver(url)
    try:
        yield made
        made.driver.check()
    finally:
        made.close()


def woken(shard: LimitDriver) -> set[str]:
    """Returns the runtimes that were woken since the last call."""
    return {runtime for runtime, said in shard.driver.hear() if said == b"w"}


def rest(shard: LimitDriver, *runtimes: str) -> None:
    """Makes runtimes listen, and sleep."""
    shard.driver.listen(*runtimes)
    for runtime in runtimes:
        shard.claim(5, runtime)
    woken(shard)


# What is kept


def test_what_is_paid_for_is_forgotten_also_of_tenants_that_never_come_again(shard: LimitDriver) -> None:
    shard.join()
    shard.limit("api", rate="60/h", burst=5, per="tenant")
    shard.send(["a", "b"], {"api": 2})
    assert len(shard.claim(5)) == 2
    dues = shard.driver.keys.fixed("LIMIT_DUES")
    for tenant in "ab":
        shard.driver.db.zincrby(dues, -3.6e9, f"api\x1f{tenant}")
    assert shard.claim(0) == []
    assert shard.last.maintenance_due
    assert not shard.driver.maintain()
    assert shard.driver.snapshot().fixed["LIMIT_DUES"] == {}
    assert shard.driver.snapshot().fixed["LIMIT_BUSY"] == {}


@pytest.mark.parametrize("idle", [False, True])
def test_what_comes_back_after_some_of_the_rate_went_unused_starts_nothing(shard: LimitDriver, idle: bool) -> None:
    shard.join()
    shard.limit("api", rate="60/h", burst=5)
    shard.send(["a"], {"api": 4}, number=4)
    first = shard.claim(1)
    if idle:
        shard.driver.db.zincrby(shard.driver.keys.fixed("LIMIT_DUES"), -3.6e9, "api")
        until_next_millisecond(shard)
        assert shard.claim(1), "nothing is owed, so another starts"
    again = shard.turn(2, ends=1, verdict="B")
    again += shard.claim(2)
    assert again == ([] if idle else first)


def until_next_millisecond(shard: LimitDriver) -> None:
    begin = shard.driver.now()
    while shard.driver.now() < begin + 0.001:
        pass


def test_the_time_of_lines_ends_with_the_last_of_them(shard: LimitDriver) -> None:
    shard.join()
    shard.limit("api", concurrency=1)
    shard.limit("db", concurrency=1)
    shard.send(["a", "b"], {"db": 1}, number=2)
    shard.send(["a", "b"], {"api": 1, "db": 1}, number=2)
    assert shard.drain() == 8
    assert shard.driver.snapshot().fixed["LIMIT_CLOCKS"] == {}


def test_the_time_of_lines_ends_with_the_kind_of_runtimes_that_served_them(shard: LimitDriver) -> None:
    shard.join("r", WORK)
    shard.join("s", MAIL)
    shard.limit("api", concurrency=1)
    shard.send(["a", "b"], {"api": 1}, number=2)
    assert len(shard.turn(5)) == len(shard.turn(5)) == 1
    assert "api" in shard.driver.snapshot().fixed["LIMIT_CLOCKS"]
    shard.driver.run(shard.driver.shard.leave("r"))
    assert shard.driver.snapshot().fixed["LIMIT_CLOCKS"] == {}


def test_a_limit_that_was_paused_for_a_tenant_leaves_nothing_when_it_is_removed(shard: LimitDriver) -> None:
    shard.join()
    shard.limit("api", tenant="a", pause="-1")
    shard.remove("api")
    assert shard.driver.snapshot().fixed["LIMIT_SETTINGS"] == {}


# Who wakes


def test_a_limit_that_gives_way_wakes_dedicated_runtimes(shard: LimitDriver) -> None:
    shard.join("r")
    shard.join("home", serves=Assignment(["a"], []))
    shard.limit("api", concurrency=1)
    shard.send(["a"], {"api": 1}, number=2)
    assert len(shard.claim(1)) == 1
    rest(shard, "home")
    shard.turn(0)
    assert "home" in woken(shard)
    assert len(shard.claim(5, "home")) == 1


def test_a_task_for_runtimes_of_another_kind_wakes_dedicated_ones(shard: LimitDriver) -> None:
    shard.join("r", WORK)
    shard.join("home", MAIL, Assignment(["a"], []))
    rest(shard, "home")
    shard.send(["a"], actor="mail")
    assert woken(shard) == {"home"}


def test_a_turn_says_that_there_is_more_after_it_has_brought_tasks_into_their_line(shard: LimitDriver) -> None:
    shard.join()
    shard.send(["a"], number=3)
    shard.limit("work", concurrency=50)
    shard.send(["a"], queue="gpu", number=3)
    first = shard.claim(9)
    assert shard.last.more
    assert len(first) + len(shard.claim(9)) == 6


def test_who_lacks_free_slots_for_what_a_limit_lets_start_wakes_another(shard: LimitDriver) -> None:
    kind = Kind({"work": "1", "f": "1"})
    shard.join("r", kind)
    shard.join("s", kind)
    shard.limit("api", concurrency=5)
    rest(shard, "s")
    shard.send(["a"], {"api": 1}, number=2)
    woken(shard)
    shard.driver.listen("s")
    shard.driver.db.sadd(shard.driver.keys.fixed("IDLE"), "s")  # it sleeps again, before it has looked
    turn = shard.driver.turn("r", 1, 1, room=(0, 1))
    assert turn is not None
    assert turn.claims == []
    assert woken(shard) == {"s"}


# Slots


SEVERAL = Kind({"work": "1", "f": "1"})
ON_GPU = Kind({"work": "1", "f": "1"}, ["gpu"])


def test_who_lacks_free_slots_wakes_runtimes_of_another_kind(shard: LimitDriver) -> None:
    shard.join("r", SEVERAL)
    shard.join("s", ON_GPU)
    rest(shard, "s")
    shard.driver.listen("r", "s")
    assert shard.driver.turn("r", 1, 1, room=(0, 1))
    shard.send(["a"], queue="gpu", number=2)
    assert woken(shard) == {"r"}
    assert shard.driver.turn("r", 2, 1, room=(0, 1))
    assert woken(shard) == {"s"}
    assert len(shard.claim(2, "s")) == 2


def test_who_lacks_free_slots_wakes_nobody_who_cannot_run_the_tasks(shard: LimitDriver) -> None:
    shard.join("r", SEVERAL)
    shard.join("s", ON_GPU)
    rest(shard, "s")
    shard.driver.listen("r", "s")
    shard.send(["a"], number=2)
    woken(shard)
    assert shard.driver.turn("r", 1, 1, room=(0, 1))
    assert woken(shard) == set()


@pytest.mark.parametrize("serves", [None, Assignment(["a"], [])])
def test_a_task_behind_those_without_slots_wakes_whoever_has_some_for_it(
    shard: LimitDriver, serves: Assignment | None
) -> None:
    shard.join("r", MAIL)
    shard.join("s", ON_GPU, serves)
    shard.driver.listen("r", "s")
    shard.send(["a"], queue="gpu", number=3)
    assert shard.driver.turn("s", 1, 1, room=(0, 1))
    woken(shard)
    shard.send(["a"], actor="f", queue="gpu")
    assert woken(shard) == {"s"}


# Lines


def test_a_new_limit_of_an_actor_opens_the_line_that_its_tasks_leave(shard: LimitDriver) -> None:
    shard.join()
    shard.limit("api", rate="60/h", burst=2)
    shard.send(["a"], {"api": 1})
    shard.send(["b"], {"api": 2}, actor="mail")
    shard.send(["c"], {"api": 0.5})
    assert shard.tenants_of(shard.claim(5)) == {"a": 1}, "what b's task takes is not there yet"
    shard.limit("mail", concurrency=1)
    assert shard.tenants_of(shard.claim(5)) == {"c": 1}


@pytest.mark.parametrize("breaks_off", [False, True])
def test_a_new_limit_of_an_actor_opens_very_many_lines_in_steps(shard: LimitDriver, breaks_off: bool) -> None:
    shard.join()
    shard.join("s", MAIL)
    for number in range(500):
        shard.send(["a"], {f"key-{number}": 1})
    shard.send(["a"], {"key-0": 1}, actor="mail")
    driver = shard.driver
    lines = {key: driver.db.zcard(key) for key in driver.db.scan_iter(match="{*}:lines:*")}
    assert sorted(lines.values()) == [1, 500]
    for key in lines:
        driver.db.zadd(key, dict.fromkeys(driver.db.zrange(key, 0, -1), "+inf"), xx=True)
    if breaks_off:
        settings, none = msgspec.msgpack.encode({"concurrency": 1}), msgspec.msgpack.encode([])
        driver.run(driver.shard.call("limit", "work", "", settings, "", none))
        assert driver.run(driver.shard.call("reopen", 200)) == 1
        driver.run(driver.shard.declare_limits({"other": {"concurrency": 1}}))  # a runtime that joins goes on
    else:
        shard.limit("work", concurrency=1)
    assert all(driver.db.zcount(key, "-inf", "(+inf") == number for key, number in lines.items())
    assert not driver.db.hexists(driver.keys.meta, "reopening")


def test_a_turn_says_that_there_is_more_if_a_tenant_used_its_own_settings_otherwise(shard: LimitDriver) -> None:
    shard.join()
    shard.limit("api", concurrency=1)
    shard.configure("a", concurrency=1)
    shard.send(["a"], actor="mail")
    shard.send(["a", "b"], {"api": 1})
    assert shard.tenants_of(shard.claim(9)) == {"a": 1}
    assert shard.last.more
    assert shard.tenants_of(shard.claim(9)) == {"b": 1}
    assert not shard.last.more


def test_a_task_that_comes_to_its_line_in_a_turn_starts_in_it(shard: LimitDriver) -> None:
    shard.join()
    body = msgspec.json.encode(Call(pack_route("work", None, 1, {"api": 1}), [], {}))
    first, second = (item(f"a:{name}", "a", body=body, key=pack_key("k", 0.0, replace=True)) for name in ("1", "2"))
    assert shard.driver.send(first) == ["a:1"]
    assert shard.claim(5) == ["a:1"]
    assert shard.driver.send(second) == ["a:2"]
    assert shard.turn(5) == ["a:2"], "it follows the first"


def test_dedicated_runtimes_tidy_lines_that_others_have_left(shard: LimitDriver) -> None:
    shard.join()
    shard.join("home", WORK, Assignment(["b"], []))
    shard.limit("api", concurrency=1)
    shard.send(["a"], {"api": 1}, number=3)
    shard.limit("work", concurrency=5)
    shard.claim(9)  # it brings them into their new line
    assert shard.drain() == 3
    assert shard.driver.snapshot().fixed["LIMIT_CLOCKS"] == {}


def test_a_task_that_is_canceled_opens_the_line_that_waited_for_what_it_takes(shard: LimitDriver) -> None:
    shard.join()
    shard.limit("api", rate="60/h", burst=2)
    shard.send(["a"], {"api": 1})
    blocking = shard.send(["b"], {"api": 2})
    shard.send(["b"], {"api": 0.5})
    assert shard.tenants_of(shard.claim(5)) == {"a": 1}
    shard.driver.run(shard.driver.shard.cancel(blocking[0], "", ttl=0, body=b"canceled"))
    assert shard.tenants_of(shard.claim(5)) == {"b": 1}


def test_a_tenant_whose_tasks_get_a_limit_stands_in_its_line_after_one_was_canceled(shard: LimitDriver) -> None:
    shard.join()
    first, _ = shard.send(["a"], queue="gpu", number=2)
    shard.limit("work", concurrency=5)
    shard.driver.run(shard.driver.shard.cancel(first, "", ttl=0, body=b"canceled"))
    shard.driver.check()
    assert shard.drain() + shard.drain() == 1


def test_kinds_of_runtimes_do_not_wake_each_other_for_what_takes_more_than_is_left(shard: LimitDriver) -> None:
    shard.join("r", WORK)
    shard.join("s", ALL)
    shard.limit("api", rate="60/h", burst=3, per="tenant")
    shard.send(["a"], {"api": 2}, number=2)
    assert len(shard.claim(5, "r")) == 1
    rest(shard, "r", "s")
    shard.claim(5, "r")
    assert woken(shard) == set()


def test_a_tenant_whose_next_start_takes_less_than_one_waits_no_longer_than_that(shard: LimitDriver) -> None:
    shard.join()
    shard.limit("api", rate="60/h", burst=1, per="tenant")
    shard.send(["a"], {"api": 0.5}, number=3)
    assert len(shard.claim(5)) == 2
    shard.send(["a"], {"api": 0.5})
    shard.claim(5)
    assert 25 < shard.last.wait < 31  # seconds until what it owes is 0.5


def test_what_a_tenant_did_not_start_does_not_hold_it_back(shard: LimitDriver) -> None:
    shard.join()
    shard.limit("api", concurrency=1, per="tenant")
    shard.configure("a", concurrency=2)
    shard.send(["a"], actor="mail", number=2)
    shard.send(["a"], {"api": 1}, number=2)
    assert len(shard.claim(9)) == 2
    assert len(shard.turn(9)) == 1, "its mails have ended"


def test_a_new_limit_of_an_actor_brings_its_tasks_into_their_own_line_beside_others_of_the_tenant(
    shard: LimitDriver,
) -> None:
    shard.join()
    shard.limit("api", concurrency=1)
    shard.send(["a"], {"api": 1}, actor="mail", number=3)
    shard.send(["a"], {"api": 1})
    assert len(shard.claim(5)) == 1
    shard.limit("work", concurrency=5)
    shard.turn(1)
    assert shard.driver.snapshot().lines.keys() == {"0"}
    assert shard.driver.snapshot().lines["0"].keys() == {"api", "api\x1fwork"}


def test_turns_go_on_until_all_lines_were_looked_at(shard: LimitDriver) -> None:
    shard.join()
    for number in range(70):
        shard.limit(f"key-{number}", concurrency=1)
        shard.send([f"t{number}"], {f"key-{number}": 1}, number=3)
    for _ in range(3):
        claimed = shard.turn(500)
        while shard.last.more:
            claimed += shard.claim(500)
        assert len(claimed) == 70
    assert shard.turn(500) == []
    assert not shard.last.more


def test_turns_end_although_many_lines_have_tasks_for_which_there_is_no_slot(shard: LimitDriver) -> None:
    shard.join("r", SEVERAL)
    for number in range(40):
        shard.send([f"t{number}"], {f"key-{number}": 1}, actor="f")
    numbers = iter(range(1, 50))
    while (turn := shard.driver.turn("r", next(numbers), 5, room=(5, 0))) and turn.more:
        assert turn.claims == []
    turn = shard.driver.turn("r", next(numbers), 5, room=(5, 1))
    assert turn
    assert len(turn.claims) == 2, "a task and its record"


def test_a_turn_starts_some_of_very_many_tasks_in_their_shares_and_says_that_there_is_more(shard: LimitDriver) -> None:
    shard.join()
    shard.limit("api", concurrency=1000)
    shard.send(["a", "b"], {"api": 1}, number=75)
    shard.send(["c"], number=75)
    first = shard.claim(200)
    assert shard.last.more
    assert len(first) < 100
    counts = shard.tenants_of(first)
    assert max(counts.values()) - min(counts[name] for name in "abc") <= 1
    claimed = len(first)
    while shard.last.more:
        claimed += len(shard.claim(200))
    assert claimed == 225


def test_a_limit_forgets_the_settings_of_very_many_tenants(shard: LimitDriver) -> None:
    shard.join()
    shard.limit("api", concurrency=1)
    for n in range(150):
        shard.limit("api", tenant=f"t{n}", pause="-1")
        shard.limit(f"other-{n}", concurrency=1)
    shard.remove("api")
    assert len(shard.driver.snapshot().fixed["LIMIT_SETTINGS"]) == 150
