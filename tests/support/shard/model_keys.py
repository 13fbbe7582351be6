"""The part of the model that replaces tasks: a message with ``replace=True`` while another task has its key."""

from __future__ import annotations

import math

import attrs

from .model_state import State
from .model_tasks import Task

FAR = 1e14
"""A stamp beyond this is a due time that has not come; the others of the state machine are long past."""
Undo = list[tuple[Task, Task]]
"""Replaced tasks, and what they were before."""


def replace(model: State, new: Task, holder: tuple[str, bool], undo: Undo) -> tuple[str, bool] | None:
    """Returns the task that got the call of one with replace=True; None if that is accepted."""
    owner_id, ended = holder
    if ended:
        return None
    owner = model.tasks[owner_id]
    waiting = model.tasks[model.again[owner_id]] if owner_id in model.again else owner
    if waiting is owner and owner.state == "started":
        model.again[owner_id] = new.id
        new.state, new.later = "deferred", new.state == "scheduled"
        return None
    undo.append((waiting, attrs.evolve(waiting)))
    waiting.priority, waiting.window, waiting.attempt = new.priority, new.window, 1
    is_later = new.state == "scheduled"
    if not waiting.stored:  # it was sent in this step, too
        waiting.body, waiting.stamp, waiting.due = new.body, new.stamp, new.due
    else:  # of all that comes in one step, only the last counts
        origin = model.replaced.setdefault(waiting.id, attrs.evolve(waiting))
        waiting.body = new.body + b"".join(origin.body.partition(b"\n")[1:])
        keeps_place = not is_later and origin.state != "scheduled" and origin.stamp <= model.now * 1000 + 1e6
        if is_later:
            waiting.stamp, waiting.due = new.stamp, new.due
        else:
            waiting.stamp, waiting.due = origin.stamp if keeps_place else math.nan, origin.due
        is_later = is_later or (origin.later and keeps_place)
    if waiting.state == "deferred":
        waiting.later = is_later
    else:
        waiting.state, waiting.lane = new.state, None
    return waiting.id, False


def take_back(undo: Undo) -> None:
    """Makes tasks again what they were."""
    for task, before in reversed(undo):
        for field in ("body", "priority", "state", "stamp", "due", "window", "attempt", "later", "lane"):
            setattr(task, field, getattr(before, field))


def finish_replacing(model: State) -> None:
    """Ends a step: puts the tasks with new stamps behind the others."""
    for task_id, origin in model.replaced.items():
        if model.tasks[task_id].stamp != origin.stamp:
            model.tasks[task_id] = model.tasks.pop(task_id)
    model.replaced.clear()
    for task in model.tasks.values():
        task.stored = True


def pass_on_key(model: State, task: Task) -> None:
    """Frees the key of a task that has ended: if another one follows, that gets it and a place."""
    follower = model.tasks.get(model.again.pop(task.id, ""))
    if not task.key:
        return
    if model.keys[task.tenant, task.key][0] != task.id:  # it was to follow the owner
        model.again = {owner: other for owner, other in model.again.items() if other != task.id}
    elif follower:
        model.keys[task.tenant, task.key] = follower.id, False
        if follower.later and follower.stamp > FAR:
            follower.state = "scheduled"
        else:
            model.enqueue(follower)
    else:
        del model.keys[task.tenant, task.key]
        if task.state == "finished" and task.window:
            model.keys[task.tenant, task.key] = task.id, True
    task.key = ""
