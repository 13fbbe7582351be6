"""The part of the model that ends tasks: because they have run, or because they are canceled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import attrs

from .model_keys import pass_on_key
from .model_lanes import SEPARATOR, lane_for_others, route_in
from .model_rules import actor_in
from .model_sending import Sending
from .model_state import Step
from .model_tasks import DIED, ENDED, LIVE, Task, Verdict


@attrs.define
class Ending(Sending):
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
        service, rules = self.service, self.rules
        if rules.by_time and verdict.state not in "BUV":
            rules.learn(task.tenant, actor_in(verdict.body), verdict.seconds)
            service.owe(task.tenant, verdict.seconds - task.charged)
        elif rules.by_time:
            service.owe(task.tenant, -task.charged)
        elsewhere = self._lane_elsewhere(task)
        is_here = self.lanes.serves(self.acting, elsewhere)
        if verdict.state == "V" and (is_here or not self.lanes.is_served(elsewhere)):
            verdict = verdict._replace(state="X")
        if verdict.state in "RB":
            self._return(task, verdict, step)
        elif verdict.state in "UV":
            self._pass_on(task, elsewhere if verdict.state == "V" else None, step)
        else:
            self._settle(task, verdict.state, verdict.body, step, keep=verdict.keep)

    def _return(self, task: Task, verdict: Verdict, step: Step) -> None:
        """Queues a task again, or schedules its next attempt."""
        if verdict.state == "R":
            task.body, task.attempt = verdict.body, task.attempt + 1
            task.deliveries *= verdict.keep
        if task.canceling:
            self._cancel(task, step)
        elif verdict.state == "R":
            task.state, task.due = "scheduled", math.nan
        else:
            self.enqueue(task)

    def _pass_on(self, task: Task, lane: str | None, step: Step) -> None:
        """Queues a task for other runtimes: in this lane, or in that of its actor."""
        self.returned.add(task.id)
        if task.canceling:
            self._cancel(task, step)
            return
        if lane is None:
            self.lanes.add_route(route_in(task.body))
        else:
            task.body += DIED + f"refused {task.runtime}".encode() + DIED
        self.enqueue(task, lane)

    def _lane_elsewhere(self, task: Task) -> str:
        """Returns the lane of a task whose arguments do not fit the actor of this kind."""
        route = route_in(task.body)
        kind = self.lanes.kinds[self.acting]
        return lane_for_others(route, kind.signature(route.partition(SEPARATOR)[0]))

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
        pass_on_key(self, task)
        if letter == "X" and keep:
            step.letters.append(task.id)
        step.touch(task.tenant)

    def cancel(self, task_id: str, body: bytes, tenant: str = "", *, keep: bool) -> str:
        task = self.tasks.get(task_id)
        if task is None or tenant not in ("", task.tenant):
            return "missing"
        if task.state not in LIVE:
            return task.state
        self.act_for()
        found = task.state
        task.canceling = keep or found != "started", body
        if found != "started":
            with Step(self) as step:
                self._cancel(task, step)
        return found

    def cancel_many(self, asked: Sequence[tuple[str, str]], body: bytes, *, keep: bool) -> list[str]:
        """Cancels (task, tenant) in one step."""
        self.act_for()
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
        self.act_for()
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
        self.act_for()
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
                    task.stamp, task.deliveries, task.attempt = math.nan, 0, 1
                    task.body = task.body.partition(b"\n")[2]
                    self.enqueue(task)
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
