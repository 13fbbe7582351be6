"""Drives a shard with limits, and checks that none is exceeded."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final

import msgspec

from fairactor._model.lane import text_in_json
from fairactor._model.limit import limit_changes
from fairactor._model.record import Call, call_in, unpack
from fairactor._model.route import pack_route, read_route
from fairactor._model.wire import GROUP_MARK, Assignment, Turn

from .driver import ShardDriver, item, settlement
from .model_lanes import Kind

ALL: Final = Kind({"work": "1", "mail": "1"})


class LimitDriver:
    """Runs tasks with limits on a fresh shard."""

    def __init__(self, url: str, *, aging: float = 60.0) -> None:
        self.driver = ShardDriver(url)
        self.driver.open(aging)
        self.held: dict[str, dict[str, tuple[int, bytes]]] = {}
        """runtime -> task -> the turn of its claim, and its record."""
        self.starts: list[tuple[float, str, Mapping[str, float]]] = []
        """When each task started, its tenant, and what it took."""
        self.last: Turn
        self._turns: dict[str, int] = {}
        self._ids = count()

    def join(self, runtime: str = "r", kind: Kind = ALL, serves: Assignment | None = None) -> None:
        self.driver.join(runtime, kind=kind, serves=serves)
        self.held[runtime], self._turns[runtime] = {}, 0

    # Limits

    def limit(self, name: str, *, tenant: str = "", pause: str = "", **settings: Any) -> None:
        changes = {"paused": None} if settings.pop("resume", False) else limit_changes(settings)
        self.driver.run(self.driver.shard.change_limit(text_in_json(name), changes, tenant=tenant, pause=pause))

    def remove(self, name: str) -> None:
        self.driver.run(self.driver.shard.reset_limit(text_in_json(name)))

    def started(self, name: str) -> int:
        _, found = self.driver.run(self.driver.shard.limits(text_in_json(name)))
        return next(iter(found.values()))[1]

    def charge(self, runtime: str, task: str, name: str, used: float) -> int:
        return self.driver.run(self.driver.shard.charge(runtime, task, text_in_json(name), used))

    def configure(self, tenant: str, **changes: Any) -> None:
        self.driver.configure(tenant, **changes)

    def configure_group(self, group: str, weight: float) -> None:
        self.driver.configure((GROUP_MARK + group).encode(errors="surrogateescape"), weight=weight)

    # Tasks

    def send(
        self,
        tenants: Sequence[str],
        limits: Mapping[str, float] | None = None,
        *,
        actor: str = "work",
        queue: str | None = None,
        priority: int = 3,
        number: int = 1,
    ) -> list[str]:
        """Sends tasks of each tenant."""
        body = msgspec.json.encode(Call(pack_route(actor, queue, 1, limits), [], {}))
        items = [item(f"{tenant}:{next(self._ids):06}", tenant, priority, body=body) for tenant in tenants] * 1
        items += [
            item(f"{tenant}:{next(self._ids):06}", tenant, priority, body=body)
            for _ in range(number - 1)
            for tenant in tenants
        ]
        for start in range(0, len(items), 500):
            self.driver.send(*items[start : start + 500])
        return [each.id for each in items]

    def turn(self, want: int, runtime: str = "r", *, ends: int | None = None, verdict: str = "F0") -> list[str]:
        """Ends the oldest claims of a runtime, by default all, and claims tasks. Returns the new ones."""
        held = self.held[runtime]
        ending = list(held.items())[: len(held) if ends is None else ends]
        self._turns[runtime] += 1
        number = self._turns[runtime]
        letter = b"L" if verdict[0] in "RB" else verdict[0].encode()
        turn = self.driver.turn(
            runtime, number, want, [settlement(task, at, verdict, letter + record[1:]) for task, (at, record) in ending]
        )
        assert turn is not None
        assert turn.refused == []
        self.last = turn
        for task, _ in ending:
            del held[task]
        new = dict(zip((task.decode() for task in turn.claims[::2]), turn.claims[1::2], strict=True))
        for task, record in new.items():
            held[task] = number, record
            route = read_route(call_in(unpack(record)[1]).route)
            costs = {**dict(zip(route.limits, route.costs, strict=False)), route.actor: 1.0}
            self.starts.append((turn.now, task.partition(":")[0], costs))
        return list(new)

    def claim(self, want: int, runtime: str = "r") -> list[str]:
        """Claims tasks, and ends none."""
        return self.turn(want, runtime, ends=0)

    def tenants_of(self, tasks: Sequence[str]) -> Counter[str]:
        return Counter(task.partition(":")[0] for task in tasks)

    def drain(self, *, most: int = 10_000) -> int:
        """Runs all tasks that can start, and ends them. Returns how many."""
        number = 0
        for _ in range(most):
            claimed = [task for runtime in self.held for task in self.turn(20, runtime)]
            number += len(claimed)
            if not claimed:
                return number
        raise AssertionError("it never ends")

    def live(self) -> int:
        counts = self.driver.snapshot().counts.values()
        return sum(each.queued + each.started + each.scheduled for each in counts)

    def close(self) -> None:
        self.driver.close()


def conforms(starts: Sequence[tuple[float, float]], burst: float, per_second: float) -> bool:
    """Whether no interval takes more than the burst, or its last start, and what the rate allows."""
    for first in range(len(starts)):
        taken = 0.0
        for at, cost in starts[first:]:
            taken += cost
            if taken > max(burst, cost) + per_second * (at - starts[first][0]) + 1e-3 * per_second + 1e-6:
                return False
    return not math.isnan(sum(cost for _, cost in starts))
