"""The shards of a seed, read over connections without faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from fairactor._audit.snapshot import Snapshot
from tests.support.shard.driver import ShardDriver

from .checks import what_is_left


class Shards:
    """All shards of the namespace.

    Args:
        opened: returns a driver for each of them, on the server that has it now.
        has_all: whether there is one, which all kinds of tenants and tasks use.
    """

    def __init__(self, opened: Callable[[], Sequence[ShardDriver]], *, has_all: bool) -> None:
        self._opened = opened
        self._has_all = has_all

    @contextmanager
    def _drivers(self) -> Iterator[Sequence[ShardDriver]]:
        drivers = self._opened()
        try:
            yield drivers
        finally:
            for driver in drivers:
                driver.db.close()

    def snapshot(self) -> Snapshot:
        """Returns a snapshot of the first shard, with the records of all of them."""
        with self._drivers() as drivers:
            found = [driver.snapshot() for driver in drivers]
        return attrs.evolve(found[0], records={task: each for shot in found for task, each in shot.records.items()})

    def containing(self, tasks: Iterable[str], text: bytes) -> set[str]:
        """Returns the tasks whose records contain a text."""
        with self._drivers() as drivers:
            found: list[tuple[str, Any]] = [
                (task, driver.db.get(driver.keys.task(task))) for task in tasks for driver in drivers
            ]
        return {task for task, packed in found if packed and text in packed}

    def holders(self) -> list[list[int]]:
        """Returns the processes that hold leases, for each shard."""
        with self._drivers() as drivers:
            names: list[Any] = [driver.db.zrange(driver.keys.fixed("LEASES"), 0, -1) for driver in drivers]
        return [sorted(int(name.split(b":")[1]) for name in found) for found in names]

    def waiting(self) -> list[str]:
        """Returns what still waits in each shard, to say why nothing gets further."""
        with self._drivers() as drivers:
            found = [driver.snapshot() for driver in drivers]
        return [
            f"{shot.meta}: queued {dict(shot.queues)}, delayed {shot.delayed}, held {list(shot.fixed['HELD'])}, "
            f"claims {shot.claims}, policies {shot.fixed['POLICY']}, leases {shot.fixed['LEASES']}, "
            f"ring {shot.fixed['RING']}"
            for shot in found
        ]

    def left(self) -> Iterator[str]:
        """Yields what is left in any shard, once everybody has left."""
        with self._drivers() as drivers:
            for driver in drivers:
                yield from what_is_left(driver, has_all=self._has_all)
