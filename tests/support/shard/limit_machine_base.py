"""The base of the machine for limits: a shard beside plain books, time that passes, and checks after each step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec
from hypothesis.stateful import RuleBasedStateMachine

from fairactor._audit.audit import audit
from fairactor._audit.routes import SEPARATOR, limits_of
from fairactor._audit.snapshot import Snapshot
from fairactor._model.inbox import unpack_handed
from fairactor._model.record import Call, call_in, unpack
from fairactor._model.route import pack_route, read_route
from fairactor._model.wire import Assignment, Item, unpack_mark
from fairactor.testing import InvariantViolation

from .driver import KINDS as SLOTS
from .driver import ShardDriver
from .limit_book import APART, SLACK, Book, Taken
from .model_lanes import Kind
from .model_tasks import HANDED, Room

TENANTS: Final = ("a", "b", "c", "g1", "g2")
ACTORS: Final = ("work", "mail", "f")
LIMITS: Final = ("api", "db", *ACTORS)
KINDS: Final = (
    Kind({"work": "1", "mail": "1", "f": "1"}),
    Kind({"work": "1 aa"}),
    Kind({"mail": "1", "f": "1"}),
    Kind({"work": "1", "mail": "1"}, ["gpu"]),
    Kind({"work": "1 bb", "f": "1"}, ["default"]),
)
BACK: Final = frozenset("BUV")
"""Outcomes that take a start back."""


@attrs.define
class Claim:
    """A task that runs."""

    tenant: str
    turn: int
    record: bytes
    taken: Taken


@attrs.define
class Runtime:
    kind: Kind
    serves: Assignment | None
    turn: int = 0
    held: dict[str, Claim] = attrs.Factory(dict)
    missed: str = ""
    """A task that was handed over by a message that it did not receive."""
    heard: bool = False
    """Whether it has received a task since its last turn."""
    room: Room = None
    """The free slots that were left by its last turn, by kind; None: it has one kind."""
    free: int = 0
    """How many more it could start after its last turn."""
    rests: bool = False
    """Whether it went to sleep after its last turn."""
    wakes_at: float = 0.0
    """When it looks again, if nobody wakes it."""

    def serves_tenant(self, tenant: str) -> bool:
        serves = self.serves
        return serves is None or tenant in serves.assigned or tenant in serves.steal or "" in serves.steal


class LimitMachineBase(RuleBasedStateMachine):
    driver: ShardDriver
    snapshot: Snapshot
    fleet: Sequence[Kind]
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.shift = 0.0
        """Seconds that were made to pass."""
        self.runtimes: dict[str, Runtime] = {}
        self.alive: dict[str, str] = {}
        """Accepted tasks that have not ended, with their tenants."""
        self.canceling: set[str] = set()
        self.stale: set[str] = set()
        """Tenants that were held back when settings for each tenant changed: they need not notice at once."""
        self.listening = False
        self.sent = self.joined = 0
        self.log: list[str] = []

    # Time

    @property
    def now(self) -> float:
        return self.driver_now() + self.shift

    def driver_now(self) -> float:
        seconds, microseconds = self.driver.db.time()
        return float(seconds) + float(microseconds) / 1e6

    def let_pass(self, seconds: float) -> None:
        """Makes time pass for all that waits for a time, but leases."""
        db, keys = self.driver.db, self.driver.keys
        self.shift += seconds
        prefixed = [(f"{keys.meta}:lines:{kind}", 1e3) for kind in self.snapshot.lines]
        prefixed += [(keys.delayed(tenant), 1e3) for tenant in self.snapshot.delayed]
        fixed = (("LIMIT_DUES", 1e6), ("HELD_BACK", 1e3), ("RATES", 1e6), ("THROTTLED", 1e3), ("SCHEDULED", 1e3))
        for key, unit in (*prefixed, *((keys.fixed(name), unit) for name, unit in fixed)):
            found: Any = db.zrange(key, 0, -1, withscores=True)
            if moved := {member: at - seconds * unit for member, at in found if 0 < at < math.inf}:
                db.zadd(key, moved)
        for field, packed in self.snapshot.fixed["LIMIT_SETTINGS"].items():
            settings = msgspec.msgpack.decode(packed)
            if settings and settings.get("paused", -1) > 0:
                settings["paused"] = max(1, settings["paused"] - seconds * 1e3)
                db.hset(keys.fixed("LIMIT_SETTINGS"), field, msgspec.msgpack.encode(settings))

    # Tasks

    def body(self, actor: str, queue: str | None, limits: Mapping[str, float] | None) -> bytes:
        return msgspec.json.encode(Call(pack_route(actor, queue, 1, limits), [], {}))

    def costs_of(self, task: str, record: bytes) -> dict[str, float]:
        """Returns what a start of a task takes by limit, from its record and the lane in which it stood."""
        route = read_route(call_in(unpack(record)[1]).route)
        costs = dict(zip(route.limits, route.costs, strict=False))
        names = {name: costs.get(name, 1.0) for name in route.limits}
        known = route.actor in self.snapshot.fixed["ROUTES"]
        known |= any(route.actor in runtime.kind.actors for runtime in self.runtimes.values())
        if known and route.actor in self.snapshot.fixed["LIMIT_SETTINGS"]:  # if not, who claims it cannot run it
            names.setdefault(route.actor, 1.0)
        return names

    def queued(self) -> Iterator[tuple[str, str, str, float]]:
        """Yields the queued tasks: tenant, lane, task, place."""
        for (lane, tenant), mailbox in self.snapshot.mailboxes.items():
            for task, place in mailbox.items():
                yield tenant, lane, task, place

    def places(self) -> dict[str, list[str]]:
        """Returns the places of each task."""
        found: dict[str, list[str]] = {}
        snapshot = self.snapshot
        named: list[tuple[str, Mapping[str, Any]]] = [("deferred", snapshot.fixed["HELD"])]
        named += [(f"queue of {tenant}", mailbox) for (_, tenant), mailbox in snapshot.mailboxes.items()]
        named += [(f"suspects of {tenant}", mailbox) for tenant, mailbox in snapshot.suspects.items()]
        named += [(f"delayed of {tenant}", mailbox) for tenant, mailbox in snapshot.delayed.items()]
        named += [(f"claims of {runtime}", claims) for runtime, claims in snapshot.claims.items()]
        for name, tasks in named:
            for task in tasks:
                found.setdefault(task, []).append(name)
        return found

    def change_settings(self, name: str, own: Mapping[str, Any] | None, declared: Mapping[str, Any] | None) -> None:
        """Notes new settings of a limit."""
        was = self.book.is_per_tenant(name)
        self.book.change(name, self.now, own, declared)
        if was or self.book.is_per_tenant(name):
            self.stale |= self.snapshot.fixed["HELD_BACK"].keys()

    def ended(self, task: str) -> None:
        del self.alive[task]
        self.canceling.discard(task)

    def release(self, runtime: str, now: float) -> None:
        """Counts the claims of a runtime that has lost them."""
        for task, claim in self.runtimes[runtime].held.items():
            self.book.end(claim.taken)
            if task in self.canceling:
                self.ended(task)
        del self.runtimes[runtime]

    # Checks

    def check(self) -> None:
        """Compares the shard with the books after each step."""
        type(self).steps += 1
        self.snapshot = self.driver.snapshot()
        over = [field for field in self.book.lowered if field in self.book.running]
        self.book.lowered = set(over)
        self.stale &= self.snapshot.fixed["HELD_BACK"].keys()
        if found := audit(self.snapshot, lowered={*over, *TENANTS}):
            raise InvariantViolation(found)
        self._check_places()
        self._check_counts()
        self._check_sleepers()

    def _check_places(self) -> None:
        places = self.places()
        assert places.keys() == self.alive.keys(), f"lost or found: {places.keys() ^ self.alive.keys()}"
        for task, found in places.items():
            holder = [f"claims of {name}" for name, runtime in self.runtimes.items() if task in runtime.held]
            missed = [f"claims of {name}" for name, runtime in self.runtimes.items() if runtime.missed == task]
            assert len(found) == 1, f"{task} is in {found}"
            is_claimed = found[0].startswith("claims of ")
            assert (found if is_claimed else []) == holder + missed, (
                f"{task} is in {found}, and not in {holder}{missed}"
            )

    def _check_counts(self) -> None:
        book, now = self.book, self.snapshot.now + self.shift
        counted = {field: int(number) for field, number in self.snapshot.fixed["LIMIT_STARTED"].items()}
        assert counted == dict(book.running), f"{counted} are counted, {book.running} run"
        marks = {task: unpack_mark(mark) for claims in self.snapshot.claims.values() for task, mark in claims.items()}
        for runtime in self.runtimes.values():
            for task, claim in runtime.held.items():
                taken = {field.decode(): cost for field, cost in marks[task].taken.items()}
                assert taken == claim.taken, f"{task} took {taken}, and should have taken {claim.taken}"
        dues = self.snapshot.fixed["LIMIT_DUES"]
        for field in {*dues, *book.dues}:
            interval, owed = book.interval(field), book.owes(field, now)
            if interval:
                found = max(0.0, dues.get(field, 0.0) / 1e6 - self.snapshot.now) / interval
                room = 0.05 + 0.1 / interval
                assert abs(found - owed) < room, f"of {field!r} {found} is owed, and should be {owed}"
        for name in LIMITS:
            found_settings = msgspec.msgpack.decode(self.snapshot.fixed["LIMIT_SETTINGS"].get(name, b"\x80")) or {}
            effective = {**(found_settings.get("declared") or {}), **found_settings}
            for setting in ("concurrency", "rate", "per"):
                assert effective.get(setting) == book.settings(name).get(setting), f"{name}: {effective}"

    def lets_tenant(self, tenant: str, now: float) -> bool:
        """Whether a tenant's own settings let a task start."""
        policy, snapshot = self.snapshot.effective(tenant), self.snapshot
        if tenant in self.stale:
            return False
        if policy.get("paused") or snapshot.counts_of(tenant).started >= policy.get("concurrency", math.inf):
            return False
        rate, due = policy.get("rate"), snapshot.fixed["RATES"].get(tenant, 0.0)
        return not rate or due - rate[1] * (rate[2] - 1) <= (now - self.shift - SLACK) * 1e6

    def startable(self, kind: Kind, now: float) -> list[tuple[str, str, str]]:
        """Returns tasks that runtimes of a kind could start, as tenant, task and actor: one of a tenant in a line.

        Where a task at the head of a line takes more than is left, those behind it may wait.
        """
        heads: dict[tuple[tuple[str, ...], str], tuple[float, str]] = {}
        found = []
        for tenant, lane, task, place in self.queued():
            route = self.snapshot.routes.get(task, "")
            actor = route.split(SEPARATOR)[0]
            if not kind.serves(lane or actor + SEPARATOR) or not self.lets_tenant(tenant, now):
                continue
            limits = limits_of(lane or route, self.snapshot.fixed["LIMIT_SETTINGS"])
            head = heads.get((limits, tenant), (math.inf, ""))
            heads[limits, tenant] = min(head, (place, task))
        blocked = set()
        for (limits, tenant), (_, task) in heads.items():
            route = read_route(msgspec.json.decode(f'"{self.snapshot.routes[task]}"'))
            given = dict(zip(route.limits, route.costs, strict=False))
            costs = {name: given.get(name, 1.0) for name in limits}
            refused = list(self.book.refusals(costs, tenant, now, -SLACK))
            if not refused:
                found.append((limits, tenant, task, route.actor))
            elif any(APART not in field for field, _ in refused):
                blocked.add(limits)
        return [(tenant, task, actor) for limits, tenant, task, actor in found if limits not in blocked]

    def idle(self) -> set[str]:
        """Returns the runtimes that sleep, and that nobody has woken."""
        fixed, by_kind = self.snapshot.fixed, self.snapshot.kind_idle.values()
        return {*fixed["IDLE"], *fixed["IDLE_HOMES"], *(name for names in by_kind for name in names)}

    def woken(self, now: float) -> list[str]:
        """Returns the runtimes that slept after their last turn, and that somebody has woken, or a time."""
        idle = self.idle()
        return [name for name, own in self.runtimes.items() if own.rests and (name not in idle or own.wakes_at <= now)]

    def _check_sleepers(self) -> None:
        """Nobody sleeps who could start a task, unless it wakes in time."""
        now = self.snapshot.now + self.shift
        idle = self.idle()
        startable: dict[int, list[tuple[str, str, str]]] = {}
        for runtime in self.runtimes.values():
            if id(runtime.kind) not in startable:
                startable[id(runtime.kind)] = self.startable(runtime.kind, now)
        for kind in KINDS:
            for tenant, task, actor in startable.get(id(kind), ()):
                able = [
                    name
                    for name, runtime in self.runtimes.items()
                    if runtime.kind is kind and runtime.serves_tenant(tenant) and self.has_room(runtime, actor)
                ]
                looking = [self.runtimes[name].kind for name in self.woken(now)]
                if any(other is kind or (tenant, task, actor) in startable[id(other)] for other in looking):
                    continue  # it looks soon, and passes on what it cannot start
                asleep = [name for name in able if name in idle and self.runtimes[name].wakes_at > now + SLACK]
                assert not able or asleep != able, f"{able} sleep, and could start {task}"

    @staticmethod
    def has_room(runtime: Runtime, actor: str) -> bool:
        return runtime.room is None or runtime.room[actor == "f"] > 0

    # Runtimes

    def join(self, which: int, serves: Assignment | None) -> None:
        if len(self.runtimes) >= 4:
            return
        self.joined += 1
        name, kind = f"r{self.joined}", self.fleet[which % len(self.fleet)]
        self.runtimes[name] = Runtime(kind, serves)
        self.listen()
        self.driver.join(name, kind=kind, serves=serves)
        self.check()

    def runtime(self, number: int) -> str:
        if not self.runtimes:
            self.join(number, None)
        return list(self.runtimes)[number % len(self.runtimes)]

    def listen(self) -> None:
        if self.listening:
            self.driver.listen(*self.runtimes)

    def hear(self, sent: Sequence[Item], *, hears: bool) -> None:
        """Notes a task that was handed over."""
        for name, said in self.driver.hear() if self.listening else ():
            if said[:1] != b"k":
                continue
            handed, runtime = unpack_handed(said), self.runtimes[name]
            task = handed.id.decode()
            assert task in {item.id for item in sent}
            assert not self.costs_of(task, handed.record), f"{task} was handed over, and has limits"
            if hears:
                runtime.heard = True
                runtime.held[task] = Claim(self.alive[task], runtime.turn | HANDED, handed.record, Taken())
            else:
                runtime.missed = task

    def pack_room(self, room: Room) -> bytes:
        return SLOTS.pack(room) if room is not None else b""

    def note_starts(self, claims: Mapping[str, bytes], number: int, now: float) -> dict[str, Claim]:
        """Checks starts, in any order, and counts them."""
        taken = {task: Taken() for task in claims}
        costs = {task: self.costs_of(task, record) for task, record in claims.items()}
        for name in {name for each in costs.values() for name in each}:
            for task in sorted((task for task in costs if name in costs[task]), key=lambda task: -costs[task][name]):
                own, tenant = {name: costs[task][name]}, self.alive[task]
                refused = list(self.book.refusals(own, tenant, now, SLACK))
                assert not refused, f"{task} has started, but {refused}"
                taken[task].update(self.book.start(own, tenant, now))
                taken[task].at = now
        running = Counter(self.alive[task] for runtime in self.runtimes.values() for task in runtime.held)
        running += Counter(self.alive[task] for task in claims)
        running += Counter(self.alive[runtime.missed] for runtime in self.runtimes.values() if runtime.missed)
        for tenant in {self.alive[task] for task in claims}:
            policy = self.snapshot.effective(tenant)
            assert running[tenant] <= policy.get("concurrency", math.inf)
            assert not policy.get("paused")
        return {task: Claim(self.alive[task], number, record, taken[task]) for task, record in claims.items()}
