"""Runs the scripts against the model: every transition in any order, with hostile names, and an audit after each step.

``python -m tests.support.shard.state_machine URL STEPS`` takes at least this many steps on the server at URL, which
must be empty.
"""

from __future__ import annotations

import math
import sys
from typing import Any

from hypothesis import HealthCheck, reject, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from fairactor._model.wire import Assignment, Counts, Item, pack_permit
from fairactor.settings import FAIR_BY, FairBy

from .driver import ShardDriver, flat
from .model import Assigned, Model
from .model_lanes import is_routed
from .model_ring import UndecidedError
from .model_rules import GROUP, Rules, is_capped
from .model_suspects import FORBIDDEN, Permission
from .model_tasks import LIVE, Room, Task, Verdict
from .operations import BODIES, HOUR, KINDS, OPERATIONS, OWN, RARE, TENANTS
from .state_machine_base import ShardMachineBase, packed_key, pairs

AT_ONCE = 35
"""The most claims of a runtime: one script takes them back, so the model need not know which come first."""


class ShardMachine(ShardMachineBase):
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
        number = self.numbers[runtime] = self.numbers[runtime] + 1
        want = max(0, min(want, AT_ONCE - len(self.model.claims(runtime))))
        heard = runtime in self.heard
        self.heard.discard(runtime)
        if len(self.fleet) == 1:  # nothing may need a lane of its own
            verdicts = [
                verdict._replace(state="F" if verdict.state in "UV" else verdict.state, body=self.fitting(verdict.body))
                for verdict in verdicts
            ]
        settle = [self.settlement(verdict) for verdict in verdicts]
        turn = self.driver.turn(runtime, number, want, settle, heard=heard, permit=pack_permit(*permission), room=room)
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
        how["moved"] = self.moved()
        refused, free, waits = self.model.turn(runtime, number, verdicts, want, list(claims), **how)
        assert [task_id.decode() for task_id in turn.refused] == refused
        assert turn.suspects == waits
        taken = len(claims) - bool(missed) - any(self.model.tasks[task_id].deliveries for task_id in claims)
        self.claimed += [(task_id, number) for task_id in claims]
        self.compare()
        assert claims == {task_id: self.model.tasks[task_id].record for task_id in claims}
        self.compare_outlook(turn, want)
        resting = {*self.snapshot.fixed["IDLE_HOMES"]}.union(*map(self.idle, self.snapshot.numbers))
        assert runtime not in resting or taken < free, "who has enough is not idle"
        if room is not None:
            common = [self.model.tasks[task] for task in claims if not missed or task != missed.id]
            starting = [is_capped(task.body) for task in common if not task.deliveries]
            left = [room[kind] - starting.count(bool(kind)) for kind in (0, 1)]
            free_kinds = "".join(letter for letter, n in zip("ct", left, strict=True) if n > 0)
            noted = free_kinds.encode() if taken < free else None
            assert self.snapshot.fixed["IDLE_SLOTS"].get(runtime) == noted

    def moved(self) -> list[str]:
        """Returns the tasks that the server has moved from the common lane to their own."""
        placed = [task for task in self.model.tasks.values() if task.state == "queued" and task.lane == ""]
        astray = [task for task in placed if self.model.lane_of(task) and not task.suspect]
        if not astray:
            return []
        places = self.driver.snapshot().mailboxes
        return [task.id for task in astray if task.id in places.get((self.model.lane_of(task), task.tenant), {})]

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
        number, refused = self.model.turn_again(runtime)
        turn = self.driver.turn(runtime, number, 7, [])
        assert turn is not None
        assert pairs(turn) == {task.id: task.record for task in self.model.claims(runtime) if task.turn == number}
        assert [task_id.decode() for task_id in turn.refused] == refused
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

    def expire_lane(self, which: int, keep: bool) -> None:
        """Ends the tasks of a lane that nobody serves, at once."""
        lanes = list(self.model.lanes.unserved)
        lane = lanes[which % len(lanes)] if lanes else "gone"
        how: dict[str, Any] = {"unknown_ttl": 0, "failed_ttl": HOUR / 1000 if keep else 0, "body": b"expired"}
        ended, more = self.driver.run(self.driver.shard.expire(lane.encode(), **how))
        assert not more
        self.model.expire_lane(lane, [task.decode() for task in ended], b"expired", self.clock(), keep=keep)
        self.compare()

    def whose(self, task_id: str, who: str) -> str:
        """Returns the tenant on whose behalf to ask for a task: its own, '' for any, or the given one."""
        task = self.model.tasks.get(task_id)
        return task.tenant if who == OWN and task else who

    def cancel(self, which: int, who: str, keep: bool) -> None:
        self.cancel_task(self.task(which), keep, who)

    def cancel_task(self, task_id: str, keep: bool, who: str = "") -> None:
        tenant, ttl = self.whose(task_id, who), HOUR / 1000 if keep else 0
        found = self.driver.run(self.driver.shard.cancel(task_id, tenant, ttl=ttl, body=b"canceled"))
        assert found == self.model.cancel(task_id, b"canceled", tenant, keep=keep)
        self.compare()

    def cancel_many(self, tasks: list[tuple[int, str]], keep: bool) -> None:
        """Cancels several tasks in one call, some of them perhaps twice."""
        asked = [(task_id, self.whose(task_id, who)) for task_id, who in ((self.task(n), who) for n, who in tasks)]
        ttl = HOUR / 1000 if keep else 0
        found = self.driver.run(self.driver.shard.cancel_many(asked, ttl=ttl, body=b"canceled"))
        assert found == self.model.cancel_many(asked, b"canceled", keep=keep)
        self.compare()

    def cancel_all(self, which: int, keep: bool) -> None:
        """Cancels all waiting tasks of one tenant, one by one."""
        if waiting := list(self.model.served):
            for task in self.model.queue(waiting[which % len(waiting)]):
                self.cancel_task(task.id, keep)

    def purge(self, tenant: str, keep: bool) -> None:
        number = self.driver.run(self.driver.shard.purge(tenant, ttl=HOUR / 1000 if keep else 0, body=b"canceled"))
        assert number == self.model.purge(tenant, b"canceled", keep=keep)
        self.compare()

    def configure(self, which: int, changes: dict[str, Any]) -> None:
        served = self.model.served
        names = [name for name in self.model.tenants if self.model.of(name, "queued") and name not in served]
        tenant = names[which % len(names)] if names and which % 2 else TENANTS[which % len(TENANTS)]
        assert self.driver.configure(tenant, **changes) == self.model.configure(tenant, changes)
        self.compare_configured()

    def configure_defaults(self, changes: dict[str, Any]) -> None:
        found = self.driver.configure("", **changes)
        self.driver.run(self.driver.shard.review())
        assert found == self.model.configure("", changes)
        self.compare_configured()

    def configure_group(self, group: str, weight: float | None) -> None:
        found = self.driver.configure(b"\xff" + group.encode(), weight=weight)
        assert found == self.model.configure(GROUP + group, {"weight": weight})
        self.compare()

    def watch(self, who: str, tasks: list[tuple[int, str, str]]) -> None:
        asked = [
            (task_id, self.whose(task_id, of), inside)
            for task_id, of, inside in ((self.task(which), of, inside) for which, of, inside in tasks)
        ]
        assert self.driver.run(self.driver.shard.watch(who, asked)) == self.model.watch(who, asked)
        self.compare()

    def progress(self, who: int, which: int) -> None:
        runtime = self.runtime(who)
        held = [task.id for task in self.model.claims(runtime)]
        task_id = held[which % len(held)] if held and which < RARE else self.task(which)
        noted = self.driver.run(self.driver.shard.progress(runtime, task_id, b"[0.5]"))
        assert noted is self.model.note(runtime, task_id, b"[0.5]")
        self.compare()

    def ask(self, which: int, tenant: str) -> None:
        """Makes calls that only read."""
        task_id = self.task(which)
        task = self.model.tasks.get(task_id)
        found = self.driver.run(self.driver.shard.inspect(task_id, tenant))
        assert (found == []) is (task is None or task.tenant != tenant)
        found = self.driver.run(self.driver.shard.inspect(task_id))
        if task is None:
            assert found == []
        else:
            state = task.state if task.state in LIVE else "settled"
            due = float(found[2]) if found[2] else 0.0
            assert found[:2] == [state.encode(), task.record]
            assert due == (task.due - self.driver.behind if state == "scheduled" else 0.0)
            assert found[3].decode() == (task.runtime if state == "started" else "")
            assert (found[4] == -1) is (state != "settled")
            assert found[5] == (task.progress or b"")
        counts = self.driver.run(self.driver.shard.tenant_stats(tenant))
        assert flat(counts) == self.model.counts(tenant)
        assert counts.queued == len(self.model.of(tenant, "queued"))
        assert counts.started == len(self.model.of(tenant, "started"))
        stats = self.driver.run(self.driver.shard.stats())
        rules, total = self.model.rules, self.snapshot.fixed["META"].get("total", b"")
        started = sum(task.state == "started" for task in self.model.tasks.values())
        waiting = max(len(self.snapshot.root_ring(kind)) for kind in self.snapshot.numbers)
        assert stats.counts == Counts.unpack(total, started=started)
        assert (stats.stolen, stats.throttled) == (rules.stolen, len(rules.throttled))
        assert {name.decode() for name in stats.unassigned} == self.model.homeless()
        assert (stats.waiting, stats.known) == (waiting, len(self.snapshot.counts))
        assert stats.due == sum(at <= self.snapshot.now * 1000 for at in self.snapshot.due.values())
        assert stats.dead == len(self.list_dead_letters())
        assert {name.decode() for name, *_ in stats.runtimes} == self.model.leases.keys()

    # Dead letters

    def list_dead_letters(self) -> list[str]:
        return [task.id for task in self.model.tasks.values() if task.state == "failed"]

    def redrive(self, tenant: str, asked: list[tuple[int, str, bool]]) -> None:
        dead = self.list_dead_letters()
        tasks = [
            (dead[which % len(dead)] if dead and which < RARE else self.task(which), key, window and bool(key))
            for which, key, window in asked
        ]
        packed = [(task, packed_key(key, window)) for task, key, window in tasks]
        assert self.driver.run(self.driver.shard.redrive(packed, tenant)) == self.model.redrive(tasks, tenant)
        self.compare()

    def discard(self, tenant: str, asked: list[int]) -> None:
        dead = self.list_dead_letters()
        tasks = [dead[which % len(dead)] if dead and which < RARE else self.task(which) for which in asked]
        assert self.driver.run(self.driver.shard.discard(tasks, tenant)) == self.model.discard(tasks, tenant)
        self.compare()

    def read_letters(self) -> None:
        """Reads all dead letters, two at a time."""
        met: dict[str, bytes] = {}
        place = 0
        while True:
            _, page = self.driver.run(self.driver.shard.list_dead_letters(place, 3))
            met |= {letter.id: letter.record for letter in page if letter.record}
            if len(page) < 3 or page[-1].place == place:
                break
            place = page[-1].place
        if all(place > 1 for place in self.snapshot.fixed["DEAD"].values()):  # else one place holds more than a page
            assert met == {task: self.model.tasks[task].record for task in self.list_dead_letters()}

    def mend(self) -> None:
        """Repairs a shard without damage; nothing may change."""
        self.driver.run(self.driver.shard.repair())
        self.model.mend()
        self.compare()

    # The passing of time

    def forget_key(self, which: int) -> None:
        if left := [key for key, (_, ended) in self.model.keys.items() if ended]:
            self.driver.forget_key(*left[which % len(left)])
            self.model.forget_key(*left[which % len(left)])
            self.compare()

    def make_due(self, which: int, at: int) -> None:
        if waiting := [task for task in self.model.tasks.values() if task.state == "scheduled"]:
            task = waiting[which % len(waiting)]
            task.due = at
            self.driver.make_due(task.id, at)
            self.compare()

    def let_start(self, which: int) -> None:
        ahead = list(self.model.rules.ahead)
        if held := (self.model.rules.throttled & set(ahead) if which % 3 else None):
            ahead = sorted(held)
        if ahead:
            tenant = ahead[which % len(ahead)]
            if self.model.rules.ahead[tenant] >= 1:
                self.driver.let_start(tenant)
            else:
                self.driver.db.zadd(self.driver.keys.fixed("RATES"), {tenant: 1})
            self.model.let_start(tenant)
            self.compare()

    def lapse(self, who: int) -> None:
        runtime = self.runtime(who % RARE)
        self.driver.lapse(runtime)
        self.model.lapse(runtime)
        self.compare()

    def expire(self, which: int) -> None:
        if settled := [task_id for task_id, task in self.model.tasks.items() if task.state not in LIVE]:
            self.driver.expire(settled[which % len(settled)])
            self.model.expire(settled[which % len(settled)])
            self.compare()

    def outlive(self, tenant: str) -> None:
        kept = [task for task in self.model.tasks.values() if task.tenant == tenant and task.state not in LIVE]
        if self.model.counts(tenant) and not kept:
            self.driver.outlive(tenant)
            self.model.outlive(tenant)
            self.compare()


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
