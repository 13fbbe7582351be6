"""Graphs as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairactor import Message, TaskState


def label(step: Message[Any]) -> str:
    """What a step is called: by its id where it has one, and its actor."""
    return f"{step.task_options.id} ({step.actor.name})" if step.task_options.id else step.actor.name


def mermaid(labels: Sequence[str], edges: Sequence[tuple[int, int]], states: Sequence[TaskState | None] = ()) -> str:
    """A flowchart of steps by their numbers, as https://mermaid.js.org draws it."""
    lines = ["flowchart LR"]
    for number, text in enumerate(labels):
        state = states[number] if states else None
        lines.append(f'    s{number}["{_escaped(text)}"]' + (f":::{state.value}" if state else ""))
    lines += [f"    s{first} --> s{second}" for first, second in edges]
    if states:
        lines += [f"    classDef {state} {style}" for state, style in _STYLES.items()]
    return "\n".join(lines)


_STYLES = {
    "finished": "fill:#cfc", "failed": "fill:#fcc", "canceled": "fill:#eee,stroke-dasharray:4", "started": "fill:#ccf",
    "queued": "fill:#fff", "deferred": "fill:#fff", "scheduled": "fill:#fff",
}  # fmt: skip


def _escaped(text: str) -> str:
    special = {'"': "#quot;", "#": "#35;", "<": "#lt;", ">": "#gt;", "\n": " ", "`": "#96;"}
    return "".join(special.get(character, character) for character in text)
