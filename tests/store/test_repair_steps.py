"""The repair runs in short steps, which any client can take over, and nothing keeps it from coming to its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fairactor._store import script_runner
from fairactor.errors import ServerUnavailable
from tests.support.shard.driver import ShardDriver, item, open_shard

TASKS, TENANTS = 1500, 40


@pytest.fixture
def torn(url: str) -> Iterator[ShardDriver]:
    """A shard with tasks, some of them claimed, whose last script has broken off."""
    with open_shard(url) as made:
        made.join("r", lease=60.0)
        made.send(*[item(f"a{n}", f"t{n % TENANTS}") for n in range(TASKS)])
        made.send(item("later", "t0", due="+3600000"))
        assert len(made.claim("r", 1, 100)) == 100
        made.db.hset(made.keys.meta, "torn", "1")
        yield made


def step(shard: ShardDriver, script: str = "mend", who: str = "me", how: str = "torn") -> str:
    """Does a step of the repair; returns the script that comes next."""
    arguments = (how, who) if script == "mend" else (who,)
    reply: bytes = shard.run(shard.shard._runner._once(script, arguments))
    return reply.decode()


def steps(shard: ShardDriver, number: int, who: str = "me") -> str:
    """Does so many steps; returns the script that comes next."""
    following = "mend"
    for _ in range(number):
        following = step(shard, following, who)
    return following


def left_over(shard: ShardDriver) -> list[bytes]:
    return [key for key in shard.db.scan_iter() if b":mend" in key]


def silence(shard: ShardDriver) -> None:
    """Makes it look as if the client that repairs had not been heard of for long."""
    shard.db.hset(shard.keys.fixed("MENDING"), ".seen", "1")


def test_each_step_is_bounded_and_all_together_repair_the_shard(torn: ShardDriver) -> None:
    number, following, most = 0, "mend", 0
    while following != "done":
        torn.db.config_resetstat()
        following = step(torn, following)
        stats: Any = torn.db.info("commandstats")
        most = max(most, sum(each["calls"] for each in stats.values()))
        number += 1
    assert number > 10
    assert most < 2500
    assert not left_over(torn)
    assert len(torn.check().records) == TASKS + 1


def test_while_it_runs_other_scripts_are_refused_and_help(torn: ShardDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    steps(torn, 2, who="another")
    monkeypatch.setattr(script_runner, "_REPAIR_FOR", 0.0)
    with pytest.raises(ServerUnavailable, match="TORN"):  # the other one is at it
        torn.claim("r", 2, 1)
    silence(torn)
    with pytest.raises(ServerUnavailable, match="TORN"):  # it has done a step, and its time is up
        torn.claim("r", 2, 1)
    monkeypatch.undo()
    assert len(torn.claim("r", 2, 1)) == 1
    torn.check()


def test_another_client_goes_on_if_the_first_is_silent(torn: ShardDriver) -> None:
    following = steps(torn, 4)
    assert step(torn, following, "other") == "busy"
    silence(torn)
    assert step(torn, following, "other") not in ("busy", "")
    assert step(torn, following) == "busy"


@pytest.mark.parametrize("number", [1, 3, 6, 9, 12])
def test_it_begins_anew_when_another_process_serves_the_shard(torn: ShardDriver, number: int) -> None:
    following = steps(torn, number)
    torn.db.hset(torn.keys.fixed("MENDING"), ".run", "1:of another process")
    assert step(torn, following) in ("mend", "mend_places")
    silence(torn)
    torn.claim("r", 2, 1)
    assert len(torn.check().records) == TASKS + 1
    assert not left_over(torn)


@pytest.mark.parametrize("number", [1, 5, 12])
def test_a_release_with_another_repair_may_complete_it(torn: ShardDriver, number: int) -> None:
    following = steps(torn, number)
    kept: list[tuple[bytes, Any]] = [(key, torn.db.dump(key)) for key in left_over(torn)]
    silence(torn)
    torn.claim("r", 2, 1)  # as if that release did it: it knows nothing of these keys
    for key, value in kept:
        torn.db.restore(key, 60_000, value)
    assert step(torn, following) == "", "nothing is left to do"
    torn.send(item("new", "t0"), item("newer", "t1"))
    torn.db.hset(torn.keys.meta, "torn", "1")
    torn.claim("r", 3, 1)
    assert len(torn.check().records) == TASKS + 3
    assert not left_over(torn)


def test_what_it_notes_vanishes_by_itself(torn: ShardDriver) -> None:
    steps(torn, 8)
    assert all(torn.db.ttl(key) > 0 for key in left_over(torn))


def test_leases_that_stood_last_as_much_longer_as_it_took(torn: ShardDriver) -> None:
    leases = torn.keys.fixed("LEASES")
    steps(torn, 2)
    began = int(torn.db.hget(torn.keys.fixed("MENDING"), ".began") or 0)
    torn.db.hset(torn.keys.fixed("MENDING"), ".began", str(began - 90_000))  # it has taken 90 s
    torn.db.zadd(leases, {"r": began - 40_000, "dead": began - 100_000})
    silence(torn)
    torn.claim("r", 2, 1)
    assert torn.db.zscore(leases, "r") >= began + 50_000  # type: ignore[operator]
    assert torn.db.zscore(leases, "dead") == began - 100_000


def test_the_report_names_all_that_was_done_whoever_did_it(torn: ShardDriver) -> None:
    torn.db.set(torn.keys.queue("odd"), "no mailbox")
    following = "mend"
    for number in range(1000):
        following = step(torn, following, f"client {number // 3}")
        if following == "done":
            break
        silence(torn)
    (line,) = torn.run(torn.shard._runner._once("mend", ("report", "me")))
    assert line.startswith(b"s" + torn.keys.queue("odd").encode())
    assert not torn.run(torn.shard.repair())


def test_keys_of_others_on_the_server_are_passed_over(torn: ShardDriver) -> None:
    with torn.db.pipeline() as pipe:
        for n in range(20_000):
            pipe.set(f"foreign{n}", "x")
        pipe.execute()
    torn.claim("r", 2, 1)
    assert len(torn.db.keys("foreign*")) == 20_000
    torn.db.delete(*torn.db.keys("foreign*"))
    torn.check()
