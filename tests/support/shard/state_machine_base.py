"""The base of the state machine: a shard and the model side by side, choices for operations, and comparisons."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import attrs
from hypothesis.stateful import RuleBasedStateMachine

from fairactor._audit.audit import audit
from fairactor._audit.snapshot import Snapshot
from fairactor._model.inbox import Handed, handed_mark, unpack_handed
from fairactor._model.wire import Assignment, Item, Settlement, Turn, pack_key
from fairactor.testing import InvariantViolation

from .comparison import compare, learn
from .driver import ShardDriver, settlement
from .model import Assigned, Model
from .model_lanes import ALL, Kind
from .model_tasks import LIVE, Task, Verdict, pack
from .operations import BODIES, HOUR, IDS, RARE, RUNTIMES


class ShardMachineBase(RuleBasedStateMachine):
    driver: ShardDriver
    model: Model
    snapshot: Snapshot
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, int] = {}  # runtime -> its last turn, for all runtimes that ever joined
        self.claimed: list[tuple[str, int]] = []  # every claim ever made: (task, turn)
        self.sent = 0
        self.fleet: Sequence[Kind] = [ALL]  # what runtimes can run
        self.ears: set[str] = set()  # runtimes that listen
        self.heard: set[str] = set()  # those that have received a task since their last turn
        self.lowered: set[str] = set()  # tenants that may run more than their concurrency

    def compare(self) -> None:
        """Compares the shard with the model after each step."""
        type(self).steps += 1
        before, self.snapshot = self.snapshot, self.driver.snapshot()
        assert not self.handed_over(), "told of a task that nobody has sent"
        learn(self.driver, self.model, before, self.snapshot, HOUR)
        if found := audit(self.snapshot, lowered=self.lowered):
            raise InvariantViolation(found)
        compare(self.driver, self.model, before, self.snapshot)

    def runtime(self, number: int) -> str:
        """Returns a runtime with a lease, preferably with claims; rarely one that has left or lost its lease."""
        if not self.model.leases:
            self.join(RUNTIMES[number % len(RUNTIMES)], None, number)
        if number >= RARE:
            return list(self.numbers)[number % len(self.numbers)]
        able = [runtime for runtime in self.model.leases if self.model.claims(runtime)] or list(self.model.leases)
        return able[number % len(able)]

    def join(self, name: str, serves: Assigned, which: int) -> None:
        runtime = f"{name}/{len(self.numbers)}"
        self.numbers[runtime] = 0
        if self.ears:
            self.listen([*self.ears, runtime])
        kind = self.fleet[which % len(self.fleet)]
        fills = self.driver.join_only(runtime, serves=serves and Assignment(*serves), kind=kind)
        assert fills is self.model.join(runtime, serves, kind)[1]
        self.compare()
        if which % 3:
            self.fill_ring(runtime)

    def fill_ring(self, runtime: str) -> None:
        """Fills the ring of a runtime's kind, if it is not complete yet."""
        self.driver.fill(runtime)
        if self.model.lanes.kind_of.get(runtime) in self.model.filling:
            self.model.fill(runtime)
        self.compare()

    # Handing over

    def listen(self, runtimes: Collection[str]) -> None:
        """Makes these runtimes listen, and no others."""
        self.ears = set(runtimes)
        self.driver.listen(*runtimes)

    def idle(self, kind: str) -> Collection[str]:
        """Returns the runtimes of a kind that can take more work of any tenant."""
        idle: dict[str, Any] = self.snapshot.fixed["IDLE"] if kind == "0" else self.snapshot.kind_idle.get(kind, {})
        return idle.keys()

    def choice(self) -> dict[str, set[str]]:
        """Returns the possible receivers of a task by kind, '' for none: the server picks one at random."""
        choices = {}
        for kind in self.snapshot.numbers:
            idle = self.idle(kind)
            able = {runtime for runtime in idle if runtime in self.ears and not self.model.leases[runtime]}
            choices[kind] = able | ({""} if able != idle or not idle else set())
        return choices

    def receiver(self, items: Sequence[Item]) -> str:
        """Returns the runtime to which the server has just handed the task of a batch, or ''."""
        new = [item.id for item in items if item.id not in self.model.tasks]
        holders = [
            runtime
            for task_id in new
            for kind in self.snapshot.numbers
            for runtime in self.idle(kind)
            if self.driver.db.hexists(f"{self.driver.keys.meta}:claims:{runtime}", task_id)
        ]
        assert len(holders) <= 1
        return "".join(holders)

    def handed_over(self) -> list[tuple[str, Handed]]:
        """Returns the tasks that listening runtimes were notified of."""
        return [(runtime, unpack_handed(said)) for runtime, said in self.driver.hear() if said[:1] == b"k"]

    def tell(self, receiver: str, sent: list[Item], *, hears: bool) -> None:
        """Checks the notification of a handed-over task; the runtime receives it only if ``hears``."""
        told = self.handed_over()
        self.compare()
        assert [runtime for runtime, _ in told] == [receiver] * bool(receiver)
        for runtime, handed in told:
            number, *_ = self.model.turns[runtime]
            task = self.model.tasks[sent[0].id]
            assert (handed.mark, handed.id, handed.record) == (handed_mark(number), task.id.encode(), task.record)
            assert math.isclose(handed.now, task.since / 1000, abs_tol=0.001)
            assert not any(runtime in self.idle(kind) for kind in self.snapshot.numbers)
            if hears:
                self.heard.add(runtime)
                self.claimed.append((task.id, task.turn))

    def held(self, runtime: str) -> list[Task]:
        """Returns the claims that a runtime knows of."""
        missed = self.model.missed(runtime, heard=runtime in self.heard)
        return [task for task in self.model.claims(runtime) if task is not missed]

    def task(self, number: int) -> str:
        """Returns the id of a live task; rarely another id."""
        live = [task.id for task in self.model.tasks.values() if task.state in LIVE]
        return live[number % len(live)] if live and number < RARE else IDS[number % len(IDS)]

    def clock(self) -> int:
        """Returns the time at which the last writing script ran, in unix ms."""
        return int(self.driver.db.hget(self.driver.keys.meta, "stamp") or 0) // 1000  # type: ignore[arg-type]

    def compare_configured(self) -> None:
        """Compares after a configuration change.

        Tasks above a new limit go on running, and a tenant without tasks keeps the state of its former rate.
        """
        rules = self.model.rules
        self.lowered = {
            name
            for name in self.model.tenants
            if len(self.model.of(name, "started")) > rules.limit(name, "concurrency")
            or rules.ahead.get(name, 0) > rules.burst(name)
        }
        self.compare()

    # Settling

    def verdicts(self, runtime: str, ended: list[tuple[int, str, bool, float]]) -> list[Verdict]:
        """Returns verdicts, mostly on present claims; some on claims that the runtime has lost or never had."""
        held = [(task.id, task.turn) for task in self.held(runtime)]
        missed = self.model.missed(runtime, heard=runtime in self.heard)
        found = []
        for number, state, keep, seconds in ended:
            among = held if held and number < RARE else self.claimed or [("never sent", 1)]
            task_id, turn = among[number % len(among)]
            turn -= number % 10 == 9  # an earlier turn
            if missed and task_id == missed.id:
                continue
            found.append(Verdict(task_id, turn, state, keep, BODIES[number % len(BODIES)], seconds))
        return found

    def settlement(self, verdict: Verdict) -> Settlement:
        task = self.model.tasks.get(verdict.id) or Task(verdict.id, "?", 3, b"", "")
        ms = HOUR * (verdict.turn % 2 if verdict.state == "R" else verdict.keep)
        if verdict.state == "U":
            return settlement(verdict.id, verdict.turn, "U", b"", verdict.seconds)
        if verdict.state == "V":
            packed = pack(b"X", task, verdict.body)
            return settlement(verdict.id, verdict.turn, f"V{ms}", packed, verdict.seconds)
        if verdict.state == "B":
            return settlement(verdict.id, verdict.turn, "B", pack(b"L", task), verdict.seconds)
        if verdict.state == "R":
            # A retry clears a suspect; a task whose actor is unknown stays one.
            again = attrs.evolve(task, attempt=task.attempt + 1, deliveries=task.deliveries * verdict.keep)
            return settlement(verdict.id, verdict.turn, f"R{ms}", pack(b"L", again, verdict.body), verdict.seconds)
        packed = pack(verdict.state.encode(), task, verdict.body)
        return settlement(verdict.id, verdict.turn, f"{verdict.state}{ms}", packed, verdict.seconds)

    def gives_back(self, runtime: str, verdicts: list[Verdict]) -> bool:
        """Whether a verdict gives a task back: then the turn claims nothing."""
        held = {(task.id, task.turn) for task in self.model.claims(runtime) if not task.canceling}
        first: dict[str, Verdict] = {}
        for verdict in verdicts:
            if (verdict.id, verdict.turn) in {(task.id, task.turn) for task in self.model.claims(runtime)}:
                first.setdefault(verdict.id, verdict)
        return any(verdict.state == "B" and (verdict.id, verdict.turn) in held for verdict in first.values())

    def compare_outlook(self, turn: Turn, want: int, *, may_want_less: bool = False) -> None:
        """Compares when the next turn and maintenance are due; old totals count only if the runtime has time.

        It may have none although it wanted tasks, if it was given a suspect by itself, or waits for one.
        """
        snapshot, now = self.snapshot, math.floor(round(turn.now * 1e6) / 1000)
        events = [*snapshot.fixed["SCHEDULED"].values(), *snapshot.fixed["LEASES"].values()]
        freed = snapshot.fixed["THROTTLED"].values()
        old = want > 0 and any(until * 1000 <= now for until in snapshot.fixed["DRAINED"].values())
        unserved = float(snapshot.fixed["META"].get("unserved", b"inf"))
        if math.isfinite(unserved) and self.model.lanes.used:
            events.append(unserved)
        rates = snapshot.fixed["POLICY"] and any(ahead < 0 for ahead in self.model.rules.ahead.values())
        due = bool(min(events) <= now or (old and not (may_want_less and not turn.maintenance_due)) or rates)
        asked_until = int(snapshot.fixed["META"].get("tended", 0))
        if due and not turn.maintenance_due:  # another runtime does it
            assert now < asked_until <= now + 100
            events = [asked_until, *(at for at in events if at > now)]
        assert due or not turn.maintenance_due
        assert round(turn.wait * 1000) == max(0, min([*events, *freed]) - now)


def packed_key(key: str, window: bool, *, replace: bool = False) -> bytes:
    return pack_key(key, HOUR / 1000 * window, replace=replace) if key else b""


def pairs(turn: Turn) -> dict[str, bytes]:
    ids = [task_id.decode() for task_id in turn.claims[::2]]
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, turn.claims[1::2], strict=True))
