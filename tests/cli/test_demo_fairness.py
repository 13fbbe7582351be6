"""Tests the demo's arithmetic: Jain's index, which tenants are compared, and the same tasks in a FIFO queue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairactor.demo.fairness import Service, jain_index, least_to_compare, replay_fifo, service_while_all_had_work

amounts = st.lists(st.floats(0, 1e12), min_size=1, max_size=50)


@given(amounts)
def test_jain_index_is_between_one_nth_and_one(values: list[float]) -> None:
    assert 1 / len(values) * (1 - 1e-9) <= jain_index(values) <= 1 + 1e-9


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=50), st.floats(1e-3, 1e3))
def test_jain_index_does_not_depend_on_the_unit(values: list[float], unit: float) -> None:
    assert jain_index([value * unit for value in values]) == pytest.approx(jain_index(values))


@given(st.integers(1, 50), st.floats(1e-9, 1e150))
def test_jain_index_of_equals_and_of_one_who_has_all(n: int, value: float) -> None:
    assert jain_index([value] * n) == pytest.approx(1)
    assert jain_index([value] + [0.0] * (n - 1)) == pytest.approx(1 / n)


def test_jain_index_where_nobody_has_anything() -> None:
    assert jain_index([]) == 1
    assert jain_index([0, 0]) == 1


def test_tenants_with_few_tasks_are_not_compared_unless_all_have_few() -> None:
    assert least_to_compare([500, 40, 9, 1]) == 10
    assert least_to_compare([500, 4, 1]) == 4
    assert least_to_compare([7]) == 7
    assert least_to_compare([]) == 10


def test_service_is_counted_until_the_first_tenant_runs_out() -> None:
    turns = ["a", "b", "a", "b", "a", "a"]
    services = [Service(tenant, i, i + 1) for i, tenant in enumerate(turns)]
    assert service_while_all_had_work(services, 2) == {"a": 2, "b": 2}
    assert service_while_all_had_work(services, 3) == {"a": 4}
    assert service_while_all_had_work([], 2) == {}


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Service], int]:
    """Draws a possible measured run: each worker serves one task after the other, with pauses."""
    workers = draw(st.integers(1, 5))
    free = [0.0] * workers
    services = []
    for tenant in draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=40)):
        worker = draw(st.integers(0, workers - 1))
        began = free[worker] + draw(st.floats(0, 1))
        free[worker] = began + draw(st.floats(0, 10))
        services.append(Service(tenant, began, free[worker]))
    return services, workers


@given(runs())
def test_a_fifo_serves_the_same_tasks_in_the_order_of_sending(run: tuple[list[Service], int]) -> None:
    services, workers = run
    replayed = replay_fifo(services, workers)
    assert [service.tenant for service in replayed] == [service.tenant for service in services]
    for was, now in zip(services, replayed, strict=True):
        assert now.ended - now.began == pytest.approx(was.ended - was.began, abs=1e-9)
    begins = [service.began for service in replayed]
    assert begins == sorted(begins)
    assert begins[0] == min(service.began for service in services)


@given(runs())
def test_a_fifo_runs_no_more_at_once_than_there_are_workers(run: tuple[list[Service], int]) -> None:
    services, workers = run
    replayed = replay_fifo(services, workers)
    for one in replayed:
        assert sum(other.began <= one.began < other.ended for other in replayed) <= workers


def test_a_fifo_is_as_fast_as_the_run_was() -> None:
    # Two tenants take turns on one worker, which pauses for a second after each task.
    services = [Service("a", 0, 1), Service("a", 4, 5), Service("b", 2, 3), Service("b", 6, 7)]
    replayed = replay_fifo(services, workers=1)
    assert [service.began for service in replayed] == pytest.approx([0, 1.75, 3.5, 5.25])
    assert replay_fifo([], 1) == []
