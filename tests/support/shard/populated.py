"""A shard that contains something of everything, whose scripts can be broken off, and transitions to apply to it."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

import msgspec

from fairactor._audit.snapshot import Snapshot
from fairactor._model import record
from fairactor._model.counts import Counts
from fairactor._model.wire import Assignment, Emptying, Item, Permit, Settlement, pack_key, pack_permit, unpack_policy
from fairactor._store import loader as scripts
from fairactor.errors import ServerError

from .driver import HELD_BACK, ShardDriver, flat, item, outcome, settlement
from .model_tasks import FULL

HOURLY: Final = ("1/h", 3.6e9, 1)
KEY: Final = pack_key("k", 60.0)

# Replaces the table `redis` by one whose `call` raises at the chosen call and otherwise calls the server.
BREAKING: Final = """local redis = (function(whole)
  local calls = 0
  local function call(...)
    calls = calls + 1
    if calls == {at} then error('broken off') end
    return whole.call(...)
  end
  return setmetatable({{ call = call }}, {{ __index = whole }})
end)(redis)
"""

RESTORE: Final = """redis.call('FLUSHALL')
for i = 1, #ARGV, 3 do redis.call('RESTORE', ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
"""

NO_SUSPECT: Final = pack_permit(Permit.NONE, 2, Emptying.NO)
IN_A_THREAD: Final = b'["f",[],{}]'

HELD: Final = {
    "f": "F3600000", "f0": "F0", "fk": "F0", "fw": "F0", "x": "X3600000", "x0": "X0", "xk": "X0", "c": "C3600000",
    "r": "R99000", "b": "B0", "rc": "R99000", "bc": "B0", "stays": "",
}  # fmt: skip
"""What runtime r holds, and how each task ends; rc, bc and stays are being canceled."""


NO_LIMITS: Final = frozenset(
    {"LIMIT_SETTINGS", "LIMIT_STARTED", "LIMIT_DUES", "LIMIT_BUSY", "LIMIT_CLOCKS", "HELD_BACK"}
)


class PopulatedShard(ShardDriver):
    """A shard that contains something of everything and can be restored; its scripts can be broken off."""

    held_as: Mapping[str, str] = HELD
    empty: frozenset[str] = NO_LIMITS | {"ROUTES", "LANES"}
    """What there is none of."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.open()
        self._populate()
        snapshot = self.check()
        empty = {
            name
            for name in snapshot.fixed
            if not snapshot.fixed[name] and not name.startswith(("IDLE", "MEND", "MOVER"))
        }
        assert empty == self.empty, empty
        self.kept = self.dump()
        self.held: dict[str, Any] = {task: self.db.get(self.keys.task(task)) for task in self.held_as}
        self.live = {task for task, header in snapshot.records.items() if header.state == b"L"}

    def _claim_all(self, runtime: str, *items: Item) -> None:
        self.send(*items)
        claimed = self.claim(runtime, 1, len(items), permit=NO_SUSPECT)
        assert set(claimed) == {each.id for each in items}

    def _populate(self) -> None:
        run, shard = self.run, self.shard
        self.permit = pack_permit(Permit.NONE, 5, Emptying.NO)
        self.join("r", "s", "past", "first", "gone")
        tenants, kept = {"dead1": "d", "dead2": "d", "dead3": "e", "old": "o"}, "3600000"
        self._claim_all("past", *[item(*each, key=KEY if each[0] == "dead2" else b"") for each in tenants.items()])
        ended = [outcome(task, 1, ("F" if task == "old" else "X") + kept, tenant) for task, tenant in tenants.items()]
        self.claim("past", 2, 0, ended)
        run(shard.leave("past"))
        self._claim_all("first", item("doomed", "g"))
        self.lapse("first")
        self.maintain()
        assert self.claim("gone", 1, 1, permit=pack_permit(Permit.ALONE, 2, Emptying.NO)) == ["doomed"]
        self.send(item("back", "g"), item("kept", "g", 5, flag="w"), item("off", "g", 6, key=KEY, flag="w"))
        assert set(self.claim("gone", 2, 3)) == {"back", "kept", "off"}
        self.join("second")
        self._claim_all("second", item("suspect", "w"))
        self.lapse("second")
        self.maintain()
        run(shard.configure("u", {"concurrency": 2, "weight": 2.0}))
        how = {"fw": {"flag": "w"}, "fk": {"key": KEY}, "xk": {"key": pack_key("xk", 3600.0), "flag": "w"}}
        self._claim_all("r", *[item(task, "u" if task == "r" else "t", **how.get(task, {})) for task in HELD])
        for runtime, task in (("r", "rc"), ("r", "bc"), ("r", "stays"), ("gone", "off")):
            assert run(shard.progress(runtime, task, b"[0.5]"))
            assert run(shard.cancel(task, ttl=60.0, body=b"{}")) == "started"
        self.send(*[item(f"{tenant}{n}", tenant, n, flag="w") for tenant in "tuv" for n in range(1, 7)])
        self.turn("s", 1, 3, room=(9, 9), permit=NO_SUSPECT)
        self.send(item("keyed", "v", key=KEY, flag="w"), item("later", "t", due="+3600000"))
        self.send(item("due", "t", 6, due="1"), item("due2", "solo", due="1"))
        self.send(item("waits", "t", extra=HELD_BACK), item("waits too", "v", extra=HELD_BACK))
        changes = [("again", KEY, ""), ("again later", pack_key("xk", 3600.0), "+3600000")]
        for task, key, due in changes:
            assert self.send(item(task, "t", key=replacing(key), due=due)) == [task]
        self._limit()
        self.join("roomy")
        self.db.hset(self.keys.fixed("IDLE_SLOTS"), "roomy", "t")  # it sleeps, and has free threads
        self.send(*[item(f"mixed{n}", "mixed", body=IN_A_THREAD if n % 2 else b"{}") for n in range(6)])
        for task in ("dead3", "old"):
            self.expire(task)
        self.outlive("o")
        self.lapse("gone")

    def _limit(self) -> None:
        """Adds tenants with limits, some in groups, and runtimes that are homes of some tenants."""
        self.configure("held", rate=HOURLY)
        self.configure("freed", rate=("1/h", 3.6e9, 2))
        self.configure("small", backlog=3)
        self.configure("off", paused=True)
        self.configure("m1", group="g")
        self.configure("m2", group="g", rate=HOURLY)
        self.configure("m3", group="h", rate=HOURLY)
        self.configure(b"\xffg", weight=3.0)
        self.join("big", "home", serves=Assignment(["bulk"], []))
        self.run(self.shard.assign("home", Assignment(["held", "freed", "m2", "m3"], ["nobody"])))
        self._claim_all("big", *[item(f"bulk{n}", "bulk") for n in range(34)])
        limited = [f"{tenant}.{n}" for tenant in ("held", "freed", "small", "off", "m1", "m2", "m3") for n in (0, 1)]
        self.send(item("freed.2", "freed"), *[item(task, task[:-2]) for task in limited], item("bulk34", "bulk"))
        assert set(self.claim("home", 1, 9, permit=NO_SUSPECT)) == {"held.0", "freed.2", "freed.0", "m2.0", "m3.0"}
        self.let_start("freed")
        self.db.zadd(self.keys.fixed("RATES"), {"solo": 1})
        assert self.run(self.shard.reserve("post", {"small": 1, "t": 9})) is None
        for_ever = struct.pack(">dd", 1, 1e15)  # the tests outlast a reservation
        self.db.hset(f"{self.keys.meta}:reserved:small", "post", for_ever)

    def dump(self) -> list[tuple[bytes, int, Any]]:
        return [(key, max(0, self.db.pttl(key)), self.db.dump(key)) for key in sorted(self.db.scan_iter())]

    def restore(self, kept: list[tuple[bytes, int, Any]] | None = None) -> None:
        """Restores the initial state, or the given dump."""
        self.db.eval(RESTORE, 0, *chain.from_iterable(self.kept if kept is None else kept))
        self.batch = 99

    @contextmanager
    def breaking(self, name: str, at: int) -> Iterator[None]:
        """Makes a script break off at one of its calls to the server, counted from 1."""
        calls = self.shard._runner
        whole = calls._script(name)
        shebang = re.match(r"(?:#!.*\n)?", whole.text)
        assert shebang is not None
        text = shebang[0] + BREAKING.format(at=at) + whole.text[shebang.end() :]
        broken = scripts.Script(name, text, "0" * 40)  # an unknown digest, so that the client sends this text
        script = calls._script
        calls._script = lambda called: broken if called == name else script(called)  # type: ignore[method-assign]
        try:
            yield
        finally:
            del calls._script

    def refusal(self, transition: Transition) -> ServerError | None:
        try:
            transition(self)
        except ServerError as error:
            return error
        return None

    def breaks(self, name: str, at: int, transition: Transition) -> ServerError | None:
        """Returns the error if the script breaks off at that call; None if it completes before."""
        with self.breaking(name, at):
            error = self.refusal(transition)
        assert error is None or re.search("broken off|TORN", str(error)), error
        return error

    def insist(self, transition: Transition) -> None:
        """Calls as a client does, which repeats the call if the shard is torn; the first attempt repairs it."""
        if error := self.refusal(transition):
            assert "TORN" in str(error)
            transition(self)

    @property
    def torn(self) -> bool:
        return self.db.hget(self.keys.meta, "torn") == b"1"

    def gather(self) -> dict[str, Any]:
        """Returns the contents of the shard, apart from times, turn numbers and tags."""
        snapshot = self.check()
        fixed = snapshot.fixed
        stored = dict(zip(snapshot.records, self.db.mget(map(self.keys.task, snapshot.records)), strict=True))  # type: ignore[arg-type]  # the client is synchronous
        freed = {tenant for tenant, until in fixed["THROTTLED"].items() if until / 1000 <= snapshot.now}
        sums = {tenant: flat(counts) for tenant, counts in snapshot.counts.items()}
        sums[""] = flat(Counts.unpack(fixed["META"]["total"]))
        return {
            "records": {task: (h.state, h.priority, h.attempt, h.tenant) for task, h in snapshot.records.items()},
            "bodies": {task: _but_for_deaths(record.unpack(packed)[1]) for task, packed in stored.items() if packed},
            "deliveries": {task: header.deliveries for task, header in snapshot.records.items()},
            "places": _places(snapshot),
            "order": {tenant: list(queue) for tenant, queue in snapshot.queues.items()},
            "ended": {who: {s: n for s, n in each.items() if s in ENDS} for who, each in sums.items()},
            "keys": {key: (task, ttl == -1) for key, (task, ttl) in snapshot.keys.items()},
            "cancels": {runtime: set(tasks) for runtime, tasks in snapshot.cancels.items()},
            "letters": {task for task, until in fixed["DEAD"].items() if until / 1e6 > snapshot.now},
            "drained": {tenant for tenant, until in fixed["DRAINED"].items() if until > snapshot.now},
            "groups": {group: set(ring) for group, ring in snapshot.groups.items()},
            "assigned": {runtime: set(names) for runtime, names in snapshot.assigned.items()},
            "leaving": {tenant: set(tasks) for tenant, tasks in snapshot.leaving.items()},
            "steal": {runtime: set(names) for runtime, names in snapshot.steal.items()},
            **{name: set(fixed[name]) for name in SETS},
            # A repair brings tenants from a ring into lines at once, and a turn when it meets them.
            "rings": {
                kind: set(snapshot.tenants_on_ring(kind)).union(freed, *snapshot.tenants_in_lines(kind).values())
                for kind in snapshot.numbers
            },
            "kinds": set(fixed["KIND_NUMBERS"]),
            "limits": {name: unpack_policy(packed) for name, packed in fixed["LIMIT_SETTINGS"].items()},
            "running": fixed["LIMIT_STARTED"],
            "THROTTLED": set(fixed["THROTTLED"]) - freed,
            **{name: fixed[name] for name in ("WATCHERS", "PROGRESS", "KEYED", "AGAIN")},
            "policies": {name: unpack_policy(packed) for name, packed in fixed["POLICY"].items()},
        }  # live tasks are left out of the counts, and the lanes of those in mailboxes: the audit has compared those


Transition = Callable[[PopulatedShard], Any]
SETS: Final = ("SUSPECTED", "LEASES", "KIND_OF", "FLEET", "SESSIONS", "GROUPS", "HOMES", "INDEXED", "RATES")
ENDS: Final = ("finished", "failed", "canceled")


def _but_for_deaths(body: bytes) -> bytes:
    return re.sub(rb'\n[^\n]*"(WorkerDied|fairactor.errors.InvalidPayload)","[^\n]*', b"", body)


def _places(snapshot: Snapshot) -> dict[str, str]:
    """Returns the place of each task: its state, or the runtime that holds it."""
    return {
        **dict.fromkeys(snapshot.due, "scheduled"),
        **dict.fromkeys(snapshot.fixed["HELD"], "deferred"),
        **{task: "queued" for queue in snapshot.queues.values() for task in queue},
        **{task: "suspect" for suspects in snapshot.suspects.values() for task in suspects},
        **{task: runtime for runtime, claims in snapshot.claims.items() for task in claims},
    }


# Transitions


def report(populated: PopulatedShard, task: str) -> Settlement:
    packed, verdict = populated.held[task], populated.held_as[task]
    header, body = record.unpack(packed)
    if verdict[0] == "R":
        packed = record.pack_retried(header, body, record.Attempt(header.attempt, 1e9, 0.5, "r", "ValueError", "no"))
    elif verdict[0] != "B":
        packed = record.pack_settled(verdict[0], header.rest, record.Outcome("a"), body)
    return settlement(task, 1, verdict, packed)


def settle(populated: PopulatedShard) -> None:
    """Settles claims with outcomes of all kinds, in one turn of a runtime that is stopping."""
    assert populated.turn("r", 2, 0, [report(populated, task) for task in HELD if HELD[task]])


def settle_and_claim(populated: PopulatedShard) -> None:
    assert populated.turn("r", 2, 8, [report(populated, task) for task in ("f", "fk", "fw", "x", "c", "r", "rc")])


def turn_of_two_kinds(room: tuple[int, int]) -> Transition:
    """Makes a turn of a runtime with room for so many coroutines and threads."""
    return lambda populated: populated.turn("r", 2, sum(room), room=room, permit=NO_SUSPECT)


def claim_with(permit: Permit, most: int) -> Transition:
    """Makes a turn that may claim a suspect."""
    return lambda populated: populated.claim("r", 2, 8, permit=pack_permit(permit, most, Emptying.RESTS))


def claim_the_rest_and_suspects(populated: PopulatedShard) -> None:
    populated.claim("r", 3, 100, permit=pack_permit(Permit.APART, 5, Emptying.NO))


def share(populated: PopulatedShard) -> None:
    """Makes a turn that says that a task no longer runs alone."""
    assert populated.turn("r", 2, 0, permit=pack_permit(Permit.SHARED, 2, Emptying.NO))


def crash(populated: PopulatedShard) -> None:
    populated.run(populated.shard.leave("r", crashed=True, deliveries=1, failed_ttl=3600, body=b"{}"))


def claim_the_rest(populated: PopulatedShard) -> None:
    """Claims all that waits: what the broken turn had claimed may be queued again."""
    populated.claim("r", 3, 100)


def send(populated: PopulatedShard) -> None:
    sent = populated.send_again(
        item("n1", "t", 6, flag="w"), item("n2", "new", key=KEY, flag="w"), item("n3", "v", key=KEY),
        item("n4", "t", due="+3600000"), item("n5", "d", key=pack_key("n5", 0)), item("t1", "t"), item("t2", "other"),
    )  # fmt: skip
    assert sent[5:] == ["", None]
    for found, expected in zip(sent, ["n1", "n2", "keyed", "n4", "n5"], strict=False):
        assert found in (expected, ""), "accepted by this call, or by one that broke off"


def replacing(key: bytes) -> bytes:
    """Returns a packed key with replace=True."""
    (window,) = struct.unpack(">d", key[:8])
    return struct.pack(">d", -1 - window) + key[8:]


def send_to_replace(populated: PopulatedShard) -> None:
    """Replaces tasks that wait, and what follows others; some tasks follow others from then on."""
    key, other = replacing(KEY), replacing(pack_key("xk", 0.0))
    populated.send_again(
        item("c1", "v", 5, key=key, due="+3600000"), item("c2", "t", key=key, body=b"[1]"), item("c3", "t", key=other),
        item("c4", "new", key=key), item("c5", "new", 6, key=key, body=b"[2]"), item("c6", "g", key=key),
        item("c7", "g", key=key, body=b"[3]"),
    )  # fmt: skip


def send_to_hold_back(populated: PopulatedShard) -> None:
    populated.send_again(item("n1", extra=HELD_BACK, flag="w"), item("n2", "new", extra=HELD_BACK, key=KEY), item("n3"))


def admit(populated: PopulatedShard) -> None:
    populated.run(populated.shard.call("holder/admit", "waits", "t1", "waits too", "nobody"))


def settle_and_admit(populated: PopulatedShard) -> None:
    """Settles claims with outcomes that release deferred tasks."""
    let_go = {"f": msgspec.msgpack.encode({"holder": "waits"}), "c": msgspec.msgpack.encode({"holder": "waits too"})}
    assert populated.turn(
        "r", 2, 8, [report(populated, task)._replace(extra=let_go.get(task, b"")) for task in ("f", "c", "x")]
    )


def send_too_many(populated: PopulatedShard) -> None:
    sent = populated.send_again(
        item("p1", "t", key=KEY), item("p2", "small", flag="+"), item("p3", "t", flag="+"), item("q1", "small"),
        item("q2", "m2"), item("q3", "t", key=KEY),
    )  # fmt: skip
    assert (sent[1], sent[3]) == (FULL, FULL)


def send_what_was_reserved(populated: PopulatedShard) -> None:
    populated.insist_on(item("p1", "small"), item("p2", "t", flag="+"), reservation="post")


def reserve(populated: PopulatedShard) -> None:
    assert populated.run(populated.shard.reserve("post", {"small": 0})) is None
    assert populated.run(populated.shard.reserve("other", {"t": 5, "small": 1})) is None
    assert populated.run(populated.shard.reserve("third", {"small": 1})) == "small"


def lower_the_default(populated: PopulatedShard) -> None:
    populated.configure("", concurrency=34)
    populated.run(populated.shard.review())


def purge(tenant: str, ttl: float) -> Transition:
    return lambda populated: populated.run(populated.shard.purge(tenant, ttl=ttl, body=b"{}"))


def configure(whose: str | bytes, **changes: Any) -> Transition:
    return lambda populated: populated.configure(whose, **changes)


def assign(runtime: str, serves: Assignment | None) -> Transition:
    return lambda populated: populated.run(populated.shard.assign(runtime, serves))


def cancel_many(*tasks: str) -> Transition:
    asked = [(task, "") for task in tasks]
    return lambda populated: populated.run(populated.shard.cancel_many(asked, ttl=60, body=b"{}"))


def cancel(task: str, ttl: float) -> Transition:
    return lambda populated: populated.run(populated.shard.cancel(task, ttl=ttl, body=b"{}"))


def stats(populated: PopulatedShard) -> None:
    populated.run(populated.shard.stats())
