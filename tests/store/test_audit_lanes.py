"""The audit names what is wrong with lanes and kinds of runtimes, and the repair mends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from fairactor._model.keys import Keys
from fairactor.testing import InvariantViolation
from tests.support.shard.driver import ShardDriver, item, open_shard
from tests.support.shard.model_lanes import Kind

Damage = Callable[[redis.Redis, Keys], object]
GPU = r"f\u001fgpu"
LOST = r"lost\u001f\u001f9"


@pytest.fixture
def used(url: str) -> Iterator[ShardDriver]:
    """A shard with runtimes of three kinds, and tasks in several lanes. One lane is served by nobody."""
    with open_shard(url) as made:
        made.send(item("early", body=b'["g",[],{}]'))
        made.join("both")
        made.join("slim", kind=Kind({"f": "1"}))
        made.join("gpu", kind=Kind({"f": "1"}, {"gpu"}))
        made.configure("member", group="group")
        for tenant in ("t", "member"):
            bodies = {"f": "f", "g": "g", "gpu": GPU, "lost": LOST}
            made.send(*[item(f"{tenant} {name}", tenant, body=f'["{r}",[]]'.encode()) for name, r in bodies.items()])
        made.check()
        yield made


def on_key(command: str, suffix: str, *arguments: Any) -> Damage:
    return lambda db, keys: getattr(db, command)(keys.meta + suffix, *arguments)


def mailbox(lane: str, tenant: str) -> str:
    return f":lane:{len(lane)}:{lane}:{tenant}"


def moved(task: str, lane: str, other: str) -> Damage:
    """Moves a task of `t` to the mailbox in another lane, '' for the common one."""

    def damage(db: redis.Redis, keys: Keys) -> None:
        place: Any = db.zscore(keys.meta + mailbox(lane, "t"), task)
        db.zrem(keys.meta + mailbox(lane, "t"), task)
        db.zadd(keys.meta + mailbox(other, "t") if other else keys.queue("t"), {task: place})

    return damage


DAMAGES: dict[str, tuple[Damage, str]] = {
    "the length of a lane": (
        lambda db, keys: db.rename(keys.meta + mailbox("g", "t"), f"{keys.meta}:lane:7:g:t"),
        "'7:g:t' does not begin with the length of a lane's name",
    ),
    "in two lanes": (
        on_key("zadd", mailbox(GPU, "t"), {"t f": 1}), "'t f' is in the mailbox of 't'.* and the mailbox of 't'",
    ),
    "in a lane of others": (moved("t gpu", GPU, "g"), "task 't gpu' with the route '.*gpu' is in the lane 'g'"),
    "in no lane of a member": (on_key("delete", ":lanes-of:member"), "'member' has first tasks .* lanes-of .* {}"),
    "in a lane for nothing": (on_key("zadd", ":lanes-of:t", {"x": 1}), "'t' has first tasks at .* lanes-of .*'x'"),
    "first too early": (on_key("zadd", ":lanes-of:t", {"g": 1}), "'t' has first tasks at .* lanes-of .*'g': 1.0"),
    "a lane without its tenant": (on_key("zrem", ":in-lane:g", "t"), "lanes have tasks of the tenants .* in-lane"),
    "a lane with a stranger": (on_key("zadd", ":in-lane:g", {"x": 1}), "lanes have tasks of the tenants .* in-lane"),
    "a lane that is not listed": (on_key("hdel", ":lanes", "g"), "the lanes .* have tasks, but .* are listed"),
    "a lane without tasks": (on_key("hset", ":lanes", "x", 0), "the lanes .* have tasks, but .* are listed"),
    "a lane as if nobody served it": (on_key("hset", ":lanes", "g", 9), "the lane 'g' is served, but is listed"),
    "a lane as if it were served": (on_key("hset", ":lanes", LOST, 0), "is not served, but is listed with '0'"),
    "an actor without its lane": (on_key("hdel", ":routes", "g"), r"kind 1 lacks the actors \['g'\], but their"),
    "lanes that nobody looks at": (on_key("hdel", "", "lanes"), "there are lanes, but scripts do not look at them"),
    "a kind that is not listed": (on_key("hset", "", "kinds", "0,2"), "something is stored about the kinds .'1'."),
    "a kind of no runtime": (on_key("hdel", ":kind-of", "slim"), r"the kinds \['1'\] have no runtimes"),
    "a kind of nobody": (on_key("hset", ":kind-of", "q", "1"), "'q' has no lease, but is in kind_of"),
    "a kind that there is not": (on_key("hset", ":kind-of", "slim", "7"), "'slim' is of kind 7, and there are"),
    "a digest of no kind": (on_key("hset", ":kinds", "x", "7"), r"the digests belong to .*'7'\]"),
    "not on the ring of a kind": (on_key("zrem", ":ring:2", "t"), "'t' can be served, but is .* ring of kind 2 nor"),
    "on the ring of a kind for nothing": (on_key("zadd", ":ring:2", {"x": 1}), "'x' cannot .* on the ring of kind 2"),
    "a group not on the ring of a kind": (
        on_key("zrem", ":ring:2", b"\xffgroup"), r"{'group'} have work, set\(\) are on the ring of kind 2",
    ),
    "beside its group for a kind": (
        on_key("zadd", ":ring:1", {"member": 1}), "'member' belongs to group 'group', but is on the ring of group None",
    ),
    "idle without a lease": (on_key("sadd", ":idle:2", "q"), "'q' has no lease, but is in idle:2"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_the_audit_names_what_is_wrong(used: ShardDriver, damage: Damage, message: str) -> None:
    damage(used.db, used.keys)
    with pytest.raises(InvariantViolation) as caught:
        used.check()
    assert any(re.search(message, found) for found in caught.value.violations), caught.value


@pytest.mark.parametrize("damage", [pytest.param(damage, id=name) for name, (damage, _) in DAMAGES.items()])
def test_what_is_wrong_is_mended(used: ShardDriver, damage: Damage) -> None:
    damage(used.db, used.keys)
    used.run(used.shard.repair())
    snapshot = used.check()
    assert snapshot.records.keys() == {task for queue in snapshot.queues.values() for task in queue}


def test_a_fleet_of_one_kind_pays_for_no_lanes(url: str) -> None:
    with open_shard(url) as made:
        made.join("r", "s")
        made.send(item("a", body=b'["f",[],{}]'), item("b", body=b'["g",[],{}]'))
        assert made.claim("r", 1, 1)
        made.run(made.shard.leave("s"))
        known = {":kinds", ":kind:0", ":kind-of"}
        kept = {key.decode().removeprefix(made.keys.meta) for key in made.db.scan_iter()}
        lanes = {key for key in kept if key.startswith((":kind", ":lane", ":in-lane", ":routes", ":ring:", ":idle:"))}
        assert lanes == known
        assert b"lanes" not in made.db.hgetall(made.keys.meta)
