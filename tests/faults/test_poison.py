"""Tests that a task that kills or stops its processes harms no other."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from fairactor import Runtime, TaskFailed
from fairactor.testing import check_invariants
from tests.support import service
from tests.support.polling import PATIENCE, until
from tests.support.worker_processes import Fleet

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@pytest.fixture
async def here(url: str) -> AsyncIterator[None]:
    """Enables the actors of `service` to run in this process, too."""
    async with redis.asyncio.Redis.from_url(url) as service.store:
        yield


async def test_a_task_that_kills_its_processes_takes_nothing_else_with_it(
    make_runtime: Make, processes: Fleet, db: redis.Redis
) -> None:
    how: dict[str, Any] = {"lease": 0.5, "max_deliveries": 3, "workers": 8}
    async with make_runtime(workers=0) as sender:
        innocent = await sender.send_many((f"user:{n}", service.nap(0.3)) for n in range(6))
        poison = await sender.send("evil", service.die(times=99))
        for _ in range(3):
            (doomed,) = await processes.start(**how)
            assert await doomed.ended() == 7
        (survivor,) = await processes.start(**how)
        with pytest.raises(TaskFailed, match="3 runtimes died while they ran it"):
            await poison.result(timeout=PATIENCE)
        await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in innocent))
        assert (await sender.stats()).failed == 1
        assert {attempt.error for attempt in (await innocent[0].info()).history} == {"WorkerDied"}
        assert await sender.ask("user:1", service.nap(0), timeout=PATIENCE) == survivor.pid
        await check_invariants(sender)
    await processes.stop()


async def test_what_ran_in_a_process_that_was_stopped_runs_again_even_with_one_delivery(
    make_runtime: Make, processes: Fleet, here: None, db: redis.Redis
) -> None:
    (frozen,) = await processes.start(lease=0.5, max_deliveries=1)
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", service.nap(0.3))
        await until(lambda: db.llen("runs") == 1)
        frozen.signal(signal.SIGSTOP)
        async with make_runtime(service, max_deliveries=1):
            await handle.result(timeout=PATIENCE)
            (attempt,) = (await handle.info()).history
            assert attempt.error == "LeaseLost"
            assert "silent for longer than its lease" in attempt.message
            frozen.signal(signal.SIGCONT)
    await processes.stop()
