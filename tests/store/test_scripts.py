"""The scripts one by one: repeated calls, limits, and behavior on a full server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from fairactor._model.arrival import Arrival
from fairactor._model.layout import Layout
from fairactor._model.limit import limit_changes
from fairactor._model.wire import Assignment, pack_key, turn_mark, unpack_policy
from fairactor._store import loader as scripts
from fairactor._store.migration import Departure
from fairactor.errors import ServerError
from tests.support import servers
from tests.support.shard.driver import ShardDriver, item, open_shard, outcome, packed_kind
from tests.support.shard.model_lanes import Kind
from tests.support.shard.populated_moving import arrivals, letter

KEY = pack_key("k", 60.0)
HOURLY = ("1/h", 3.6e9, 1)
SLIM = Kind({"f": "1"})
LOST = rb"lost\u001f\u001f9"
MANY = 5_500  # more than the maximum number of arguments of a call


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    with open_shard(url) as made:
        yield made


# Repeated calls


def everything(shard: ShardDriver) -> dict[bytes, Any]:
    """Returns the contents of the whole database, apart from times."""
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"string": shard.db.get,
        b"hash": shard.db.hgetall,
        b"set": shard.db.smembers,
        b"list": lambda key: shard.db.lrange(key, 0, -1),
        b"zset": lambda key: shard.db.zrange(key, 0, -1, withscores=True),
    }
    found = {key: readers[shard.db.type(key)](key) for key in shard.db.scan_iter()}
    for time in (b"stamp", b"turned", b"tended", b"unsorted"):
        found[shard.keys.meta.encode()].pop(time, None)
    leases = shard.keys.fixed("LEASES").encode()
    found[leases] = sorted(name for name, _ in found.get(leases, []))
    policies = shard.keys.fixed("POLICY").encode()
    found[policies] = {whose: unpack_policy(packed) for whose, packed in found.get(policies, {}).items()}
    for key, held in found.items():
        if b":reserved:" in key:
            found[key] = {whose: packed[:8] for whose, packed in held.items()}
    return found


def populate(shard: ShardDriver) -> None:
    shard.join("r", "s", "x")
    shard.send(item("dead1", "d"), item("dead2", "d", key=KEY))
    shard.claim("x", 1, 2)
    shard.claim("x", 2, 0, [outcome(task, 1, "X3600000", "d") for task in ("dead1", "dead2")])
    shard.run(shard.shard.leave("x"))
    shard.run(shard.shard.configure("u", {"concurrency": 1, "weight": 2.0}))
    shard.send(*[item(f"{tenant}{n}", tenant, n, flag="w") for tenant in "tuv" for n in range(1, 7)])
    shard.send(item("later", "t", due="+3600000"), item("due", "t", due="1"))
    shard.claim("r", 1, 4)
    shard.claim("s", 1, 2)
    shard.run(shard.shard.configure("full", {"backlog": 5}))
    shard.run(shard.shard.configure("grouped", {"group": "g", "rate": HOURLY}))
    shard.send(item("g1", "grouped"), item("full1", "full"), item("g2", "grouped"))
    assert shard.join_only("slim", kind=SLIM)  # its ring is not filled yet
    shard.send(item("lost", "t", body=b'["lost\\u001f\\u001f9",[]]'))


def again_send(shard: ShardDriver) -> Any:
    shard.batch = 99
    return shard.send_again(item("a", "t", flag="w"), item("b", "w", key=KEY), item("c", due="+5000"))


def _charge(shard: ShardDriver) -> int:
    """Corrects what the start of a task took of a limit; claims the task first."""
    if not shard.run(shard.shard.inspect("limited")):
        shard.run(shard.shard.change_limit("api", limit_changes({"rate": "9/h"})))
        shard.send(item("limited", "t", 6, body=b'["f\\u001f\\u001f\\u001fapi\\u001f2",[],{}]'))
        shard.turn("r", 2, 30)
    return shard.run(shard.shard.charge("r", "limited", "api", 5.0))


def _reopen(shard: ShardDriver) -> None:
    """Lets lines look again, because an actor has got a limit."""
    if not shard.db.hexists(shard.keys.fixed("LIMIT_SETTINGS"), "f"):
        settings, none = (msgspec.msgpack.encode(each) for each in ({"concurrency": 3}, []))
        shard.run(shard.shard.call("limit", "f", "", settings, "", none))
    while shard.run(shard.shard.call("reopen", 100)):
        pass


def _sort(shard: ShardDriver) -> None:
    """Moves the tasks of the common lane, because only runtimes that serve another queue stay."""
    if not shard.db.hexists(shard.keys.fixed("KIND_OF"), "gpu"):
        shard.join_only("gpu", kind=Kind({"f": "1"}, {"gpu"}))
    for runtime in ("r", "s", "slim"):
        shard.run(shard.shard.leave(runtime))
    while shard.run(shard.shard.sort()):
        pass


def again_review(shard: ShardDriver) -> Any:
    """Reviews after a change of the defaults that keeps some tenants off the ring."""
    reply = shard.run(shard.shard.configure("", {"concurrency": 3}))
    shard.run(shard.shard.review())
    assert "t" not in shard.check().ring
    return reply


def again_turn(shard: ShardDriver) -> Any:
    turn = shard.turn("r", 2, 3, [outcome("t6", 1), outcome("u6", 1, "R99000", "u"), outcome("v6", 9, tenant="v")])
    assert turn is not None
    claims = list(zip(turn.claims[::2], turn.claims[1::2], strict=True))
    assert len(claims) == 3
    assert turn.refused == [b"v6"]
    return turn.refused, sorted(claims)  # whether maintenance is due depends on the moment


def _load(shard: ShardDriver) -> list[Any]:
    """Returns how tasks fare, without the times, which grow."""
    reply = shard.run(shard.shard.load())
    unserved, held = reply[6], reply[7:]
    return [*reply[1:4], reply[5], unserved[::3], unserved[1::3], held[::4], held[1::4], held[3::4]]


def _depart(shard: ShardDriver, tenant: str = "full") -> Departure:
    shard.run(shard.shard.depart(tenant, "hold"))
    return shard.run(shard.shard.depart(tenant, "go"))


def _export(shard: ShardDriver) -> list[Arrival]:
    assert _depart(shard).state == "gone"
    return shard.run(shard.shard.export("full"))


def _exported(shard: ShardDriver) -> tuple[int, list[Arrival]]:
    tasks = _export(shard)
    left = shard.run(shard.shard.exported("full", [task.id for task in tasks]))
    return left, shard.run(shard.shard.export("full"))


def _welcome(shard: ShardDriver) -> list[str]:
    """Welcomes a tenant, and serves it."""
    departure = Departure("gone", policy=msgspec.msgpack.encode({"weight": 2.0}), debts=[b"0"])
    return [shard.run(shard.shard.welcome("comes", wish, departure)) for wish in ("arriving", "served")]


def _import(shard: ShardDriver) -> list[bytes]:
    shard.run(shard.shard.welcome("comes", "arriving", Departure("gone")))
    arrived = [*arrivals("c1", "c2", "t1", tenant="comes"), *arrivals("c3", tenant="comes", due=b"9999999999999")]
    return shard.run(shard.shard.import_tasks("comes", [*arrived, letter("c4", "comes", 4e9)]))


def _forget(shard: ShardDriver) -> int:
    """Deletes the record of a task that was canceled before."""
    shard.run(shard.shard.cancel("t3", ttl=60.0, body=b"{}"))
    return shard.run(shard.shard.forget(["t3", "t1", "dead1"]))


def _residents(shard: ShardDriver) -> list[tuple[str, bool]]:
    async def collect() -> list[tuple[str, bool]]:
        return sorted([found async for found in shard.shard.residents()])

    return shard.run(collect())


TRANSITIONS: dict[
    str, tuple[Callable[[ShardDriver], Any], Any]
] = {  # the transition, and its reply when repeated; ...: the same reply
    "open": (lambda shard: shard.run(shard.shard.open(shards=None, aging=60.0)), ...),
    "send": (again_send, ...),
    "join": (lambda shard: shard.join("new"), ...),
    "turn": (again_turn, ...),
    "leave": (lambda shard: shard.run(shard.shard.leave("r")), 0),
    "tend": (lambda shard: shard.maintain(), ...),
    "cancel": (lambda shard: shard.run(shard.shard.cancel("t3", ttl=60.0, body=b"{}")), "canceled"),
    "assign": (lambda shard: shard.run(shard.shard.assign("r", Assignment(["t", "u"], [""]))), ...),
    "configure": (lambda shard: shard.run(shard.shard.configure("t", {"weight": 3.0, "concurrency": 4})), ...),
    "review": (again_review, ...),
    "policies": (lambda shard: shard.run(shard.shard.policies()), ...),
    "reserve": (lambda shard: shard.run(shard.shard.reserve("post", {"full": 2, "t": 9})), ...),
    "purge": (lambda shard: shard.run(shard.shard.purge("t", ttl=60.0, body=b"{}")), 0),
    "watch": (lambda shard: shard.run(shard.shard.watch("q", [("t1", "", ""), ("no", "", ""), ("u1", "", "u")])), ...),
    "renew": (lambda shard: shard.shard.renew(shard.db, "r", lease=7200.0), ...),
    "progress": (lambda shard: shard.run(shard.shard.progress("r", "t6", b"[1]")), ...),
    "inspect": (lambda shard: shard.run(shard.shard.inspect("t6")), ...),
    "redrive": (lambda shard: shard.run(shard.shard.redrive([("dead1", KEY), ("dead2", b"")])), [False, False]),
    "pieces": (
        lambda shard: shard.run(shard.shard.read_pieces("r", 9, [("t6", turn_mark(1), 4), ("no", b"", 0)])),
        ...,
    ),
    "letters": (lambda shard: shard.run(shard.shard.list_dead_letters(0, 5)), ...),
    "discard": (lambda shard: shard.run(shard.shard.discard(["dead2", "t1", "no"])), 0),
    **dict.fromkeys(("mend", "mend_places", "mend_rings"), (lambda shard: shard.run(shard.shard.repair()), ...)),
    "stats": (lambda shard: shard.run(shard.shard.tenant_stats("t")), ...),
    "health": (_load, ...),
    "declare": (lambda shard: shard.run(shard.shard.declare("r", packed_kind(SLIM), unknown_ttl=60.0)), ...),
    "fill": (lambda shard: shard.run(shard.shard.fill("slim")), ...),
    "expire": (
        lambda shard: shard.run(shard.shard.expire(LOST, unknown_ttl=0, failed_ttl=60.0, body=b"{}")),
        ([], False),
    ),
    "sort": (_sort, ...),
    "limit": (lambda shard: shard.run(shard.shard.change_limit("api", {"concurrency": 3}, tenant="t")), ...),
    "limits": (lambda shard: shard.run(shard.shard.limits())[1], ...),
    "declare_limits": (lambda shard: shard.run(shard.shard.declare_limits({"f": {"concurrency": 2}})), ...),
    "reopen": (_reopen, ...),
    "charge": (_charge, ...),
    "describe": (lambda shard: shard.run(shard.shard.describe("r", {"workers": 5})), ...),
    "depart": (_depart, ...),
    "welcome": (_welcome, ["served", "served"]),
    "export": (_export, ...),
    "import": (_import, [b"t1"]),
    "exported": (_exported, ...),
    "past": (
        lambda shard: shard.run(shard.shard.past("d", [("dead1", b""), ("", KEY), ("no", KEY), ("no", b"")])),
        ...,
    ),
    "tasks": (lambda shard: shard.run(shard.shard.list_tasks("queued", 9)).tasks, ...),
    "index_letters": (lambda shard: shard.run(shard.shard.index_letters()), ...),
    "details": (lambda shard: shard.run(shard.shard.details("full1"))[8:], ...),
    "hasten": (lambda shard: shard.run(shard.shard.hasten([("later", "t"), ("due", "u"), ("no", "")])), [False] * 3),
    "reroute": (
        lambda shard: shard.run(shard.shard.reroute("gpu", [("lost", ""), ("later", "t"), ("full1", "u")])),
        ...,
    ),
    "forget": (_forget, 0),
    "residents": (_residents, ...),
    "lead": (lambda shard: shard.run(shard.shard.lead("r", 3600.0)), ...),
    "grow": (lambda shard: shard.run(shard.shard.grow(Layout((1, 2), growing=True))), ...),
}


UNCHANGING = {
    "open",
    "inspect",
    "stats",
    "health",
    "letters",
    "pieces",
    "policies",
    "renew",
    "limits",
    "past",
    "residents",
    "tasks",
    "index_letters",
    "details",
}


@pytest.mark.parametrize("name", scripts.NAMES)
def test_sent_twice_is_as_sent_once(shard: ShardDriver, name: str) -> None:
    populate(shard)
    transition, second = TRANSITIONS[name]
    before = everything(shard)
    reply = transition(shard)
    once = everything(shard)
    shard.check()
    assert (once != before) is (name not in UNCHANGING)
    assert transition(shard) == (reply if second is ... else second)
    assert everything(shard) == once


def test_a_turn_is_repeated_whatever_others_did_meanwhile(shard: ShardDriver) -> None:
    populate(shard)
    first = again_turn(shard)
    shard.claim("s", 2, 3)
    shard.send(item("more", "v", 6))
    shard.maintain()
    before = everything(shard)
    assert again_turn(shard)[:2] == first[:2]
    assert everything(shard) == before


def test_a_copy_of_an_earlier_turn_that_arrives_late_claims_nothing(shard: ShardDriver) -> None:
    populate(shard)
    shard.claim("r", 2, 1)
    before = everything(shard)
    shard.turn("r", 1, 4)
    assert everything(shard) == before


def test_ids_are_taken_once_within_a_batch_and_over_all_tenants(shard: ShardDriver) -> None:
    assert shard.send(item("a", "t"), item("a", "t"), item("a", "u"), item("b", "u"), item("b", "t")) == [
        "a", "", None, "b", None,
    ]  # fmt: skip
    assert shard.send(item("b", "u", 6), item("b", "t"), item("c", "t")) == ["", None, "c"]
    snapshot = shard.check()
    assert {task: header.tenant for task, header in snapshot.records.items()} == {"a": "t", "b": "u", "c": "t"}
    assert snapshot.records["b"].priority == 3


# Late outcomes


def test_an_outcome_is_refused_after_the_claim_has_gone_to_another(shard: ShardDriver) -> None:
    shard.join("r", "s")
    shard.send(item("a"))
    assert shard.claim("r", 1, 1) == ["a"]
    shard.lapse("r")
    shard.maintain()
    assert shard.turn("r", 2, 0, [outcome("a", 1)]) is None
    assert shard.claim("s", 1, 1) == ["a"]
    shard.join("r")  # even a runtime that joined again under its old name
    for number, claiming in ((1, 2), (2, 1)):
        turn = shard.turn("r", number, 5, [outcome("a", claiming)])
        assert turn is not None
        assert (turn.refused, turn.claims) == ([b"a"], [])
    turn = shard.turn("s", 2, 0, [outcome("a", 1)])
    assert turn is not None
    assert turn.refused == []
    assert shard.check().records["a"].state == b"F"


def test_an_outcome_of_an_earlier_claim_of_the_same_runtime_is_refused(shard: ShardDriver) -> None:
    shard.join("r")
    shard.send(item("a"))
    assert shard.claim("r", 1, 1) == ["a"]
    assert shard.claim("r", 2, 0, [outcome("a", 1, "R0")]) == []
    shard.maintain()
    assert shard.claim("r", 3, 1) == ["a"]
    turn = shard.turn("r", 4, 0, [outcome("a", 1)])
    assert turn is not None
    assert turn.refused == [b"a"]
    assert list(shard.check().claims["r"]) == ["a"]


def test_an_outcome_given_twice_in_one_turn_counts_once(shard: ShardDriver) -> None:
    shard.join("r")
    shard.send(item("a"), item("b"))
    shard.claim("r", 1, 2)
    shard.turn("r", 2, 0, [outcome("a", 1), outcome("a", 1, "X1000")])
    shard.check()


# Sizes


def test_thousands_of_tasks_in_one_batch(shard: ShardDriver) -> None:
    shard.join("r", "s")
    batch = [item(f"i{n}", "t" if n % 2 else f"t{n}", 1 + n % 6, flag="w") for n in range(MANY)]
    assert None not in shard.send(*batch)
    assert None not in shard.send_again(*batch)
    assert None not in shard.send(*batch)
    assert len(shard.check().records) == MANY
    assert len(shard.claim("r", 1, 1_000)) == 1_000
    held = shard.claim("s", 1, MANY)
    assert len(held) == MANY - 1_000
    watched = shard.run(shard.shard.watch("w", [(task, "", "") for task in held]))
    assert watched == [[b"w"]] * len(held)
    shard.check()
    assert shard.run(shard.shard.leave("r")) == 1_000
    tenants = {entry.id: entry.tenant for entry in batch}
    turn = shard.turn(
        "s",
        2,
        MANY,
        [outcome(task, 1, "FXR"[n % 3] + "990" * (n % 2) + "0", tenants[task]) for n, task in enumerate(held)],
    )
    assert turn is not None
    assert (len(turn.refused), len(turn.claims)) == (0, 2_000)
    shard.check()


def test_thousands_of_capped_tenants_and_a_runtime_that_dies_with_their_tasks(shard: ShardDriver) -> None:
    shard.join("r")
    for n in range(0, MANY, 100):
        shard.run(shard.shard.configure(f"t{n}", {"concurrency": 1}))
    shard.send(*[item(f"i{n}.{k}", f"t{n}") for n in range(MANY) for k in range(2)])
    assert len(shard.claim("r", 1, 2 * MANY)) == 2 * MANY - MANY // 100
    shard.lapse("r")
    while shard.maintain(deliveries=1):
        pass
    snapshot = shard.check()
    assert sum(map(len, snapshot.queues.values())) == MANY // 100
    assert sum(counts.failed for counts in snapshot.counts.values()) == 2 * MANY - MANY // 100


def test_numbers_beyond_32_bits(shard: ShardDriver) -> None:
    year = 365 * 86_400_000
    shard.join("r", lease=10.0 * 365 * 86_400)
    shard.db.hset(shard.keys.meta, mapping={"virtual": "123456789012.5"})
    shard.db.zadd(shard.keys.fixed("RING"), {"t": 123456789012.625})
    shard.send(item("a", priority=6), item("b"), item("c", due="253402300799999"), item("d", due=f"+{10 * year}"))
    snapshot = shard.check()
    assert snapshot.due["c"] == 253402300799999
    shard.db.hset(shard.keys.fixed("SESSIONS"), "r", turn_mark(2**32 - 4) + b"\0\0\x90")
    assert shard.claim("r", 2**32 - 3, 1) == ["a"]
    assert shard.check().virtual == 123456789012.625
    assert shard.check().fixed["RING"] == {"t": 123456789013.625}
    assert shard.claim("r", 2**32 - 2, 1, [outcome("a", 2**32 - 3, f"F{10 * year}")]) == ["b"]
    assert shard.db.pttl(shard.keys.task("a")) > 9 * year
    shard.claim("r", 2**32 - 1, 0, [outcome("b", 2**32 - 2, f"R{10 * year}")])
    assert shard.check().counts["t"].scheduled == 3


def test_stamps_grow_even_when_the_clock_of_the_server_steps_back(shard: ShardDriver) -> None:
    shard.send(item("a"))
    ahead = int(shard.check().records["a"].stamp) + 10**9
    shard.db.hset(shard.keys.meta, "stamp", ahead)
    shard.send(item("b"), item("c"))
    shard.send(item("d"))
    snapshot = shard.check()
    stamps = [snapshot.records[task].stamp - ahead for task in "bcd"]
    assert stamps[:2] == [1, 2]
    assert 2 < stamps[2] < 1e7, "the clock goes on from there"
    assert list(snapshot.queues["t"]) == ["a", "b", "c", "d"]


# A server whose memory is full


@pytest.fixture
def full(server_binary: str) -> Iterator[ShardDriver]:
    """A shard with claims and mailboxes, on a server that accepts no more data."""
    with servers.running(server_binary, "--maxmemory-policy", "noeviction") as url, open_shard(url) as made:
        populate(made)
        made.join("gone")
        made.claim("gone", 1, 3)
        made.lapse("gone")
        made.db.config_set("maxmemory", "1")
        yield made


OUTCOMES = [outcome("t6", 1, "F0"), outcome("u6", 1, "X1000", "u"), outcome("v6", 1, "R1000", "v")]
FREEING: dict[str, Callable[[ShardDriver], Any]] = {
    "settling": lambda shard: shard.turn("r", 2, 0, OUTCOMES),
    "claiming": lambda shard: shard.claim("r", 2, 3),
    "tending": lambda shard: shard.maintain(deliveries=1),
    "leaving": lambda shard: shard.run(shard.shard.leave("r")),
    "canceling": lambda shard: shard.run(shard.shard.cancel("u2", ttl=1.0, body=b"")),
    "joining": lambda shard: shard.join("another"),
}


def test_a_full_server_refuses_what_is_sent_and_changes_nothing(full: ShardDriver) -> None:
    before = everything(full)
    with pytest.raises(ServerError, match=r"is full .*: nothing was stored\. Let workers drain it"):
        full.send(item("new"), item("later2", due="+1000"), item("t1"))
    assert everything(full) == before


@pytest.mark.parametrize("name", FREEING)
def test_a_full_server_does_what_frees_memory(full: ShardDriver, name: str) -> None:
    before = everything(full)
    FREEING[name](full)
    assert everything(full) != before
    full.check()


def test_work_on_a_full_server_ends_in_an_empty_one(full: ShardDriver) -> None:
    full.maintain(deliveries=1, failed_ttl=0)
    held = [(task.decode(), 1) for task in full.db.hkeys(full.keys.claims("r"))]
    full.run(full.shard.leave("s"))
    number = 1
    while held:
        number += 1
        ended = [outcome(task, turn, "F0", task[0]) for task, turn in held]
        held = [(task, number) for task in full.claim("r", number, 5, ended)]
    assert {task for task, header in full.check().records.items() if header.state == b"L"} == {
        "later", "g2", "lost",
    }, "one waits for its time, one for its rate, one for a runtime"  # fmt: skip


@pytest.mark.parametrize("name", ["open", "watch", "inspect", "stats", "letters", "discard", "mend"])
def test_a_full_server_can_be_entered_looked_at_and_waited_for(full: ShardDriver, name: str) -> None:
    TRANSITIONS[name][0](full)
    full.check()
