"""The model of limits keeps what docs/limits.md promises; the scripts are compared with it elsewhere."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.support.limit_model import Limit, Line

COSTS = st.floats(0.1, 5000)
STEPS = st.lists(st.tuples(st.floats(0, 3), COSTS), min_size=1, max_size=60)


def start_when_allowed(limit: Limit, steps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Starts a task of each cost, some time after it was allowed. Returns when each started and what it took."""
    now, found = 0.0, []
    for pause, cost in steps:
        now = limit.allowed_from(now, cost) + pause
        limit.take(now, cost)
        limit.end()
        found.append((now, cost))
    return found


@given(STEPS, st.floats(1, 1000), st.floats(0.5, 1e5))
def test_no_interval_takes_more_than_the_burst_or_its_last_start_and_the_rate(
    steps: list[tuple[float, float]], burst: float, per_second: float
) -> None:
    starts = start_when_allowed(Limit(interval=1 / per_second, burst=burst), steps)
    for first in range(len(starts)):
        taken = 0.0
        for at, cost in starts[first:]:
            taken += cost
            assert taken <= max(burst, cost) + per_second * (at - starts[first][0]) + 1e-6 * taken


@given(st.lists(st.floats(0, 0.05), min_size=1, max_size=300), st.integers(1, 100_000))
def test_a_rate_without_a_burst_holds_in_every_unit_of_time(pauses: list[float], number: int) -> None:
    starts = start_when_allowed(Limit.windowed(number, 1.0), [(pause / number, 1.0) for pause in pauses])
    times = [at for at, _ in starts]
    for first, at in enumerate(times):
        assert sum(at <= other < at + 1 - 1e-9 for other in times[first:]) <= number


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_a_busy_line_gets_all_of_a_rate_but_a_fiftieth(number: int, share: float) -> None:
    limit = Limit.windowed(number, 1.0)
    assert 1 / limit.interval >= number * 0.98 * (1 - 1e-9)
    late = share * (limit.burst - 1) * limit.interval  # what comes this late loses nothing
    now = taken = 0.0
    while taken < limit.burst + 50:
        now = limit.allowed_from(now, 1) + (late if taken == limit.burst else 0)
        limit.take(now, 1)
        limit.end()
        taken += 1
    assert limit.due <= taken * limit.interval * (1 + 1e-9)


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=50))
def test_no_more_run_than_the_concurrency(concurrency: int, starts: list[bool]) -> None:
    limit = Limit(concurrency=concurrency)
    for start in starts:
        if not start:
            limit.started = max(0, limit.started - 1)
        elif limit.allowed_from(0, 1) == 0:
            limit.take(0, 1)
        else:
            assert limit.started == concurrency
            assert limit.allowed_from(0, 1) == math.inf
        assert limit.started <= concurrency


@given(STEPS, COSTS)
def test_what_is_charged_afterwards_counts_as_if_the_start_had_taken_it(
    steps: list[tuple[float, float]], used: float
) -> None:
    limit, other = Limit(interval=0.01, burst=10), Limit(interval=0.01, burst=10)
    now = 0.0
    for pause, cost in steps:
        now = max(now, limit.due) + pause  # nothing is owed, so nothing depends on the order
        limit.take(now, cost)
        limit.correct(now, used - cost)
        other.take(now, used)
        assert math.isclose(limit.due, other.due, abs_tol=1e-6)


@given(
    st.dictionaries(st.sampled_from("abcde"), st.tuples(st.floats(0.1, 10), st.lists(COSTS, min_size=1, max_size=40))),
    st.integers(1, 100),
)
def test_tenants_that_wait_share_by_weight_in_what_the_limit_counts(
    tenants: dict[str, tuple[float, list[float]]], rounds: int
) -> None:
    line = Line({name: weight for name, (weight, _) in tenants.items()})
    for name, (_, costs) in tenants.items():
        for cost in costs:
            line.send(name, cost)
    for _ in range(rounds):
        if line.first() is None:
            break
        line.serve()
        for one in line.tags:
            for other in line.tags:
                difference = (
                    line.served.get(one, 0) / line.weights[one] - line.served.get(other, 0) / line.weights[other]
                )
                most = max(tenants[one][1]) / line.weights[one] + max(tenants[other][1]) / line.weights[other]
                assert difference <= most + 1e-6
