"""Drives a shard on a real server from synchronous tests, and makes time pass for it."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import msgspec
import redis

from fairactor._audit.audit import audit
from fairactor._audit.snapshot import Snapshot, take_snapshot
from fairactor._model import record
from fairactor._model.counts import Counts
from fairactor._model.keys import Keys
from fairactor._model.lane import RuntimeKind, kind_of_runtime
from fairactor._model.wire import ANY_SUSPECT, Assignment, Item, PackedPolicy, Settlement, SlotKinds, Turn, turn_mark
from fairactor._server.connection import Server
from fairactor._store.plugin_lua import PluginLua
from fairactor._store.shard import Shard
from fairactor._util.link import MOST
from fairactor.errors import LeaseLost, MailboxFull
from fairactor.settings import FairBy
from fairactor.testing import InvariantViolation
from tests.support import servers

from .model_lanes import ALL, Kind
from .model_tasks import ENDED, FULL, LIVE, Room, Task, pack

KINDS: Final = SlotKinds([("c", []), ("t", ["f"])])
"""Two kinds of slots: threads for actor ``f``, and coroutines for all others."""

T = TypeVar("T")

ADMIT: Final = """-- @include lib/intact.lua
-- @include lib/counts.lua
-- @include lib/admit.lua
local admitted_now = 0
for _, id in ipairs(ARGV) do admitted_now = admitted_now + (admit(id) and 1 or 0) end
update_ring(arriving)
begin_writing()
write_these(later)
write_queues()
write_these(last)
save_counts()
save_shard()
return admitted_now
"""


HOLDER: Final = PluginLua(
    hooks=(("sent", "holder", "hold()"), ("ended", "holder", "if data then admit(data) end")),
    scripts=(("holder/admit", "holder", ADMIT),),
)
"""A plugin that defers tasks with `HELD_BACK` until a call of its script or the data of an ended task names them."""

HELD_BACK: Final = msgspec.msgpack.encode({"holder": True})


class SyncCalls:
    """Calls over a synchronous client, which never suspend."""

    def __init__(self, db: redis.Redis, where: str) -> None:
        self._db = db
        self.where = where
        self.topology = SimpleNamespace(cluster=False)

    def keys(self, key: str, epoch: int = 0) -> tuple[int | str, ...]:
        return (2, key, f"{key}:layout:{epoch}") if epoch else (1, key)

    async def execute(self, _key: str, *command: Any) -> Any:
        return self._db.execute_command(*command)


def sync_server(db: redis.Redis, where: str, *, flags: bool) -> Server:
    """Returns a server for a shard that is called without an event loop."""
    calls: Any = SyncCalls(db, where)
    return Server(calls, flags, functions=flags)


class ShardDriver:
    """Calls a shard on a real server without an event loop, and simulates the passing of time for it."""

    def __init__(self, url: str, *, namespace: str = "test", plugins: PluginLua = HOLDER) -> None:
        self.db = servers.client(url)
        self.flags = int(self.db.info()["redis_version"].split(".")[0]) >= 7
        self.keys = Keys(namespace)
        self.batch = 0
        self.permit = ANY_SUSPECT
        """What turns permit suspects if they do not say."""
        self.given_up: set[str] = set()
        """The tasks that the last step of the maintenance gave up."""
        self._ears = self.db.pubsub()
        self._subscribed: set[str] = set()
        self._server = sync_server(self.db, url, flags=self.flags)
        self.load_plugins(plugins)

    def load_plugins(self, plugins: PluginLua) -> None:
        """Replaces the shard by one with the scripts of these plugins."""
        self.shard = Shard(self._server, self.keys, patience=0, plugins=plugins)

    def run(self, transition: Coroutine[Any, Any, T]) -> T:
        """Runs a call of the shard and returns its result. No event loop is needed because the client never waits."""
        try:
            transition.send(None)
        except StopIteration as end:
            result: T = end.value
            return result
        raise AssertionError("the client waited")

    def close(self) -> None:
        self.db.flushall()
        self._ears.close()
        self.db.close()

    # Transitions

    def open(self, aging: float = 60.0, fair_by: FairBy | None = None) -> ShardDriver:
        self.db.flushall()
        self.run(self.shard.open(shards=None, aging=aging, fair_by=fair_by))
        return self

    def send(self, *items: Item, reservation: str = "") -> list[str | None]:
        """Returns, for each task, its id, '' if its id was sent before, or the id of the task that holds its key.

        The entry is None where another tenant has a task with that id, and FULL where the mailbox is full.
        """
        self.batch += 1
        return self.send_again(*items, reservation=reservation)

    def send_again(self, *items: Item, reservation: str = "") -> list[str | None]:
        """Sends the last batch again, as if its reply had been lost."""
        receipt = self.run(self.shard.send(items, "sender", self.batch, reservation=reservation))
        refused = {n: FULL if isinstance(error, MailboxFull) else None for n, error in receipt.refused.items()}
        return [refused.get(number, task) for number, task in enumerate(receipt.ids)]

    def insist_on(self, *items: Item, reservation: str = "") -> None:
        """Sends the last batch again, and checks that all are accepted, by this call or by one that broke off."""
        sent = self.send_again(*items, reservation=reservation)
        assert all(found in (each.id, "") for found, each in zip(sent, items, strict=True)), sent

    def join(self, *runtimes: str, lease: float = 3600.0, serves: Assignment | None = None, kind: Kind = ALL) -> None:
        for runtime in runtimes:
            if self.join_only(runtime, lease=lease, serves=serves, kind=kind):
                self.fill(runtime)

    def join_only(
        self, runtime: str, *, lease: float = 3600.0, serves: Assignment | None = None, kind: Kind = ALL
    ) -> bool:
        """Returns whether the ring of the runtime's kind has to be filled."""
        how: dict[str, Any] = {"lease": lease, "info": {"workers": 1}, "serves": serves}
        return self.run(self.shard.join(runtime, **how, kind=packed_kind(kind), unknown_ttl=600.0))

    def fill(self, runtime: str) -> None:
        while self.run(self.shard.fill(runtime)):
            pass

    def configure(self, whose: str | bytes, **changes: Any) -> PackedPolicy:
        return self.run(self.shard.configure(whose, changes))

    def turn(
        self,
        runtime: str,
        number: int,
        want: int = 0,
        settle: Iterable[Settlement] = (),
        *,
        heard: bool = False,
        permit: bytes | None = None,
        room: Room = None,
        most_bytes: int = MOST,
    ) -> Turn | None:
        """Returns None if the lease is lost. ``room`` is how many tasks of other actors and of ``f`` could start."""
        how: dict[str, Any] = {"received": heard, "permit": permit or self.permit, "most_bytes": most_bytes}
        if room is not None:
            how["slots"] = KINDS.pack(room)
        try:
            return self.run(self.shard.turn(runtime, number, lease=3600.0, want=want, settle=list(settle), **how))
        except LeaseLost:
            return None

    def claim(
        self,
        runtime: str,
        number: int,
        want: int,
        settle: Iterable[Settlement] = (),
        *,
        permit: bytes | None = None,
    ) -> list[str]:
        """Returns the ids of the tasks that a turn claims."""
        turn = self.turn(runtime, number, want, settle, permit=permit)
        assert turn is not None
        return [task_id.decode() for task_id in turn.claims[::2]]

    def maintain(self, *, deliveries: int = 5, failed_ttl: float = 3600.0, limit: int = 150) -> bool:
        """Returns whether there is more to do."""
        done = self.run(self.shard.maintain(deliveries=deliveries, failed_ttl=failed_ttl, body=b"{}", limit=limit))
        self.given_up = {task_id.decode() for task_id in done.given_up}
        return done.more

    # Subscribing on behalf of runtimes

    def listen(self, *runtimes: str) -> None:
        """Subscribes to the channels of these runtimes only, and drops the messages so far."""
        self._ears.subscribe("a channel of its own", *map(self.keys.inbox, runtimes))
        if no_more := self._subscribed - set(runtimes):
            self._ears.unsubscribe(*map(self.keys.inbox, no_more))
        self._subscribed = set(runtimes)
        self.hear()

    def hear(self) -> list[tuple[str, bytes]]:
        """Returns the messages since the last call, as (runtime, message)."""
        said: list[tuple[str, bytes]] = []
        if self._ears.subscribed:
            self._ears.ping("now")
            while (message := self._ears.get_message(timeout=5)) and message["type"] != "pong":
                if message["type"] == "message":
                    runtime = message["channel"].decode().removeprefix(self.keys.inbox(""))
                    said.append((runtime, message["data"]))
            assert message is not None, "no answer to a ping"
        return said

    # Inspecting

    def snapshot(self) -> Snapshot:
        return self.run(take_snapshot(self.shard))

    def check(self, **allowed: Any) -> Snapshot:
        """Takes a snapshot and audits it; raises InvariantViolation if the audit finds anything."""
        snapshot = self.snapshot()
        if found := audit(snapshot, **allowed):
            raise InvariantViolation(found)
        return snapshot

    # The passing of time

    def make_due(self, task_id: str, at: int = 1) -> None:
        """Makes a scheduled task due."""
        packed = self.db.get(self.keys.task(task_id))
        assert isinstance(packed, bytes)
        tenant = record.unpack(packed)[0].tenant
        self.db.zadd(self.keys.delayed(tenant), {task_id: at}, xx=True)
        self.schedule(tenant)

    def schedule(self, tenant: str) -> None:
        """Schedules a tenant for the first of its delayed tasks."""
        found: Any = self.db.zrange(self.keys.delayed(tenant), 0, 0, withscores=True)
        self.db.zadd(self.keys.fixed("SCHEDULED"), {tenant: found[0][1]})

    def let_start(self, tenant: str, starts: float = 1.0) -> None:
        """Makes as much time pass as a rate of one start an hour needs to allow this many starts."""
        rates, throttled = self.keys.fixed("RATES"), self.keys.fixed("THROTTLED")
        if self.db.zscore(rates, tenant) is not None:
            self.db.zincrby(rates, -starts * 3.6e9 - 1e6, tenant)
        if self.db.zscore(throttled, tenant) is not None:
            self.db.zincrby(throttled, -starts * 3.6e6 - 1e3, tenant)

    def set_back(self, seconds: float) -> None:
        """Makes the server's clock look as if it had been set back: the last stamp is ahead of it by that much."""
        self.db.hset(self.keys.meta, "stamp", int(self.now() * 1e6 + seconds * 1e6))

    def now(self) -> float:
        """Returns the shard's time, in unix seconds."""
        return self.snapshot().now

    @property
    def behind(self) -> int:
        """The ms by which the shard believes that the server's clock was set back."""
        found: Any = self.db.hget(self.keys.meta, "behind")
        return int(found or 0) // 1000

    def lapse(self, runtime: str) -> None:
        """Makes a lease run out."""
        self.db.zadd(self.keys.fixed("LEASES"), {runtime: 1_000}, xx=True)

    def outlive(self, tenant: str) -> None:
        """Makes the retention of a tenant's totals run out."""
        packed = self.db.hget(self.keys.fixed("COUNTS"), tenant)
        assert isinstance(packed, bytes)
        self.db.hset(self.keys.fixed("COUNTS"), tenant, packed[:-4] + (1).to_bytes(4, "big"))
        self.db.zadd(self.keys.fixed("DRAINED"), {tenant: 1}, xx=True)

    def expire(self, task_id: str) -> None:
        """Makes the retention of a settled task's record run out."""
        self.db.delete(self.keys.task(task_id))
        indexes = [key for kind in ("dead-of", "dead-by") for key in self.db.scan_iter(f"{self.keys.meta}:{kind}:*")]
        for key in (self.keys.fixed("DEAD"), *indexes):
            self.db.zadd(key, {task_id: 1}, xx=True)

    def forget_key(self, tenant: str, key: str) -> None:
        """Makes the window of a deduplication key run out."""
        assert self.db.delete(f"{self.keys.meta}:key:{len(tenant.encode())}:{tenant}{key}")


@contextmanager
def open_shard(url: str, *, aging: float = 60.0) -> Iterator[ShardDriver]:
    """Yields a driver of an open shard; empties the server afterwards."""
    made = ShardDriver(url)
    try:
        yield made.open(aging)
    finally:
        made.close()


def item(task_id: str, tenant: str = "t", priority: int = 3, **rest: Any) -> Item:
    """Makes a task to send; ``rest`` may set due, flag, body and key."""
    return Item(task_id, tenant, priority, **{"due": "", "flag": "", "body": b"{}"} | rest)


def packed_kind(kind: Kind) -> RuntimeKind:
    """Packs what runtimes can run."""
    said = {msgspec.json.decode(f'"{actor}"'): said.partition(" ") for actor, said in kind.actors.items()}
    versions = {actor: int(version) for actor, (version, _, _) in said.items()}
    signatures = {actor: signature for actor, (_, _, signature) in said.items() if signature}
    return kind_of_runtime(versions, None if kind.queues is None else sorted(kind.queues), signatures)


def outcome(task_id: str, turn: int, verdict: str = "F3600000", tenant: str = "t", seconds: float = 0.0) -> Settlement:
    """Makes a report on a claim, with its record."""
    letter = "L" if verdict[0] in "RB" else verdict[0]
    return settlement(task_id, turn, verdict, pack(letter.encode(), Task(task_id, tenant, 3, b"{}", "")), seconds)


def settlement(task_id: str, turn: int, verdict: str, record: bytes, seconds: float = 0.0) -> Settlement:
    """Makes a report on a claim; ``verdict`` is the letter of a state, followed by ms."""
    return Settlement(task_id, turn_mark(turn), verdict[0], int(verdict[1:] or 0), record, seconds)


def flat(counts: Counts) -> dict[str, int]:
    """Converts counts to the form that the model uses."""
    named = {f"live at {priority}": number for priority, number in counts.by_priority.items()}
    rest = {state: getattr(counts, state) for state in (*LIVE, *ENDED.values())}
    return {state: number for state, number in (named | rest).items() if number}
