"""Runs the scripts against the model: every transition in any order, with hostile names, and an audit after each step.

``python -m tests.support.shard.state_machine URL STEPS`` takes at least this many steps on the server at URL, which
must be empty.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, reject, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from fairactor._model.wire import Assignment, Item, pack_permit
from fairactor._util.link import MOST
from fairactor.settings import FAIR_BY, FairBy

from .driver import ShardDriver
from .model import Assigned, Model
from .model_lanes import is_routed
from .model_ring import UndecidedError
from .model_rules import Rules, is_capped
from .model_suspects import FORBIDDEN, Permission
from .model_tasks import Room, Task, Verdict
from .operations import BODIES, HOUR, KINDS, OPERATIONS, RARE
from .state_machine_base import packed_key, pairs
from .state_machine_others import OtherOperations

AT_ONCE = 35
"""The most claims of a runtime: one script takes them back, so the model need not know which come first."""
FEW_BYTES = 60
"""The most bytes of records in the reply to some turns: those of two or three tasks."""


class ShardMachine(OtherOperations):
    """Drives a shard and the model side by side."""

    @initialize(
        step=st.sampled_from([60_000_000, 100, 0]),
        fair_by=st.sampled_from(FAIR_BY),
        groups=st.sampled_from(["", "", "ggg", "ghgh"]),
        home=st.sampled_from([None, None, (["t"], [""]), (["t", ":queue:"], []), (["a:b:{c}"], ["t"])]),
        listening=st.booleans(),
        one_kind=st.sampled_from([True, False, False]),
    )
    def open(self, step: int, fair_by: FairBy, groups: str, home: Assigned, listening: bool, one_kind: bool) -> None:
        self.model = Model(step, rules=Rules(fair_by == "time"))
        self.fleet = KINDS[:1] if one_kind else KINDS
        self.snapshot = self.driver.open(step / 1e6, fair_by).snapshot()
        self.listen(["first/0"] if listening else [])
        for tenant, group in enumerate(groups):
            self.configure(2 * tenant, {"group": group})
        self.join("first", home, 0)

    @rule(operation=st.one_of(*OPERATIONS))
    def do(self, operation: tuple[str, tuple[Any, ...]]) -> None:
        """Runs one operation. With a rule for each, hypothesis would leave most of them out of most runs."""
        name, arguments = operation
        try:
            getattr(self, name)(*arguments)
        except UndecidedError:
            reject()

    # Operations; they do nothing where they do not apply

    def send(
        self,
        batch: list[tuple[str, str, int, str, str, bytes, tuple[str, bool], bool]],
        reservation: str,
        hears: bool = True,
    ) -> None:
        tasks, packed = [], []
        for task_id, tenant, priority, due, watch, body, (key, replaces), window in batch:
            state, at = (
                ("scheduled", float(due) + self.driver.behind if due[0] != "+" else math.nan)
                if due
                else ("queued", 0.0)
            )
            stamp = at * 1000 if due else math.nan
            fitting = self.fitting(body)
            how: dict[str, Any] = {"key": key, "window": window and bool(key), "replaces": replaces and bool(key)}
            tasks.append(Task(task_id, tenant, priority, fitting, state, stamp, at, **how))
            packed.append(
                Item(task_id, tenant, priority, due, watch, fitting, packed_key(key, window, replace=replaces))
            )
        found = self.driver.send(*packed, reservation=reservation)
        flags, receiver = [item.flag for item in packed], self.receiver(packed)
        self.model.now = self.clock()
        to: dict[str, Any] = {"receiver": receiver, "choice": self.choice()}
        answers = self.model.send(tasks, flags, "sender", reservation, **to)
        assert found == answers
        self.tell(receiver, packed, hears=hears)
        assert self.driver.send_again(*packed, reservation=reservation) == answers
        self.compare()

    def reserve(self, own: str, rooms: dict[str, int]) -> None:
        assert self.driver.run(self.driver.shard.reserve(own, rooms)) == self.model.reserve(own, rooms)
        self.compare()

    def assign(self, who: int, serves: Assigned) -> None:
        self.assign_to(self.runtime(who), serves)

    def assign_to(self, runtime: str, serves: Assigned) -> None:
        known = self.driver.run(self.driver.shard.assign(runtime, serves and Assignment(*serves)))
        assert known is self.model.assign(runtime, serves)
        self.compare()

    def fill(self, tenant: str, number: int, priority: int) -> None:
        """Sends many new tasks of one tenant."""
        self.sent += number
        new = [(f"{self.sent - i}\0", tenant, 1 + (priority + i) % 6) for i in range(number)]
        self.send([(*task, "", "", BODIES[number % 2], ("", False), False) for task in new], "")

    def hand(self, tenant: str, priority: int, hears: bool, lead: str) -> None:
        """Sends a single task, most often while a runtime sleeps and listens, and nothing waits."""
        able = [runtime for runtime, lapsed in self.model.leases.items() if not lapsed]
        runtime = able[self.sent % len(able)] if able else ""
        if runtime and lead != "as it is":
            self.listen([*self.ears, runtime])
            for home in list(self.model.homes) if lead == "no homes" else ():
                self.assign_to(home, None)
            self.finish_all(runtime, 50, "F", keep=False)
            self.finish_all(runtime, 3, "F", keep=False)
        self.sent += 1
        self.send([(f"{self.sent}\0", tenant, priority, "", "", BODIES[0], ("", False), False)], "", hears)

    def change(self, changes: list[tuple[int, int, str, bool]]) -> None:
        """Sends tasks that replace others, or follow them."""
        if keyed := [key for key, (_, ended) in self.model.keys.items() if not ended]:
            batch = []
            for which, priority, due, window in changes:
                self.sent += 1
                tenant, key = keyed[which % len(keyed)]
                body = BODIES[which % len(BODIES)]
                batch.append((f"{self.sent}\0", tenant, priority, due, "", body, (key, True), window))
            self.send(batch, "")

    def hear(self, who: int) -> None:
        """Makes one runtime listen, or all, or none."""
        runtimes = list(self.model.leases)
        chosen = [[], runtimes, runtimes, runtimes[who % len(runtimes) :][:1] if runtimes else []]
        self.listen(chosen[who % 4])

    def turn(self, who: int, want: int, ended: list[tuple[int, str, bool, float]], room: Room) -> None:
        runtime = self.runtime(who)
        self.turn_of(runtime, want, self.verdicts(runtime, ended), room)

    def turn_of(
        self,
        runtime: str,
        want: int,
        verdicts: list[Verdict],
        room: Room = None,
        permission: Permission = FORBIDDEN,
    ) -> None:
        if self.model.lanes.kind_of.get(runtime) in self.model.filling:  # that comes before its first turn
            self.fill_ring(runtime)
        number = self.numbers[runtime] = self.numbers[runtime] + 1
        want = max(0, min(want, AT_ONCE - len(self.model.claims(runtime))))
        heard = runtime in self.heard
        self.heard.discard(runtime)
        if len(self.fleet) == 1:  # nothing may need a lane of its own
            verdicts = [v._replace(state="F") if v.state in "UV" else v for v in verdicts]
        if not self.model.lanes.routed:  # no task was sent with a route, so none is tried again with one
            verdicts = [v._replace(body=b"{}") if is_routed(v.body) else v for v in verdicts]
        settle = [self.settlement(verdict) for verdict in verdicts]
        most = FEW_BYTES if number % 4 == 0 else MOST
        permit = pack_permit(*permission)
        turn = self.driver.turn(runtime, number, want, settle, heard=heard, permit=permit, room=room, most_bytes=most)
        if runtime not in self.model.leases:
            assert turn is None
            self.compare()
            return
        assert turn is not None
        claims = pairs(turn)
        gives_back = any(verdict.state == "B" for verdict in verdicts) and self.gives_back(runtime, verdicts)
        want = 0 if gives_back else want
        missed = self.model.missed(runtime, heard=heard)
        want = max(0, want - bool(missed))  # a missed task occupies a worker
        how: dict[str, Any] = {"heard": heard, "permission": permission, "gives_back": gives_back, "room": room}
        how["moved"], how["most_bytes"], self.model.now = self.moved(), most, self.clock()
        refused, free, waits = self.model.turn(runtime, number, verdicts, want, list(claims), **how)
        assert [task_id.decode() for task_id in turn.refused] == refused
        assert turn.had == len(settle)
        is_full = sum(map(len, claims.values())) >= most
        assert not is_full or turn.more or not self.model.service.served
        assert turn.suspects == waits, f"{turn.suspects!r} and {waits!r}"
        assert turn.clock is not None
        advance = self.model.advance or turn.clock[1:3]
        assert turn.clock.before <= turn.clock.after
        assert turn.clock[1:3] == pytest.approx(advance, rel=1e-9, abs=1e-9)
        taken = len(claims) - bool(missed) - any(self.model.tasks[task_id].deliveries for task_id in claims)
        self.claimed += [(task_id, number) for task_id in claims]
        self.compare()
        assert claims == {task_id: self.model.tasks[task_id].record for task_id in claims}
        self.compare_outlook(turn, want, may_want_less=permission != FORBIDDEN)
        resting = {*self.snapshot.fixed["IDLE_HOMES"]}.union(*map(self.idle, self.snapshot.numbers))
        assert runtime not in resting or taken < free, "who has enough is not idle"
        if room is not None:
            common = [self.model.tasks[task] for task in claims]
            starting = [is_capped(task.body) for task in common if not task.deliveries]
            left = [room[kind] - starting.count(bool(kind)) for kind in (0, 1)]
            free_kinds = "".join(letter for letter, n in zip("ct", left, strict=True) if n > 0)
            noted = free_kinds.encode() if taken < free and not is_full else None
            assert self.snapshot.fixed["IDLE_SLOTS"].get(runtime) == noted

    def moved(self) -> list[str]:
        """Returns the tasks that the server has moved from the common lane to their own."""
        placed = [task for task in self.model.tasks.values() if task.state == "queued" and task.lane == ""]
        if len(self.fleet) == 1 or not placed:
            return []
        mailboxes = self.driver.snapshot().mailboxes.items()
        places = {task: lane for (lane, _), mailbox in mailboxes for task in mailbox}
        return [task.id for task in placed if places.get(task.id)]

    def claim_suspect(
        self,
        who: int,
        want: int,
        permission: Permission,
        ended: list[tuple[int, str, bool, float]],
        room: Room,
    ) -> None:
        runtime = self.runtime(who)
        self.turn_of(runtime, want, self.verdicts(runtime, ended), room, permission)

    def claim(self, who: int, want: int, room: Room) -> None:
        self.turn(who, want, [], room)

    def finish(self, who: int, state: str, keep: bool, seconds: float) -> None:
        """Makes a runtime report on all of its claims, and claim as many again."""
        runtime = self.runtime(who)
        self.finish_all(runtime, len(self.held(runtime)), state, keep, seconds)

    def drain(self, who: int, keep: bool) -> None:
        """Makes a runtime claim all that waits, and finish it."""
        runtime = self.runtime(who % RARE)
        self.finish_all(runtime, 50, "F", keep)
        self.finish_all(runtime, 1, "F", keep)

    def finish_all(self, runtime: str, want: int, state: str, keep: bool, seconds: float = 0.5) -> None:
        held = self.held(runtime)
        self.turn_of(
            runtime, want, [Verdict(task.id, task.turn, state, keep, BODIES[want % 4], seconds) for task in held]
        )

    def turn_again(self, who: int) -> None:
        """Repeats the last turn of a runtime, as if its reply had been lost; its outcomes no longer matter."""
        if not self.model.turns:
            return
        runtime = list(self.model.turns)[who % len(self.model.turns)]
        number, refused, had = self.model.turn_again(runtime)
        turn = self.driver.turn(runtime, number, 7, [])
        assert turn is not None
        assert pairs(turn) == {task.id: task.record for task in self.model.claims(runtime) if task.turn == number}
        assert [task_id.decode() for task_id in turn.refused] == refused
        assert turn.had == had
        self.compare()
        self.compare_outlook(turn, 7)
        late = self.driver.turn(runtime, number - 1, 7, [])  # a delayed copy of the turn before
        assert late is not None
        assert (late.refused, late.claims) == ([], [])
        self.compare()

    def turn_ahead(self, who: int, much: int) -> None:
        """Takes a turn whose predecessor the server does not know, as if the server had lost some of its data."""
        runtime = self.runtime(who)
        assert self.driver.turn(runtime, self.numbers[runtime] + 2 + much, 3) is None
        self.compare()

    def maintain(self, limit: int, deliveries: int, keep: bool) -> None:
        scheduled = self.snapshot.fixed["SCHEDULED"]
        more = self.driver.maintain(limit=limit, deliveries=deliveries, failed_ttl=HOUR / 1000 if keep else 0)
        how: dict[str, Any] = {"now": self.clock(), "scheduled": scheduled, "ears": self.ears}
        assert more is self.model.maintain(limit, deliveries, keep=keep, body=b"{}", **how)
        assert self.driver.given_up == self.model.given_up
        self.compare()

    def die(self, who: int, deliveries: int, keep: bool) -> None:
        """Makes a runtime fail, then runs maintenance."""
        self.lapse(who)
        self.maintain(500, deliveries, keep)

    def set_back(self) -> None:
        """Sets the server's clock back. The shard's goes on, as the comparisons after each later step check."""
        before = self.driver.now()
        self.driver.set_back(2.0)  # not more, because the model has no clock: nothing may become due by it
        self.turn(0, 0, [], None)
        assert self.driver.now() >= before

    def renew(self, who: int) -> None:
        """Renews a lease without a turn, as the thread of a blocked runtime does."""
        runtime = self.runtime(who)
        assert self.driver.shard.renew(self.driver.db, runtime, lease=3600.0) is (runtime in self.model.leases)
        if runtime in self.model.leases:
            self.model.leases[runtime] = False
        self.compare()

    def leave(self, who: int, crashed: bool, deliveries: int, keep: bool) -> None:
        runtime = self.runtime(who)
        given: dict[str, Any] = {"crashed": crashed, "deliveries": deliveries, "body": b"{}"}
        number = self.driver.run(self.driver.shard.leave(runtime, failed_ttl=HOUR / 1000 if keep else 0, **given))
        how: dict[str, Any] = {"crashed": crashed, "most": deliveries, "body": b"{}", "keep": keep}
        assert number == self.model.leave(runtime, self.clock(), **how)
        self.compare()

    def fitting(self, body: bytes) -> bytes:
        """Returns a body for a task that needs no lane of its own, if all runtimes are of one kind."""
        return b"{}" if len(self.fleet) == 1 and is_routed(body) else body

    def fill_rings(self, who: int) -> None:
        """Fills a ring, as the runtime does that has joined."""
        joined = [who for who in self.model.leases if self.model.lanes.kind_of.get(who) in self.model.filling]
        self.fill_ring(joined[who % len(joined)] if joined else self.runtime(who % RARE))

    def expire_lane(self, which: int, keep: bool) -> None:
        """Ends the tasks of a lane that nobody serves, at once."""
        lanes = list(self.model.lanes.unserved)
        lane = lanes[which % len(lanes)] if lanes else "gone"
        how: dict[str, Any] = {"unknown_ttl": 0, "failed_ttl": HOUR / 1000 if keep else 0, "body": b"expired"}
        ended, more = self.driver.run(self.driver.shard.expire(lane.encode(), **how))
        assert not more
        self.model.expire_lane(lane, [task.decode() for task in ended], b"expired", self.clock(), keep=keep)
        self.compare()

    def sort_lane(self) -> None:
        """Moves the tasks of the common lane, which nobody serves any more."""
        while self.driver.run(self.driver.shard.sort(2)):
            self.model.scripts += 1
        self.model.sort()
        self.compare()
        self.model.scripts = 1


def drive(url: str, steps: int) -> int:
    """Runs the machine until it has taken this many steps, in parts to bound memory; returns the number of steps."""
    ShardMachine.driver, ShardMachine.steps = ShardDriver(url), 0
    how = settings(stateful_step_count=100, deadline=None, suppress_health_check=list(HealthCheck))
    try:
        while (left := steps - ShardMachine.steps) > 0:
            examples = min(200, left // 100 + 1)
            run_state_machine_as_test(ShardMachine, settings=settings(how, max_examples=examples))
    finally:
        ShardMachine.driver.close()
    return ShardMachine.steps


if __name__ == "__main__":
    print(drive(sys.argv[1], int(sys.argv[2])))  # noqa: T201 - asked for on the command line
