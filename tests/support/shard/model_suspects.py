"""The part of the model that decides which suspect a turn claims."""

from __future__ import annotations

import math

from fairactor._model.wire import Emptying, Permit, Waits

from .model_state import State, Step
from .model_tasks import Task

Permission = tuple[Permit, int, Emptying]
"""How a turn may claim a suspect, the deliveries after which a task fails, and whether the process empties itself."""

FORBIDDEN: Permission = Permit.NONE, 255, Emptying.NO


def is_given_up(task: Task, reason: str, most: int) -> bool:
    """Whether a task fails after a delivery that did not end, counted already."""
    proved = reason != "silent" and (most == 1 or task.alone)
    return task.deliveries >= (most if proved else min(2 * most, 255))


def _candidates(model: State, runtime: str) -> list[str]:
    order = sorted(model.suspected, key=lambda name: (model.suspected[name], name.encode()))
    home = model.service.homes.get(runtime)
    if home is None:
        return order
    others = order if "" in home.steal else [name for name in order if name in home.steal]
    return [*[name for name in order if name in home.assigned], *others]


def _may_start(model: State, name: str) -> bool:
    rules = model.rules
    at_once = not rules.own(name, "paused") and len(model.of(name, "started")) < rules.limit(name, "concurrency")
    return at_once and (not rules.burst(name) or rules.free(name))


def choose_suspect(
    model: State, runtime: str, want: int, permission: Permission, step: Step
) -> tuple[Task | None, int, Waits]:
    """Returns the suspect that a turn claims, how many tasks it may claim besides, and what the reply says."""
    permit, most, emptying = permission
    if permit not in {Permit.APART, Permit.ALONE}:
        return None, want, Waits.SOME if model.suspected else Waits.NONE
    apart: Task | None = None
    alone: Task | None = None
    for name in _candidates(model, runtime):
        step.count_limited(name)
        if not _may_start(model, name):
            continue
        for task in _seen(model, name):
            if task.deliveries + 1 >= most:
                alone = alone or task
            elif apart is None or task.deliveries < apart.deliveries:
                apart = task
        if alone if permit == Permit.ALONE else apart and apart.deliveries == 1:
            break
    if permit == Permit.APART and alone and _may_empty(model, runtime, emptying):
        model.emptying = runtime
        return None, 0, Waits.TO_RUN_ALONE
    task = alone if permit == Permit.ALONE and alone else apart
    if task is None or want < 1:
        return None, want, Waits.NONE
    task.charged = model.rules.cost(task.tenant, task.body)
    task.state, task.runtime, task.since, task.alone = "started", runtime, math.nan, task is alone
    model.rules.count_start(task.tenant)
    step.touch(task.tenant, count=False)
    return task, 0 if task.alone else want - 1, Waits.SOME if _any_left(model) else Waits.NONE


def _seen(model: State, name: str) -> list[Task]:
    """Returns the suspects of a tenant that a turn looks at and that its runtime can run."""
    waiting = [task for task in model.suspects(name) if task.id not in model.returned]
    if not model.lanes.used:
        return waiting[:5]
    return [task for task in waiting[:20] if model.lanes.serves(model.acting, model.lane_of(task))]


def _any_left(model: State) -> bool:
    return any(task.suspect for task in model.tasks.values())


def _may_empty(model: State, runtime: str, emptying: Emptying) -> bool:
    if emptying != Emptying.YES:
        return emptying == Emptying.RESTS
    return model.emptying in {"", runtime} or model.emptying not in model.leases
