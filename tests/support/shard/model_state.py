"""The state of the model, queries of it, and the steps that accompany every change."""

from __future__ import annotations

import math
from collections import Counter
from typing import Self

import attrs

from .model_ring import Service
from .model_tasks import CRITICAL, LIVE, Task, Tenant


@attrs.define
class State:
    step: float  # µs that one level of priority is worth
    tasks: dict[str, Task] = attrs.Factory(dict)
    tenants: dict[str, Tenant] = attrs.Factory(dict)
    leases: dict[str, bool] = attrs.Factory(dict)  # runtime -> whether it has run out
    turns: dict[str, tuple[int, list[str]]] = attrs.Factory(dict)  # runtime -> (last turn, refused ids)
    handed: dict[str, str] = attrs.Factory(dict)  # runtime -> the task that was handed to it since its last turn
    total: Counter[str] = attrs.Factory(Counter)  # ended tasks by state
    service: Service = attrs.Factory(Service)
    reserved: dict[tuple[str, str], int] = attrs.Factory(dict)  # (tenant, name) -> reserved room
    keys: dict[tuple[str, str], tuple[str, bool]] = attrs.Factory(dict)  # (tenant, key) -> (task, whether it has ended)
    again: dict[str, str] = attrs.Factory(dict)  # live task with a key -> the task that runs once after it
    moved: dict[str, None] = attrs.Factory(dict)  # tasks with new stamps
    now: float = 0.0  # the server's time of the step, unix ms
    suspected: dict[str, float] = attrs.Factory(dict)  # tenant with suspects -> its place among these tenants
    emptying: str = ""  # the runtime that empties itself for a suspect
    stale: set[str] = attrs.Factory(set)  # dead letters whose records have expired, but which are still listed
    given_up: set[str] = attrs.Factory(set)  # the tasks that the last step of the maintenance gave up

    # Queries

    def tenant(self, name: str) -> Tenant:
        if name not in self.tenants:
            self.tenants[name] = Tenant()
        return self.tenants[name]

    def of(self, tenant: str, state: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.tenant == tenant and task.state == state]

    def claims(self, runtime: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.state == "started" and task.runtime == runtime]

    def place(self, task: Task) -> float:
        """Returns the position of a task in its mailbox; lower goes first."""
        return task.stamp - (4e15 if task.priority == CRITICAL else task.priority * self.step)

    def queue(self, tenant: str) -> list[Task]:
        """Returns the tasks in the mailbox of a tenant, in order."""
        return self._in_order([task for task in self.of(tenant, "queued") if not task.suspect])

    def suspects(self, tenant: str) -> list[Task]:
        """Returns the suspects of a tenant, in order."""
        return self._in_order([task for task in self.of(tenant, "queued") if task.suspect])

    def _in_order(self, tasks: list[Task]) -> list[Task]:
        return sorted(tasks, key=lambda task: (self.place(task), task.id.encode()))

    def room(self, name: str, reservation: str) -> float:
        """Returns how many more tasks a mailbox accepts."""
        waiting = sum(len(self.of(name, state)) for state in ("queued", "scheduled", "deferred"))
        others = sum(many for (tenant, own), many in self.reserved.items() if tenant == name and own != reservation)
        return self.service.limit(name, "backlog") - waiting - others

    def free(self, name: str) -> bool:
        """Whether a tenant's rate allows a start."""
        return self.service.ahead.get(name, 0) <= self.service.burst(name) - 1

    def counts(self, name: str) -> dict[str, int]:
        """Counts the live tasks of a tenant by state, and those of its ended tasks that are still remembered."""
        live = [task for state in LIVE for task in self.of(name, state)]
        states = Counter(task.state for task in live)
        by_priority = Counter(f"live at {task.priority}" for task in live if task.state in {"queued", "started"})
        return dict(states + by_priority + self.tenant(name).ended)

    # The passing of time

    def expire(self, task_id: str) -> None:
        """Removes the record of an ended task."""
        if self.tasks.pop(task_id).state == "failed":
            self.stale.add(task_id)

    def forget_key(self, tenant: str, key: str) -> None:
        """Ends the window of a key."""
        assert self.keys.pop((tenant, key))[1]

    def lapse(self, runtime: str) -> None:
        """Makes a lease run out."""
        self.leases[runtime] = True

    def let_start(self, name: str) -> None:
        """Makes enough time pass for a tenant's rate to allow one more start."""
        ahead = self.service.ahead[name]
        self.service.ahead[name] = ahead - 1 if ahead >= 1 else -math.inf

    def outlive(self, name: str) -> None:
        """Ends the retention of a tenant's totals."""
        self.tenant(name).kept = False


class Step:
    """Accompanies every change: adds each touched tenant to its ring or removes it, and updates the counts."""

    def __init__(self, model: State) -> None:
        self._model = model
        model.service.came.clear()
        self.touched: dict[str, None] = {}  # tenants, in the order of the first touch
        self.counted: set[str] = set()  # tenants whose counts are written too
        self.letters: list[str] = []  # new dead letters
        self.swept = 0  # how many stale entries may be swept

    def touch(self, *names: str, count: bool = True) -> None:
        for name in names:
            self._model.tenant(name)
            self.touched[name] = None
            if count:
                self.counted.add(name)

    def count_limited(self, *names: str) -> None:
        """Also counts those of these tenants that have limits."""
        self.counted.update(filter(self._model.service.limited, names))

    def __enter__(self) -> Self:
        return self

    def seat(self) -> None:
        model = self._model
        model.service.pay()
        for name in self.touched:
            model.service.seat(name, len(model.queue(name)), len(model.of(name, "started")))
        self.touched.clear()

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error:
            return
        model = self._model
        self.seat()
        swept = max(2 * len(self.letters), self.swept)
        model.stale.difference_update(sorted(model.stale, key=str.encode)[:swept], self.letters)
        model.service.settle()
        for name in self.counted:
            if not any(model.of(name, state) for state in LIVE):
                if model.tenant(name).kept:
                    model.tenant(name).drained = True
                else:
                    model.tenant(name).ended.clear()
