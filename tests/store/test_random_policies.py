"""Random configurations, turns, assignments and losses: the audit passes after each step, and no tenant is forgotten.

The state machine predicts the outcome of each step but knows few policies; these walks set all of them.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.support.shard.driver import ShardDriver, item
from tests.support.shard.selection import SelectionDriver

TENANTS = ["a", "b", "c", "d", "e\0:x", "f"]
POLICY: dict[str, list[Any]] = {
    "weight": [None, 0.01, 1, 5],
    "concurrency": [None, 1, 2, math.inf],
    "rate": [None, "1/h", "20/s", "1000/s", math.inf],
    "backlog": [None, 3, 10, math.inf],
    "group": [None, "g", "h"],
    "paused": [True, False],
}
SETTINGS = (*POLICY, "burst")
VERDICTS = ["F0", "F60000", "X60000", "C0", "R0", "R3600000", "B"]
STEPS = 80


class Walk:
    """A random walk of operations on a shard."""

    def __init__(self, url: str, random: Random) -> None:
        self.driver = ShardDriver(url)
        self.selection = SelectionDriver(self.driver, fair_by=random.choice(["tasks", "time"]))
        self.random = random
        self.runtimes = ["r"]
        self.sent: list[str] = []
        self.number = 0

    def policy(self, *without: str) -> dict[str, Any]:
        chosen = {name: self.random.choice(values) for name, values in POLICY.items() if self.random.random() < 0.35}
        if chosen.get("rate") and self.random.random() < 0.5:
            chosen["burst"] = self.random.choice([1, 3])
        return {name: value for name, value in chosen.items() if name not in without}

    def some(self) -> list[str]:
        return self.random.sample(TENANTS, self.random.randint(0, 3))

    def steal(self) -> list[str]:
        return [""] if self.random.random() < 0.4 else self.some()

    # Steps; each returns what it did

    def configure(self) -> Any:
        tenant, policy = self.random.choice(TENANTS), self.policy()
        self.selection.configure(tenant, **policy)
        return tenant, policy

    def configure_defaults(self) -> Any:
        policy = self.policy("group", "paused")
        self.selection.configure_defaults(**policy)
        return policy

    def configure_group(self) -> Any:
        group, weight = self.random.choice("gh"), self.random.choice([0.01, 1, 5])
        self.selection.configure_group(group, weight)
        return group, weight

    def send(self) -> Any:
        items = []
        for n in range(self.random.randint(1, 6)):
            self.number += 1
            tenant = self.random.choice(TENANTS)
            due = self.random.choice(["", "", "+3600000", "+0"])
            flag = self.random.choice(["", "w", "+"]) if n else ""
            items.append(item(f"{tenant}:{self.number}", tenant, self.random.randint(1, 6), due=due, flag=flag))
        self.sent += [task for task in self.driver.send(*items) if task is not None]
        return items

    def turn(self) -> Any:
        runtime, verdict = self.random.choice(self.runtimes), self.random.choice(VERDICTS)
        want = 0 if verdict == "B" else self.random.randint(0, 6)
        keep = min(self.random.randint(0, 3), len(self.selection.held[runtime]))
        seconds = self.random.choice([0.0, 0.01, 1.0, 30.0])
        return runtime, verdict, keep, self.selection.turn(want, runtime, verdict=verdict, seconds=seconds, keep=keep)

    def cancel(self) -> Any:
        if self.sent:
            task = self.random.choice(self.sent)
            return task, self.driver.run(self.driver.shard.cancel(task, ttl=self.random.choice([0, 60]), body=b"{}"))
        return None

    def purge(self) -> Any:
        tenant = self.random.choice(TENANTS)
        return tenant, self.driver.run(self.driver.shard.purge(tenant, ttl=0, body=b"{}"))

    def reserve(self) -> Any:
        tenant, many = self.random.choice(TENANTS), self.random.randint(0, 5)
        return tenant, many, self.driver.run(self.driver.shard.reserve(self.random.choice("xy"), {tenant: many}))

    def maintain(self) -> Any:
        return self.driver.maintain(deliveries=3)

    def mend(self) -> Any:
        self.driver.run(self.driver.shard.repair())

    def redrive(self) -> Any:
        dead = [task.decode() for task in self.driver.db.zrange(self.driver.keys.fixed("DEAD"), 0, -1)]
        return dead, dead and self.driver.run(self.driver.shard.redrive([(task, b"") for task in dead]))

    def join(self) -> Any:
        self.number += 1
        runtime, assigned, steal = f"r{self.number}", self.random.choice([None, self.some()]), self.steal()
        self.selection.join(runtime, assigned, steal)
        self.runtimes.append(runtime)
        return runtime, assigned, steal

    def assign(self) -> Any:
        runtime, assigned, steal = self.random.choice(self.runtimes), self.some(), self.steal()
        self.selection.assign(runtime, assigned, steal)
        return runtime, assigned, steal

    def lose(self) -> Any:
        if len(self.runtimes) == 1:
            return None
        runtime = self.runtimes.pop(self.random.randrange(len(self.runtimes)))
        leaves = self.random.random() < 0.5
        if leaves:
            self.driver.run(self.driver.shard.leave(runtime))
        else:
            self.driver.lapse(runtime)
            while self.maintain():
                pass
        self.selection.held.pop(runtime, None)
        return runtime, leaves

    def end(self) -> None:
        """Removes all limits, serves everything that waits, and asserts that nothing is left."""
        for tenant in TENANTS:
            self.driver.run(self.driver.shard.configure(tenant, dict.fromkeys(SETTINGS)))
        self.driver.run(self.driver.shard.configure("", dict.fromkeys(SETTINGS)))
        self.driver.run(self.driver.shard.review())
        self.maintain()
        self.driver.check(lowered=TENANTS)
        self.selection.join("last")
        while self.driver.snapshot().suspects:  # one in each turn
            self.selection.turn(10 * STEPS, "last")
        for _ in range(2):
            self.selection.turn(10 * STEPS, "last")
        assert self.driver.check(lowered=TENANTS).queues == {}
        for runtime in self.runtimes:
            self.selection.turn(0, runtime)
        snapshot = self.driver.check(lowered=TENANTS)
        assert not any(snapshot.fixed[name] for name in ("RING", "THROTTLED", "GROUPS"))
        assert (snapshot.virtual, snapshot.claims) == (0.0, {})


SHARES = {
    "send": 25, "turn": 30, "configure": 15, "configure_defaults": 4, "configure_group": 2, "cancel": 5, "purge": 2,
    "reserve": 2, "maintain": 4, "mend": 1, "redrive": 1, "join": 4, "assign": 3, "lose": 4,
}  # fmt: skip


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.reuse, Phase.generate],  # shrinking is useless: a shorter walk draws other steps
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(random=st.randoms(use_true_random=True))
def test_whatever_is_done_all_fits_together_and_nobody_is_forgotten(url: str, random: Random) -> None:
    walk = Walk(url, random)
    try:
        for _ in range(STEPS):
            (step,) = random.choices(list(SHARES), list(SHARES.values()))
            said = getattr(walk, step)()
            note(f"{step} {said}")
            walk.driver.check(lowered=TENANTS)
        walk.end()
    finally:
        walk.driver.close()
