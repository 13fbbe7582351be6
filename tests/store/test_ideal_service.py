"""The scripts serve tenants as the model of ideal service does, whatever the runtimes can run."""

from __future__ import annotations

from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ideal import Ideal, off_by
from tests.support.shard.model_lanes import Kind
from tests.support.shard.selection import SelectionDriver, open_selection

ACTORS = ("f", "g", "h", "i", "j")
WEIGHTS = (0.5, 1.0, 2.0, 3.0, 10.0)
WINDOW = 1_000
"""The number of claims within which service must be right."""


class Contest:
    """Lets the scripts and the model serve the same tenants."""

    def __init__(self, shard: SelectionDriver, random: Random) -> None:
        self.shard = shard
        self.random = random
        sets = {frozenset(random.sample(ACTORS, random.randint(1, len(ACTORS)))) for _ in range(random.randint(2, 4))}
        kinds = {f"r{number}": actors for number, actors in enumerate(sorted(sets, key=sorted))}
        self.actors = sorted(frozenset().union(*sets))
        weights = {f"t{n}": random.choice(WEIGHTS) for n in range(random.randint(2, 6))}
        self.ideal = Ideal(kinds, weights)
        self.late: list[str] = []
        """Kinds that joined when tasks waited already."""
        self.served: dict[str, list[str]] = {kind: [] for kind in kinds}
        self.wanted: dict[str, list[str]] = {kind: [] for kind in kinds}
        for tenant, weight in weights.items():
            shard.configure(tenant, weight=weight)

    def join(self, kind: str) -> None:
        """Joins two runtimes of a kind."""
        for runtime in (f"{kind}/1", f"{kind}/2"):
            self.shard.join(runtime, kind=Kind(dict.fromkeys(self.ideal.kinds[kind], "1")))

    def send(self, tenant: str, actors: list[str]) -> None:
        self.shard.send({tenant: len(actors)}, actors=actors)
        for actor in actors:
            self.ideal.send(tenant, actor)

    def send_some(self) -> None:
        tenant = self.random.choice(list(self.ideal.weights))
        among = self.random.choices(self.actors, k=3)
        self.send(tenant, self.random.choices(among, k=self.random.choice([1, 3, 40])))

    def claim_some(self) -> None:
        kind, want = self.random.choice(list(self.ideal.kinds)), self.random.randint(1, 8)
        runtime, found = self.random.choice([f"{kind}/1", f"{kind}/2"]), list[str]()
        for _ in range(8):  # a turn moves only some of the tasks that belong in other lanes, and the next one goes on
            if len(found) < want:
                found += self.shard.turn(want - len(found), runtime)
        equals = [*found, *[""] * (want - len(found))]
        ideal = [tenant for equal in equals if (tenant := self.ideal.claim(kind, equal)) is not None]
        assert len(found) == len(ideal), f"{kind} gets {found} instead of {ideal}"
        self.served[kind] += found
        self.wanted[kind] += ideal

    def check(self) -> None:
        """Asserts that each tenant has got what it should from each kind, within 2 % or one task.

        When a kind is new, tenants take places for tasks that wait, although some of these may be for others. So each
        of the others may come one task early.
        """
        for kind, served in self.served.items():
            spare = len(self.ideal.weights) - 1 if kind in self.late else 1
            for tenant in self.ideal.weights:
                off = off_by(served, self.wanted[kind], tenant, WINDOW, spare)
                assert off <= 0.02, f"{kind} serves {tenant} {off:.1%} wrongly"


def play(shard: SelectionDriver, random: Random, rounds: int) -> None:
    contest = Contest(shard, random)
    contest.late = [kind for kind in contest.ideal.kinds if random.random() < 0.3]
    for kind in contest.ideal.kinds:
        if kind not in contest.late:
            contest.join(kind)
    for _ in range(random.randint(0, 10)):
        contest.send_some()
    for kind in contest.late:
        contest.join(kind)
    for _ in range(rounds):
        (contest.send_some if random.random() < 0.3 else contest.claim_some)()
    contest.check()


@settings(max_examples=10, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_each_tenant_gets_what_it_should_from_each_kind_of_runtimes(session_server: str, random: Random) -> None:
    with open_selection(session_server, kind=None) as shard:
        play(shard, random, 60)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_each_tenant_gets_what_it_should_for_long(session_server: str, seed: int) -> None:
    with open_selection(session_server, kind=None) as shard:
        play(shard, Random(seed), 1_500)


@pytest.mark.parametrize("want", [1, 20])
def test_backlogged_tenants_share_each_kind_by_weight_whatever_lanes_their_tasks_are_in(url: str, want: int) -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    with open_selection(url, kind=None) as shard:
        shard.join("both", kind=Kind({"f": "1", "g": "1"}))
        shard.join("one", kind=Kind({"f": "1"}))
        for tenant, weight in weights.items():
            shard.configure(tenant, weight=weight)
        for tenant, actors in {"a": ["f", "g"], "b": ["f", "g"], "c": ["f", "g", "g", "f"], "d": ["g", "f"]}.items():
            shard.send({tenant: 300}, actors=actors)
        for turn in range(300 // want):
            for runtime, ratio in (("both", 1), ("one", 3)):
                if turn % ratio == 0:
                    shard.turn(want, runtime, keep=10_000)
        for runtime in ("both", "one"):
            claims = [claim.tenant for claim in shard.held[runtime]]
            for tenant, weight in weights.items():
                assert abs(claims.count(tenant) - len(claims) * weight / 10) <= max(1, 0.02 * len(claims))


def test_the_model_gives_one_share_over_all_lanes() -> None:
    ideal = Ideal({"cpu": {"f", "g"}, "gpu": {"h"}}, {"one lane": 1.0, "two lanes": 1.0, "twice": 2.0})
    for _, lane in zip(range(300), "fg" * 150, strict=False):
        ideal.send("two lanes", lane)
        ideal.send("one lane", "f")
        ideal.send("twice", lane)
        ideal.send("two lanes", "h")
    counts = dict.fromkeys(ideal.weights, 0)
    for number in range(400):
        ideal.claim("gpu")
        tenant = ideal.claim("cpu")
        assert tenant is not None
        counts[tenant] += 1
        assert abs(counts["two lanes"] - counts["one lane"]) <= 1, f"after {number} claims"
    assert counts == {"one lane": 100, "two lanes": 100, "twice": 200}


def test_the_model_remembers_nothing_of_a_tenant_that_has_drained() -> None:
    ideal = Ideal({"r": {"f"}}, {"a": 1.0, "b": 1.0})
    numbers = count()
    for _ in range(100):
        ideal.send("a", "f")
    while next(numbers) < 50:
        ideal.claim("r")
    for _ in range(50):
        ideal.send("b", "f")
    served = [ideal.claim("r") for _ in range(40)]
    assert abs(served.count("a") - 20) <= 1
