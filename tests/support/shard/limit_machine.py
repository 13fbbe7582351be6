"""Runs the scripts for limits beside plain books: what limits promise holds after every step, and all ends at last.

``python -m tests.support.shard.limit_machine URL STEPS`` takes at least this many steps on the server at URL, which
must be empty.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from fairactor._model.lane import text_in_json
from fairactor._model.limit import limit_changes
from fairactor._model.wire import GROUP_MARK, Assignment, Settlement

from .driver import ShardDriver, item, settlement
from .limit_machine_base import ACTORS, BACK, KINDS, LIMITS, TENANTS, Claim, LimitMachineBase, Runtime
from .model_tasks import Room
from .state_machine_base import packed_key

HOUR: Final = 3_600_000  # ms
SETTINGS: Final[Sequence[dict[str, Any]]] = (
    {"concurrency": 1}, {"concurrency": 2}, {"concurrency": 3, "per": "tenant"}, {"concurrency": 1, "per": "tenant"},
    {"concurrency": None}, {"per": None}, {"per": "tenant"}, {"rate": "60/h", "burst": 5}, {"rate": "6/h", "burst": 2},
    {"rate": "60/h", "burst": 3, "per": "tenant"}, {"rate": "4/h"}, {"rate": None}, {"rate": math.inf},
    {"concurrency": math.inf}, {"concurrency": None, "rate": None, "per": None}, {"rate": "200/h"},
)  # fmt: skip
DECLARED: Final[Sequence[dict[str, Any]]] = (
    {}, {"concurrency": 1}, {"concurrency": 2, "per": "tenant"}, {"rate": "60/h", "burst": 2}, {"rate": "6/h"},
    {"concurrency": 1, "rate": "60/h"},
)  # fmt: skip
POLICIES: Final[Sequence[dict[str, Any]]] = (
    {"concurrency": 1}, {"concurrency": 2}, {"concurrency": None}, {"rate": ["60/h", 6e7, 2]}, {"rate": None},
    {"rate": None}, {"paused": True}, {"paused": None}, {"paused": None}, {"weight": 3.0}, {"weight": None},
    {"group": "g"}, {"group": None}, {"group": "h"},
    dict.fromkeys(("concurrency", "weight", "rate", "paused", "group")),
)  # fmt: skip
NO_POLICY: Final = POLICIES[-1]
DERIVED: Final = (
    "RING", "LIMIT_STARTED", "LIMIT_CLOCKS", "HELD_BACK", "LANES", "THROTTLED", "GROUPS", "COUNTS", "IDLE",
)  # fmt: skip
DERIVED_PREFIXES: Final = ("lines:", "lines-of:", "line:", "line-groups:", "line-group:", "lanes-of:", "in-lane:", "ring:")
Operation = tuple[str, tuple[Any, ...]]

pick = st.integers(0, 999)
tenants, limit_names, actors = st.sampled_from(TENANTS), st.sampled_from(LIMITS), st.sampled_from(ACTORS)
costs = st.dictionaries(st.sampled_from(LIMITS[:3]), st.sampled_from([1, 1, 1, 2, 5, 0.5]), max_size=2)
outcomes = st.lists(
    st.tuples(pick, st.sampled_from([*"FFFFFFXCRRBUV"]), st.sampled_from([0, 0, HOUR])), min_size=0, max_size=6
)
rooms = st.sampled_from([None, None, None, (2, 0), (1, 2), (0, 1), (6, 3)])
wants = st.sampled_from([0, 1, 2, 5, 5, 20])
serves = st.sampled_from([
    None, None, None, None, Assignment(["a", "b"], [""]), Assignment(["a", "g1"], []), Assignment(["b"], ["c"]),
])  # fmt: skip


def operations(share: int, name: str, *arguments: st.SearchStrategy[Any]) -> list[st.SearchStrategy[Any]]:
    return [st.tuples(st.just(name), st.tuples(*arguments)) for _ in range(share)]


OPERATIONS: Final = [
    *operations(
        8, "send", st.lists(tenants, min_size=1, max_size=3), actors, st.sampled_from([None, None, None, "gpu"]), costs,
        st.sampled_from([1, 3, 3, 6]), st.sampled_from(["", "", "", "", "+20"]),
        st.sampled_from([("", False), ("", False), ("", False), ("k", False), ("k", True)]), st.integers(1, 3),
    ),
    *operations(2, "send_one", tenants, actors, st.booleans()),
    *operations(12, "turn", pick, wants, outcomes, rooms),
    *operations(5, "finish", pick, wants, rooms),
    *operations(1, "turn_again", pick),
    *operations(6, "awaken"),
    *operations(5, "configure", limit_names, st.sampled_from(SETTINGS)),
    *operations(1, "remove", limit_names),
    *operations(2, "pause", limit_names, st.sampled_from(["", "", *TENANTS]), st.sampled_from(["-1", "60000", "600000"])),
    *operations(3, "resume", limit_names, st.sampled_from(["", "", *TENANTS])),
    *operations(2, "declare", actors, st.sampled_from(DECLARED)),
    *operations(3, "charge", pick, pick, limit_names, st.sampled_from([0, 1, 4, 30])),
    *operations(1, "charge_late", limit_names),
    *operations(4, "policy", tenants, st.sampled_from(POLICIES)),
    *operations(1, "policy_of_group", st.sampled_from("gh"), st.sampled_from([None, 0.5, 4.0])),
    *operations(2, "cancel", pick),
    *operations(1, "purge", tenants),
    *operations(3, "join", pick, serves),
    *operations(1, "assign", pick, serves),
    *operations(2, "leave", pick),
    *operations(2, "die", pick),
    *operations(4, "let_time_pass", st.sampled_from([1, 30, 70, 600, 4000, 20000])),
    *operations(2, "maintain"),
    *operations(1, "mend"),
    *operations(1, "damage", pick, pick),
    *operations(1, "corrupt", pick),
    *operations(1, "make_due", pick),
]  # fmt: skip


class LimitMachine(LimitMachineBase):
    """Does random things with limits, and checks the shard after each."""

    @initialize(
        listening=st.booleans(),
        fleet=st.lists(st.integers(0, len(KINDS) - 1), min_size=1, max_size=3),
        groups=st.booleans(),
        first=st.sampled_from([0, 1, 2]),
    )
    def open(self, listening: bool, fleet: list[int], groups: bool, first: int) -> None:
        self.fleet = [KINDS[0], *(KINDS[which] for which in fleet)]
        self.snapshot = self.driver.open().snapshot()
        self.listening = listening
        self.driver.listen()
        for tenant in ("g1", "g2") if groups else ():
            self.policy(tenant, {"group": "g"})
        for which in range(first):
            self.join(which, None)

    @rule(operation=st.one_of(*OPERATIONS))
    def do(self, operation: Operation) -> None:
        """Runs one operation. With a rule for each, hypothesis would leave most of them out of most runs."""
        name, arguments = operation
        self.log.append(f"{name}{arguments}")
        getattr(self, name)(*arguments)

    # Sending

    def send(
        self,
        tenants: Sequence[str],
        actor: str,
        queue: str | None,
        costs: dict[str, float],
        priority: int,
        due: str,
        key: tuple[str, bool],
        number: int,
        *,
        hears: bool = True,
    ) -> None:
        body, items = self.body(actor, queue, costs or None), []
        packed = packed_key(key[0], window=False, replace=key[1])
        for tenant in [tenant for tenant in tenants for _ in range(number)]:
            self.sent += 1
            items.append(item(f"{tenant}:{self.sent}", tenant, priority, due=due, body=body, key=packed))
        found = self.driver.send(*items)
        for each, answer in zip(items, found, strict=True):
            if answer == each.id:
                self.alive[each.id] = each.tenant
        self.hear(items, hears=hears)
        assert self.driver.send_again(*items) == found
        self.check()

    def send_one(self, tenant: str, actor: str, hears: bool) -> None:
        self.send([tenant], actor, None, {}, 3, "", ("", False), 1, hears=hears)

    # Turns

    def runtime(self, number: int) -> str:
        if not self.runtimes:
            self.join(number, None)
        return list(self.runtimes)[number % len(self.runtimes)]

    def turn(self, who: int, want: int, ended: list[tuple[int, str, int]], room: Room) -> None:
        name = self.runtime(who)
        held = list(self.runtimes[name].held)
        chosen = {held[which % len(held)]: (state, ms) for which, state, ms in ended} if held else {}
        self.turn_of(name, want, chosen, room)

    def finish(self, who: int, want: int, room: Room) -> None:
        name = self.runtime(who)
        self.turn_of(name, want, {task: ("F", 0) for task in self.runtimes[name].held}, room)

    def verdicts(self, name: str, ended: dict[str, tuple[str, int]]) -> list[Settlement]:
        found = []
        for task, (state, ms) in list(ended.items()):
            claim = self.runtimes[name].held[task]
            if state == "U" and self.actor_of(claim.record) in self.runtimes[name].kind.actors:
                ended[task] = state, ms = "F", 0  # it has the actor
            letter = {"R": b"L", "B": b"L", "V": b"X"}.get(state, state.encode())
            record = b"" if state == "U" else letter + claim.record[1:]
            found.append(settlement(task, claim.turn, f"{state}{ms}", record))
        return found

    def turn_of(self, name: str, want: int, ended: dict[str, tuple[str, int]], room: Room) -> None:
        """Takes turns as a dispatcher does: again if there was more to claim and slots are free."""
        if room is not None:
            want = min(want, sum(room))
        left = self.turn_once(name, want, ended, room)
        for _ in range(8):
            if name not in self.runtimes or left <= 0 or not self.goes_on:
                return
            left = self.turn_once(name, left, {}, self.runtimes[name].room)

    def turn_once(self, name: str, want: int, ended: dict[str, tuple[str, int]], room: Room) -> int:
        """Takes a turn. Returns how many more it could start."""
        runtime = self.runtimes[name]
        want = max(0, min(want, 30 - len(runtime.held)))
        settle = self.verdicts(name, ended)
        runtime.turn += 1
        before = self.now
        turn = self.driver.turn(name, runtime.turn, want, settle, heard=runtime.heard, room=room)
        assert turn is not None, "its lease is lost"
        assert turn.refused == []
        now = turn.now + self.shift
        returns = [task for task, (state, _) in ended.items() if state == "B"]
        self.snapshot_before, self.snapshot = self.snapshot, self.driver.snapshot() if ended else self.snapshot
        places = self.places() if ended else {}
        for task, (state, _) in ended.items():
            claim = runtime.held.pop(task)
            self.book.end(claim.taken, before, never_started=state in BACK)
            goes_back = state in "RBU" or (state == "V" and task in places)
            if not goes_back or (task in self.canceling):
                self.ended(task)
        self.snapshot = self.snapshot_before
        claims = dict(zip((task.decode() for task in turn.claims[::2]), turn.claims[1::2], strict=True))
        taken = 0
        if runtime.missed:
            missed = runtime.missed
            runtime.missed = ""
            want = max(0, want - 1)
            runtime.held[missed] = Claim(self.alive[missed], runtime.turn, claims.pop(missed), {})
        runtime.heard = False
        started = self.note_starts(claims, runtime.turn, now)
        taken = len(claims)
        runtime.held |= started
        assert taken <= want
        assert not (returns and claims), "a turn that gives back claims nothing"
        actors = [self.actor_of(record) for record in claims.values()]
        capped = sum(actor == "f" for actor in actors)
        runtime.room = None if room is None else (room[0] - len(claims) + capped, room[1] - capped)
        assert runtime.room is None or min(runtime.room) >= 0 or self.has_suspect(claims)
        foreign = [(task, record) for task, record in claims.items() if not self.can_run(runtime, record)]
        assert not foreign, f"{name}, {runtime.kind}, cannot run {foreign}"
        self.goes_on = turn.more or turn.unseen or bool(turn.suspects) or bool(returns)
        runtime.wakes_at = now if self.goes_on else now + turn.wait
        runtime.free, runtime.rests = want - taken, want > taken or bool(returns)
        self.check()
        self.goes_on = self.goes_on or name not in self.idle()  # woken by its own turn
        if taken < want and not self.goes_on:
            missed_tasks = [
                task
                for tenant, task, actor in self.startable(runtime.kind, now)
                if runtime.serves_tenant(tenant) and self.has_room(runtime, actor)
            ]
            assert not missed_tasks, f"{name} could start {want - taken} more, and {missed_tasks} may start"
        return want - taken

    def awaken(self) -> None:
        """Makes all runtimes look that were woken, and those that they wake."""
        for _ in range(30):
            woken = self.woken(self.snapshot.now + self.shift)
            if not woken:
                return
            runtime = self.runtimes[woken[0]]
            self.turn_of(woken[0], runtime.free, {}, runtime.room)
        raise AssertionError(f"{woken} are woken again and again")

    def has_suspect(self, claims: dict[str, bytes]) -> bool:
        return any(record[1] for record in claims.values())

    def actor_of(self, record: bytes) -> str:
        from fairactor._model.record import call_in, unpack

        return call_in(unpack(record)[1]).actor

    def can_run(self, runtime: Runtime, record: bytes) -> bool:
        from fairactor._model.record import call_in, unpack
        from fairactor._model.route import read_route

        route = read_route(call_in(unpack(record)[1]).route)
        queues = runtime.kind.queues
        is_known = route.actor in runtime.kind.actors or route.actor not in self.snapshot.fixed["ROUTES"]
        return is_known and (queues is None or route.queue in queues)  # an actor that nobody has is not known

    def turn_again(self, who: int) -> None:
        """Repeats the last turn of a runtime, and a turn before it."""
        name = self.runtime(who)
        runtime = self.runtimes[name]
        if not runtime.turn:
            return
        again = self.driver.turn(name, runtime.turn, 5)
        assert again is not None
        assert {task.decode() for task in again.claims[::2]} == {
            task for task, claim in runtime.held.items() if claim.turn == runtime.turn
        }
        late = self.driver.turn(name, runtime.turn - 1, 5)
        assert late is not None
        assert late.claims == []
        self.check()

    # Limits

    def change_limit(self, name: str, changes: dict[str, Any], *, tenant: str = "", pause: str = "") -> None:
        self.driver.run(self.driver.shard.change_limit(text_in_json(name), changes, tenant=tenant, pause=pause))

    def configure(self, name: str, given: dict[str, Any]) -> None:
        changes = limit_changes(given)
        self.change_limit(name, changes)
        own = {**self.book.own.get(name, {}), **changes}
        own = {setting: list(value) if isinstance(value, tuple) else value for setting, value in own.items()}
        own = {setting: value for setting, value in own.items() if value is not None}
        self.change_settings(name, own, self.book.declared.get(name))
        self.check()

    def remove(self, name: str) -> None:
        self.driver.run(self.driver.shard.reset_limit(text_in_json(name)))
        self.change_settings(name, None, self.book.declared.get(name))
        self.book.resume(name)
        self.check()

    def pause(self, name: str, tenant: str, pause: str) -> None:
        field = f"{name}\x1f{tenant}" if tenant else name
        self.book.paused[field] = math.inf if pause == "-1" else self.now + int(pause) / 1000
        self.change_limit(name, {}, tenant=tenant, pause=pause)
        self.check()

    def resume(self, name: str, tenant: str) -> None:
        self.book.paused.pop(f"{name}\x1f{tenant}" if tenant else name, None)
        self.change_limit(name, {"paused": None}, tenant=tenant)
        self.check()

    def declare(self, actor: str, given: dict[str, Any]) -> None:
        changes = limit_changes(given)
        self.driver.run(self.driver.shard.declare_limits({actor: changes}))
        declared = {setting: list(value) if isinstance(value, tuple) else value for setting, value in changes.items()}
        self.change_settings(actor, self.book.own.get(actor), declared)
        self.check()

    def charge(self, who: int, which: int, name: str, used: float) -> None:
        runtime = self.runtime(who)
        held = self.runtimes[runtime].held
        if not held:
            return
        task = list(held)[which % len(held)]
        claim = held[task]
        for _ in range(2):
            found = self.driver.run(self.driver.shard.charge(runtime, task, text_in_json(name), float(used)))
            assert found == self.book.charge(claim.taken, name, claim.tenant, float(used), self.now)
            self.check()

    def charge_late(self, name: str) -> None:
        """Charges for a task that does not run here."""
        runtime = self.runtime(0)
        waiting = [task for task in self.alive if task not in self.runtimes[runtime].held]
        task = waiting[0] if waiting and not self.runtimes[runtime].missed else "gone"
        assert self.driver.run(self.driver.shard.charge(runtime, task, text_in_json(name), 7.0)) == 0
        self.check()

    # Tenants

    def policy(self, tenant: str, changes: dict[str, Any]) -> None:
        self.driver.configure(tenant, **changes)
        self.check()

    def policy_of_group(self, group: str, weight: float | None) -> None:
        self.driver.configure((GROUP_MARK + group).encode(errors="surrogateescape"), weight=weight)
        self.check()

    def cancel(self, which: int) -> None:
        if not self.alive:
            return
        task = list(self.alive)[which % len(self.alive)]
        state = self.driver.run(self.driver.shard.cancel(task, "", ttl=0, body=b"canceled"))
        if state == "started":
            self.canceling.add(task)
        else:
            self.ended(task)
            self.end_followers(task)
        self.check()

    def end_followers(self, *tasks: str) -> None:
        pass

    def purge(self, tenant: str) -> None:
        running = {task for runtime in self.runtimes.values() for task in (*runtime.held, runtime.missed)}
        gone = [task for task, own in self.alive.items() if own == tenant and task not in running]
        number = self.driver.run(self.driver.shard.purge(tenant, ttl=0, body=b"canceled"))
        for task in gone:
            self.ended(task)
        assert number == len(gone)
        self.check()

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

    def assign(self, which: int, serves: Assignment | None) -> None:
        name = self.runtime(which)
        self.driver.run(self.driver.shard.assign(name, serves))
        self.runtimes[name].serves = serves
        self.runtimes[name].wakes_at = 0.0
        self.check()

    def leave(self, which: int) -> None:
        if self.runtimes:
            name = self.runtime(which)
            self.driver.run(self.driver.shard.leave(name))
            self.forget(name)

    def forget(self, name: str) -> None:
        runtime = self.runtimes[name]
        if runtime.missed in self.canceling:
            self.ended(runtime.missed)
        self.release(name, self.now)
        self.listen()
        self.check()

    def die(self, which: int) -> None:
        if self.runtimes:
            name = self.runtime(which)
            self.driver.lapse(name)
            given_up: set[str] = set()
            while self.driver.maintain():
                given_up |= self.driver.given_up
            for task in given_up | self.driver.given_up:
                if task not in self.canceling:
                    self.alive.pop(task)
            self.forget(name)

    # Time and damage

    def let_time_pass(self, seconds: float) -> None:
        self.let_pass(seconds)
        self.check()

    def maintain(self) -> None:
        for _ in range(50):
            if not self.driver.maintain():
                break
        self.check()

    def make_due(self, which: int) -> None:
        if due := list(self.snapshot.due):
            self.driver.make_due(due[which % len(due)])
            self.check()

    def mend(self) -> None:
        self.driver.run(self.driver.shard.repair())
        self.check()

    def damage(self, which: int, part: int) -> None:
        """Deletes a key from which nothing but order follows, and repairs the shard."""
        keys = self.driver.keys
        names = [keys.fixed(name) for name in DERIVED]
        found = [key.decode() for key in self.driver.db.keys(keys.meta + ":*")]
        prefixes = [f"{keys.meta}:{prefix}" for prefix in DERIVED_PREFIXES]
        names += sorted(key for key in found if key.startswith(tuple(prefixes)))
        self.driver.db.delete(names[which % len(names)])
        self.log.append(names[which % len(names)])
        self.mend()

    def corrupt(self, which: int) -> None:
        """Damages the record of a task that waits, and repairs the shard: the task is lost."""
        waiting = sorted({*self.snapshot.records} & {task for _, _, task, _ in self.queued()})
        if waiting:
            task = waiting[which % len(waiting)]
            self.driver.db.set(self.driver.keys.task(task), b"?" * (which % 40))
            self.ended(task)
            self.mend()

    # The end

    def teardown(self) -> None:
        if not hasattr(self, "fleet") or sys.exc_info()[0]:
            return
        try:
            self.finish_all()
        finally:
            super().teardown()

    def finish_all(self) -> None:
        """Lifts all limits, and runs what is left."""
        for actor in ACTORS:
            self.declare(actor, {})
        for name in LIMITS:
            self.remove(name)
        for tenant in TENANTS:
            self.policy(tenant, NO_POLICY)
        for name in list(self.runtimes)[1:]:
            self.leave(list(self.runtimes).index(name))
        self.join(0, None)
        for _ in range(200):
            for name in list(self.runtimes):
                self.turn_of(name, 20, {task: ("F", 0) for task in self.runtimes[name].held}, None)
            for task in self.snapshot.due:
                self.driver.make_due(task)
            self.maintain()
            self.let_time_pass(1000)
            if not self.alive:
                break
        assert not self.alive, f"never ended: {self.places()}"
        self.let_pass(1e6)
        self.maintain()
        snapshot = self.snapshot
        for name in ("LIMIT_STARTED", "LIMIT_DUES", "LIMIT_CLOCKS", "HELD_BACK"):
            assert not snapshot.fixed[name], f"{name} keeps {snapshot.fixed[name]}"
        for found in (snapshot.lines, snapshot.lines_of, snapshot.line, snapshot.line_group, snapshot.line_groups):
            assert not found, f"lines are kept: {found}"
        left = {name for name, packed in snapshot.fixed["LIMIT_SETTINGS"].items() if packed != b"\x90"}
        assert left <= set(snapshot.fixed["ROUTES"]), f"settings are kept of {left}"


def drive(url: str, steps: int) -> int:
    """Runs the machine until it has taken this many steps; returns the number of steps."""
    LimitMachine.driver, LimitMachine.steps = ShardDriver(url), 0
    how = settings(stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
    try:
        while (left := steps - LimitMachine.steps) > 0:
            examples = min(200, left // 60 + 1)
            run_state_machine_as_test(LimitMachine, settings=settings(how, max_examples=examples))
    finally:
        LimitMachine.driver.close()
    return LimitMachine.steps


if __name__ == "__main__":
    print(drive(sys.argv[1], int(sys.argv[2])))  # noqa: T201 - asked for on the command line
