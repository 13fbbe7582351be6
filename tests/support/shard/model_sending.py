"""The part of the model that accepts tasks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import attrs

from .model_keys import Undo, finish_replacing, replace, take_back
from .model_lanes import is_routed
from .model_state import State, Step
from .model_tasks import FULL, HANDED, Task


@attrs.define
class Sending(State):
    def send(
        self,
        items: Sequence[Task],
        flags: Sequence[str],
        watcher: str,
        reservation: str = "",
        *,
        receiver: str = "",
        choice: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> list[str | None]:
        """Returns, for each task, its id, '' if its id was sent before, or the id of the task that holds its key.

        The entry is None where another tenant has a task with that id, and FULL where the mailbox is full. Tasks that
        were sent together with a task that finds its mailbox full are not accepted either.

        ``receiver`` is the runtime to which the server handed the task, or '' for none. ``choice`` has by kind those to
        which it could, and '' if it may have found none.
        """
        answers: list[str | None] = []
        self.act_for()
        self.lanes.routed |= any(is_routed(task.body) for task in items)
        self.lanes.used |= self.lanes.routed
        with Step(self) as step:
            step.touch(*[task.tenant for task in items])
            for number, flag in enumerate(flags):
                if flag != "+" or number == 0:
                    end = next((n for n in range(number + 1, len(items)) if flags[n] != "+"), len(items))
                    answers += self._post(items[number:end], watcher if flag == "w" else "", reservation)
            finish_replacing(self)
            for name in {task.tenant for task in items}:
                if (name, reservation) in self.reserved:
                    self._reserve(name, reservation, -sum(task.tenant == name for task in items))
            for task in self.tasks.values():
                if task.state == "queued" and task.lane is None:
                    self.enqueue(task)
            self._check_receiver(receiver, [] if len(items) > 1 or reservation else items, choice)
            if receiver:
                self._hand(items[0], receiver)
        return answers

    def _check_receiver(self, receiver: str, items: Sequence[Task], choice: Mapping[str, Collection[str]]) -> None:
        """Asserts that the right runtime got a task, if any: of the first kind that has one."""
        kinds = [self.acting, *[kind for kind in self.lanes.kinds if kind != self.acting]]
        able = [kind for kind in kinds for task in items if self._at_once(task, kind)]
        for kind in able:
            if receiver in choice[kind] and receiver:
                return
            assert "" in choice[kind], f"one of {choice[kind]} should have got the task, not {receiver!r}"
        assert not receiver, f"{receiver!r} should not have got the task"

    def _at_once(self, task: Task, kind: str) -> bool:
        """Whether a newly accepted task may be handed to a kind: no other waits for it, and nothing holds it back."""
        rules, name = self.rules, task.tenant
        waiting = self.queue(name, None if rules.limited(name) else kind)
        return (
            self.tasks.get(task.id) is task
            and not task.takes_over
            and (waiting == [task] or (kind in self.filling and not rules.limited(name)))  # others may not be there yet
            and (not self.lanes.used or self.lanes.serves(kind, task.lane or ""))
            and not (rules.by_time or self.homes or self.service_of(kind).root.tags or rules.own(name, "paused"))
            and len(self.of(name, "started")) < rules.limit(name, "concurrency")
            and (not rules.burst(name) or rules.free(name))
        )

    def _hand(self, task: Task, runtime: str) -> None:
        self.rules.count_start(task.tenant)
        task.state, task.runtime, task.turn, task.charged = "started", runtime, self.turns[runtime][0] | HANDED, 1
        task.since = math.nan
        self.handed[runtime] = task.id

    def _post(self, items: Sequence[Task], watcher: str, reservation: str) -> list[str | None]:
        """Accepts all of these tasks or none; only the first can have a watcher."""
        answers: list[str | None] = []
        accepted: list[Task] = []
        undo: Undo = []
        keys_before = dict(self.keys)
        for task in items:
            known = self.tasks.get(task.id)
            holder = self.keys.get((task.tenant, task.key)) if task.key else None
            if holder is not None and task.replaces and known is None:
                task.takes_over, holder = True, replace(self, task, holder, undo)
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
        take_back(undo)
        self.keys = keys_before
        for task in accepted:
            del self.tasks[task.id]
            self.again = {owner: follower for owner, follower in self.again.items() if follower != task.id}
        ids = {id(task) for task in accepted if task.tenant in full}
        return [FULL if id(task) in ids else answer for task, answer in zip(items, answers, strict=True)]

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
