"""Which task is served next: fairness between tenants, caps, and the order within a mailbox."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.shard.driver import ShardDriver, item, open_shard, outcome

MINUTE = 60_000  # ms; one level of priority is worth this much
WANTS = st.lists(st.integers(1, 40), min_size=1, max_size=10)
examples = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def shard(url: str) -> Iterator[ShardDriver]:
    with open_shard(url) as made:
        made.join("r")
        yield made


class Service:
    """Sends tasks to a shard and claims them; the ids of tasks name their tenants."""

    def __init__(self, shard: ShardDriver) -> None:
        self.shard = shard.open()
        self.shard.join("r")
        self._turns: dict[str, Iterator[int]] = defaultdict(lambda: count(1))
        self._ids = count()
        self._held: list[tuple[str, int, str]] = []

    def configure(self, tenant: str, **policy: float | None) -> None:
        self.shard.run(self.shard.shard.configure(tenant, policy))

    def send(self, **numbers: int) -> None:
        """Sends this many tasks of each tenant."""
        tenants = [tenant for tenant, number in numbers.items() for _ in range(number)]
        self.shard.send(*[item(f"{tenant}:{next(self._ids):06}", tenant) for tenant in tenants])

    def claim(self, want: int, *, runtime: str = "r", finish: bool = True) -> list[str]:
        """Claims tasks and returns their tenants in order; finishes the earlier claims, unless ``finish`` is false."""
        number = next(self._turns[runtime])
        ended = [outcome(task, turn, "F0", tenant) for task, turn, tenant in self._held] if finish else []
        turn = self.shard.turn(runtime, number, want, ended)
        assert turn is not None
        assert turn.refused == []
        ids = [task.decode() for task in turn.claims[::2]]
        names = [task.rpartition(":")[0] for task in ids]
        self._held = ([] if finish else self._held) + [
            (task, number, name) for task, name in zip(ids, names, strict=True)
        ]
        return names

    def claim_all(self, wants: Sequence[int]) -> list[str]:
        """Claims everything that waits, in turns of these sizes, over and over."""
        served: list[str] = []
        while True:
            for want in wants:
                claimed = self.claim(want)
                served += claimed
                if len(claimed) < want:
                    return served


def windows(served: list[str]) -> Iterator[Counter[str]]:
    """Counts how often each tenant was served, for every interval of the served tasks."""
    for start in range(len(served)):
        seen: Counter[str] = Counter()
        for name in served[start:]:
            seen[name] += 1
            yield seen


# Between tenants


@examples
@given(backlogs=st.lists(st.integers(1, 60), min_size=1, max_size=25), wants=WANTS)
def test_of_n_tenants_each_is_served_once_within_n_claims(
    shard: ShardDriver, backlogs: list[int], wants: list[int]
) -> None:
    service = Service(shard)
    waiting = {f"t{n}": backlog for n, backlog in enumerate(backlogs)}
    service.send(**waiting)
    served = service.claim_all(wants)
    for round_ in range(1, max(backlogs) + 1):
        names = {name for name, backlog in waiting.items() if backlog >= round_}
        assert set(served[: len(names)]) == names
        del served[: len(names)]
    assert served == []


@examples
@given(backlogs=st.lists(st.integers(20, 60), min_size=3, max_size=6), late=st.integers(1, 20), wants=WANTS)
def test_one_that_comes_later_is_served_as_often_as_others_from_then_on(
    shard: ShardDriver, backlogs: list[int], late: int, wants: list[int]
) -> None:
    service = Service(shard)
    service.send(**{f"t{n}": backlog for n, backlog in enumerate(backlogs)})
    before = service.claim(min(late, sum(backlogs)))
    service.send(new=10)
    served = service.claim_all(wants)
    assert sorted(before + served) == sorted(["new"] * 10 + [f"t{n}" for n, b in enumerate(backlogs) for _ in range(b)])
    least = min(len(served) - served[::-1].index(name) for name in set(served))  # all of them wait until here
    for seen in windows(served[: least - 1]):
        assert all(abs(seen["new"] - seen[f"t{n}"]) <= 2 for n in range(len(backlogs)))
    assert "new" in served[: 2 * len(backlogs) + 1]


@examples
@given(weights=st.lists(st.sampled_from([0.25, 0.3, 1, 1.7, 2, 3, 8]), min_size=2, max_size=4), wants=WANTS)
def test_service_follows_weights_in_every_stretch(shard: ShardDriver, weights: list[float], wants: list[int]) -> None:
    """The bound of start-time fair queuing: two waiting tenants differ by no more than one task each."""
    service = Service(shard)
    share = {f"t{n}": weight for n, weight in enumerate(weights)}
    for name, weight in share.items():
        service.configure(name, weight=weight)
    service.send(**dict.fromkeys(share, 60))
    served: list[str] = []
    for want in wants * 10:
        if all(served.count(name) + want < 60 for name in share):
            served += service.claim(want)
    for seen in windows(served):
        for one, weight in share.items():
            for other, its in share.items():
                assert abs(seen[one] / weight - seen[other] / its) <= 1 / weight + 1 / its + 1e-9


def test_weights_of_1_2_4_8_are_exact_in_every_stretch_of_fifteen(shard: ShardDriver) -> None:
    service = Service(shard)
    weights = {"one": 1, "two": 2, "four": 4, "eight": 8}
    for name, weight in weights.items():
        service.configure(name, weight=weight)
    service.send(**{name: 20 * weight for name, weight in weights.items()})
    served = [name for _ in range(20) for want in (1, 7, 2, 5) for name in service.claim(want)]
    assert len(served) == 300
    for start in range(286):
        assert Counter(served[start : start + 15]) == weights
    for seen in windows(served):
        for name, weight in weights.items():
            assert abs(seen[name] - seen.total() * weight / 15) < 2


def test_one_that_drains_and_returns_gains_nothing(shard: ShardDriver) -> None:
    service = Service(shard)
    service.send(a=100, b=100)
    served: list[str] = []
    sent = 0
    for _ in range(150):
        if served.count("back") == sent:
            service.send(back=1)
            sent += 1
        served += service.claim(1)
    counts = Counter(served)
    assert abs(counts["back"] - 50) <= 1
    assert abs(counts["a"] - counts["b"]) <= 1


def test_one_that_cancels_and_sends_again_gains_nothing(shard: ShardDriver) -> None:
    service = Service(shard)
    service.send(a=50, b=50)
    served: list[str] = []
    for n in range(60):
        shard.send(item(f"odd:{n}", "odd"))
        served += service.claim(1)
        shard.run(shard.shard.cancel(f"odd:{n}", ttl=0, body=b""))
    assert served.count("odd") <= 21


def test_one_that_is_capped_and_freed_gains_nothing(shard: ShardDriver) -> None:
    service = Service(shard)
    service.configure("capped", concurrency=1)
    service.send(a=60, b=60, capped=60)
    served = [name for _ in range(90) for name in service.claim(1)]
    assert Counter(served) == {"a": 30, "b": 30, "capped": 30}


def test_a_tenant_is_not_held_up_by_new_ones_that_keep_coming(shard: ShardDriver) -> None:
    """With one new tenant per claim, one more tenant waits each time that `busy` is served, as in round robin."""
    service = Service(shard)
    service.send(z=1, busy=20)
    served: list[str] = []
    for n in range(40):
        service.send(**{f"a{n}": 1})
        served += service.claim(1)
    assert "z" in served[:6]
    assert served.count("busy") >= 5


def test_virtual_time_starts_afresh_when_nobody_waits(shard: ShardDriver) -> None:
    service = Service(shard)
    service.send(a=5, b=3)
    service.claim(7)
    assert shard.check().virtual == 4.0
    service.claim(2)
    snapshot = shard.check()
    assert (snapshot.virtual, snapshot.fixed["RING"]) == (0.0, {})


# Caps


@examples
@given(caps=st.lists(st.integers(1, 4), min_size=1, max_size=4), wants=WANTS)
def test_caps_hold_over_many_runtimes_and_others_go_on(shard: ShardDriver, caps: list[int], wants: list[int]) -> None:
    service = Service(shard)
    runtimes = [f"r{n}" for n in range(5)]
    shard.join(*runtimes)
    for n, cap in enumerate(caps):
        service.configure(f"capped{n}", concurrency=cap)
    service.send(free=2 * sum(wants), **{f"capped{n}": 20 for n in range(len(caps))})
    running: Counter[str] = Counter()
    for n, want in enumerate(wants * 2):
        claimed = service.claim(want, runtime=runtimes[n % 5], finish=False)
        assert len(claimed) == want
        running.update(claimed)
        shard.check()
    assert all(running[f"capped{n}"] <= cap for n, cap in enumerate(caps))
    assert running["free"] >= sum(wants) * 2 - sum(caps)


def test_a_tenant_at_its_cap_comes_back_as_soon_as_one_of_its_tasks_ends(shard: ShardDriver) -> None:
    service = Service(shard)
    service.configure("actor", concurrency=1)
    service.send(actor=3)
    assert service.claim(5, finish=False) == ["actor"]
    assert service.claim(5, finish=False) == []
    assert service.claim(5) == ["actor"]
    assert service.claim(5) == ["actor"]
    assert service.claim(5) == []


# Within a mailbox


def test_first_in_first_out_within_a_priority_and_higher_ones_first(shard: ShardDriver) -> None:
    order = [3, 1, 5, 3, 6, 2, 4, 6, 1, 3, 5]
    shard.send(*[item(f"{n}", "t", priority) for n, priority in enumerate(order)])
    expected = sorted(range(len(order)), key=lambda n: (-order[n], n))
    claimed = [task for number, want in enumerate((3, 1, 7), 1) for task in shard.claim("r", number, want)]
    assert claimed == [f"{n}" for n in expected]


@examples
@given(tasks=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 10 * MINUTE)), min_size=1, max_size=30))
def test_a_step_of_priority_is_worth_so_much_waiting(shard: ShardDriver, tasks: list[tuple[int, int]]) -> None:
    """Tasks due at these times are ordered by time and priority; critical ones come before all others."""
    shard.open().join("r")
    start = 1_000_000_000_000  # long ago, ms
    shard.send(*[item(f"{n:02}", "t", priority, due=f"{start + at}") for n, (priority, at) in enumerate(tasks)])
    shard.maintain()
    keys = {f"{n:02}": (p != 6, at - (0 if p == 6 else p * MINUTE), f"{n:02}") for n, (p, at) in enumerate(tasks)}
    assert shard.claim("r", 1, len(tasks)) == sorted(keys, key=lambda task: keys[task])


def test_an_old_low_one_is_not_starved_by_new_high_ones(shard: ShardDriver) -> None:
    start = 1_000_000_000_000
    shard.send(item("old", "t", 1, due=f"{start}"))
    shard.send(*[item(f"high{n}", "t", 5, due=f"{start + n * MINUTE}") for n in range(10)])
    shard.maintain()
    assert shard.claim("r", 1, 11).index("old") == 5  # after the tasks of the first four minutes


def test_a_critical_task_does_not_jump_other_tenants(shard: ShardDriver) -> None:
    shard.send(item("n0", "normal"), item("n1", "normal", 1))
    shard.send(*[item(f"c{n}", "critical", 6) for n in range(4)])
    claimed = shard.claim("r", 1, 6)
    assert {task[0] for task in claimed[:2]} == {task[0] for task in claimed[2:4]} == {"c", "n"}
    assert claimed[4:] == ["c2", "c3"]


def test_a_task_that_comes_back_stands_where_it_stood(shard: ShardDriver) -> None:
    shard.send(*[item(f"{n}", "t") for n in range(4)])
    assert shard.claim("r", 1, 2) == ["0", "1"]
    shard.run(shard.shard.leave("r"))
    shard.join("s")
    assert shard.claim("s", 1, 1) == ["0"]
    assert shard.claim("s", 2, 0, [outcome("0", 1, "R0")]) == []
    shard.maintain()
    assert sorted(shard.claim("s", 3, 4)) == ["0", "1", "2", "3"]
