"""How scripts cope with manually damaged records and queues and with impossible numbers, and whom they notify."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from fairactor._audit.audit import audit
from fairactor._model.wire import Emptying, Permit, pack_permit
from tests.support.shard.driver import ShardDriver, item, open_shard, outcome, settlement


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    with open_shard(url) as made:
        made.join("r", "s")
        yield made


def lose(shard: ShardDriver, task: str) -> None:
    assert shard.db.delete(shard.keys.task(task)) == 1


def mend(shard: ShardDriver) -> None:
    shard.run(shard.shard.repair())


# Missing records


def test_a_task_whose_record_is_lost_goes_out_all_the_same_and_is_reported(shard: ShardDriver) -> None:
    shard.send(item("a"), item("b"), item("c"))
    lose(shard, "b")
    turn = shard.turn("r", 1, 3)
    assert turn is not None
    assert [task.decode() for task in turn.claims[::2]] == ["a", "b", "c"]
    assert turn.claims[3][:1] == b"L"
    assert turn.claims[3].endswith(b"\0\1t")  # its tenant but no body
    shard.claim("r", 2, 0, [outcome("a", 1), outcome("b", 1, "X1000"), outcome("c", 1)])
    snapshot = shard.check()
    assert (snapshot.counts["t"].finished, snapshot.counts["t"].failed) == (2, 1)


def test_a_task_whose_record_is_lost_may_be_tried_again(shard: ShardDriver) -> None:
    shard.send(item("a"))
    lose(shard, "a")
    assert shard.claim("r", 1, 1) == ["a"]
    shard.claim("r", 2, 0, [outcome("a", 1, "R0")])
    shard.maintain()
    assert shard.claim("r", 3, 1) == ["a"]
    shard.check()


def test_a_task_without_a_record_is_not_there_to_be_canceled(shard: ShardDriver) -> None:
    shard.send(item("a"))
    lose(shard, "a")
    assert shard.run(shard.shard.cancel("a", ttl=1.0, body=b"")) == "missing"
    assert shard.run(shard.shard.inspect("a")) == []
    assert shard.run(shard.shard.watch("w", [("a", "", "")])) == [[b"n"]]


def test_a_lost_record_is_no_matter_once_it_has_ended_and_the_shard_was_mended(shard: ShardDriver) -> None:
    shard.run(shard.shard.configure("t", {"concurrency": 5}))
    shard.send(item("low", priority=1), item("lost", priority=4), item("more", priority=4))
    lose(shard, "lost")
    shard.claim("r", 1, 2)
    shard.claim("r", 2, 0, [outcome("lost", 1), outcome("more", 1)])
    shard.claim("r", 3, 1)
    shard.claim("r", 4, 0, [outcome("low", 3)])
    assert shard.snapshot().counts["t"].by_priority, "its stand-in has taken the priority of another"
    mend(shard)
    snapshot = shard.check()
    assert snapshot.counts["t"].finished == 3


@pytest.mark.parametrize("end", ["leave", "die"])
def test_a_claimed_task_whose_record_is_lost_gives_its_slot_back(shard: ShardDriver, end: str) -> None:
    shard.run(shard.shard.configure("t", {"concurrency": 1}))
    shard.send(item("a"), item("b"))
    assert shard.claim("r", 1, 1) == ["a"]
    lose(shard, "a")
    if end == "leave":
        shard.run(shard.shard.leave("r"))
    else:
        shard.lapse("r")
        shard.maintain()
    assert "b" in shard.claim("s", 1, 1)


def test_a_scheduled_task_whose_record_is_lost_is_counted_no_more_when_the_shard_was_mended(shard: ShardDriver) -> None:
    shard.send(item("a", due="1"), item("b"))
    lose(shard, "a")
    shard.maintain()
    mend(shard)
    shard.check()


# Unreadable records

UNREADABLE = (b"garbage", b"", b"L\0\0" + bytes(10) + b"\0\1t", b"L\0\3" + bytes(10) + b"\1\1t")


@pytest.mark.parametrize("garbage", UNREADABLE)
@pytest.mark.parametrize("step", ["claim", "leave", "die", "give back", "cancel", "come due"])
def test_a_record_that_cannot_be_read_keeps_nobody_from_working(shard: ShardDriver, garbage: bytes, step: str) -> None:
    shard.send(item("odd", due="1" if step == "come due" else ""), item("even"))
    if step in {"leave", "die", "give back"}:
        assert set(shard.claim("r", 1, 2)) == {"odd", "even"}
    shard.db.set(shard.keys.task("odd"), garbage)
    if step == "leave":
        shard.run(shard.shard.leave("r"))
    elif step == "die":
        shard.lapse("r")
        shard.maintain()
    elif step == "give back":
        back = [settlement("odd", 1, "B", garbage), outcome("even", 1, "R0")]
        assert shard.claim("r", 2, 0, back) == []
    elif step == "cancel":
        assert shard.run(shard.shard.cancel("odd", ttl=1.0, body=b"{}")) == "missing"
    shard.maintain()
    assert "even" in shard.claim("s", 1, 5), "others are served"
    assert shard.run(shard.shard.inspect("odd")) == []
    mend(shard)
    assert [found for found in audit(shard.snapshot()) if "'odd'" not in found] == []


# Queues that are shorter than their counts


def test_a_queue_that_lost_tasks_holds_nobody_up(shard: ShardDriver) -> None:
    shard.send(item("a"), item("b"), item("c"), item("d", "other"))
    shard.db.zrem(shard.keys.queue("t"), "a", "c")
    assert sorted(shard.claim("r", 1, 4)) == ["b", "d"]
    shard.send(item("e"))
    shard.db.delete(shard.keys.queue("t"))
    assert shard.claim("r", 2, 4) == []
    snapshot = shard.snapshot()
    assert snapshot.fixed["RING"] == {}
    shard.send(item("f"), item("g", "other"))
    assert sorted(shard.claim("r", 3, 4)) == ["f", "g"]


def test_a_capped_tenant_whose_queue_lost_tasks_is_served_when_the_shard_was_mended(shard: ShardDriver) -> None:
    shard.run(shard.shard.configure("t", {"concurrency": 1}))
    shard.send(item("a"), item("b"), item("c"))
    shard.db.zrem(shard.keys.queue("t"), "a")
    assert shard.claim("r", 1, 2) == [], "what lives and is not queued counts as started"
    mend(shard)
    assert shard.claim("r", 2, 2) == ["a"]
    assert shard.claim("r", 3, 2, [outcome("a", 2)]) == ["b"]


# Impossible numbers


def test_a_task_may_be_delivered_as_often_as_settings_allow(shard: ShardDriver) -> None:
    shard.send(item("a"))
    shard.db.setrange(shard.keys.task("a"), 1, b"\xfd")  # 253 deliveries: that many runtimes have died
    for deaths, runtime in enumerate("rs", 254):
        assert shard.claim(runtime, 1, 1, permit=pack_permit(Permit.ALONE, 255, Emptying.NO)) == ["a"]
        shard.lapse(runtime)
        shard.maintain(deliveries=255)
        assert shard.check().records["a"].deliveries == deaths
    assert shard.check().records["a"].state == b"X"


def test_totals_are_kept_as_long_as_a_record_that_is_kept_for_a_hundred_years(shard: ShardDriver) -> None:
    shard.send(item("a"))
    shard.claim("r", 1, 1)
    shard.claim("r", 2, 0, [outcome("a", 1, f"F{100 * 365 * 86_400_000}")])
    shard.check()


def test_tend_does_not_find_the_same_to_do_again_and_again(shard: ShardDriver) -> None:
    shard.send(item("a"))
    shard.claim("r", 1, 1)
    shard.claim("r", 2, 0, [outcome("a", 1, "F1000")])
    counts, drained = shard.keys.fixed("COUNTS"), shard.keys.fixed("DRAINED")
    packed = shard.db.hget(counts, "t")
    assert isinstance(packed, bytes)
    while not 500_000 <= shard.db.time()[1] < 900_000:
        pass
    soon = shard.db.time()[0] + 1
    shard.db.hset(counts, "t", packed[:-4] + soon.to_bytes(4, "big"))
    shard.db.zadd(drained, {"t": soon})
    more = shard.maintain(limit=1)
    assert more is (shard.db.hget(counts, "t") is None)


def test_a_task_that_is_given_up_leaves_its_slot_to_another_of_its_tenant(shard: ShardDriver) -> None:
    shard.run(shard.shard.configure("t", {"concurrency": 1}))
    shard.send(item("a"), item("b"))
    assert shard.claim("r", 1, 2) == ["a"]
    shard.lapse("r")
    shard.maintain(deliveries=1)
    assert shard.check().records["a"].state == b"X"
    assert shard.claim("s", 1, 2) == ["b"]


# Leftovers


def test_a_drained_tenant_leaves_nothing_behind(shard: ShardDriver) -> None:
    names = [f"t{n}" for n in range(5)]
    shard.send(*[item(f"{k} of {name}", name, flag="w") for name in names for k in range(3)])
    held = {task: task.rpartition(" ")[2] for task in shard.claim("r", 1, 14)}
    shard.run(shard.shard.progress("r", next(iter(held)), b"[1]"))
    ends = ("F0", "F1000000", "X1000000", "C0")
    shard.claim("r", 2, 0, [outcome(task, 1, ends[n % 4], tenant) for n, (task, tenant) in enumerate(held.items())])
    for task in {f"{k} of {name}" for name in names for k in range(3)} - set(held):
        shard.run(shard.shard.cancel(task, ttl=1000.0, body=b"{}"))
    snapshot = shard.check()
    assert set(snapshot.counts) == set(names)
    for name in names:
        shard.outlive(name)
    for task in snapshot.records:
        shard.expire(task)
    assert shard.maintain() is False
    shard.run(shard.shard.leave("r"))
    shard.run(shard.shard.leave("s"))
    kind = {f"{shard.keys.meta}:{what}".encode() for what in ("kinds", "kind:0")}  # the last one stays
    left = set(shard.db.scan_iter()) - kind - {shard.keys.meta.encode()}
    assert f"{shard.keys.meta}:sent:sender".encode() in left
    assert all(shard.db.pttl(key) > 0 for key in left), "what is left expires by itself"


# Notifications


@pytest.fixture
def heard(shard: ShardDriver) -> Iterator[Any]:
    """Yields a function that returns the messages since its last call: (channel after the shard's name, message)."""
    with redis.Redis(connection_pool=shard.db.connection_pool).pubsub() as pubsub:
        pubsub.psubscribe(shard.keys.meta.replace("{", "\\{") + "*")
        pubsub.get_message(timeout=5)

        def read() -> list[tuple[str, bytes]]:
            shard.db.publish(shard.keys.meta + "!", b"")
            messages = []
            while (message := pubsub.get_message(timeout=5)) is not None:
                channel = message["channel"].decode().removeprefix(shard.keys.meta)
                if channel == "!":
                    return messages
                messages.append((channel, message["data"]))
            raise AssertionError("what was published did not come")

        yield read


def told(task: str, state: bytes) -> bytes:
    """Returns the beginning of the message about an outcome."""
    return b"o" + len(task.encode()).to_bytes(2, "big") + task.encode() + state


def test_all_who_wait_are_told_of_every_kind_of_outcome(shard: ShardDriver, heard: Any) -> None:
    shard.send(*[item(f"{kind}ñ\0", flag="w") for kind in "FXCRDQ"])
    assert shard.run(shard.shard.watch("v\0", [(f"{kind}ñ\0", "", "") for kind in "FXCRDQ"])) == [[b"w"]] * 6
    shard.claim("r", 1, 4)
    shard.claim("s", 1, 1)
    heard()
    verdicts = {"F": "F1000", "X": "X1000", "C": "C0", "R": "R1000"}
    shard.claim("r", 2, 0, [outcome(f"{kind}ñ\0", 1, verdict) for kind, verdict in verdicts.items()])
    shard.lapse("s")
    shard.maintain(deliveries=1)
    shard.run(shard.shard.cancel("Qñ\0", ttl=0, body=b"{}"))
    outcomes = [(channel, data) for channel, data in heard() if data[:1] == b"o"]
    for kind, state in {"F": b"F", "X": b"X", "C": b"C", "D": b"X", "Q": b"C"}.items():
        for watcher in ("sender", "v\0"):
            (message,) = [d for c, d in outcomes if c == f":inbox:{watcher}" and d.startswith(told(f"{kind}ñ\0", b""))]
            assert message.startswith(told(f"{kind}ñ\0", state))
    assert len(outcomes) == 10
    assert list(shard.check().fixed["WATCHERS"]) == ["Rñ\0"]


def test_an_outcome_that_is_refused_is_told_to_nobody(shard: ShardDriver, heard: Any) -> None:
    shard.send(item("a", flag="w"))
    shard.claim("r", 1, 1)
    heard()
    shard.claim("r", 2, 0, [outcome("a", 9)])
    assert heard() == []


def test_who_runs_a_task_is_told_that_it_is_canceled(shard: ShardDriver, heard: Any) -> None:
    shard.send(item("a\0"))
    shard.claim("r", 1, 1)
    heard()
    assert shard.run(shard.shard.cancel("a\0", ttl=1.0, body=b"{}")) == "started"
    assert heard() == [(":inbox:r", b"ca\0")]


def test_one_idle_runtime_is_woken_by_work_and_the_next_by_what_it_leaves(shard: ShardDriver, heard: Any) -> None:
    assert shard.claim("r", 1, 2) == []
    assert shard.claim("s", 1, 2) == []
    shard.send(item("a"), item("b"), item("c"))
    ((first, message),) = heard()
    assert message == b"w"
    first = first.removeprefix(":inbox:")
    assert len(shard.claim(first, 2, 2)) == 2
    (second,) = heard()
    assert second == (f":inbox:{'s' if first == 'r' else 'r'}", b"w")


def test_idle_runtimes_that_hear_nothing_are_passed_over(shard: ShardDriver) -> None:
    shard.join(*[f"dead{n}" for n in range(5)])
    for runtime in ("r", *[f"dead{n}" for n in range(5)]):
        shard.claim(runtime, 1, 1)
    with redis.Redis(connection_pool=shard.db.connection_pool).pubsub() as pubsub:
        pubsub.subscribe(shard.keys.inbox("r"))
        assert pubsub.get_message(timeout=5) is not None
        shard.send(item("a"), item("b"))  # a single task could be handed over directly
        message = pubsub.get_message(timeout=5)
        assert message is not None
        assert message["data"] == b"w"


def test_a_delayed_task_wakes_somebody_who_must_learn_when_it_is_due(shard: ShardDriver, heard: Any) -> None:
    shard.claim("r", 1, 1)
    shard.send(item("a", due="+60000"))
    assert heard() == [(":inbox:r", b"w")]
    turn = shard.turn("r", 2, 1)
    assert turn is not None
    assert 55 < turn.wait <= 60


def test_all_are_told_when_the_last_task_has_ended(shard: ShardDriver, heard: Any) -> None:
    shard.send(item("a"), item("b"), item("later", due="+60000"))
    shard.claim("r", 1, 2)
    heard()
    shard.claim("r", 2, 0, [outcome("a", 1)])
    assert heard() == []
    shard.claim("r", 3, 0, [outcome("b", 1)])
    assert heard() == [(":events", b"d")]
