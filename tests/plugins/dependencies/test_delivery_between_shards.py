"""Tests graphs over two shards: messages between the shards arrive even if processes are killed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import redis
from fairactor_dependencies import Run, at, chain, group, result_of

from fairactor import Runtime, actor
from fairactor._model.keys import shard_of
from fairactor.testing import check_invariants
from tests.support import service
from tests.support.polling import PATIENCE, until
from tests.support.worker_processes import Fleet

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

HERE, THERE = (next(f"user:{n}" for n in range(99) if shard_of(f"user:{n}", 2) == shard) for shard in (0, 1))


@actor
async def add(n: int, *others: int) -> int:
    return n + sum(others)


def keys_of_plugin(db: redis.Redis) -> set[str]:
    names = (key.decode().partition(":plugin:fairactor_dependencies:")[2] for key in db.scan_iter("*:plugin:*"))
    return {name for name in names if name != "remote" and not name.startswith("gate:")}


async def test_whoever_carries_and_is_killed_each_step_runs_after_those_before_it(
    make_runtime: Make, processes: Fleet, db: redis.Redis
) -> None:
    await processes.start(2, shards=2, lease=1.0)
    async with make_runtime(workers=0, shards=2) as sender:
        runs = [await sender.send(HERE, _there_and_back()) for _ in range(8)]
    order = {
        handle.id: before for run in runs for handle, before in zip(run.handles.values(), _before(run), strict=True)
    }
    for victim in (0, 1, 2):  # only these processes deliver messages
        await until(lambda many=10 * (victim + 1): db.llen("runs") >= many)
        processes.processes[victim].signal(signal.SIGKILL)
        await processes.start(shards=2, lease=1.0)
    async with make_runtime(workers=0, shards=2) as asking:
        for run in runs:
            for handle in run.handles.values():
                await asking.handle(handle.id, handle.tenant).result(timeout=PATIENCE)
        stats = await asking.stats()
        assert (stats.finished, stats.deferred, stats.pending, stats.canceled) == (len(order), 0, 0, 0)
        await check_invariants(asking)
        await until(lambda: not keys_of_plugin(db))
        await until(lambda: db.zcard("{fairactor/0}:leases") == db.zcard("{fairactor/1}:leases") == 2)  # the living
    began: dict[str, list[int]] = {}
    for place, entry in enumerate(db.lrange("runs", 0, -1)):
        began.setdefault(entry.decode().rpartition(" ")[0], []).append(place)
    assert began.keys() == order.keys()
    for task, before in order.items():
        assert all(max(began[parent]) < min(began[task]) for parent in before), f"{task} ran before {before}"
    await processes.stop()


def _there_and_back() -> Any:
    """Builds a graph with steps that go from one shard to the other and join there."""
    nap = service.nap
    beside = group(at(THERE, nap(0.01).options(id="b")), at(HERE, nap(0.01).options(id="c")))
    return chain(
        nap(0.01).options(id="a"), beside, at(THERE, nap(0.01).options(id="d")), at(HERE, nap(0.01).options(id="e"))
    )


def _before(run: Run) -> list[list[str]]:
    """Returns the ids of each step's parents, in the order of the steps."""
    names = {"a": "", "b": "a", "c": "a", "d": "bc", "e": "d"}
    return [[run.handles[name].id for name in names[step]] for step in run.handles]


async def test_what_somebody_has_taken_who_has_died_is_carried_by_another(make_runtime: Make) -> None:
    async with make_runtime(add, shards=2) as runtime:
        first = await runtime.send(HERE, add(1))
        await first.result()
        waits = await runtime.send(THERE, add(result_of(first)).options(depends_on=[first]))
        assert await waits.result(timeout=PATIENCE) == 1
        parent = await runtime.send(HERE, add(5).options(delay=0.2))
        child = await runtime.send(THERE, add(result_of(parent), 1).options(depends_on=[parent]))
        with anyio.move_on_after(PATIENCE):
            while not (await child.info()).ended_at:
                await runtime.host.call("fairactor_dependencies/take", HERE, 100, 1)  # never delivers them
        assert await child.result(timeout=PATIENCE) == 6


async def test_a_task_of_a_batch_that_was_there_before_is_waited_for_from_another_shard(make_runtime: Make) -> None:
    async with make_runtime(add, shards=2) as runtime:
        await (await runtime.send(HERE, add(1).options(id="first"))).result()
        for attempt in ("once", "again"):
            _, child = await runtime.send_many(
                [
                    (HERE, add(1).options(id="first")),
                    (THERE, add(result_of("first"), 1).options(id=attempt, depends_on=["first"])),
                ]
            )
            assert await child.result(timeout=PATIENCE) == 2
