"""A model of tasks that wait for others: it knows nothing of scripts, of keys, or of messages between shards.

It says what may have become of each. What has ended is told to those who wait for it, at once or a little later, so of
each that waits there is a choice: it may have heard of an end, or not yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import Final

import attrs

LIVE: Final = ("deferred", "scheduled", "queued", "started")
UNHEARD: Final = "?"
WORDS: Final = {"F": "finished", "X": "failed", "C": "was canceled"}
_WHY: Final = re.compile(
    r"cannot run \(trigger rule (?P<rule>\w+)\): upstream task (?P<id>.+?) (?P<word>finished|failed|was canceled)"
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
    """Whether a task may run: yes, never, or not yet. ``letters`` has how each of those before it has ended."""
    waits = UNHEARD in letters
    match rule:
        case "all_success":
            return False if "X" in letters or "C" in letters else None if waits else True
        case "all_done":
            return None if waits else True
        case "one_success":
            return True if "F" in letters else None if waits else False
        case "one_failed":
            return True if "X" in letters else None if waits else False
        case _:
            return False if "X" in letters else None if waits else True


@attrs.define(eq=False)
class Run:
    """What is sent in several calls."""

    id: str
    shard: int
    """Where its gate is."""
    ended: str = ""
    """'F' it was opened, 'C' it was shut."""


@attrs.define(eq=False)
class Step:
    """A task."""

    id: str
    tenant: str
    shard: int
    rule: str
    parents: list[str]
    body: bytes
    token: str = ""
    run: Run | None = None
    """Whose gate has to open first."""
    told: frozenset[str] = frozenset()
    """Those of its parents, on the other shard, that were sent with it: they tell it by themselves."""
    delayed: bool = False
    state: str = "deferred"
    kept: bool = True
    """Whether its record is there."""
    letters: str = ""
    """How it has ended, as others hear of it; several where that cannot be told."""
    ever: set[str] = attrs.Factory(set)
    """The words for how it has ended, now or before it was sent again."""
    result: str = "null"
    heard: str = ""
    """What it has surely heard of each of its parents."""
    coming: list[str] = attrs.Factory(list)
    """What it is to hear, or has heard: a choice of letters."""
    gate: str = "o"
    """What it knows of its gate: 'o' open, 'c' closed, 'n' never to be opened."""
    keep: bool = True
    """Whether its record stays if it is canceled because it cannot run."""
    runtime: str = ""
    turn: int = 0
    deliveries: int = 0
    canceling: bool | None = None
    """Of a started one that is to be canceled: whether its record is to be kept."""

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
        """Whether what a task is to hear of its parent at a place may be under way."""
        self.asks: Callable[[Step, int], bool] = lambda step, place: False
        """Whether that it wants to hear of it may be under way."""

    def of(self, *states: str) -> list[Step]:
        return [step for step in self.steps.values() if step.state in states]

    def add(self, step: Step) -> None:
        """One that is sent."""
        self.steps[step.id] = step
        parents, step.parents = step.parents, []
        self.grow(step, parents)
        if not parents and step.run is None:
            step.state = "scheduled" if step.delayed else "queued"

    def grow(self, step: Step, parents: list[str]) -> None:
        """It waits for others as well."""
        for parent in parents:
            self.children.setdefault(parent, []).append((step, len(step.parents)))
            before = self.steps.get(parent)  # None: it is still to be sent, to another shard
            step.parents.append(parent)
            step.heard += UNHEARD
            known = before is not None and (before.kept or parent in step.told)
            step.coming.append("" if before is None or before.live else before.letters if known else "C")

    def end(self, step: Step, state: str, letters: str, *, kept: bool) -> None:
        """It has ended; those who wait for it are to hear of that."""
        step.state, step.letters, step.kept = state, letters, kept
        step.ever.add({"canceled": "was canceled"}.get(state, state))
        step.canceling, step.runtime = None, ""
        for child, place in self.children.get(step.id, ()):
            if child.state == "deferred" and child.heard[place] == UNHEARD:
                # Who asks only now finds nothing of one that is not kept.
                more = letters if kept or not self.asks(child, place) else letters + "C"
                child.coming[place] = "".join(dict.fromkeys(child.coming[place].replace(UNHEARD, "") + more))

    def expire(self, step: Step) -> None:
        step.kept = False
        for child, place in self.children.get(step.id, ()):
            if child.state == "deferred" and child.coming[place] and self.asks(child, place):
                child.coming[place] += "C"

    def redrive(self, step: Step) -> None:
        step.state, step.letters, step.deliveries = "queued", "", 0
        for child, place in self.children.get(step.id, ()):
            if child.state == "deferred" and child.coming[place] and self.asks(child, place):
                child.coming[place] += UNHEARD

    # What may be

    def choice(self, step: Step, place: int) -> str:
        """What it may have heard of one of its parents."""
        if step.heard[place] != UNHEARD:
            return step.heard[place]
        coming = step.coming[place] or UNHEARD
        if coming == UNHEARD:
            return coming
        return coming + UNHEARD if self.under_way(step, place, self.steps[step.parents[place]]) else coming

    def choices(self, step: Step) -> Iterator[str]:
        return map("".join, product(*(self.choice(step, place) for place in range(len(step.parents)))))

    def verdicts(self, step: Step, gates: str) -> set[bool | None]:
        """What may be its state; ``gates`` is what it may know of its gate."""
        by_rule = {verdict(step.rule, heard) if heard else True for heard in self.choices(step)}
        return {None if gate == "c" else False if gate == "n" else each for gate in gates for each in by_rule}

    def bodies(self, step: Step) -> set[bytes]:
        """What its record may be once it is let go: with results in the place of tokens."""
        found = set()
        options = []
        for place in range(len(step.parents)):
            option = self.choice(step, place)
            # Who is let go by one of several that end together may not have heard of the others.
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
        """As what it may count that is canceled because it cannot run: X where it had heard that one has failed."""
        if step.run and step.run.ended == "C":
            return "C"
        heard = "".join(self.choice(step, place) for place in range(len(step.parents)))
        failed = "X" if "X" in heard else ""
        return failed if "X" in step.heard or (step.rule == "none_failed" and step.run is None) else "C" + failed

    def names_a_cause(self, step: Step, text: str) -> bool:
        """Whether what it says of why it was canceled can be so."""
        parents = [self.steps[parent] for parent in step.parents if parent in self.steps]
        if text == "its run was not sent whole":
            return step.run is not None and step.run.ended == "C"
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

    def _names_what_was_heard(self, step: Step, text: str) -> bool | None:
        """Whether what it had heard before its gate opened can be so; None where that is not what it says."""
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
        may = {tuple(map(heard.count, "FXC")) for heard in product(*choices)}
        many, *ended = map(int, counts)
        return trigger == step.rule and many == len(step.parents) and tuple(ended) in may

    def _can_have_heard(self, step: Step, parent: str) -> bool:
        """Whether it may have heard of that one, which did not finish."""
        return any(
            other == parent and {"X", "C"} & {known if known != UNHEARD else "", *self.choice(step, place)}
            for place, (other, known) in enumerate(zip(step.parents, step.heard, strict=True))
        )

    def above(self, step: Step) -> Iterator[Step]:
        """All that comes before it."""
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
