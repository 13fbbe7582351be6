"""Tests how a runtime divides its slots among shards: in a plain model with simulated time, and with real shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairactor import Runtime, actor, current_task
from fairactor._model.keys import shard_of
from fairactor._worker.shares import GRACE, PATIENCE
from fairactor.testing import check_invariants
from tests.support.fleet_model import ModelRuntime
from tests.support.polling import PATIENCE as SOON

Make = Callable[..., Runtime]
ENDLESS = 10**6
weights = st.lists(st.sampled_from([0.5, 1.0, 1.0, 1.0, 3.0]), min_size=1, max_size=9)


def model(shards: list[list[float]], workers: int, *, length: float = 0.1, ahead: int = 0) -> ModelRuntime:
    """Makes a runtime whose tenants never run out of tasks; they are named ``shard/number``."""
    tenants = {f"{shard}/{n}": weight for shard, crowd in enumerate(shards) for n, weight in enumerate(crowd)}
    made = ModelRuntime(len(shards), workers, dict.fromkeys(tenants, length), ahead=ahead)
    for tenant, weight in tenants.items():
        made.send(int(tenant[0]), tenant, ENDLESS, weight)
    made.begin()
    return made


def served(runtime: ModelRuntime, tasks: int) -> Counter[str]:
    """Returns how many of the next tasks are of each tenant."""
    begin = len(runtime.order)
    runtime.run(lambda: len(runtime.order) >= begin + tasks)
    return Counter(runtime.order[begin : begin + tasks])


# In the model, in which no slot is free for longer than a few turns take while somebody waits


@settings(max_examples=25, deadline=None)
@given(st.lists(weights, min_size=2, max_size=5), st.sampled_from([1, 3, 10]), st.sampled_from([0.01, 0.1, 1.0]))
def test_each_tenant_gets_its_share_whatever_its_shard(shards: list[list[float]], workers: int, length: float) -> None:
    total = sum(map(sum, shards))
    tasks = int(8 * total) + 8 * workers
    got = served(model(shards, workers, length=length), tasks)
    for shard, crowd in enumerate(shards):
        for n, weight in enumerate(crowd):
            assert abs(got[f"{shard}/{n}"] - tasks * weight / total) <= 3 * max(1.0, weight)


def test_tasks_that_are_claimed_ahead_are_divided_too() -> None:
    runtime = model([[1.0] * 9, [1.0]], 5, length=0.001, ahead=20)
    served(runtime, 100)
    got = served(runtime, 1_000)
    assert all(90 <= got[tenant] <= 110 for tenant in got), got
    assert len(got) == 10


def test_a_shard_that_begins_to_wait_is_served_in_the_next_round() -> None:
    runtime = model([[1.0] * 20, []], 4)
    served(runtime, 500)
    runtime.send(1, "1/new", 50)
    assert "1/new" in served(runtime, 20 + 4 + 1)
    assert 9 <= served(runtime, 210)["1/new"] <= 11, "it does not catch up on what it did not want"


def test_a_shard_that_drains_and_returns_gains_nothing() -> None:
    runtime = model([[1.0] * 3, []], 2)
    runtime.on_end = lambda tenant: runtime.send(1, tenant, 1) if tenant == "1/returns" else None
    served(runtime, 100)
    runtime.send(1, "1/returns", 2)
    assert 30 <= served(runtime, 200)["1/returns"] <= 52


def test_a_tenant_of_little_weight_holds_up_no_one_who_joins_its_shard() -> None:
    """Alone on its shard, its first task moves virtual time by 1,000 when it is served, and not before."""
    runtime = model([[1.0] * 3, [0.001]], 2)
    served(runtime, 300)
    runtime.send(1, "1/new", ENDLESS)
    got = served(runtime, 400)
    assert 90 <= got["1/new"] <= 110, got


def test_what_does_not_move_virtual_time_starves_nobody() -> None:
    runtime = model([[1.0] * 3, [1.0]], 2, length=0.01)
    runtime.dispatchers[0].ring.moves = False
    served(runtime, 10)
    assert served(runtime, 3 * PATIENCE + 50)["1/0"] >= 3


def test_a_shard_that_does_not_answer_holds_up_no_one() -> None:
    runtime = model([[1.0], [1.0]], 4)
    served(runtime, 20)
    runtime.dispatchers[0].silent = True
    runtime.dispatchers[0].wake()
    begin = runtime.now
    assert served(runtime, 40)["1/0"] >= 36
    assert runtime.now - begin <= 1.0 + 2 * GRACE + 0.2


# With real shards

LONE, *CROWD = (
    next(f"user:{n}" for n in range(999) if shard_of(f"user:{n}", 2) == 0),
    *[f"user:{n}" for n in range(999) if shard_of(f"user:{n}", 2) == 1][:5],
)


@pytest.mark.anyio
@pytest.mark.parametrize("workers", [1, 4])
async def test_a_lone_tenant_gets_its_share_beside_a_crowded_shard(make_runtime: Make, workers: int) -> None:
    order: list[str] = []

    @actor
    async def work() -> None:
        order.append(current_task().tenant)
        await anyio.sleep(0.002)

    async with make_runtime(workers=0, shards=2) as sender:
        await sender.send_many((tenant, work()) for _ in range(60) for tenant in [LONE, *CROWD])
        async with make_runtime(work, workers=workers) as runtime:
            await runtime.drain(timeout=SOON)
            await check_invariants(runtime)
    got = Counter(order[:240])
    assert all(28 <= got[tenant] <= 60 for tenant in [LONE, *CROWD]), got  # by shards it would get 120 of 240
