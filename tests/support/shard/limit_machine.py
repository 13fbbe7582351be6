"""Runs the scripts for limits beside plain books: what limits promise holds after every step, and all ends at last.

``python -m tests.support.shard.limit_machine URL STEPS`` takes at least this many steps on the server at URL, which
must be empty.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from fairactor._model.record import call_in, unpack
from fairactor._model.route import read_route
from fairactor._model.wire import Assignment, Settlement

from .driver import ShardDriver, item, settlement
from .limit_changes import LimitChanges
from .limit_machine_base import BACK, KINDS, Claim, Runtime
from .limit_operations import DERIVED, DERIVED_PREFIXES, OPERATIONS, Operation
from .model_tasks import Room
from .state_machine_base import packed_key


class LimitMachine(LimitChanges):
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

    def turn(self, who: int, want: int, ended: list[tuple[int, str, int]], room: Room) -> None:
        name = self.runtime(who)
        held = list(self.runtimes[name].held)
        chosen = {held[which % len(held)]: (state, ms) for which, state, ms in ended} if held else {}
        self.turn_of(name, want, chosen, room)

    def finish(self, who: int, want: int, room: Room) -> None:
        name = self.runtime(who)
        self.turn_of(name, want, dict.fromkeys(self.runtimes[name].held, ("F", 0)), room)

    def verdicts(self, name: str, ended: dict[str, tuple[str, int]]) -> list[Settlement]:
        found = []
        for task, (state, _) in list(ended.items()):
            claim = self.runtimes[name].held[task]
            if state == "U" and self.actor_of(claim.record) in self.runtimes[name].kind.actors:
                ended[task] = "F", 0  # it has the actor
            verdict = "{}{}".format(*ended[task])
            letter = {"R": b"L", "B": b"L", "V": b"X"}.get(verdict[0], verdict[:1].encode())
            record = b"" if verdict[0] == "U" else letter + claim.record[1:]
            found.append(settlement(task, claim.turn, verdict, record))
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
        turn = self.driver.turn(name, runtime.turn, want, settle, heard=runtime.heard, room=room)
        assert turn is not None, "its lease is lost"
        assert turn.refused == []
        now = turn.now + self.shift
        returns = [task for task, (state, _) in ended.items() if state == "B" and task not in self.canceling]
        before_turn = self.snapshot
        self.snapshot = self.driver.snapshot() if ended else before_turn
        places = self.places() if ended else {}
        for task, (state, _) in ended.items():
            claim = runtime.held.pop(task)
            self.book.end(claim.taken, never_started=state in BACK)
            goes_back = state in "RBU" or (state == "V" and task in places)
            if not goes_back or (task in self.canceling):
                self.ended(task)
        self.snapshot = before_turn
        claims = dict(zip((task.decode() for task in turn.claims[::2]), turn.claims[1::2], strict=True))
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
        if runtime.room and self.has_suspect(claims):  # it is claimed whatever its kind, and waits for a slot
            runtime.room = (max(0, runtime.room[0]), max(0, runtime.room[1]))
        assert runtime.room is None or min(runtime.room) >= 0, (
            f"{name} has claimed more of a kind than it has slots: {runtime.room} are left"
        )
        foreign = [(task, record) for task, record in claims.items() if not self.can_run(runtime, record)]
        assert not foreign, f"{name}, {runtime.kind}, cannot run {foreign}"
        self.goes_on = turn.more or turn.unseen or bool(turn.suspects) or bool(returns)
        runtime.wakes_at = now if self.goes_on else now + turn.wait
        runtime.free, runtime.rests = want - taken, want > taken or bool(returns)
        self.check()
        self.goes_on = self.goes_on or name not in self.idle()  # woken by its own turn
        looks = any(
            self.runtimes[other].kind is runtime.kind for other in self.woken(now)
        )  # and passes on what it cannot start
        if taken < want and not self.goes_on and not looks:
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
        return call_in(unpack(record)[1]).actor

    def can_run(self, runtime: Runtime, record: bytes) -> bool:
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

    # Runtimes

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
        stored: Any = self.driver.db.keys(keys.meta + ":*")
        found = [key.decode() for key in stored]
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
        self.lift_all()
        for name in list(self.runtimes)[1:]:
            self.leave(list(self.runtimes).index(name))
        self.join(0, None)
        for _ in range(200):
            for name in list(self.runtimes):
                self.turn_of(name, 20, dict.fromkeys(self.runtimes[name].held, ("F", 0)), None)
            for task in self.snapshot.due:
                self.driver.make_due(task)
            self.maintain()
            self.let_time_pass(1000)
            if not self.alive:
                break
        assert not self.alive, f"never ended: {self.places()}"
        self.let_pass(1e6)
        self.maintain()
        self.check_kept()


def drive(url: str, steps: int) -> int:
    """Runs the machine until it has taken this many steps; returns the number of steps."""
    LimitMachine.driver, LimitMachine.steps = ShardDriver(url), 0
    how = settings(stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
    try:
        while (left := steps - LimitMachine.steps) > 0:
            examples = min(200, left // 100 + 1)  # with its end, an example takes about 100 steps
            run_state_machine_as_test(LimitMachine, settings=settings(how, max_examples=examples))
    finally:
        LimitMachine.driver.close()
    return LimitMachine.steps


if __name__ == "__main__":
    print(drive(sys.argv[1], int(sys.argv[2])))  # noqa: T201 - asked for on the command line
