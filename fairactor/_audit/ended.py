"""The part of the audit about tasks that have ended: the lists of them, and the indexes of dead letters."""

from __future__ import annotations

from collections.abc import Iterator

from .snapshot import Snapshot


def check_ended(snapshot: Snapshot) -> Iterator[str]:
    """The indexes have all dead letters, if the shard says so, and the lists are those of tenants that are known."""
    dead = snapshot.fixed["DEAD"]
    if int(snapshot.fixed["META"].get("letters", b"0")) == len(dead):
        yield from _check_indexes(snapshot, dead)
    yield from (
        f"tasks of {tenant!r} are listed as ended, but it has no counts"
        for tenant in snapshot.ended_of
        if tenant not in snapshot.counts
    )


def _check_indexes(snapshot: Snapshot, dead: dict[str, float]) -> Iterator[str]:
    found = {task for letters in snapshot.dead_by.values() for task in letters}
    for task, until in dead.items():
        header = snapshot.records.get(task)
        if header is None or until / 1e6 <= snapshot.now:
            continue  # it has expired
        listed = snapshot.dead_of.get(header.tenant, {}).get(task)
        if listed != until:
            yield f"dead letter {task!r} expires at {until:.0f}, but the index of {header.tenant!r} says {listed}"
        if task not in found:
            yield f"dead letter {task!r} is in the index of no actor"
    for index in (snapshot.dead_of, snapshot.dead_by):
        for name, letters in index.items():
            for task, until in letters.items():
                if task in snapshot.records and task not in dead and until / 1e6 > snapshot.now:
                    yield f"task {task!r} is in the index of dead letters of {name!r}, but is none"
