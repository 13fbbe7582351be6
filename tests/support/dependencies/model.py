"""Models tasks that depend on others, without scripts, keys, or messages between shards.

The model computes the states that each task may be in. When a task ends, its dependents are notified at once or a
little later. The model therefore allows both for each dependent: it has received the outcome, or not yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import Final

import attrs

LIVE: Final = ("deferred", "scheduled", "queued", "started")
UNHEARD: Final = "?"
WORDS: Final = {"F": "finished", "X": "failed", "C": "was canceled", "S": "was skipped"}
_WHY: Final = re.compile(
    r"cannot run \(trigger rule (?P<rule>\w+)\): upstream task (?P<id>.+?) "
    r"(?P<word>finished|failed|was canceled|was skipped)"
    r"( because (?P<root>task .+|a task upstream of it) (?P<by>failed|was canceled))?",
    re.DOTALL,
)
_COUNTED: Final = re.compile(
    r"cannot run \(trigger rule (\w+)\): of (\d+) upstream tasks (\d+) finished, (\d+) failed and (\d+) were canceled"
)
_AFTER_GATE: Final = re.compile(
    r"cannot run \(trigger rule (?P<rule>\w+)\): upstream task (?P<id>.+) did not finish", re.DOTALL
)


def verdict(rule: str, letters: str) -> bool | None:
    """Returns whether a task may run: True, False (never), None (not yet). ``letters`` has one outcome per parent."""
    waits = UNHEARD in letters
    match rule:
        case "all_success":
            return False if {"X", "C", "S"} & set(letters) else None if waits else True
        case "all_done":
            return None if waits else True
        case "one_success":
            return True if "F" in letters else None if waits else False
        case "one_failed":
            return True if "X" in letters else None if waits else False
        case _:
            return False if "X" in letters else None if waits else True


def counts(letters: str) -> tuple[int, int, int]:
    """Returns how many parents finished, failed, and were canceled or skipped."""
    return letters.count("F"), letters.count("X"), letters.count("C") + letters.count("S")


@attrs.define(eq=False)
class Run:
    """A batch of tasks that is sent in several calls."""

    id: str
    shard: int
    """The shard that holds its gate."""
    ended: str = ""
    """'F' if the gate was opened, 'C' if it was shut."""


@attrs.define(eq=False)
class Step:
    """A task of the model."""

    id: str
    tenant: str
    shard: int
    rule: str
    parents: list[str]
    body: bytes
    token: str = ""
    run: Run | None = None
    """The run whose gate has to open before the task may run."""
    told: frozenset[str] = frozenset()
    """The parents on the other shard that were sent with it: they notify it without being asked."""
    follows: bool = False
    """Whether parents of it are still to be sent."""
    delayed: bool = False
    state: str = "deferred"
    kept: bool = True
    """Whether its record exists."""
    asked: bool = False
    """Whether somebody who is about to wait for it has asked for it since it started to live."""
    remembered: str = ""
    """The outcome that is kept for those who asked, as `letters`."""
    refused: bool = False
    """Whether it is an item of a map that was stopped before."""
    letters: str = ""
    """The outcome that its dependents receive; several letters if the model cannot know which."""
    ever: set[str] = attrs.Factory(set)
    """The words for its outcomes, now or before a redrive."""
    result: str = "null"
    heard: str = ""
    """The outcome that it has certainly received from each parent."""
    coming: list[str] = attrs.Factory(list)
    """The outcomes that it may have received, or may still receive, from each parent."""
    gate: str = "o"
    """The state of its gate as it last received it: 'o' open, 'c' closed, 'n' never opens."""
    keep: bool = True
    """Whether its record is kept if it is canceled because it cannot run."""
    runtime: str = ""
    turn: int = 0
    deliveries: int = 0
    canceling: bool | None = None
    """None, or for a started task with a cancel request: whether its record is kept."""

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def needs_all(self) -> bool:
        return self.rule not in ("one_success", "one_failed")


class Model:
    """All tasks of a namespace."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        self.children: dict[str, list[tuple[Step, int]]] = {}
        self.runs: list[Run] = []
        self.under_way: Callable[[Step, int, Step], bool] = lambda step, place, parent: False
        """Whether the outcome of the parent at a place may be on its way to the task."""
        self.asks: Callable[[Step, int], bool] = lambda step, place: False
        """Whether the task's request for that outcome may be on its way."""

    def of(self, *states: str) -> list[Step]:
        return [step for step in self.steps.values() if step.state in states]

    def add(self, step: Step) -> None:
        """Adds a task that is sent."""
        self.steps[step.id] = step
        parents, step.parents = step.parents, []
        self.grow(step, parents)
        if step.refused:
            self.end(step, "canceled", "C", kept=True)
        elif not parents and step.run is None:
            step.state = "scheduled" if step.delayed else "queued"

    def grow(self, step: Step, parents: list[str]) -> None:
        """Adds parents to a task."""
        for parent in parents:
            self.children.setdefault(parent, []).append((step, len(step.parents)))
            before = self.steps.get(parent)  # None: not sent yet, and on another shard
            step.parents.append(parent)
            step.heard += UNHEARD
            step.coming.append("" if before is None or before.live else self._letters_for(step, before))

    def _letters_for(self, step: Step, parent: Step) -> str:
        """Returns the outcomes that a task which is sent now may receive from a parent that has ended."""
        return parent.letters if parent.kept or parent.id in step.told else parent.remembered or "C"

    def ask(self, step: Step) -> None:
        """Asks for a task, before another one that waits for it is sent."""
        if step.live:
            step.asked = True
        elif step.kept:
            step.remembered = step.letters

    def end(self, step: Step, state: str, letters: str, *, kept: bool) -> None:
        """Ends a task; its dependents receive the outcome at once or later."""
        step.state, step.letters, step.kept = state, letters, kept
        step.ever.add({"canceled": "was canceled"}.get(state, state))
        if "S" in letters:
            step.ever.add("was skipped")
        if step.asked:
            step.asked, step.remembered = False, letters
        step.canceling, step.runtime = None, ""
        for child, place in self.children.get(step.id, ()):
            if child.state == "deferred" and child.heard[place] == UNHEARD:
                # A dependent that asks only now finds no record if it was not kept.
                more = letters if kept or step.remembered or not self.asks(child, place) else letters + "C"
                child.coming[place] = "".join(dict.fromkeys(child.coming[place].replace(UNHEARD, "") + more))

    def expire(self, step: Step) -> None:
        step.kept = False
        for child, place in self.children.get(step.id, ()):
            if child.state == "deferred" and child.coming[place] and self.asks(child, place):
                child.coming[place] += step.remembered or "C"

    def redrive(self, step: Step) -> None:
        step.state, step.letters, step.deliveries = "queued", "", 0
        for child, place in self.children.get(step.id, ()):
            if child.state == "deferred" and child.coming[place] and self.asks(child, place):
                child.coming[place] += UNHEARD

    # Possible states

    def choice(self, step: Step, place: int) -> str:
        """Returns the outcomes that a task may have received from the parent at a place."""
        if step.heard[place] != UNHEARD:
            return step.heard[place]
        coming = step.coming[place] or UNHEARD
        if coming == UNHEARD:
            return coming
        return coming + UNHEARD if self.under_way(step, place, self.steps[step.parents[place]]) else coming

    def choices(self, step: Step) -> Iterator[str]:
        return map("".join, product(*(self.choice(step, place) for place in range(len(step.parents)))))

    def verdicts(self, step: Step, gates: str) -> set[bool | None]:
        """Returns the possible verdicts on a task; ``gates`` holds the possible states of its gate."""
        by_rule = {verdict(step.rule, heard) if heard else True for heard in self.choices(step)}
        return {None if gate == "c" else False if gate == "n" else each for gate in gates for each in by_rule}

    def bodies(self, step: Step) -> set[bytes]:
        """Returns the possible bodies of its record after its release, with results in place of tokens."""
        found = set()
        options = []
        for place in range(len(step.parents)):
            option = self.choice(step, place)
            # If several parents end together and one releases the task, the others' outcomes may not have arrived.
            options.append(option if step.needs_all or step.heard[place] != UNHEARD else option + UNHEARD)
        for heard in map("".join, product(*options)):
            if not heard or verdict(step.rule, heard):
                results = [
                    self.steps[parent].result if letter == "F" else "null"
                    for parent, letter in zip(step.parents, heard, strict=True)
                ]
                found.add(_spliced(step.body, step.token, results))
        return found

    def letters_of_canceled(self, step: Step) -> str:
        """Returns the possible outcomes of a task that cannot run.

        X if it has received that a parent failed, C if one was canceled, otherwise S.
        """
        if step.refused or (step.run and step.run.ended == "C"):
            return "C"
        options = [
            known if known != UNHEARD else self.choice(step, place) + UNHEARD for place, known in enumerate(step.heard)
        ]
        ends = [heard for heard in map("".join, product(*options)) if verdict(step.rule, heard) is False]
        return "".join({"X" if "X" in heard else "C" if "C" in heard else "S" for heard in ends})

    def names_a_cause(self, step: Step, text: str) -> bool:
        """Returns whether the reason that a canceled task gives may be right."""
        if (simple := self._names_no_task(step, text)) is not None:
            return simple
        parents = [self.steps[parent] for parent in step.parents if parent in self.steps]
        if missing := re.fullmatch("upstream task (.+) no longer exists", text, re.DOTALL):
            return any(parent.id == missing[1] and not parent.kept for parent in parents)
        if (after := self._names_what_was_heard(step, text)) is not None:
            return after
        why = _WHY.fullmatch(text)
        if why is None or why["rule"] != step.rule:
            return False
        named = [parent for parent in parents if parent.id == why["id"] and why["word"] in parent.ever]
        if not why["root"]:
            return bool(named)
        return bool(named) and any(
            why["root"] in (f"task {above.id}", "a task upstream of it") and why["by"] in above.ever
            for parent in named
            for above in self.above(parent)
        )

    def _names_no_task(self, step: Step, text: str) -> bool | None:
        """Returns whether a reason that names no task may be right; None if the text is of another kind."""
        if text == "its run was not sent whole":
            return step.run is not None and step.run.ended == "C"
        if text == "its run was canceled":
            return step.refused
        if not text.startswith("skipped "):
            return None
        skipped = any("S" in self.choice(step, place) for place in range(len(step.parents)))
        why = "an upstream task was skipped" if text.endswith("skipped") else "no upstream task failed"
        return text == f"skipped (trigger rule {step.rule}): {why}" and (skipped or why.startswith("no"))

    def _names_what_was_heard(self, step: Step, text: str) -> bool | None:
        """Returns whether a reason from before its gate opened may be right; None if the text is of another kind."""
        counted, heard = _COUNTED.fullmatch(text), _AFTER_GATE.fullmatch(text)
        if not counted and not heard:
            return None
        if step.run is None or step.run.ended != "F":
            return False
        if counted:
            return self._can_have_counted(step, *counted.groups())
        return heard is not None and heard["rule"] == step.rule and self._can_have_heard(step, heard["id"])

    def _can_have_counted(self, step: Step, trigger: str, *counts: str) -> bool:
        choices = [self.choice(step, place) for place in range(len(step.parents))]
        choices = [
            known if known != UNHEARD else choice + UNHEARD for known, choice in zip(step.heard, choices, strict=True)
        ]
        may = {counts("".join(heard)) for heard in product(*choices)}
        many, *ended = map(int, counts)
        return trigger == step.rule and many == len(step.parents) and tuple(ended) in may

    def _can_have_heard(self, step: Step, parent: str) -> bool:
        """Returns whether it may have received from that parent that it did not finish."""
        return any(
            other == parent and {"X", "C", "S"} & {known if known != UNHEARD else "", *self.choice(step, place)}
            for place, (other, known) in enumerate(zip(step.parents, step.heard, strict=True))
        )

    def above(self, step: Step) -> Iterator[Step]:
        """Yields every task upstream of it."""
        found, left = set(), list(step.parents)
        while left:
            parent = left.pop()
            if parent not in found and parent in self.steps:
                found.add(parent)
                yield self.steps[parent]
                left += self.steps[parent].parents


def _spliced(body: bytes, token: str, results: list[str]) -> bytes:
    if not token:
        return body
    of = {"all": f"[{','.join(results)}]", "rest": f"[{','.join(results[1:])}]"}
    of |= {str(place): result for place, result in enumerate(results, 1)}
    pattern = rf'"{token}:(\w+)"'
    return re.sub(pattern, lambda which: of[which[1]], body.decode()).encode()
