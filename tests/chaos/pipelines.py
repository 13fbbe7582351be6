"""Plans graphs of tasks, and checks their outcomes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
from fairactor_dependencies import results

from fairactor import Message, TaskState
from fairactor._audit.snapshot import Snapshot
from fairactor._model.record import SETTLED
from tests.support.dependencies.model import verdict

from . import actors

RULES: Final = ("all_success", "all_success", "all_success", "all_done", "one_success", "one_failed", "none_failed")


@attrs.frozen
class Step:
    """A task of a graph."""

    id: str
    tenant: str
    n: int
    rule: str
    parents: list[str]
    message: Message[int]
    breaks: bool
    """Whether the step fails for good."""
    cancel_after: float | None


@attrs.frozen
class Pipeline:
    """A graph of tasks, sent in one call."""

    at: float
    steps: list[Step]


def pipelines(seed: int, span: float, tenants: list[str]) -> list[Pipeline]:
    """Returns the graphs of a seed."""
    rng = random.Random(f"{seed} pipelines")
    return [_pipeline(rng, number, span, tenants) for number in range(rng.randint(3, 8))]


def _pipeline(rng: random.Random, number: int, span: float, tenants: list[str]) -> Pipeline:
    names = [f"g{number}:{place}" for place in range(rng.randint(2, 9))]
    shape = rng.choice(["chain", "fan", "any"])
    steps: list[Step] = []
    for place, name in enumerate(names):
        before = names[:place]
        if shape == "chain":
            before = before[-1:]
        elif shape == "fan":  # from the first step to many, and from these to the last
            before = before[1:] or before if name == names[-1] else before[:1]
        else:
            before = rng.sample(before, rng.randint(0, min(3, len(before))))
        steps.append(_step(rng, name, before, tenants))
    return Pipeline(rng.uniform(0, span), steps)


def _step(rng: random.Random, name: str, parents: list[str], tenants: list[str]) -> Step:
    n, breaks, rule = rng.randrange(1000), rng.random() < 0.1, rng.choice(RULES)
    before = results() if parents else []
    message = actors.broken(n) if breaks else actors.piece(n, rng.choice([0, 0, 0, 1, 2]), before)
    options: dict[str, Any] = {"delay": rng.uniform(0, 0.2)} if rng.random() < 0.1 else {}
    return Step(
        id=name,
        tenant=rng.choice(tenants),
        n=n,
        rule=rule,
        parents=parents,
        message=message.options(id=name, depends_on=parents, trigger_rule=rule, **options),
        breaks=breaks,
        cancel_after=rng.uniform(0, 0.3) if rng.random() < 0.06 else None,
    )


@attrs.frozen
class Ends:
    """The outcomes of the steps."""

    snapshot: Snapshot
    outcomes: Mapping[str, Any]
    canceled: Mapping[str, Any]
    """The steps that were canceled by a call."""
    upstream: set[str]
    """The steps that were canceled because an upstream step had failed."""
    first: Mapping[str, int]
    """When each step first started: its position among all starts."""

    def letter(self, step_id: str) -> str:
        """Returns the outcome of a step that its dependents receive."""
        state = self.snapshot.records[step_id].state.decode()
        return "X" if step_id in self.upstream else state


def check_pipelines(planned: list[Pipeline], ends: Ends) -> Iterator[str]:
    """Yields violations among the graphs."""
    for pipeline in planned:
        missing = [step.id for step in pipeline.steps if step.id not in ends.snapshot.records]
        if missing:
            yield f"lost: of a graph there is no record of {missing}"
            continue
        results_of: dict[str, set[int]] = {}
        for step in pipeline.steps:
            yield from (
                f"{step.id} ({step.rule} of {step.parents}): {text}" for text in _of_one(step, ends, results_of)
            )


def _of_one(step: Step, ends: Ends, results_of: dict[str, set[int]]) -> Iterator[str]:
    letters = "".join(map(ends.letter, step.parents))
    may = verdict(step.rule, letters) if letters else True
    state = SETTLED.get(ends.snapshot.records[step.id].state)
    results_of[step.id] = set()
    if state is TaskState.CANCELED:
        if may and step.id not in ends.canceled:
            yield f"it is canceled, and those before it have ended as {letters!r}"
        if step.id in ends.upstream and "X" not in letters:
            yield f"it is canceled since one before it had failed, and these have ended as {letters!r}"
        return
    if not may:
        yield f"it is {state}, and those before it have ended as {letters!r}"
    if step.id not in ends.first:
        yield f"it is {state}, and has never run"
        return
    if step.rule not in ("one_success", "one_failed"):
        early = [parent for parent in step.parents if ends.first.get(parent, 0) > ends.first[step.id]]
        yield from (f"it was begun before {parent}" for parent in early)
    if (state is TaskState.FAILED) is not step.breaks or state not in (TaskState.FINISHED, TaskState.FAILED):
        yield f"it is {state}"
    elif not step.breaks:
        results_of[step.id] = {ends.outcomes.get(step.id)}
        allowed = _sums(step, letters, results_of)
        if ends.outcomes.get(step.id) not in allowed:
            yield f"its result is {ends.outcomes.get(step.id)!r} instead of {sorted(allowed)}"


def _sums(step: Step, letters: str, results_of: dict[str, set[int]]) -> set[int]:
    """Returns the possible results of a step. With a rule that waits for all parents, all their results are in it."""
    sums = {step.n}
    for parent, letter in zip(step.parents, letters, strict=True):
        if letter == "F":
            more = {number + result for number in sums for result in results_of[parent]}
            sums = more if step.rule not in ("one_success", "one_failed") else sums | more
    return sums
