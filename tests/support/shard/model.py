"""A plain model of one shard: it does what the scripts in `fairactor/lua` do, without Redis or any optimization.

The model has no clock. Its caller passes in the stamps and due times that the server's clock gave.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from fairactor._model.wire import Permit, Waits

from .model_ring import GROUP, actor_in, is_capped
from .model_state import State, Step
from .model_suspects import FORBIDDEN, Permission, choose_suspect, is_given_up
from .model_tasks import DIED, ENDED, FULL, HANDED, LIVE, Room, Task, Verdict

LOOKS = 50
"""How many tasks of a tenant a turn looks at to find one that has room."""

Assigned = tuple[list[str], list[str]] | None
"""The tenants that a runtime serves first, and those that it may steal from; None: it serves all alike."""


@attrs.define
class Model(State):
    # Transitions

    def send(
        self,
        items: Sequence[Task],
        flags: Sequence[str],
        watcher: str,
        reservation: str = "",
        *,
        receiver: str = "",
        choice: Collection[str] = ("",),
    ) -> list[str | None]:
        """Returns, for each task, its id, '' if its id was sent before, or the id of the task that holds its key.

        The entry is None where another tenant has a task with that id, and FULL where the mailbox is full. Tasks that
        were sent together with a task that finds its mailbox full are not accepted either.

        ``receiver`` is the runtime to which the server handed the task, or '' for none. It must be in ``choice``, or ''
        if the task must not be handed over.
        """
        answers: list[str | None] = []
        with Step(self) as step:
            step.touch(*[task.tenant for task in items])
            for number, flag in enumerate(flags):
                if flag != "+" or number == 0:
                    end = next((n for n in range(number + 1, len(items)) if flags[n] != "+"), len(items))
                    answers += self._post(items[number:end], watcher if flag == "w" else "", reservation)
            for task_id in self.moved:  # keep tasks ordered by stamp
                self.tasks[task_id] = self.tasks.pop(task_id)
            self.moved.clear()
            for task in self.tasks.values():
                task.stored = True
            for name in {task.tenant for task in items}:
                if (name, reservation) in self.reserved:
                    self._reserve(name, reservation, -sum(task.tenant == name for task in items))
            may_hand = len(items) == 1 and not reservation and self._at_once(items[0])
            assert receiver in (choice if may_hand else ("",)), f"to {receiver!r}"
            if receiver:
                self._hand(items[0], receiver)
        return answers

    def _at_once(self, task: Task) -> bool:
        """Whether a newly accepted task may be handed over: no other waits, and nothing holds it back."""
        service, name = self.service, task.tenant
        return (
            self.tasks.get(task.id) is task
            and self.queue(name) == [task]
            and not (service.by_time or service.homes or service.root.tags or service.own(name, "paused"))
            and len(self.of(name, "started")) < service.limit(name, "concurrency")
            and (not service.burst(name) or self.free(name))
        )

    def _hand(self, task: Task, runtime: str) -> None:
        self.service.count_start(task.tenant)
        task.state, task.runtime, task.turn, task.charged = "started", runtime, self.turns[runtime][0] | HANDED, 1
        task.since = math.nan
        self.handed[runtime] = task.id

    def _post(self, items: Sequence[Task], watcher: str, reservation: str) -> list[str | None]:  # noqa: C901 - each rule
        """Accepts all of these tasks or none; only the first can have a watcher."""
        answers: list[str | None] = []
        accepted: list[Task] = []
        undo: list[tuple[Task, Task]] = []
        for task in items:
            known = self.tasks.get(task.id)
            holder = self.keys.get((task.tenant, task.key)) if task.key else None
            if holder is not None and task.replaces and known is None:
                holder = self._replace(task, holder, undo)
            if known is not None:
                answers.append("" if known.tenant == task.tenant else None)
            elif holder is not None:
                answers.append(holder[0])
            else:
                answers.append(task.id)
                accepted.append(task)
                self.tasks[task.id] = task
                task.watchers = [watcher] if watcher and task is items[0] else []
                if task.state != "deferred":
                    self._hold_key(task)
        full = {task.tenant for task in accepted if self.room(task.tenant, reservation) < 0}
        if not full:
            return answers
        for task, before in reversed(undo):
            for field in ("body", "priority", "state", "stamp", "due", "window", "attempt"):
                setattr(task, field, getattr(before, field))
        for task in accepted:
            del self.tasks[task.id]
            if self.keys.get((task.tenant, task.key)) == (task.id, False):
                del self.keys[task.tenant, task.key]
            self.again = {owner: follower for owner, follower in self.again.items() if follower != task.id}
        ids = {id(task) for task in accepted if task.tenant in full}
        return [FULL if id(task) in ids else answer for task, answer in zip(items, answers, strict=True)]

    def _replace(self, new: Task, holder: tuple[str, bool], undo: list[tuple[Task, Task]]) -> tuple[str, bool] | None:
        """Returns the task that got the call of one with replace=True; None if that is accepted."""
        owner_id, ended = holder
        if ended:
            return None
        owner = self.tasks[owner_id]
        waiting = self.tasks[self.again[owner_id]] if owner_id in self.again else owner
        if waiting is owner and owner.state == "started":
            self.again[owner_id] = new.id
            new.state, new.later = "deferred", new.state == "scheduled"
            return None
        undo.append((waiting, attrs.evolve(waiting)))
        at = waiting.body.find(b"\n") if not math.isnan(waiting.stamp) and waiting.stored else -1
        waiting.body = new.body + (waiting.body[at:] if at >= 0 else b"")
        waiting.priority, waiting.window, waiting.attempt = new.priority, new.window, 1
        if new.state == "scheduled" or not waiting.stored:
            waiting.stamp, waiting.due = new.stamp, new.due
            moves = True
        else:
            moves = waiting.state == "scheduled" or waiting.stamp > self.now * 1000 + 1e6
            waiting.stamp = math.nan if moves else waiting.stamp
        if waiting.state == "deferred":
            waiting.later = new.state == "scheduled" or (waiting.later and not moves)
        else:
            waiting.state = new.state
        if moves and waiting.stored:
            self.moved[waiting.id] = None
        return waiting.id, False

    def reserve(self, own: str, rooms: dict[str, int]) -> str | None:
        """Reserves room in mailboxes; returns the first tenant whose mailbox has too little room, if any."""
        for name, many in rooms.items():
            self.tenant(name)
            if many and many > self.room(name, own):
                return name
        for name, many in rooms.items():
            if self.room(name, own) < math.inf:
                self.reserved.pop((name, own), None)
                self._reserve(name, own, many)
        return None

    def _reserve(self, name: str, own: str, many: int) -> None:
        left = self.reserved.pop((name, own), 0) + many
        if left > 0:
            self.reserved[name, own] = left

    def _hold_key(self, task: Task) -> None:
        if task.key:
            self.keys[task.tenant, task.key] = task.id, False

    def join(self, runtime: str, serves: Assigned) -> None:
        self.leases[runtime] = False
        self.assign(runtime, serves)

    def assign(self, runtime: str, serves: Assigned) -> bool:
        if runtime in self.leases:
            with Step(self) as step:
                step.count_limited(*self.service.assign(runtime, serves))
        return runtime in self.leases

    def turn(
        self,
        runtime: str,
        number: int,
        verdicts: Sequence[Verdict],
        want: int,
        claimed: Sequence[str],
        *,
        heard: bool = False,
        permission: Permission = FORBIDDEN,
        gives_back: bool = False,
        room: Room = None,
    ) -> tuple[list[str], int, Waits]:
        """Settles claims, then claims the tasks that the server claimed, in the same order.

        Asserts that the server's choice is right. A task that was handed over since the last turn comes last in
        ``claimed``, unless the runtime has received it (``heard``). A suspect comes before it.

        Returns:
            The refused ids, how many tasks beside a suspect it could claim, and what the reply says of suspects.
        """
        waits = Waits.SOME if self.suspected and permission[0] in {Permit.NONE, Permit.SHARED} else Waits.NONE
        suspect: Task | None = None
        with Step(self) as step:
            missed = self.missed(runtime, heard=heard)
            if missed:
                missed.turn = number
                assert claimed[-1:] == [missed.id]
                claimed = claimed[:-1]
            refused = self._end_all(runtime, verdicts, step)
            step.touch(*[name for name in self.service.throttled if self.free(name)])
            if self.suspected and not gives_back:
                suspect, want, waits = choose_suspect(self, runtime, want, permission, step)
            if suspect:
                suspect.turn = number
                assert claimed[-1:] == [suspect.id], f"{suspect.id!r} is not the last of {claimed}"
                claimed = claimed[:-1]
            step.seat()
            self.service.charge(suspect)
            home = self.service.homes.get(runtime)
            stolen = self.service.stolen
            self.service.capped = room is not None and want > 0
            if home and want:
                self.service.come_home(runtime)
            left_room = [*room] if room is not None else None
            self._pass_over(left_room)
            for task_id in claimed:
                self._serve(self.tasks[task_id], runtime, number, step, left_room)
                self._pass_over(left_room)
            if home and want:
                step.count_limited(*home.assigned)
                if len(claimed) - (self.service.stolen - stolen) < want:
                    step.count_limited(*home.steal)
            left, _, _ = self.service.open_to(runtime)
            assert len(claimed) == want or not left, f"{want} wanted, {len(claimed)} given, {left} wait"
            assert left_room is None or min(left_room) >= 0
            self.service.capped = False
            self.service.passed.clear()
            self._share(runtime, permission)
        self.leases[runtime] = False
        self.turns[runtime] = (number, refused)
        self.handed.pop(runtime, None)
        return refused, want, waits

    def _share(self, runtime: str, permission: Permission) -> None:
        for task in self.claims(runtime) if permission[0] == Permit.SHARED else ():
            task.alone = False

    def _pass_over(self, room: Room) -> None:
        """Passes over the tenants none of whose first tasks has room."""
        self.service.passed = {name for name in self.service.served if not self._startable(name, room)}

    def _startable(self, tenant: str, room: Room) -> list[Task]:
        """Returns those of a tenant's first tasks that have room."""
        return [task for task in self.queue(tenant)[:LOOKS] if room is None or room[is_capped(task.body)] > 0]

    def missed(self, runtime: str, *, heard: bool) -> Task | None:
        """Returns the task handed to a runtime since its last turn, if it stands but was not received."""
        task = None if heard else self.tasks.get(self.handed.get(runtime, ""))
        stands = task and (task.state, task.runtime, task.turn) == ("started", runtime, self.turns[runtime][0] | HANDED)
        return task if stands else None

    def turn_again(self, runtime: str) -> tuple[int, list[str]]:
        """Returns the number of a runtime's last turn and the ids that it refused; renews the lease."""
        self.leases[runtime] = False
        return self.turns[runtime]

    def _end_all(self, runtime: str, verdicts: Sequence[Verdict], step: Step) -> list[str]:
        """Settles claims; returns the refused ids."""
        refused = []
        for verdict in verdicts:
            task = self.tasks.get(verdict.id)
            if task and task.state == "started" and (task.runtime, task.turn) == (runtime, verdict.turn):
                self._end(task, verdict, step)
            else:
                refused.append(verdict.id)
        return refused

    def _end(self, task: Task, verdict: Verdict, step: Step) -> None:
        task.progress = None
        step.touch(task.tenant)
        service = self.service
        if service.by_time and verdict.state != "B":
            service.learn(task.tenant, actor_in(verdict.body), verdict.seconds)
            service.owe(task.tenant, verdict.seconds - task.charged)
        elif service.by_time:
            service.owe(task.tenant, -task.charged)
        if verdict.state in "RB":
            if verdict.state == "R":
                task.body, task.attempt = verdict.body, task.attempt + 1
                task.deliveries *= verdict.keep
            if task.canceling:
                self._cancel(task, step)
            elif verdict.state == "R":
                task.state, task.due = "scheduled", math.nan
            else:
                task.state = "queued"
        else:
            self._settle(task, verdict.state, verdict.body, step, keep=verdict.keep)

    def _cancel(self, task: Task, step: Step) -> None:
        assert task.canceling
        keep, outcome = task.canceling
        self._settle(task, "C", outcome + b"\n" + task.body, step, keep=keep)

    def _settle(self, task: Task, letter: str, body: bytes, step: Step, *, keep: bool) -> None:
        keep = keep or bool(task.watchers) or (letter == "F" and task.window)
        task.state, task.body, task.watchers, task.progress, task.canceling = ENDED[letter], body, [], None, None
        self.total[task.state] += 1
        tenant = self.tenant(task.tenant)
        tenant.ended[task.state] += 1
        tenant.kept |= keep
        if not keep:
            del self.tasks[task.id]
        follower = self.tasks.get(self.again.pop(task.id, ""))
        if task.key and self.keys[task.tenant, task.key][0] != task.id:
            self.again = {owner: follower for owner, follower in self.again.items() if follower != task.id}
            task.key = ""
        elif follower:
            self.keys[task.tenant, task.key] = follower.id, False
            follower.state = "scheduled" if follower.later and follower.stamp > 1e14 else "queued"
            task.key = ""
        elif task.key:
            self.keys.pop((task.tenant, task.key))
            if letter == "F" and task.window:
                self.keys[task.tenant, task.key] = task.id, True
            task.key = ""
        if letter == "X" and keep:
            step.letters.append(task.id)
        step.touch(task.tenant)

    def _serve(self, task: Task, runtime: str, number: int, step: Step, room: list[int] | None) -> None:
        """Claims a task, which must be the first with room of a tenant whose turn it is."""
        assert [task] == self._startable(task.tenant, room)[:1], (
            f"{task.id!r} is not first in {self.queue(task.tenant)}"
        )
        if room is not None:
            room[is_capped(task.body)] -= 1
        task.charged = self.service.cost(task.tenant, task.body)
        self.service.serve(task.tenant, runtime, task.charged)
        task.state, task.runtime, task.turn, task.since, task.alone = "started", runtime, number, math.nan, False
        step.touch(task.tenant)
        step.seat()

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
        with Step(self) as step:
            waiting = sorted((at, name.encode()) for name, at in scheduled.items() if at <= now)[:limit]
            left = limit
            for number, (_, name) in enumerate(waiting):
                due = self._due(now, name.decode())[: math.ceil(left / (len(waiting) - number))]
                left -= len(due)
                for task in due:
                    task.state = "queued"
                step.touch(name.decode())
            dead = min((runtime for runtime, lapsed in self.leases.items() if lapsed), key=str.encode, default=None)
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
            service = self.service
            rates = sorted((name for name, ahead in service.ahead.items() if ahead < 0), key=str.encode)[:limit]
            for name in rates:
                del service.ahead[name]
        return bool(self._due(now)) or limit in (len(old), min(gone, limit), len(rates)) or dead is not None

    def _due(self, now: float, tenant: str | None = None) -> list[Task]:
        """Returns the delayed tasks whose time has come, of one tenant or of all."""
        due = [task for task in self.tasks.values() if task.state == "scheduled" and task.due <= now]
        return sorted((t for t in due if tenant in (None, t.tenant)), key=lambda task: (task.due, task.id.encode()))

    def leave(self, runtime: str, now: float, *, crashed: bool, most: int, body: bytes, keep: bool) -> int:
        with Step(self) as step:
            self._take_back(runtime, now, step)
            number = len(self.claims(runtime))
            if crashed:
                self._blame(runtime, "crashed", most, body, step, keep=keep)
            self._leave(runtime, step)
            return number

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
            if self.service.by_time:
                self.service.owe(task.tenant, (now - task.since) / 1000 - task.charged)

    def _leave(self, runtime: str, step: Step) -> None:
        for task in self.claims(runtime):
            task.state, task.progress = "queued", None
            if task.canceling:
                self._cancel(task, step)
        service = self.service
        home = service.homes.pop(runtime, None)
        lodgers = sorted(home.assigned) if home else []
        step.touch(*filter(service.limited, lodgers))
        stood = [name for name in lodgers if service.member(name) in service.root.tags]
        step.seat()
        service.move(stood)
        for of_each in (self.leases, self.turns, self.handed):
            of_each.pop(runtime, None)

    def cancel(self, task_id: str, body: bytes, tenant: str = "", *, keep: bool) -> str:
        task = self.tasks.get(task_id)
        if task is None or tenant not in ("", task.tenant):
            return "missing"
        if task.state not in LIVE:
            return task.state
        found = task.state
        task.canceling = keep or found != "started", body
        if found != "started":
            with Step(self) as step:
                self._cancel(task, step)
        return found

    def cancel_many(self, asked: Sequence[tuple[str, str]], body: bytes, *, keep: bool) -> list[str]:
        """Cancels (task, tenant) in one step."""
        found: list[str] = []
        waiting: dict[str, Task] = {}
        for task_id, tenant in asked:
            task = self.tasks.get(task_id)
            if task is None or tenant not in ("", task.tenant):
                found.append("missing")
                continue
            found.append(task.state)
            if task.state == "started":
                task.canceling = keep, body
            elif task.state in LIVE:
                task.canceling = True, body
                waiting[task_id] = task
        with Step(self) as step:
            for task in waiting.values():
                self._cancel(task, step)
        return found

    def purge(self, name: str, body: bytes, *, keep: bool) -> int:
        """Cancels all waiting tasks of a tenant."""
        waiting = self.of(name, "queued") + self.of(name, "scheduled") + self.of(name, "deferred")
        with Step(self) as step:
            step.touch(name)
            for task in waiting:
                task.canceling = keep, body
                self._cancel(task, step)
        return len(waiting)

    def redrive(self, asked: Sequence[tuple[str, str, bool]], tenant: str = "") -> list[bool | str]:
        """Redrives (task, key, window) of a tenant, '' for any.

        Returns, for each, whether it was a dead letter, or the id of the task that holds its key.
        """
        answers: list[bool | str] = []
        with Step(self) as step:
            for task_id, key, window in asked:
                task = self.tasks.get(task_id)
                if task is None or task.state != "failed" or tenant not in ("", task.tenant):
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
                    self.tasks[task_id] = self.tasks.pop(task_id)  # keep tasks ordered by stamp
                    step.touch(task.tenant)
        return answers

    def discard(self, asked: Iterable[str], tenant: str = "") -> int:
        """Deletes dead letters of a tenant, '' for any; returns how many existed."""
        found = {task_id: self.tasks[task_id] for task_id in asked if task_id in self.tasks}
        gone = [id_ for id_, task in found.items() if task.state == "failed" and tenant in ("", task.tenant)]
        for task_id in gone:
            del self.tasks[task_id]
        return len(gone)

    def configure(self, whose: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Configures a tenant, a group, or the defaults; a change of the defaults includes a review of all tenants."""
        service = self.service
        with Step(self) as step:
            policy = service.configure(whose, changes)
            if whose == "":
                step.touch(*filter(self.counts, self.tenants), count=False)
                step.count_limited(*step.touched)
            elif whose[0] == GROUP:
                service.hasten(whose, service.root.virtual)
            else:
                step.touch(whose, count=False)
                step.count_limited(whose)
                stood = whose in service.served
                step.seat()
                if stood:
                    service.hasten(whose, service.time_for(whose))
                if not service.limited(whose):
                    service.ahead.pop(whose, None)
            if not service.policies:
                service.ahead.clear()
        return policy

    def watch(self, runtime: str, tasks: Iterable[tuple[str, str, str]]) -> list[list[bytes]]:
        return [self._watch(runtime, self.tasks.get(task_id), tenant, inside) for task_id, tenant, inside in tasks]

    def _watch(self, runtime: str, task: Task | None, tenant: str, inside: str) -> list[bytes]:
        if task is None or tenant not in ("", task.tenant):
            return [b"n"]
        if task.state not in LIVE:
            return [b"o", task.record]
        if task.tenant == inside and self.service.limit(inside, "concurrency") == 1:
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
        """Repairs the shard: if nothing is damaged, this only drops totals whose retention is over."""
        with Step(self) as step:
            step.counted.update(self.tenants)
            step.touch(*filter(self.counts, self.tenants))
