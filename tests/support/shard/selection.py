"""Sends tasks to a shard and claims them, to test which tenant is served next; the ids of tasks name their tenants."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

from fairactor._client.policies import SETTINGS
from fairactor._model.policy import changes_of
from fairactor._model.wire import GROUP_MARK, Assignment, Turn

from .driver import ShardDriver, item, settlement
from .model_lanes import ALL, Kind


class Held(NamedTuple):
    """A claim."""

    task: str
    turn: int
    tenant: str
    record: bytes


class SelectionDriver:
    """Serves the tenants of a fresh shard, turn by turn."""

    def __init__(self, driver: ShardDriver, *, fair_by: Any = None, kind: Kind | None = ALL) -> None:
        self.driver = driver
        driver.db.flushall()
        driver.run(driver.shard.open(shards=None, aging=60.0, fair_by=fair_by))
        if kind is not None:
            driver.join("r", kind=kind)
        self.held: dict[str, list[Held]] = defaultdict(list)
        self.last: Turn
        """The reply to the last turn."""
        self._turns: dict[str, Iterator[int]] = defaultdict(lambda: count(1))
        self._ids = count()

    # Policies

    def configure(self, tenant: str, **policy: Any) -> None:
        paused = {"paused": policy.pop("paused") or None} if "paused" in policy else {}
        self.driver.run(self.driver.shard.configure(tenant.encode(), changes_of(policy, *SETTINGS) | paused))

    def configure_group(self, group: str, weight: float) -> None:
        whose = (GROUP_MARK + group).encode(errors="surrogateescape")
        self.driver.run(self.driver.shard.configure(whose, changes_of({"weight": weight}, "weight")))

    def configure_defaults(self, *, review: bool = True, **policy: Any) -> None:
        self.configure("", **policy)
        if review:
            self.driver.run(self.driver.shard.review())

    def join(
        self, runtime: str, assigned: Sequence[str] | None = None, steal: Sequence[str] = (), *, kind: Kind = ALL
    ) -> None:
        """Joins a runtime that serves all tenants or certain ones; to steal from ``""`` is to steal from all others."""
        serves = None if assigned is None else Assignment(list(assigned), list(steal))
        self.driver.join(runtime, serves=serves, kind=kind)

    def assign(self, runtime: str, assigned: Sequence[str], steal: Sequence[str] = ()) -> None:
        assert self.driver.run(self.driver.shard.assign(runtime, Assignment(list(assigned), list(steal))))

    # Tasks

    def send(
        self,
        numbers: Mapping[str, int] | None = None,
        *,
        priority: int = 3,
        actors: Sequence[str] = ("work",),
        **more: int,
    ) -> list[str]:
        """Sends this many tasks of each tenant, cycling through the given actors; returns their ids."""
        wanted = dict(numbers or {}) | more
        items = [
            item(
                f"{tenant}:{next(self._ids):06}",
                tenant,
                priority,
                body=f'["{actors[n % len(actors)]}",[],{{}}]'.encode(),
            )
            for tenant, number in wanted.items()
            for n in range(number)
        ]
        for start in range(0, len(items), 500):
            self.driver.send(*items[start : start + 500])
        return [each.id for each in items]

    def turn(
        self, want: int, runtime: str = "r", *, verdict: str = "F0", seconds: Any = 0.0, keep: int = 0
    ) -> list[str]:
        """Claims tasks and returns their tenants in order. Reports earlier claims, except the last ``keep`` of them.

        ``seconds`` is how long each task ran, or a function that returns this for a claim.
        """
        number = next(self._turns[runtime])
        held = self.held[runtime]
        ended, self.held[runtime] = held[: len(held) - keep], held[len(held) - keep :]
        letter = b"L" if verdict[0] in "RB" else verdict[0].encode()
        ran: Callable[[Held], float] = seconds if callable(seconds) else lambda _: seconds
        turn = self.driver.turn(
            runtime,
            number,
            want,
            [settlement(h.task, h.turn, verdict, letter + h.record[1:], ran(h)) for h in ended],
        )
        assert turn is not None
        assert turn.refused == []
        self.last = turn
        new = [
            Held(task.decode(), number, task.decode().rpartition(":")[0], record)
            for task, record in zip(turn.claims[::2], turn.claims[1::2], strict=True)
        ]
        self.held[runtime] += new
        return [each.tenant for each in new]

    def claim(self, want: int, runtime: str = "r") -> list[str]:
        """Claims tasks but ends none of the earlier claims."""
        return self.turn(want, runtime, keep=len(self.held[runtime]))

    def serve(self, turns: int, want: int = 1, runtime: str = "r", **how: Any) -> Counter[str]:
        """Returns how many tasks of each tenant this many turns claim."""
        return Counter(tenant for _ in range(turns) for tenant in self.turn(want, runtime, **how))

    def waits(self, tenant: str) -> int:
        return int(self.driver.db.zcard(self.driver.keys.queue(tenant)))


@contextmanager
def open_selection(url: str, *, fair_by: Any = None, kind: Kind | None = ALL) -> Iterator[SelectionDriver]:
    """Yields a driver of an open shard; audits the shard and empties the server afterwards."""
    driver = ShardDriver(url)
    try:
        made = SelectionDriver(driver, fair_by=fair_by, kind=kind)
        yield made
        driver.check()
    finally:
        driver.close()
