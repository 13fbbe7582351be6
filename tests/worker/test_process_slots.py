"""Tests that a runtime claims as many tasks for worker processes as it has free processes, and that others go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis

from fairactor import Handle, Runtime, TaskState, actor
from fairactor.testing import check_invariants
from tests.support import process_actors
from tests.support.polling import PATIENCE, until
from tests.support.servers import script_calls

pytestmark = pytest.mark.anyio

Make = Callable[..., Runtime]


@actor
async def echo(n: int) -> int:
    return n


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """What tasks of `wait_for` wait for."""
    return tmp_path / "gate"


def open_gate(gate: Path) -> None:
    gate.touch()


def waiting(gate: Path, number: int, begun: bool = False) -> list[tuple[str, Any]]:
    names = [str(gate.with_name(f"begun{n}")) if begun else "" for n in range(number)]
    return [(f"user:{n}", process_actors.wait_for(str(gate), name)) for n, name in enumerate(names)]


async def states(handles: list[Handle[Any]]) -> Counter[TaskState]:
    return Counter([await handle.state() for handle in handles])


async def results(handles: list[Handle[Any]]) -> list[Any]:
    return [await handle.result(timeout=PATIENCE) for handle in handles]


async def have(expected: dict[TaskState, int], handles: list[Handle[Any]]) -> bool:
    return await states(handles) == expected


async def test_it_claims_as_many_as_it_has_processes(make_runtime: Make, gate: Path, db: redis.Redis) -> None:
    async with make_runtime(process_actors, echo, processes=2) as runtime:
        handles = await runtime.send_many(waiting(gate, 6))
        await until(partial(have, {TaskState.STARTED: 2, TaskState.QUEUED: 4}, handles))
        assert [await runtime.ask("other", echo(n), timeout=PATIENCE) for n in range(20)] == list(range(20))
        assert await runtime.ask("user:5", echo(1), timeout=PATIENCE) == 1, "others of the tenant go on, too"
        before = script_calls(db)
        await anyio.sleep(0.3)
        assert script_calls(db) - before < 5, "it does not claim them in a circle"
        assert await states(handles) == {TaskState.STARTED: 2, TaskState.QUEUED: 4}
        open_gate(gate)
        assert len(set(await results(handles))) == 2
        await check_invariants(runtime)


async def test_other_runtimes_take_what_waits(make_runtime: Make, gate: Path) -> None:
    async with make_runtime(process_actors, processes=1) as busy:
        handles = await busy.send_many(waiting(gate, 4))
        await until(partial(have, {TaskState.STARTED: 1, TaskState.QUEUED: 3}, handles))
        async with make_runtime(process_actors, processes=2):
            await until(partial(have, {TaskState.STARTED: 3, TaskState.QUEUED: 1}, handles))
            open_gate(gate)
            assert len(set(await results(handles))) == 3


async def test_a_task_that_is_handed_to_a_busy_runtime_goes_on_to_another(make_runtime: Make, gate: Path) -> None:
    async with make_runtime(process_actors, processes=1, lease=60) as one, make_runtime(process_actors, processes=1):
        handles = []
        for n in range(2):  # the second one may be handed to the busy runtime, and is not left there
            handles.append(await one.send(f"user:{n}", process_actors.wait_for(str(gate))))
            await until(partial(have, {TaskState.STARTED: n + 1}, handles))
        handles += await one.send_many(waiting(gate, 3))
        open_gate(gate)
        await results(handles)


async def test_several_shards_share_the_processes(make_runtime: Make, gate: Path) -> None:
    async with make_runtime(process_actors, echo, processes=2, shards=3, lease=60) as runtime:
        handles = await runtime.send_many(waiting(gate, 12, begun=True))
        await until(lambda: len(list(gate.parent.glob("begun*"))) == 2)
        assert await runtime.ask("other", echo(1), timeout=PATIENCE) == 1
        assert len(list(gate.parent.glob("begun*"))) == 2
        open_gate(gate)
        assert len(set(await results(handles))) == 2
        await check_invariants(runtime)


async def test_a_canceled_task_frees_its_process(make_runtime: Make, gate: Path) -> None:
    async with make_runtime(process_actors, processes=1, lease=60) as runtime:
        first, second = await runtime.send_many(waiting(gate, 2))
        await until(partial(have, {TaskState.STARTED: 1, TaskState.QUEUED: 1}, [first, second]))
        started, other = (first, second) if await first.state() is TaskState.STARTED else (second, first)
        await started.cancel()
        await until(partial(have, {TaskState.STARTED: 1}, [other]))
        open_gate(gate)
        await other.result(timeout=PATIENCE)
