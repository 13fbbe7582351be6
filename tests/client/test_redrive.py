"""Tests redriving: it sends a dead letter as a new task under the old id, and sends nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from fairactor import Handle, Priority, Runtime, TaskFailed, TaskState, actor, current_task
from fairactor._model import record
from fairactor.errors import NotADeadLetter, TaskNotFound
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE

from .test_dead_letters import bury, fail, key, succeed

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


async def test_one_that_is_sent_again_begins_anew_at_the_end_of_its_mailbox(
    make_runtime: Make, db: redis.Redis
) -> None:
    attempts = []

    @actor(name="fail", max_retries=1)
    async def flaky(n: int, *, kind: str = "value") -> int:
        attempts.append(current_task().attempt)
        raise ValueError(str(n))

    again = flaky(1).options(backoff=0, priority="low", id="the same")
    async with make_runtime(workers=0) as sender:
        (shard,) = sender._shards()
        handle = await sender.send("user:1", again)
        await shard.join("doomed", lease=60, info={})
        await shard.turn("doomed", 1, lease=60, want=1)
        db.zadd("{fairactor/0}:leases", {"doomed": 1})
        async with make_runtime(flaky):
            with pytest.raises(TaskFailed, match=r"failed after 2 attempt\(s\): ValueError: 1"):
                await handle.result(timeout=PATIENCE)
        before = await handle.info()
        assert header(db, handle).deliveries == 0, "an attempt has ended since"
        others = await sender.send_many(("user:1", succeed(n).options(priority="low")) for n in range(3))
        await handle.redrive()
        info = await handle.info()
        assert (info.id, info.tenant, info.state, info.attempt) == ("the same", "user:1", TaskState.QUEUED, 1)
        assert (info.priority, info.error) == (Priority.LOW, None)
        assert info.enqueued_at > before.enqueued_at
        assert info.history == before.history
        assert [(a.attempt, a.error) for a in info.history] == [(1, "WorkerDied"), (1, "ValueError"), (2, "ValueError")]
        assert header(db, handle).deliveries == 0
        place = [task.decode() for task in db.zrange("{fairactor/0}:queue:user:1", 0, -1)]
        assert place == [*(other.id for other in others), "the same"]
        async with make_runtime(flaky):
            with pytest.raises(TaskFailed, match=r"failed after 2 attempt\(s\)"):
                await handle.result(timeout=PATIENCE)
        await handle.redrive()
        async with make_runtime(succeed):
            assert await handle.result(timeout=PATIENCE) == 1
        assert [attempt.attempt for attempt in (await handle.info()).history] == [1, 1, 2, 1, 2]
        await check_invariants(sender)
    assert attempts[-2:] == [1, 2], "with its retries as at first"


def header(db: redis.Redis, handle: Handle[Any]) -> record.Header:
    packed = db.get(key(handle.id))
    assert isinstance(packed, bytes)
    return record.unpack(packed)[0]


async def test_only_dead_letters_are_sent_again(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        canceled = await sender.send("user:1", succeed(1))
        await canceled.cancel()
        finished = await sender.send("user:1", succeed(1))
        async with make_runtime(succeed) as runtime:
            await runtime.drain(timeout=PATIENCE)
        for handle in (canceled, finished):
            with pytest.raises(NotADeadLetter, match=f"task '{handle.id}' has not failed"):
                await handle.redrive()
            with pytest.raises(ValueError, match="only dead letters can be redriven"):
                await sender.handle(handle.id).redrive()
        for handle in (sender.handle("none"), sender.handle("none", "user:1")):
            with pytest.raises(TaskNotFound, match="there is no task 'none'"):
                await handle.redrive()
        assert (await sender.stats()).queued == 0
        await check_invariants(sender)


@pytest.mark.parametrize("delay", [0, 3600])
async def test_a_live_task_is_not_sent_again(make_runtime: Make, delay: float) -> None:
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", fail(1), delay=delay)
        with pytest.raises(NotADeadLetter, match="has not failed, or was redriven already"):
            await handle.redrive()


async def test_one_with_an_unreadable_key_does_not_hold_up_the_others(make_runtime: Make, db: redis.Redis) -> None:
    odd, _ = await bury(make_runtime, ("user:1", fail(1).options(key="xyz")), ("user:1", fail(2)))
    packed = db.get(key(odd))
    assert isinstance(packed, bytes)
    db.set(key(odd), packed.replace(b'"key":"xyz"', b'"key":12345'), keepttl=True)
    async with make_runtime(workers=0) as sender:
        assert await sender.dead_letters.redrive() == 2
