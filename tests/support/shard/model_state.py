"""The state of the model, queries of it, and the steps that accompany every change."""

from __future__ import annotations

import math
from collections import Counter
from typing import Self

import attrs

from .model_lanes import Lanes, route_in
from .model_ring import Home, Service
from .model_rules import Rules
from .model_tasks import CRITICAL, LIVE, Task, Tenant


@attrs.define
class State:
    step: float  # µs that one level of priority is worth
    tasks: dict[str, Task] = attrs.Factory(dict)
    tenants: dict[str, Tenant] = attrs.Factory(dict)
    leases: dict[str, bool] = attrs.Factory(dict)  # runtime -> whether it has run out
    turns: dict[str, tuple[int, list[str], int]] = attrs.Factory(dict)
    """The last turn of each runtime: its number, the ids that it refused, and how many outcomes it had."""
    handed: dict[str, str] = attrs.Factory(dict)  # runtime -> the task that was handed to it since its last turn
    total: Counter[str] = attrs.Factory(Counter)  # ended tasks by state
    rules: Rules = attrs.Factory(Rules)
    lanes: Lanes = attrs.Factory(Lanes)
    services: dict[str, Service] = attrs.Factory(dict)  # by kind of runtimes
    filling: set[str] = attrs.Factory(set)  # kinds whose rings are not complete yet
    returned: set[str] = attrs.Factory(set)  # the tasks that a turn passes on to other runtimes
    kind_goes: bool = False  # whether the kind of the runtime that leaves goes with it
    acting: str = "0"  # the kind for which the present script acts
    scripts: int = 1  # how many scripts the last step took
    reserved: dict[tuple[str, str], int] = attrs.Factory(dict)  # (tenant, name) -> reserved room
    keys: dict[tuple[str, str], tuple[str, bool]] = attrs.Factory(dict)  # (tenant, key) -> (task, whether it has ended)
    again: dict[str, str] = attrs.Factory(dict)  # live task with a key -> the task that runs once after it
    replaced: dict[str, Task] = attrs.Factory(dict)  # stored tasks that this step replaces, as they were before it
    now: float = 0.0  # the server's time of the step, unix ms
    suspected: dict[str, float] = attrs.Factory(dict)  # tenant with suspects -> its place among these tenants
    emptying: str = ""  # the runtime that empties itself for a suspect
    stale: set[str] = attrs.Factory(set)  # dead letters whose records have expired, but which are still listed
    given_up: set[str] = attrs.Factory(set)  # the tasks that the last step of the maintenance gave up

    # Kinds of runtimes

    @property
    def service(self) -> Service:
        """The service of the kind for which the present script acts."""
        return self.service_of(self.acting)

    def service_of(self, kind: str) -> Service:
        if kind not in self.services:
            self.services[kind] = Service(self.rules, kind)
        return self.services[kind]

    def act_for(self, runtime: str = "") -> None:
        """Makes the next step act for the kind of a runtime, or for the first."""
        kind = self.lanes.kind_of.get(runtime)
        self.acting = next(iter(self.lanes.kinds)) if kind is None else kind

    @property
    def homes(self) -> dict[str, Home]:
        return {runtime: home for service in self.services.values() for runtime, home in service.homes.items()}

    @property
    def served(self) -> set[str]:
        """The tenants that runtimes of some kind can serve now."""
        return {name for service in self.services.values() for name in service.served}

    def homeless(self) -> set[str]:
        """Returns the tenants that could be served but are assigned to no runtime.

        Returns an empty set if one of the runtimes serves all tenants or may steal from all.
        """
        homes = [self.homes.get(runtime) for runtime in self.leases]
        if not homes or any(home is None or "" in home.steal for home in homes):
            return set()
        return self.served.difference(*[home.assigned for home in homes if home])

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

    def queue(self, tenant: str, kind: str | None = None) -> list[Task]:
        """Returns the tasks in the mailboxes of a tenant, in order: in all lanes, or in those that a kind serves."""
        waiting = [task for task in self.of(tenant, "queued") if not task.suspect]
        if kind is not None and self.lanes.used:
            waiting = [task for task in waiting if self.lanes.serves(kind, task.lane or "")]
        return self._in_order(waiting)

    def lane_of(self, task: Task) -> str:
        """Returns the lane in which a task belongs."""
        return self.lanes.of_route(route_in(task.body))

    def is_misplaced(self, task: Task, kind: str) -> bool:
        """Whether a queued task stands in the common lane, and belongs in one that a kind does not serve.

        Not if it was made due before its time: the scripts take it for a task of later, whose lane was known.
        """
        is_early = task.stamp > self.now * 1000 + 1e6
        lane = self.lane_of(task) if task.lane == "" and not is_early else ""
        return lane != "" and not self.lanes.serves(kind, lane)

    def enqueue(self, task: Task, lane: str | None = None) -> None:
        """Puts a task at its place in a mailbox, or among the suspects."""
        task.state, task.lane = "queued", self.lane_of(task) if lane is None else lane

    def suspects(self, tenant: str) -> list[Task]:
        """Returns the suspects of a tenant, in order."""
        return self._in_order([task for task in self.of(tenant, "queued") if task.suspect])

    def _in_order(self, tasks: list[Task]) -> list[Task]:
        return sorted(tasks, key=lambda task: (self.place(task), task.id.encode()))

    def room(self, name: str, reservation: str) -> float:
        """Returns how many more tasks a mailbox accepts."""
        waiting = sum(len(self.of(name, state)) for state in ("queued", "scheduled", "deferred"))
        others = sum(many for (tenant, own), many in self.reserved.items() if tenant == name and own != reservation)
        return self.rules.limit(name, "backlog") - waiting - others

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
        ahead = self.rules.ahead[name]
        self.rules.ahead[name] = ahead - 1 if ahead >= 1 else -math.inf

    def outlive(self, name: str) -> None:
        """Ends the retention of a tenant's totals."""
        self.tenant(name).kept = False


class Step:
    """Accompanies every change: adds each touched tenant to its ring or removes it, and updates the counts."""

    def __init__(self, model: State) -> None:
        self._model = model
        model.service.came.clear()
        self.met: dict[str, None] = {}  # all tenants that were touched
        self.touched: dict[str, None] = {}  # tenants, in the order of the first touch
        self.counted: set[str] = set()  # tenants whose counts are written too
        self.letters: list[str] = []  # new dead letters
        self.swept = 0  # how many stale entries may be swept

    def touch(self, *names: str, count: bool = True) -> None:
        for name in names:
            self._model.tenant(name)
            self.touched[name] = self.met[name] = None
            if count:
                self.counted.add(name)

    def count_limited(self, *names: str) -> None:
        """Also counts those of these tenants that have limits."""
        self.counted.update(filter(self._model.rules.limited, names))

    def __enter__(self) -> Self:
        return self

    def seat(self) -> None:
        """Decides who is on the ring of the kind for which the script acts."""
        model = self._model
        model.service.pay()
        for name in self.touched:
            self._seat(name, model.service)
        self.touched.clear()

    def _seat(self, name: str, service: Service) -> None:
        model, acts = self._model, service is self._model.service
        lets = model.rules.lets(name, len(model.queue(name)), len(model.of(name, "started")))
        service.seat(name, belongs=lets and bool(model.queue(name, service.kind)), pays=acts)

    def _seat_elsewhere(self) -> None:
        """Decides who is on the rings of the other kinds, and which lanes have tasks."""
        model = self._model
        for kind in model.lanes.kinds if len(model.lanes.kinds) > 1 else ():
            service = model.service_of(kind)
            for name in self.met if kind != model.acting else ():
                self._seat(name, service)
            service.drop_empty_groups()
        if model.lanes.used:
            lanes = {task.lane for task in model.tasks.values() if task.state == "queued" and not task.suspect}
            model.lanes.update({lane for lane in lanes if lane})

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error:
            return
        model = self._model
        self.seat()
        swept = max(2 * len(self.letters), self.swept)
        model.stale.difference_update(sorted(model.stale, key=str.encode)[:swept], self.letters)
        self._seat_elsewhere()
        model.service.drop_empty_groups()
        for service in model.services.values():
            service.restart()
        for name in self.counted:
            if not any(model.of(name, state) for state in LIVE):
                if model.tenant(name).kept:
                    model.tenant(name).drained = True
                else:
                    model.tenant(name).ended.clear()
