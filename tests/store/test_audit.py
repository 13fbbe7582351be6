"""The audit accepts consistent data and names each violation."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import redis

from fairactor import Runtime, actor
from fairactor._audit.audit import audit
from fairactor._audit.snapshot import take_snapshot
from fairactor._model.keys import Keys
from fairactor._model.wire import Assignment, Emptying, Permit, pack_key, pack_permit
from fairactor.errors import RuntimeNotRunning
from fairactor.testing import InvariantViolation, check_invariants
from tests.support.shard.driver import HELD_BACK, ShardDriver, item, open_shard, outcome

Make = Callable[..., Runtime]
Damage = Callable[[redis.Redis, Keys], object]
META = Keys("test").meta


@pytest.fixture
def used(url: str) -> Iterator[ShardDriver]:
    """A shard with something of everything.

    Tenants: some wait, one is at its cap, one is drained. Tasks: queued, started, scheduled and settled ones, some
    watched or with progress. One tag is remembered.
    """
    with open_shard(url) as made:
        made.run(made.shard.configure("capped", {"concurrency": 1}))
        made.permit = pack_permit(Permit.NONE, 5, Emptying.NO)
        made.join("r", "s", "dead")
        made.send(item("s0", "suspected"))
        assert made.claim("dead", 1, 1) == ["s0"]
        made.lapse("dead")
        made.maintain()
        made.send(item("c0", "capped"), item("c1", "capped"), item("d0", "drained"), item("d1", "drained"))
        assert set(made.claim("r", 1, 3)) == {"c0", "d0", "d1"}
        made.send(*[item(f"t{n}", "t", n, flag="w") for n in range(1, 7)], item("later", "t", due="+3600000"))
        made.claim("s", 1, 3)
        assert (
            made.claim("r", 2, 0, [outcome("d0", 1, tenant="drained"), outcome("d1", 1, "X3600000", "drained")]) == []
        )
        made.send(item("x", "once"), item("y", "other"))
        made.claim("s", 2, 2)
        made.send(item("z", "other"), item("zz", "other"))
        assert made.run(made.shard.progress("s", "t6", b"[0.5]"))
        made.send(item("k", "once", key=pack_key("once", 0)))
        assert made.run(made.shard.cancel("t6", ttl=1.0, body=b"{}")) == "started"
        made.send(item("waits", "once", extra=HELD_BACK))
        made.configure("held", rate=("1/h", 3.6e9, 1))
        made.configure("member", group="g")
        made.send(item("h0", "held"), item("h1", "held"), item("m0", "member"))
        made.join("home", serves=Assignment(["held"], ["nobody"]))
        assert made.claim("home", 1, 2) == ["h0"]
        snapshot = made.check()
        empty = {"IDLE", "IDLE_HOMES", "IDLE_SLOTS", "SUSPECTED", "AGAIN", "ROUTES", "LANES"}
        empty |= {name for name in snapshot.fixed if name.startswith(("LIMIT", "MEND", "MOVER")) or name == "HELD_BACK"}
        assert all(snapshot.fixed[name] for name in snapshot.fixed if name not in empty), snapshot.fixed
        assert snapshot.groups
        yield made


def count(tenant: str, at: int, number: int) -> Damage:
    """Changes one of a tenant's counts, or of the total's for ''."""

    def damage(db: redis.Redis, keys: Keys) -> None:
        key, field = (keys.fixed("COUNTS"), tenant) if tenant else (keys.meta, "total")
        packed = db.hget(key, field)
        assert isinstance(packed, bytes)
        counts = list(struct.unpack(">5x8I3dI", packed))
        counts[at] = number
        db.hset(key, field, struct.pack(">5x8I3dI", *counts))

    return damage


def record(command: str, task: str, *arguments: Any) -> Damage:
    return lambda db, keys: getattr(db, command)(keys.task(task), *arguments)


def of_key(command: str, *arguments: Any) -> Damage:
    return lambda db, keys: getattr(db, command)(keys.meta + ":key:4:onceonce", *arguments)


def queue(command: str, tenant: str, *arguments: Any) -> Damage:
    return lambda db, keys: getattr(db, command)(keys.queue(tenant), *arguments)


def zadd(name: str, member: str, score: float) -> Damage:
    return lambda db, keys: db.zadd(keys.fixed(name), {member: score})


def zrem(name: str, member: str) -> Damage:
    return lambda db, keys: db.zrem(keys.fixed(name), member)


def on_group(command: str, member: Any) -> Damage:
    return lambda db, keys: getattr(db, command)(keys.meta + ":group:g", member)


def hset(name: str, field: str, value: bytes) -> Damage:
    return lambda db, keys: db.hset(keys.fixed(name), field, value)


def claim(task: str, runtime: str, tenant: str) -> Damage:
    return lambda db, keys: db.hset(keys.claims(runtime), task, bytes(16) + b"\3" + bytes(48) + tenant.encode())


def both(*damages: Damage) -> Damage:
    return lambda db, keys: [damage(db, keys) for damage in damages]


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a key of no kind": (lambda db, keys: db.set(keys.meta + ":odd", 1), "':odd'|:odd': no such key"),
    "a key of another type": (lambda db, keys: db.set(keys.fixed("IDLE"), 1), "is a string, not a set"),
    "a queue that expires": (queue("expire", "t", 100), "queue:t' expires"),
    "no record": (record("set", "odd", b"?"), "task 'odd': not a task's record"),
    "half a name": (record("set", "odd", b"L\0\3" + bytes(11) + b"\1\xff"), "task 'odd': not"),
    "no such priority": (record("setrange", "t2", 2, b"\7"), "task 't2': 7 is not a valid Priority"),
    "no such state": (record("setrange", "t2", 0, b"Z"), "task 't2': unknown state b'Z'"),
    "a live task that expires": (record("expire", "t2", 100), "'t2' in state b'L' has a time to"),
    "a settled one that stays": (record("persist", "d0"), "'d0' in state b'F' has a time to live of -1 ms"),
    "a lost record": (record("delete", "t2"), "task 't2' in the mailbox of 't' has no record"),
    "queued and scheduled": (
        lambda db, keys: db.zadd(keys.delayed("t"), {"t2": 1e13}),
        "task 't2' is in the mailbox of 't' and the delayed tasks of 't'",
    ),
    "delayed for another": (
        lambda db, keys: db.zadd(keys.delayed("once"), {"later": 1e13}),
        "task 'later' in the delayed tasks of 'once' belongs to 't', not to 'once'",
    ),
    "not scheduled": (zrem("SCHEDULED", "t"), "of 't' is due at .*, but the tenant is scheduled for inf"),
    "scheduled too late": (zadd("SCHEDULED", "t", 1e14), "but the tenant is scheduled for 100000000000000"),
    "scheduled for nothing": (zadd("SCHEDULED", "nobody", 1e13), "'nobody' is scheduled, but has no delayed tasks"),
    "delayed long ago": (
        lambda db, keys: db.zadd(keys.delayed("t"), {"later": 1e12}), "but the tenant is scheduled for [0-9]{13}",
    ),
    "claimed twice": (claim("c0", "s", "capped"), "task 'c0' is in the claims of .* and the claims of"),
    "claimed for another": (claim("c0", "r", "t"), "task 'c0' in the claims of 'r' belongs to 'capped', not to 't'"),
    "ended, and queued": (queue("zadd", "drained", {"d0": 1}), "task 'd0' in .* has ended with state b'F'"),
    "in another's queue": (queue("zadd", "once", {"t2": 1}), "task 't2' in .* of 'once' belongs to 't', not to 'once'"),
    "nowhere": (queue("zrem", "t", "t2"), "task 't2' of 't' is live, but neither queued"),
    "out of place": (queue("zincrby", "t", 5, "t2"), "task 't2' has place .* in the mailbox of 't' instead of"),
    "one counted too many": (
        count("t", 1, 2), "counts of 't' are .*'live at 2': 2.*, but its tasks are .*'live at 2': 1",
    ),
    "one counted too few": (count("t", 6, 0), "counts of 't' are .*, but its tasks are .*'scheduled': 1"),
    "a total": (count("", 2, 99), "counts of the shard are .*'live at 3': 99.*, but the sum over its tenants"),
    "fewer ended than kept": (count("drained", 8, 0), "counts of 'drained' have 0 finished tasks, but 1 records"),
    "a total of ended": (count("", 9, 0), "counts of the shard have 0 failed tasks, those of its tenants 1"),
    "not on the ring": (zrem("RING", "t"), "'t' can be served, but is neither on the ring nor throttled"),
    "on the ring at its cap": (zadd("RING", "capped", 9), "'capped' cannot be served, but is on the ring"),
    "on the ring for nothing": (zadd("RING", "nobody", 9), "'nobody' cannot be served, but is on the ring"),
    "held back, and not listed": (
        zrem("THROTTLED", "held"), "'held' can be served, but is neither on the ring nor throttled",
    ),
    "held back on the ring": (zadd("RING", "held", 9), "'held' is throttled, but also on the ring"),
    "held back without a rate": (
        both(zrem("RING", "t"), zadd("THROTTLED", "t", 1e13)), "'t' is throttled, but has no rate",
    ),
    "held back without work": (zadd("THROTTLED", "nobody", 1e13), "'nobody' cannot be served, but is on the ring"),
    "ahead of its rate": (zadd("RATES", "held", 1e17), r"'held' is \d{8,}\.\d+ s ahead of its rate"),
    "on the ring beside its group": (
        zadd("RING", "member", 9), "'member' belongs to group 'g', but is on the ring of group None",
    ),
    "on the ring of a group": (
        on_group("zadd", {"t": 9}), "'t' belongs to group None, but is on the ring of group 'g'",
    ),
    "a group that is not on the ring": (
        zrem("RING", b"\xffg"), r"groups differ: {'g'} have work, set\(\) are on the ring",
    ),
    "a group without work": (on_group("zrem", "member"), r"groups differ: set\(\) have work, {'g'} are on the ring"),
    "a group without time": (
        lambda db, keys: db.hdel(keys.fixed("GROUPS"), "g"), r"{'g'} are on the ring, set\(\) have a virtual time",
    ),
    "time of no group": (hset("GROUPS", "odd", b"1"), r"{'g'} are on the ring, {.*'odd'.*} have a virtual time"),
    "a home without a lease": (hset("HOMES", "q", b"0"), "'q' has no lease, but is in homes"),
    "an idle home without a lease": (
        lambda db, keys: db.sadd(keys.fixed("IDLE_HOMES"), "q"), "'q' has no lease, but is in idle_homes",
    ),
    "tenants of nobody": (lambda db, keys: db.sadd(keys.meta + ":assigned:q", "t"), "'q' has no .* in assigned"),
    "tenants to steal of nobody": (lambda db, keys: db.sadd(keys.meta + ":steal:q", ""), "'q' has no .* in steal"),
    "a reservation that stays": (
        lambda db, keys: db.hset(keys.meta + ":reserved:t", "q", bytes(16)), "reserved:t' never expires",
    ),
    "costs that stay": (lambda db, keys: db.hset(keys.meta + ":costs:t", "", bytes(24)), "costs:t' never expires"),
    "above the cap": (hset("POLICY", "t", b"\x81\xabconcurrency\1"), "3 tasks of 't' run, but its concurrency is 1"),
    "claims without a lease": (zrem("LEASES", "r"), "'r' has no lease, but is in claims"),
    "a session without a lease": (hset("SESSIONS", "q", bytes(10) + b"\x90"), "'q' has no lease, but is in sessions"),
    "idle slots without a lease": (
        lambda db, keys: db.hset(keys.fixed("IDLE_SLOTS"), "q", "c"), "'q' has no lease, but is in idle_slots",
    ),
    "idle without a lease": (lambda db, keys: db.sadd(keys.fixed("IDLE"), "q"), "'q' has no lease, but is in idle"),
    "a lease of nobody": (zadd("LEASES", "q", 1e13), "'q' has a lease, but is not in fleet"),
    "drained, and not listed": (zrem("DRAINED", "drained"), "'drained' has no live tasks and its counts expire at"),
    "listed otherwise": (zadd("DRAINED", "drained", 5), "'drained' has no live tasks .* it is drained until 5"),
    "listed without totals": (zadd("DRAINED", "q", 1e13), "'q' is drained until 10000000000000, but has no counts"),
    "an ended one is watched": (hset("WATCHERS", "d0", b"\x91\xa1q"), "task 'd0' is watched, but has ended"),
    "a lost one is watched": (hset("WATCHERS", "q", b"\x91\xa1q"), "task 'q' is watched, but has no record"),
    "watched by nobody": (hset("WATCHERS", "t2", b"\x90"), "task 't2' is watched by no runtime"),
    "a failed one is no letter": (zrem("DEAD", "d1"), "task 'd1' has failed, but is not a dead letter"),
    "a letter that has not failed": (
        zadd("DEAD", "d0", 1e16), "task 'd0' is a dead letter, but its record is not a failed one",
    ),
    "an ended one has a key": (hset("KEYED", "d0", bytes(8) + b"1:tx"), "task 'd0' has the key '1:tx', but has ended"),
    "a key that is lost": (of_key("delete"), "'k' has the key '4:onceonce', but the key's task and expiry are None"),
    "a key of another": (of_key("set", "t2"), "the key '4:onceonce' of task 't2' never expires"),
    "a key that will be lost": (
        of_key("expire", 9), r"the key '4:onceonce', but the key's task and expiry are .'k', \d{4}",
    ),
    "a batch that stays": (lambda db, keys: db.persist(keys.meta + ":sent:sender"), "sent:sender' never expires"),
    "a cancellation of another's": (
        lambda db, keys: db.hset(keys.meta + ":cancels:r", "t6", bytes(8)),
        "task 't6' will be canceled by 'r', which has not claimed it",
    ),
    "half a script": (lambda db, keys: db.hset(keys.meta, "torn", 1), "a script failed before its last write"),
    "a suspect in the mailbox": (record("setrange", "t2", 1, b"\1"), "task 't2' .* 1 times, but is in the mailbox"),
    "no suspect": (record("setrange", "s0", 1, b"\0"), "task 's0' .* 0 times, but is among the suspects"),
    "suspects of nobody": (zadd("SUSPECTED", "odd", 1), "have suspects, but {.*'odd'.*} are listed"),
    "suspects that are not listed": (zrem("SUSPECTED", "suspected"), r"{'suspected'} have suspects, but set\(\) are"),
    "progress of none": (hset("PROGRESS", "t2", b"[1]"), "task 't2' has progress, but is not claimed"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_the_audit_names_what_is_wrong(used: ShardDriver, damage: Damage, message: str) -> None:
    damage(used.db, used.keys)
    with pytest.raises(InvariantViolation) as caught:
        used.check()
    assert any(re.search(message, found) for found in caught.value.violations), caught.value


LEFT_TO_HANDS = {
    "a key of no kind", "a key of another type", "a queue that expires", "no record", "half a name", "no such priority",
    "no such state", "a settled one that stays", "above the cap", "watched by nobody", "a batch that stays",
    "a reservation that stays", "costs that stay",
}  # fmt: skip
"""Damage that `repair` cannot interpret, or that disappears with time."""


@pytest.mark.parametrize("damage", [pytest.param(DAMAGES[n][0], id=n) for n in DAMAGES if n not in LEFT_TO_HANDS])
def test_what_is_wrong_is_mended(used: ShardDriver, damage: Damage) -> None:
    damage(used.db, used.keys)
    used.run(used.shard.repair())
    used.check()
    live = {task for task, header in used.snapshot().records.items() if header.state == b"L"}
    claimed = {task for claims in used.snapshot().claims.values() for task in claims}
    mailboxes = [*used.snapshot().queues.values(), *used.snapshot().suspects.values()]
    queued = {task for queue in mailboxes for task in queue}
    assert live == claimed | queued | {"later", "waits"}, "each stands somewhere"


@pytest.mark.parametrize("damage", [DAMAGES["no record"][0], DAMAGES["no such state"][0]])
def test_what_cannot_be_read_does_not_keep_the_rest_from_being_mended(used: ShardDriver, damage: Damage) -> None:
    damage(used.db, used.keys)
    used.db.delete(used.keys.fixed("RING"))
    used.run(used.shard.repair())
    assert "on the ring" not in str(audit(used.snapshot()))


def test_virtual_time_ends_when_nobody_waits(used: ShardDriver) -> None:
    claimed = used.claim("s", 3, 50)
    used.db.hset(used.keys.meta, "virtual", "5")
    with pytest.raises(InvariantViolation, match="no tenant waits, but virtual time is 5"):
        used.check()
    assert claimed


def test_what_should_have_been_tended_to_is_reported_after_a_time_that_is_given(used: ShardDriver) -> None:
    used.lapse("r")
    used.make_due("later")
    used.outlive("drained")
    for task in ("d0", "d1"):
        used.expire(task)
    used.check()
    with pytest.raises(InvariantViolation) as caught:
        used.check(overdue=5.0)
    assert len(caught.value.violations) == 3
    for expected in ("the lease of 'r' expired", "task 'later' was due", "the counts of 'drained' should have expired"):
        assert expected in str(caught.value)
    while used.maintain():
        pass
    used.check(overdue=5.0)


def test_a_tenant_whose_cap_was_lowered_may_be_named(used: ShardDriver) -> None:
    used.run(used.shard.configure("t", {"concurrency": 1}))
    with pytest.raises(InvariantViolation, match="3 tasks of 't' run, but its concurrency is 1"):
        used.check()
    used.check(lowered=["t"])


def test_nobody_is_ahead_of_a_rate_that_is_no_limit(used: ShardDriver) -> None:
    used.configure("held", rate=("", 0.0, 1))
    used.check()


def test_all_violations_are_listed(used: ShardDriver) -> None:
    both(zrem("RING", "t"), zrem("LEASES", "r"))(used.db, used.keys)
    with pytest.raises(AssertionError) as caught:
        used.check()
    assert isinstance(caught.value, InvariantViolation)
    assert len(caught.value.violations) == 5  # the ring, and claims, session, fleet and kind of r
    assert str(caught.value).startswith("5 violations:\n")


# With a runtime


@actor
async def pause() -> None:
    await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_a_namespace_in_use_passes_at_any_moment(make_runtime: Make) -> None:
    async with make_runtime(pause, workers=5) as runtime, anyio.create_task_group() as group:
        await runtime.tenant("u").configure(concurrency=1)
        for n in range(20):
            await runtime.send_many([(f"{'ut*'[n % 3]}", pause().options(delay=0.01 * (n % 2))) for n in range(30)])
            await check_invariants(runtime, overdue=5.0)
        with anyio.fail_after(20):
            await runtime.drain()
        await check_invariants(runtime)
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_every_shard_is_looked_at(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(namespace="n.-_1", shards=3, workers=0) as runtime:
        await runtime.send_many([(f"t{n}", pause()) for n in range(20)])
        await check_invariants(runtime)
        db.zrem(Keys("n.-_1", 2).fixed("RING"), *[f"t{n}" for n in range(20)])
        db.set("{n.-_1/3}:odd", 1)
        db.set("{n.-_1}", 1)
        db.set("{nx-_1/0}:odd", 1)  # somebody else's key
        counts = Keys("n.-_1", 0).fixed("COUNTS"), Keys("n.-_1", 1).fixed("COUNTS")
        name, packed = next(iter(db.hgetall(counts[0]).items()))
        db.hset(counts[1], name, packed)
        with pytest.raises(InvariantViolation) as caught:
            await check_invariants(runtime)
        text = str(caught.value)
        assert re.search(r"\{n.-_1/2\} 't\d+' can be served", text)
        assert f"{{n.-_1/1}} {name.decode()!r} belongs to shard 0" in text
        assert "'{n.-_1/3}:odd' is in none of the 3 shards" in text
        assert "nx-" not in text
        db.flushall()


@pytest.mark.anyio
async def test_only_a_runtime_that_was_entered_can_be_audited(make_runtime: Make) -> None:
    with pytest.raises(RuntimeNotRunning, match="was not entered yet"):
        await check_invariants(make_runtime())


def test_a_look_reads_no_bodies(used: ShardDriver) -> None:
    used.send(item("big", "t", body=b"b" * 1_000_000))
    used.db.config_resetstat()
    snapshot = used.run(take_snapshot(used.shard))
    assert snapshot.records["big"].tenant == "t"
    assert snapshot.now == pytest.approx(used.db.time()[0], abs=2)
    sent = used.db.info("stats")["total_net_output_bytes"]
    assert sent < 50_000
