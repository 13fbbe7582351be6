"""A plain model of one shard: what the scripts of `fairactor/lua` do, told without Redis and without haste.

Time is not in it. Whoever drives it says what the server's clock said, that is, the stamps and due times that it gave.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

import attrs

CRITICAL = 6
DIED = b"\0died\0"
"""Around the name of a runtime: where the server has noted when that was found dead."""
LIVE = ("queued", "scheduled", "started")
ENDED = {"F": "finished", "X": "failed", "C": "canceled"}
_LETTERS = {name: letter.encode() for letter, name in ENDED.items()}


@attrs.define
class Task:
    id: str
    tenant: str
    priority: int
    body: bytes
    state: str  # one of LIVE, or of ENDED's values
    stamp: float = 0.0
    due: float = 0.0  # unix ms, while it is scheduled
    deliveries: int = 0
    runtime: str = ""
    turn: int = 0
    watchers: list[str] = attrs.Factory(list)
    progress: bytes | None = None
    attempt: int = 1
    key: str = ""
    window: bool = False  # whether its key outlives it
    canceling: tuple[bool, bytes] | None = None  # to be canceled: whether to keep its record, and its outcome

    @property
    def letter(self) -> bytes:
        """The state that its record gives."""
        return _LETTERS.get(self.state, b"L")

    @property
    def record(self) -> bytes:
        """As it is stored."""
        return pack(self.letter, self)


@attrs.define
class Tenant:
    weight: float = 1.0
    cap: float | None = None
    policy: dict[str, float] = attrs.Factory(dict)
    ended: Counter[str] = attrs.Factory(Counter)
    kept: bool = False  # whether a record of it may still be there: so long its totals are
    drained: bool = False  # whether it is listed to be forgotten; it may live again since


class Verdict(NamedTuple):
    """How a claim ended."""

    id: str
    turn: int  # that claimed it
    state: str  # 'F', 'X', 'C', 'R': again, or 'B': back
    keep: bool
    body: bytes


@attrs.define
class Model:
    step: float  # µs that a priority is worth
    tasks: dict[str, Task] = attrs.Factory(dict)
    tenants: dict[str, Tenant] = attrs.Factory(dict)
    leases: dict[str, bool] = attrs.Factory(dict)  # runtime -> whether it has run out
    turns: dict[str, tuple[int, list[str]]] = attrs.Factory(dict)  # runtime -> its last turn, and what that refused
    total: Counter[str] = attrs.Factory(Counter)  # of tasks that ended
    virtual: float = 0.0
    tags: dict[str, float] = attrs.Factory(dict)  # where each tenant on the ring stands there
    keys: dict[tuple[str, str], tuple[str, bool]] = attrs.Factory(dict)  # (tenant, key) -> task, whether it has ended
    stale: set[str] = attrs.Factory(set)  # dead letters whose records have expired, and that are still listed

    # Looking

    def tenant(self, name: str) -> Tenant:
        if name not in self.tenants:
            self.tenants[name] = Tenant()
        return self.tenants[name]

    def of(self, tenant: str, state: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.tenant == tenant and task.state == state]

    def claims(self, runtime: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.state == "started" and task.runtime == runtime]

    def place(self, task: Task) -> float:
        """Lower goes first."""
        return task.stamp - (4e15 if task.priority == CRITICAL else task.priority * self.step)

    def queue(self, tenant: str) -> list[Task]:
        """The mailbox of a tenant, in order."""
        return sorted(self.of(tenant, "queued"), key=lambda task: (self.place(task), task.id.encode()))

    def eligible(self, name: str) -> bool:
        cap = self.tenant(name).cap
        return bool(self.of(name, "queued")) and (cap is None or len(self.of(name, "started")) < cap)

    def ring(self) -> dict[str, float]:
        return {name: self.tags[name] for name in self.tenants if self.eligible(name)}

    def counts(self, name: str) -> dict[str, int]:
        """Of the live tasks of a tenant, and of those that ended, as far as it is remembered."""
        live = [task for state in LIVE for task in self.of(name, state)]
        states = Counter(task.state for task in live)
        by_priority = Counter(f"live at {task.priority}" for task in live if task.state != "scheduled")
        return dict(states + by_priority + self.tenant(name).ended)

    # Transitions

    def send(self, items: Iterable[Task], watcher: str, watched: Iterable[bool]) -> list[str | None]:
        """Of each its id, or that of the task that its key stands for; None where it is taken by another tenant."""
        answers: list[str | None] = []
        with _Step(self) as step:
            for task, watch in zip(items, watched, strict=True):
                step.touched.add(task.tenant)
                known = self.tasks.get(task.id)
                holder = self.keys.get((task.tenant, task.key)) if task.key else None
                if known is not None:
                    answers.append(task.id if known.tenant == task.tenant else None)
                elif holder is not None:
                    answers.append(holder[0])
                else:
                    answers.append(task.id)
                    self.tasks[task.id] = task
                    task.watchers = [watcher] if watch else []
                    self._hold_key(task)
        return answers

    def _hold_key(self, task: Task) -> None:
        if task.key:
            self.keys[task.tenant, task.key] = task.id, False

    def join(self, runtime: str) -> None:
        self.leases[runtime] = False

    def turn(
        self, runtime: str, number: int, verdicts: Sequence[Verdict], want: int, claimed: Sequence[str]
    ) -> list[str]:
        """Settles, and claims what the server says it did, in that order, if that is right. Returns what is refused."""
        refused = []
        with _Step(self) as step:
            for verdict in verdicts:
                task = self.tasks.get(verdict.id)
                if task and task.state == "started" and (task.runtime, task.turn) == (runtime, verdict.turn):
                    self._end(task, verdict, step)
                else:
                    refused.append(verdict.id)
            step.arrive()
            for task_id in claimed:
                self._serve(self.tasks[task_id], runtime, number)
                step.touched.add(self.tasks[task_id].tenant)
            assert len(claimed) == want or not self.ring(), f"{want} wanted, {len(claimed)} given, {self.ring()} wait"
        self.leases[runtime] = False
        self.turns[runtime] = (number, refused)
        return refused

    def turn_again(self, runtime: str) -> tuple[int, list[str]]:
        """The number of a runtime's last turn, and what it refused. Who asks again is alive."""
        self.leases[runtime] = False
        return self.turns[runtime]

    def _end(self, task: Task, verdict: Verdict, step: _Step) -> None:
        task.progress = None
        step.touched.add(task.tenant)
        if verdict.state in "RB":
            if verdict.state == "R":
                task.body, task.attempt = verdict.body, task.attempt + 1
            if task.canceling:
                self._cancel(task, step)
            elif verdict.state == "R":
                task.state, task.due = "scheduled", math.nan
            else:
                task.state = "queued"
        else:
            self._settle(task, verdict.state, verdict.body, step, keep=verdict.keep)

    def _cancel(self, task: Task, step: _Step) -> None:
        assert task.canceling
        keep, outcome = task.canceling
        self._settle(task, "C", outcome + b"\n" + task.body, step, keep=keep)

    def _settle(self, task: Task, letter: str, body: bytes, step: _Step, *, keep: bool) -> None:
        keep = keep or bool(task.watchers) or (letter == "F" and task.window)
        task.state, task.body, task.watchers, task.progress, task.canceling = ENDED[letter], body, [], None, None
        self.total[task.state] += 1
        tenant = self.tenant(task.tenant)
        tenant.ended[task.state] += 1
        tenant.kept |= keep
        if not keep:
            del self.tasks[task.id]
        if task.key:
            self.keys.pop((task.tenant, task.key))
            if letter == "F" and task.window:
                self.keys[task.tenant, task.key] = task.id, True
            task.key = ""
        if letter == "X" and keep:
            step.letters.append(task.id)
        step.touched.add(task.tenant)

    def _serve(self, task: Task, runtime: str, number: int) -> None:
        """Claims a task, which must be the first of a tenant whose tag is the least."""
        ring = self.ring()
        assert task.tenant in ring, f"{task.tenant!r} cannot be served: {ring}"
        tag = ring[task.tenant]
        assert tag == min(ring.values()), f"{task.tenant!r} is served out of turn: {ring}"
        assert task is self.queue(task.tenant)[0], f"{task.id!r} is not first in {self.queue(task.tenant)}"
        self.virtual = max(self.virtual, tag)
        self.tags[task.tenant] = tag + 1 / self.tenant(task.tenant).weight
        task.state, task.runtime, task.turn = "started", runtime, number

    def tend(self, limit: int, deliveries: int, *, keep: bool, body: bytes, now: float) -> bool:
        """Whether there is more to do."""
        with _Step(self) as step:
            due = [task for task in self.tasks.values() if task.state == "scheduled" and task.due <= now]
            due = sorted(due, key=lambda task: (task.due, task.id.encode()))[:limit]
            for task in due:
                task.state = "queued"
                step.touched.add(task.tenant)
            dead = min((runtime for runtime, lapsed in self.leases.items() if lapsed), key=str.encode, default=None)
            if dead is not None:
                for task in self.claims(dead):
                    task.deliveries = min(task.deliveries + 1, 255)
                    task.body += DIED + dead.encode() + DIED
                    if task.canceling is None and task.deliveries >= deliveries:
                        self._settle(task, "X", body + b"\n" + task.body, step, keep=keep)
                self._leave(dead, step)
            step.swept = limit
            gone = len(self.stale)
            old = sorted((name for name, t in self.tenants.items() if t.drained and not t.kept), key=str.encode)[:limit]
            for name in old:
                self.tenant(name).drained = False
            step.touched.update(old)
        return limit in (len(due), len(old), min(gone, limit)) or dead is not None

    def leave(self, runtime: str) -> int:
        with _Step(self) as step:
            return self._leave(runtime, step)

    def _leave(self, runtime: str, step: _Step) -> int:
        claims = self.claims(runtime)
        for task in claims:
            task.state, task.progress = "queued", None
            step.touched.add(task.tenant)
            if task.canceling:
                self._cancel(task, step)
        self.leases.pop(runtime, None)
        self.turns.pop(runtime, None)
        return len(claims)

    def cancel(self, task_id: str, body: bytes, *, keep: bool) -> str:
        task = self.tasks.get(task_id)
        if task is None:
            return "missing"
        if task.state not in LIVE:
            return task.state
        found = task.state
        task.canceling = keep or found != "started", body
        if found != "started":
            with _Step(self) as step:
                self._cancel(task, step)
        return found

    def redrive(self, asked: Sequence[tuple[str, str, bool]]) -> list[bool | str]:
        """Of (task, key, window): whether each was a dead letter, or the id of the task that its key stands for."""
        answers: list[bool | str] = []
        with _Step(self) as step:
            for task_id, key, window in asked:
                task = self.tasks.get(task_id)
                if task is None or task.state != "failed":
                    answers.append(False)
                elif key and (task.tenant, key) in self.keys:
                    answers.append(self.keys[task.tenant, key][0])
                else:
                    answers.append(True)
                    self.tenant(task.tenant).ended["failed"] -= 1
                    self.total["failed"] -= 1
                    task.state, task.stamp, task.deliveries, task.attempt = "queued", math.nan, 0, 1
                    task.body = task.body.partition(b"\n")[2]
                    task.key, task.window = key, window
                    self._hold_key(task)
                    self.tasks[task_id] = self.tasks.pop(task_id)  # stamps grow in the order of the tasks
                    step.touched.add(task.tenant)
        return answers

    def discard(self, asked: Iterable[str]) -> int:
        """Deletes dead letters; returns how many there were."""
        gone = {task_id for task_id in asked if task_id in self.tasks and self.tasks[task_id].state == "failed"}
        for task_id in gone:
            del self.tasks[task_id]
        return len(gone)

    def configure(self, name: str, changes: dict[str, float | None]) -> dict[str, float]:
        with _Step(self) as step:
            step.touched.add(name)
            tenant = self.tenant(name)
            tenant.policy.update(changes)  # type: ignore[arg-type]
            tenant.policy = {key: value for key, value in tenant.policy.items() if value is not None}
            tenant.weight, tenant.cap = tenant.policy.get("weight", 1.0), tenant.policy.get("concurrency")
            step.arrive()
            if self.eligible(name):
                self.tags[name] = min(self.tags[name], self.virtual + 1 / tenant.weight)
            return tenant.policy

    def watch(self, runtime: str, tasks: Iterable[tuple[str, str]]) -> list[list[bytes]]:
        return [self._watch(runtime, self.tasks.get(task_id), inside) for task_id, inside in tasks]

    def _watch(self, runtime: str, task: Task | None, inside: str) -> list[bytes]:
        if task is None:
            return [b"n"]
        if task.state not in LIVE:
            return [b"o", task.record]
        if task.tenant == inside and self.tenant(inside).cap == 1:
            return [b"d", inside.encode()]
        if runtime not in task.watchers:
            task.watchers.append(runtime)
        return [b"w"]

    def note(self, runtime: str, task_id: str, text: bytes) -> bool:
        task = self.tasks.get(task_id)
        if task is None or (task.state, task.runtime) != ("started", runtime):
            return False
        task.progress = text
        return True

    def mend(self) -> None:
        """Where all is right there is nothing to mend, but for totals that are past their time."""
        with _Step(self) as step:
            step.touched.update(self.tenants)

    # What time does

    def expire(self, task_id: str) -> None:
        """The record of a task that ended goes."""
        if self.tasks.pop(task_id).state == "failed":
            self.stale.add(task_id)

    def forget_key(self, tenant: str, key: str) -> None:
        """The window of a key is over."""
        assert self.keys.pop((tenant, key))[1]

    def lapse(self, runtime: str) -> None:
        """A lease runs out."""
        self.leases[runtime] = True

    def outlive(self, name: str) -> None:
        """The totals of a tenant are past their time."""
        self.tenant(name).kept = False


class _Step:
    """What goes with every change: tags for tenants that have become eligible, and the end of a busy period."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._before = {name for name in model.tenants if model.eligible(name)}
        self.touched: set[str] = set()
        self.letters: list[str] = []  # new dead letters
        self.swept = 0  # how many old ones may be swept out

    def __enter__(self) -> Self:
        return self

    def arrive(self) -> None:
        model = self._model
        for name in self.touched:
            model.tenant(name)
        now = {name for name in model.tenants if model.eligible(name)}
        for name in now - self._before:
            model.tags[name] = model.virtual + 1 / model.tenant(name).weight
        self._before = now

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error:
            return
        model = self._model
        self.arrive()
        swept = max(2 * len(self.letters), self.swept)
        model.stale.difference_update(sorted(model.stale, key=str.encode)[:swept], self.letters)
        if not model.ring():
            model.virtual = 0.0
            model.tags.clear()
        for name in self.touched:
            if not any(model.of(name, state) for state in LIVE):
                if model.tenant(name).kept:
                    model.tenant(name).drained = True
                else:
                    model.tenant(name).ended.clear()


def pack(state: bytes, task: Task, body: bytes | None = None) -> bytes:
    """A record: the header that scripts read, then the body."""
    tenant = task.tenant.encode()
    header = struct.pack(">cBBHdH", state, task.deliveries, task.priority, task.attempt, task.stamp, len(tenant))
    return header + tenant + (task.body if body is None else body)
