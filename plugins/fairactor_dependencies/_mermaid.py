"""Graphs as Mermaid flowcharts, https://mermaid.js.org."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from fairactor import Message, TaskState

_STYLES: Final = {
    "finished": "fill:#cfc", "failed": "fill:#fcc", "canceled": "fill:#eee,stroke-dasharray:4", "started": "fill:#ccf",
    "queued": "fill:#fff", "deferred": "fill:#fff", "scheduled": "fill:#fff", "skipped": "fill:#fff,stroke-dasharray:4",
}  # fmt: skip
_ENTITIES: Final = {'"': "#quot;", "#": "#35;", "<": "#lt;", ">": "#gt;", "\n": " ", "`": "#96;"}


def label(step: Message[Any]) -> str:
    """Names a step: its id, if it has one, and its actor."""
    return f"{step.task_options.id} ({step.actor.name})" if step.task_options.id else step.actor.name


def summary(name: str, states: Sequence[TaskState | None]) -> str:
    """Describes the items of an ``each()``."""
    counts = Counter("expired" if state is None else state.value for state in states)
    return f"{len(states)} {name}: " + ", ".join(f"{many} {state}" for state, many in counts.items())


def flowchart(
    labels: Sequence[str],
    edges: Sequence[tuple[int, int]],
    states: Sequence[str | None] = (),
    groups: Sequence[tuple[int, int, str]] = (),
) -> str:
    """Draws steps, which the edges name by their position, with their states if these are given.

    A group of tasks stands between two steps.
    """
    lines = ["flowchart LR"]
    for number, text in enumerate(labels):
        state = states[number] if states else None
        lines.append(f'    s{number}["{_escape(text)}"]' + (f":::{state}" if state else ""))
    for number, (before, after, text) in enumerate(groups):
        lines += [f'    g{number}[["{_escape(text)}"]]', f"    s{before} --> g{number} --> s{after}"]
    lines += [f"    s{parent} --> s{child}" for parent, child in edges]
    if states:
        lines += [f"    classDef {state} {style}" for state, style in _STYLES.items()]
    return "\n".join(lines)


def _escape(text: str) -> str:
    return "".join(_ENTITIES.get(character, character) for character in text)
