"""Random fleets, limits and loads: no limit is ever exceeded, nothing is lost, and all that may start does."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairactor._model.wire import Assignment
from tests.support import servers
from tests.support.shard.limits import ALL, LimitDriver
from tests.support.shard.model_lanes import Kind

LIMITS = ("api", "db", "work", "mail")
TENANTS = ("a", "b", "c", "g1", "g2")
KINDS = (ALL, Kind({"work": "1"}), Kind({"mail": "1"}), Kind({"work": "1", "mail": "1"}, ["gpu"]))


ACTIONS = {
    "send_some": 4, "take_turn": 8, "change_limit": 2, "pause_limit": 2, "change_tenant": 1, "come_or_go": 1,
    "charge_one": 1, "repair": 1,
}  # fmt: skip
"""What happens, and how often."""


class Fleet(LimitDriver):
    """Does random things with a shard, and checks it after each."""

    def __init__(self, url: str, random: Random) -> None:
        super().__init__(url)
        self.random = random
        self.sent = self.ended = self.number = 0
        self.lowered: set[str] = set()
        self.join("r")
        for name in ("g1", "g2"):
            self.configure(name, group="g")

    def step(self) -> None:
        random = self.random
        names, weights = zip(*ACTIONS.items(), strict=True)
        getattr(self, random.choices(names, weights)[0])()
        started = {limit for _, limit in self.over()}
        self.lowered = {limit for limit in self.lowered if limit in started}
        self.driver.check(lowered={*self.lowered, *TENANTS})

    def over(self) -> list[tuple[int, str]]:
        """Returns the limits of which more tasks run than they allow, which lowering them may cause."""
        return [(int(n), limit) for limit, n in self.driver.snapshot().fixed["LIMIT_STARTED"].items() if int(n) > 0]

    def send_some(self) -> None:
        random = self.random
        limits = {name: random.choice((1, 2, 5)) for name in LIMITS[:2] if random.random() < 0.5}
        tenants = random.sample(TENANTS, random.randint(1, 3))
        actor, queue = random.choice(("work", "mail")), random.choice((None, None, "gpu"))
        sent = self.send(tenants, limits, actor=actor, queue=queue, priority=random.choice((1, 3, 6)))
        self.sent += len(sent)

    def take_turn(self) -> None:
        runtime = self.random.choice(list(self.held))
        ends = self.random.randint(0, len(self.held[runtime]))
        verdict = self.random.choice(("F0", "F0", "F0", "B0"))
        self.ended += ends if verdict == "F0" else 0
        self.turn(self.random.choice((0, 1, 3, 8)), runtime, ends=ends, verdict=verdict)

    def change_limit(self) -> None:
        name = self.random.choice(LIMITS)
        self.lowered.add(name)
        self.lowered |= {f"{name}\x1f{tenant}" for tenant in TENANTS}
        if self.random.random() < 0.2:
            self.remove(name)
        else:
            per = self.random.choice((None, None, "tenant"))
            self.limit(name, concurrency=self.random.choice((None, 1, 2, 4)), per=per)

    def pause_limit(self) -> None:
        name, tenant = self.random.choice(LIMITS), self.random.choice(("", "", *TENANTS))
        if self.random.random() < 0.5:
            self.limit(name, tenant=tenant, pause=self.random.choice(("-1", "5")))
        else:
            self.limit(name, tenant=tenant, resume=True)

    def change_tenant(self) -> None:
        tenant = self.random.choice(TENANTS)
        setting, values = self.random.choice(
            (("concurrency", (1, None)), ("paused", (True, None)), ("weight", (3.0, None)), ("group", ("g", None)))
        )
        self.configure(tenant, **{setting: self.random.choice(values)})

    def come_or_go(self) -> None:
        name = self.random.choice(list(self.held))
        if name != "r" and self.random.random() < 0.4:
            self.driver.run(self.driver.shard.leave(name))
            del self.held[name]
        elif len(self.held) < 5:
            self.number += 1
            serves = (
                Assignment(["a", "b"], self.random.choice(([], [""], ["c"]))) if self.random.random() < 0.3 else None
            )
            self.join(f"r{self.number}", self.random.choice(KINDS), serves)

    def repair(self) -> None:
        self.driver.run(self.driver.shard.repair())

    def charge_one(self) -> None:
        for runtime, held in self.held.items():
            for task in held:
                self.charge(runtime, task, self.random.choice(LIMITS), self.random.choice((0, 1, 9)))
                return

    def finish(self) -> None:
        """Lifts all limits, and runs what is left."""
        for name in LIMITS:
            self.remove(name)
        for tenant in TENANTS:
            self.configure(tenant, paused=None, concurrency=None)
        for runtime in [name for name in self.held if name != "r"]:
            self.driver.run(self.driver.shard.leave(runtime))
            del self.held[runtime]
        for _ in range(50):
            self.ended += len(self.held["r"])
            if not self.turn(50) and self.ended >= self.sent:
                break
        assert self.ended == self.sent, f"{self.ended} of {self.sent} tasks have ended"
        snapshot = self.driver.check()
        assert not snapshot.fixed["LIMIT_STARTED"]
        assert not snapshot.line


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**9))
@pytest.mark.long
def test_no_limit_is_exceeded_and_nothing_is_lost(session_server: str, seed: int) -> None:
    with servers.client(session_server) as client:
        client.flushall()
    fleet = Fleet(session_server, Random(seed))
    try:
        for _ in range(60):
            fleet.step()
        fleet.finish()
    finally:
        fleet.close()
