"""Tests that the repair copes with every kind of key, however it was damaged, and that errors before it are clear."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
import redis

from fairactor._audit.audit import audit
from fairactor._model import keys
from fairactor._store.damage import Repairs
from fairactor.errors import FairactorError, ServerError
from tests.support import servers
from tests.support.shard.driver import HOLDER, item, outcome
from tests.support.shard.populated import PopulatedShard
from tests.support.shard.populated_lanes import LanedShard
from tests.support.shard.populated_limits import LimitedShard
from tests.support.shard.populated_moving import MovingShard

GARBAGE: Final = b"\xffgarbage\0"
FIELDS: Final = (GARBAGE, b"", b"\x91\xc0", b"nan", b"\x7f\xf8" + bytes(80), bytes(65))
SCORES: Final = (float("inf"), -1e300)
OF_LANES: Final = {
    "KIND_NUMBERS", "KIND_OF", "ROUTES", "LANES", "LANE_QUEUE", "LANES_OF", "IN_LANE", "KIND", "KIND_RING",
    "KIND_GROUPS", "KIND_GROUP", "KIND_IDLE",
}  # fmt: skip
"""The keys about lanes and kinds of runtimes."""
OF_LIMITS: Final = {
    "LIMIT_SETTINGS", "LIMIT_STARTED", "LIMIT_DUES", "LIMIT_BUSY", "LIMIT_CLOCKS", "HELD_BACK", "LINES", "LINES_OF",
    "LINE", "LINE_GROUPS", "LINE_GROUP",
}  # fmt: skip
"""The keys about limits and the lines of tenants that wait for them."""
OF_MOVES: Final = {"LEAVING", "MOVER"}
"""The keys about tenants that move to another shard."""
EMPTY: Final = {"RESERVED", "COSTS", "STEAL", "KIND_IDLE", "MENDING_LIST", "BUCKETS", "COUNTED"}
"""What may be missing in the populated shard; the test makes one."""

Damage = Callable[[redis.Redis, str, str], None]


def delete(db: redis.Redis, key: str, kind: str) -> None:
    db.delete(key)


def replace(db: redis.Redis, key: str, kind: str) -> None:
    db.delete(key)
    if kind == "string":
        db.hset(key, "a", "b")
    else:
        db.set(key, "no " + kind)


def replace_by_list(db: redis.Redis, key: str, kind: str) -> None:
    db.delete(key)
    if kind == "list":
        db.sadd(key, "a", "b")
    else:
        db.rpush(key, "a", "b")


def values(value: bytes) -> Damage:
    """Damages all values: fields of a hash, members of a set or a zset, or the string."""

    def damage(db: redis.Redis, key: str, kind: str) -> None:
        if kind == "hash":
            fields: Any = db.hkeys(key)
            db.hset(key, mapping=dict.fromkeys((*fields, b"unknown", GARBAGE), value))
        elif kind == "zset":
            db.zadd(key, {value: 5.0})
        elif kind == "set":
            db.sadd(key, value)
        else:
            db.delete(key)
            (db.rpush if kind == "list" else db.set)(key, value)

    return damage


def scores(score: float) -> Damage:
    def damage(db: redis.Redis, key: str, kind: str) -> None:
        if kind == "zset":
            members: Any = db.zrange(key, 0, -1)
            db.zadd(key, dict.fromkeys((*members, b"unknown"), score))

    return damage


DAMAGES: Final[dict[str, Damage]] = {
    "deleted": delete,
    "another type": replace,
    "a list": replace_by_list,
    **{f"values {value[:12]!r} of {len(value)} bytes": values(value) for value in FIELDS},
    **{f"scores {score:g}": scores(score) for score in SCORES},
}


@pytest.fixture(scope="module")
def plain(server_binary: str) -> Iterator[PopulatedShard]:
    with servers.running(server_binary) as url:
        made = PopulatedShard(url)
        yield made
        made.close()


@pytest.fixture(scope="module")
def laned(server_binary: str) -> Iterator[PopulatedShard]:
    with servers.running(server_binary) as url:
        made = LanedShard(url)
        yield made
        made.close()


@pytest.fixture(scope="module")
def limited(server_binary: str) -> Iterator[PopulatedShard]:
    with servers.running(server_binary) as url:
        made = LimitedShard(url)
        yield made
        made.close()


@pytest.fixture(scope="module")
def moving(server_binary: str) -> Iterator[PopulatedShard]:
    with servers.running(server_binary) as url:
        made = MovingShard(url)
        yield made
        made.close()


@pytest.fixture
def populated(
    request: pytest.FixtureRequest,
    plain: PopulatedShard,
    laned: PopulatedShard,
    limited: PopulatedShard,
    moving: PopulatedShard,
) -> PopulatedShard:
    """A shard with the key that is damaged: one with lanes, limits or moves, if that key is about them."""
    name = request.node.callspec.params.get("name") if hasattr(request.node, "callspec") else None
    if name in OF_MOVES:
        return moving
    return laned if name in OF_LANES else limited if name in OF_LIMITS else plain


def key_of(populated: PopulatedShard, name: str) -> str:
    """Returns a key of a kind that exists."""
    meta, db = populated.keys.meta, populated.db
    if name in keys.FIXED:
        return meta + keys.FIXED[name]
    prefix = (meta + keys.PREFIXES[name]).encode()
    found = sorted(key for key in db.scan_iter(count=1000) if key.startswith(prefix))
    if not found:
        assert name in EMPTY, name
        if keys.TYPES[name] == "set":
            db.sadd(prefix + b"t", "r")
        elif keys.TYPES[name] == "list":
            db.rpush(prefix + b":queue:", "t")
            return (prefix + b":queue:").decode()
        elif keys.TYPES[name] == "string":
            db.set(prefix + b"t", b"")
        else:
            db.hset(prefix + b"t", "", b"")
        return (prefix + b"t").decode()
    chosen = {"TASK": b"later", "QUEUE": b"t", "CLAIMS": b"r", "CANCELS": b"r", "GROUP": b"g"}.get(name)
    return (prefix + chosen if chosen and prefix + chosen in found else found[0]).decode()


def repair(populated: PopulatedShard) -> Repairs:
    return populated.run(populated.shard.repair())


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name, kind in keys.TYPES.items()
        for damage in DAMAGES
        if kind == "zset" or not damage.startswith("scores")
    ],
)
def test_whatever_is_damaged_is_repaired(populated: PopulatedShard, name: str, damage: str) -> None:
    populated.restore()
    kind, key = keys.TYPES[name], key_of(populated, name)
    DAMAGES[damage](populated.db, key, kind)
    repairs = repair(populated)
    snapshot = populated.check()
    if damage in {"another type", "a list"}:
        assert any(key in line and ":aside:" in line for line in repairs.set_aside), repairs
        (aside,) = populated.db.scan_iter("*:aside:*", count=1000)
        assert populated.db.type(aside) in ({b"list", b"set"} if damage == "a list" else {b"string", b"hash"})
    lost = populated.live - {task for task, header in snapshot.records.items() if header.state == b"L"}
    canceled = {"rc", "bc", "stays", "off", "lc"}
    assert not lost - {"TASK": {"later"}, "LEASES": canceled}.get(name, set())
    assert not repair(populated), "nothing is left to repair"
    populated.check()
    serve(populated)


def serve(populated: PopulatedShard) -> None:
    """Claims and settles all that can be claimed, and asserts that nothing fails."""
    populated.maintain()
    populated.join("after")
    number = 1
    held = populated.claim("after", number, 100)
    tenants = {task: header.tenant for task, header in populated.snapshot().records.items()}
    while held:
        number += 1
        held = populated.claim("after", number, 100, [outcome(task, number - 1, "F0", tenants[task]) for task in held])
    populated.send(item("new", "newcomer"))
    assert populated.claim("after", number + 1, 1) == ["new"]
    assert [found for found in audit(populated.snapshot()) if "newcomer" in found] == []


@pytest.mark.parametrize(
    "name", [name for name in keys.TYPES if name not in {"KEY", "SENT", "COSTS", "TASK", "BUCKETS", "COUNTED"}]
)
def test_a_wrong_type_is_named_in_the_error(populated: PopulatedShard, name: str) -> None:
    populated.restore()
    key = key_of(populated, name)
    populated.load_plugins(HOLDER)  # it remembers no other key
    populated.run(populated.shard.open(shards=None, aging=60.0))
    replace(populated.db, key, keys.TYPES[name])
    errors = []
    shard = populated.shard
    for call in (
        lambda: populated.send(item("new", "small"), item("new2", "t")),
        lambda: populated.turn("r", 2, 50),
        populated.maintain,
        lambda: populated.run(shard.stats()),
        lambda: populated.run(shard.purge("t", ttl=1, body=b"{}")),
        lambda: populated.run(shard.assign("home", None)),
        lambda: populated.run(shard.inspect("f")),
        lambda: populated.run(shard.list_dead_letters(0, 9)),
        lambda: populated.run(shard.watch("w", [("f", "", "")])),
    ):
        try:
            call()
        except FairactorError as error:
            errors.append(error)
    for error in errors:
        if "TORN" not in str(error):
            assert isinstance(error, ServerError)
            assert repr(key) in str(error), error
            assert "await runtime.repair()" in str(error)
    assert errors or name in {
        "BACKLOG",  # no number in it changes here
        "KEYED",
        "KIND_IDLE",
        "KIND_NUMBERS",
        "LINE_GROUPS",
        "SESSIONS",
        "GROUPS",
        "MENDING",
        "MENDED",
        "MENDING_LIST",
        "IDLE",
        "IDLE_HOMES",
        "IDLE_SLOTS",
        "ASSIGNED",
        "ASSIGNED_TO",
        "INDEXED",
        "STEAL",
        "STOLEN_BY",
        "SUSPECTS",
        "ENDED_OF",
        "DEAD_OF",
        "DEAD_BY",
        *OF_MOVES,
    }
    repair(populated)
    populated.check()


def test_a_cancellation_outlives_the_loss_of_all_leases(populated: PopulatedShard) -> None:
    populated.restore()
    populated.db.delete(populated.keys.fixed("LEASES"))
    repair(populated)
    records = populated.check().records
    assert {records[task].state for task in ("rc", "bc", "stays", "off")} == {b"C"}


def test_a_key_is_given_back_to_its_task(populated: PopulatedShard) -> None:
    populated.restore()
    before = populated.check().keys
    populated.db.delete(populated.keys.fixed("KEYED"))
    repair(populated)
    assert populated.check().keys == before


def test_a_value_that_cannot_be_used_is_kept(populated: PopulatedShard) -> None:
    populated.restore()
    populated.db.hset(populated.keys.fixed("POLICY"), "u", GARBAGE)
    repairs = repair(populated)
    assert len(repairs.set_aside) == 1
    (aside,) = populated.db.scan_iter("*:aside:*", count=1000)
    assert populated.db.hgetall(aside) == {b"u": GARBAGE}
    assert aside.decode() in repairs.set_aside[0]


def test_an_intact_shard_has_nothing_to_repair(populated: PopulatedShard) -> None:
    populated.restore()
    assert not repair(populated)


def test_every_key_has_a_type() -> None:
    assert set(keys.TYPES) == (keys.FIXED.keys() | keys.PREFIXES.keys()) - {"PLUGIN", "ASIDE", "INBOX", "EVENTS"}
