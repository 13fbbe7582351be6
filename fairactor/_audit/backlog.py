"""The audit of the index of backlogs."""

from __future__ import annotations

from collections.abc import Iterator

from fairactor._model.counts import rounded, written_before

from .snapshot import Snapshot


def check_backlog(snapshot: Snapshot) -> Iterator[str]:
    """The index has each tenant with many live tasks; perhaps not those whose counts the release before wrote."""
    index = snapshot.fixed["BACKLOG"]
    for tenant, packed in snapshot.fixed["COUNTS"].items():
        live = sum(snapshot.counts_of(tenant).by_priority.values())
        if not written_before(packed) and index.get(tenant, 0) != rounded(live):
            yield f"{tenant!r} has {live} live tasks, but in the index of backlogs it has {index.get(tenant, 0):.0f}"
    yield from (f"{name!r} is in the index of backlogs, but has no counts" for name in index.keys() - snapshot.counts)
