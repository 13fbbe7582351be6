"""Namespaces that grow: which tenants move."""

from __future__ import annotations

from itertools import count, islice

from fairactor._model.layout import Layout


def moving(many: int, *, before: int = 2, after: int = 5) -> list[str]:
    """Returns names of tenants that move when the namespace grows, from all shards that it has before."""
    layout = Layout((before,)).grown(after)
    names = (f"m{n}" for n in count())
    return [*islice((name for name in names if layout.source(name) != layout.place(name)), many)]


def staying(many: int, *, before: int = 2, after: int = 5) -> list[str]:
    """Returns names of tenants that stay where they are."""
    layout = Layout((before,)).grown(after)
    names = (f"s{n}" for n in count())
    return [*islice((name for name in names if layout.source(name) == layout.place(name)), many)]
