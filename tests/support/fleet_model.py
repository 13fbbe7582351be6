"""A plain model of a runtime with several shards, in simulated time: how `Shares` divides its slots among them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import attrs

from fairactor._model.wire import RingClock, Turn
from fairactor._worker.pace import Pace
from fairactor._worker.shares import Share, Shares


class Ring:
    """A shard: self-clocked fair queuing over its tenants."""

    def __init__(self) -> None:
        self.weights: dict[str, float] = {}
        self.queued: Counter[str] = Counter()
        self.tags: dict[str, float] = {}
        self.virtual = 0.0
        self.period = 0
        self.moves = True
        """Whether virtual time moves, which it does not for some tasks of dedicated runtimes."""

    def send(self, tenant: str, tasks: int, weight: float = 1.0) -> None:
        self.weights[tenant] = weight
        self.queued[tenant] += tasks
        self.tags.setdefault(tenant, self.virtual + 1 / weight)

    def claim(self, n: int) -> tuple[list[str], RingClock]:
        served: list[str] = []
        before, period = self.virtual, self.period
        while self.tags and len(served) < n:
            tenant = min(self.tags, key=lambda name: (self.tags[name], name))
            if self.moves:
                self.virtual = max(self.virtual, self.tags[tenant])
            self.queued[tenant] -= 1
            served.append(tenant)
            if self.queued[tenant]:
                self.tags[tenant] += 1 / self.weights[tenant]
            else:
                del self.tags[tenant]
        clock = RingClock(period, before, self.virtual, min(self.tags.values(), default=0.0))
        if not self.tags:
            self.virtual, self.period = 0.0, period + 1
        return served, clock


class ModelPace(Pace):
    """Claims this many tasks ahead, at this rate."""

    def __init__(self, ahead: int, rate: float) -> None:
        super().__init__(1)
        self._fixed_ahead, self._fixed_rate = ahead, rate

    @property
    def ahead(self) -> int:
        return self._fixed_ahead

    @property
    def rate(self) -> float:
        return self._fixed_rate


@attrs.define(eq=False)
class Dispatcher:
    """Takes the turns of one shard."""

    runtime: ModelRuntime
    ring: Ring
    share: Share = attrs.field(init=False)
    under_way: bool = False
    idle: bool = False
    """Whether the shard would wake it."""
    ended: int = 0
    """Outcomes to report."""
    silent: bool = False
    """Whether the server does not answer."""
    _sleep: int = 0

    def wake(self) -> None:
        if not self.under_way:
            self.take_turn()

    def take_turn(self) -> None:
        self.under_way, self.idle, self.ended = True, False, 0
        self._sleep += 1
        want, ahead = self.share.wanted()
        self.share.asks(want + ahead)
        if not self.silent:
            self.runtime.after(self.runtime.round_trip, lambda: self.answer(want, ahead))

    def answer(self, want: int, ahead: int) -> None:
        self.under_way = False
        claims, clock = self.ring.claim(want + ahead)
        more = bool(self.ring.tags) and len(claims) == want + ahead
        self.idle = len(claims) < want
        self.runtime.start(self, claims)
        self.share.answered(Turn(0.0, 0.0, False, (), (), (), more, clock=clock), len(claims), want)
        if self.ended or (more and any(self.share.wanted())):
            self.take_turn()
        elif len(claims) >= want:
            pause, sleep = self.share.sleep(), self._sleep
            if pause < 1e9:
                self.runtime.after(pause, lambda: self.wake() if sleep == self._sleep else None)


class ModelRuntime:
    """A runtime whose tasks take no time but to sleep.

    Args:
        shards: how many.
        workers: how many tasks run at once.
        lengths: how long the tasks of each tenant run; 1 s if it has none.
        round_trip: how long a turn takes.
        ahead: how many tasks each shard claims ahead.
        rate: the rate of each shard, by which slots are divided more coarsely.
    """

    def __init__(
        self,
        shards: int,
        workers: int,
        lengths: Mapping[str, float] | None = None,
        *,
        round_trip: float = 0.001,
        ahead: int = 0,
        rate: float = 0.0,
    ) -> None:
        self.now = 0.0
        self.round_trip = round_trip
        self.order: list[str] = []
        """The tenants of the tasks that have started, in order."""
        self.on_end: Callable[[str], None] = lambda _: None
        self._lengths = lengths or {}
        self._workers = workers
        self._busy = 0
        self._ready: list[tuple[Dispatcher, str]] = []
        self._waiting: set[Any] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self.first = self
        self.shares = Shares(self, soon=lambda call: self.after(0.0, call), now=lambda: self.now)
        self.dispatchers = [Dispatcher(self, Ring()) for _ in range(shards)]
        for dispatcher in self.dispatchers:
            dispatcher.share = self.shares.add(dispatcher, ModelPace(ahead, rate))

    def begin(self) -> None:
        """Takes the first turns."""
        for dispatcher in self.dispatchers:
            dispatcher.take_turn()

    def after(self, delay: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._numbers), call))

    def send(self, shard: int, tenant: str, tasks: int, weight: float = 1.0) -> None:
        dispatcher = self.dispatchers[shard]
        joins = tenant not in dispatcher.ring.tags
        dispatcher.ring.send(tenant, tasks, weight)
        if joins and dispatcher.idle:
            dispatcher.wake()

    def run(self, until: Callable[[], bool], *, most: int = 200_000) -> None:
        """Lets time pass until a condition holds. Checks that no slot is free for long while somebody waits."""
        free_since: float | None = None
        for _ in range(most):
            if until():
                return
            at, _, call = heapq.heappop(self._events)
            free = self.vacancies > 0 and any(each.ring.tags and not each.silent for each in self.dispatchers)
            if not free:
                free_since = None
            elif free_since is None:
                free_since = self.now
            else:
                assert at - free_since <= self.patience, f"a slot was free for {at - free_since} s"
            self.now = at
            call()
        raise AssertionError("it does not end")

    @property
    def patience(self) -> float:
        """How long a slot may be free while somebody waits."""
        return 12 * self.round_trip + (0.3 if any(each.silent for each in self.dispatchers) else 0.0)

    def start(self, dispatcher: Dispatcher, tenants: Sequence[str]) -> None:
        self._ready += [(dispatcher, tenant) for tenant in tenants]
        while self._ready and self._busy < self._workers:
            owner, tenant = self._ready.pop(0)
            self._busy += 1
            self.order.append(tenant)
            self.after(self._lengths.get(tenant, 1.0), partial(self._end, owner, tenant))

    def _end(self, dispatcher: Dispatcher, tenant: str) -> None:
        self._busy -= 1
        self.start(dispatcher, ())
        if self.vacancies > 0:
            waiting, self._waiting = self._waiting, set()
            for each in waiting:
                each.wake()
        dispatcher.ended += 1
        self.on_end(tenant)
        dispatcher.wake()

    # What `Shares` sees

    @property
    def vacancies(self) -> int:
        return self._workers - self._busy - len(self._ready)

    def wake_on_vacancy(self, owner: Any) -> None:
        self._waiting.add(owner)
