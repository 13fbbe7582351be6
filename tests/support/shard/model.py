"""A plain model of one shard: it does what the scripts in `fairactor/lua` do, without Redis or any optimization.

The model has no clock. Its caller passes in the stamps and due times that the server's clock gave.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import attrs

from .model_lanes import ALL, Kind, Routing, is_routed
from .model_rules import GROUP
from .model_state import Step
from .model_suspects import is_given_up
from .model_tasks import DIED, LIVE, Task
from .model_turns import Turns

Assigned = tuple[list[str], list[str]] | None
"""The tenants that a runtime serves first, and those that it may steal from; None: it serves all alike."""


@attrs.define
class Model(Turns):
    def join(self, runtime: str, serves: Assigned, kind: Kind = ALL) -> tuple[str, bool]:
        """Returns the number of the runtime's kind, and whether the kind has a ring to be filled."""
        self.leases[runtime] = False
        number, fills, gone = self.lanes.join(runtime, kind)
        for other in gone:
            self.services.pop(other, None)
            self.filling.discard(other)
        if fills:
            self.services.pop(number, None)
            self.filling.add(number)
        self.assign(runtime, serves)
        return number, number in self.filling

    def fill(self, runtime: str) -> None:
        """Puts the tenants onto the ring of a new kind."""
        self.act_for(runtime)
        with Step(self) as step:
            names = [name for name in self.tenants if self.counts(name) or self.tenant(name).drained]
            step.touch(*names, count=False)
            step.count_limited(*names)
            self.filling.discard(self.acting)

    def sort(self) -> None:
        """Moves the tasks of the common lane to others, because nobody serves it."""
        self.act_for()
        with Step(self) as step:
            for task in self.tasks.values():
                if task.state == "queued" and not task.suspect and task.lane == "":
                    task.lane = self.lane_of(task)
                    step.touch(task.tenant, count=False)
            del self.lanes.unserved[""]

    def assign(self, runtime: str, serves: Assigned) -> bool:
        if runtime in self.leases:
            self.act_for(runtime)
            with Step(self) as step:
                step.count_limited(*self.service.assign(runtime, serves))
        return runtime in self.leases

    def maintain(
        self,
        limit: int,
        most: int,
        *,
        keep: bool,
        body: bytes,
        now: float,
        scheduled: Mapping[str, float],
        ears: Collection[str] = (),
    ) -> bool:
        """Returns whether there is more to do; ``now`` in ms.

        ``scheduled`` orders the tenants with delayed tasks; ``ears`` are the runtimes that still listen.
        """
        self.given_up = set()
        dead = min((runtime for runtime, lapsed in self.leases.items() if lapsed), key=str.encode, default=None)
        after = self._close_lanes() if dead is None else self._end_kind(dead)
        with Step(self) as step:
            waiting = sorted((at, name.encode()) for name, at in scheduled.items() if at <= now)[:limit]
            left = limit
            for number, (_, name) in enumerate(waiting):
                due = self._due(now, name.decode())[: math.ceil(left / (len(waiting) - number))]
                left -= len(due)
                for task in due:
                    self.enqueue(task)
                step.touch(name.decode())
            if dead is not None:
                self._take_back(dead, now, step)
                self._blame(dead, "silent" if dead in ears else "died", most, body, step, keep=keep)
                self._leave(dead, step)
            step.swept = limit
            gone = len(self.stale)
            old = sorted((name for name, t in self.tenants.items() if t.drained and not t.kept), key=str.encode)[:limit]
            for name in old:
                self.tenant(name).drained = False
            step.counted.update(old)
            ahead = self.rules.ahead
            rates = sorted((name for name, starts in ahead.items() if starts < 0), key=str.encode)[:limit]
            for name in rates:
                del ahead[name]
        self._apply(after)
        return bool(self._due(now)) or limit in (len(old), min(gone, limit), len(rates)) or dead is not None

    def _due(self, now: float, tenant: str | None = None) -> list[Task]:
        """Returns the delayed tasks whose time has come, of one tenant or of all."""
        due = [task for task in self.tasks.values() if task.state == "scheduled" and task.due <= now]
        return sorted((t for t in due if tenant in (None, t.tenant)), key=lambda task: (task.due, task.id.encode()))

    def leave(self, runtime: str, now: float, *, crashed: bool, most: int, body: bytes, keep: bool) -> int:
        after = self._end_kind(runtime)
        with Step(self) as step:
            self._take_back(runtime, now, step)
            number = len(self.claims(runtime))
            if crashed:
                self._blame(runtime, "crashed", most, body, step, keep=keep)
            self._leave(runtime, step)
        self._apply(after)
        return number

    def _close_lanes(self) -> Routing:
        """Lets a shard with one kind do without lanes again, once no task needs them; returns as `_end_kind`."""
        self.act_for()
        lanes = self.lanes
        before = lanes.routing
        if lanes.used and len(lanes.kinds) == 1 and not lanes.unserved:
            lanes.revise()
        after, lanes.routing = lanes.routing, before
        return after

    def _apply(self, routing: Routing) -> None:
        lanes = self.lanes
        lanes.routing = routing
        lanes.used = lanes.used or bool(lanes.unserved)

    def _end_kind(self, runtime: str) -> Routing:
        """Ends the kind of a runtime that leaves, if others stay. Returns the routing that holds after this step."""
        self.act_for(runtime)
        before = self.lanes.routing
        gone = self.lanes.leave(runtime)
        self.kind_goes = gone is not None
        if gone is not None:
            home = self.service_of(gone).homes.get(runtime)
            self.services.pop(gone, None)
            self.filling.discard(gone)
            self.act_for()
            if home:  # its tenants stay where they are
                self.service.homes[runtime] = home
        after, self.lanes.routing = self.lanes.routing, before
        return after

    def _blame(self, runtime: str, reason: str, most: int, body: bytes, step: Step, *, keep: bool) -> None:
        """Counts the claims of a runtime as deliveries."""
        for task in self.claims(runtime):
            task.deliveries = min(task.deliveries + 1, 255)
            task.body += DIED + f"{reason} {runtime}".encode() + DIED
            if task.canceling is None and is_given_up(task, reason, most):
                self._settle(task, "X", body + b"\n" + task.body, step, keep=keep)
                self.given_up.add(task.id)

    def _take_back(self, runtime: str, now: float, step: Step) -> None:
        """Charges tenants for the time that a runtime's claims have taken until now, beyond what they were charged."""
        for task in self.claims(runtime):
            step.touch(task.tenant)
            if self.rules.by_time and not self.kind_goes:
                self.service.owe(task.tenant, (now - task.since) / 1000 - task.charged)

    def _leave(self, runtime: str, step: Step) -> None:
        for task in self.claims(runtime):
            self.enqueue(task)
            task.progress = None
            if task.canceling:
                self._cancel(task, step)
        service = self.service
        home = service.homes.pop(runtime, None)
        lodgers = sorted(home.assigned) if home else []
        step.touch(*filter(self.rules.limited, lodgers))
        stood = [name for name in lodgers if self.rules.member(name) in service.root.tags]
        step.seat()
        if not self.kind_goes:
            service.move(stood)
        for of_each in (self.leases, self.turns, self.handed):
            of_each.pop(runtime, None)

    def configure(self, whose: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Configures a tenant, a group, or the defaults; a change of the defaults includes a review of all tenants."""
        rules = self.rules
        self.act_for()
        before = rules.mark(whose)
        services = [self.service_of(kind) for kind in self.lanes.kinds]
        with Step(self) as step:
            policy = rules.configure(whose, changes)
            if rules.mark(whose) != before:
                for service in services:
                    service.withdraw(whose, before)
            if whose == "":
                step.touch(*filter(self.counts, self.tenants), count=False)
                step.count_limited(*step.touched)
            elif whose[0] == GROUP:
                for service in services:
                    service.hasten(whose, service.root.virtual)
            else:
                step.touch(whose, count=False)
                step.count_limited(whose)
                stood = [service for service in services if whose in service.served]
                step.seat()
                for service in stood:
                    service.hasten(whose, service.time_for(whose))
                if not rules.limited(whose):
                    rules.ahead.pop(whose, None)
            if not rules.policies:
                rules.ahead.clear()
        return policy

    def expire_lane(self, lane: str, ended: Collection[str], body: bytes, now: float, *, keep: bool) -> None:
        """Ends the tasks of a lane that nobody serves; ``ended`` are those that the server ended, at ``now`` in ms."""
        self.act_for()
        waiting = [task for task in self.tasks.values() if task.state == "queued" and task.lane == lane]
        due = [task for task in waiting if not task.suspect] if self.lanes.unserved.get(lane) else []
        assert {task.id for task in due if task.stamp / 1000 < now - 1} <= set(ended) <= {task.id for task in due}
        with Step(self) as step:
            for task in [self.tasks[task_id] for task_id in ended]:
                self._settle(task, "X", body + b"\n" + task.body, step, keep=keep)

    def watch(self, runtime: str, tasks: Iterable[tuple[str, str, str]]) -> list[list[bytes]]:
        return [self._watch(runtime, self.tasks.get(task_id), tenant, inside) for task_id, tenant, inside in tasks]

    def _watch(self, runtime: str, task: Task | None, tenant: str, inside: str) -> list[bytes]:
        if task is None or tenant not in ("", task.tenant):
            return [b"n"]
        if task.state not in LIVE:
            return [b"o", task.record]
        if task.tenant == inside and self.rules.limit(inside, "concurrency") == 1:
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
        """Repairs the shard. If nothing is damaged, this drops totals whose retention is over and routes without tasks.

        It makes the rings of all kinds but one anew.
        """
        self.act_for()
        if self.lanes.used:
            for task in self.tasks.values():
                if task.state == "queued" and not task.suspect and task.lane == "" and is_routed(task.body):
                    task.lane = self.lane_of(task)
            self.lanes.revise()
        with Step(self) as step:
            for kind, service in self.services.items():
                if kind != self.acting:
                    service.clear()
            step.counted.update(self.tenants)
            step.touch(*filter(self.counts, self.tenants))
