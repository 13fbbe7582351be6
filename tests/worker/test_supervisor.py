"""Tests supervision: a failed job restarts, and a job that keeps failing stops the runtime."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
import redis

from fairactor import Runtime, TaskState, actor
from fairactor._util.supervisor import PERIOD, RESTARTS, Supervisor
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


class Failing:
    """Provides a job whose first `times` runs fail."""

    def __init__(self, times: float) -> None:
        self.times = times
        self.starts: list[float] = []

    async def run(self) -> None:
        self.starts.append(time.monotonic())
        await anyio.lowlevel.checkpoint()
        if len(self.starts) <= self.times:
            raise OSError(f"failure {len(self.starts)}") from KeyError("its cause")


async def test_what_fails_is_started_again_after_pauses_that_grow() -> None:
    failing = Failing(4)
    async with anyio.create_task_group() as group:
        Supervisor(group).start("failing", failing.run)
    pauses = [after - before for before, after in zip(failing.starts, failing.starts[1:], strict=False)]
    assert len(pauses) == 4
    assert pauses[0] >= 0.025
    assert pauses[3] >= 0.2


async def test_what_keeps_failing_is_given_up() -> None:
    failing = Failing(float("inf"))
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            Supervisor(group).start("failing", failing.run)
    (error,) = caught.value.exceptions
    assert isinstance(error, OSError)
    assert len(failing.starts) == RESTARTS + 1
    assert PERIOD > 1


async def test_what_ends_well_is_not_started_again() -> None:
    calm = Failing(0)
    async with anyio.create_task_group() as group:
        Supervisor(group).start("calm", calm.run)
    assert len(calm.starts) == 1


async def test_the_runtime_falls_with_the_error_itself_and_the_body_is_left(make_runtime: Make) -> None:
    failing = Failing(float("inf"))
    begun = anyio.Event()

    @actor
    async def run() -> None:
        begun.set()
        await anyio.sleep_forever()

    async def serve() -> None:
        async with make_runtime(run, lease=PATIENCE, grace=PATIENCE) as runtime:
            await begun.wait()
            runtime._engine.consumer._dispatchers[0]._exchange = failing.run  # type: ignore[method-assign, union-attr]
            runtime._engine.consumer._dispatchers[0].wake()  # type: ignore[union-attr]
            await anyio.sleep_forever()

    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", run())
        began = time.monotonic()
        with pytest.raises(OSError, match="failure 6") as caught:
            await serve()
        assert isinstance(caught.value.__cause__, KeyError)
        assert time.monotonic() - began < 10
        assert await handle.state() is TaskState.QUEUED, "it has given back what it had claimed"
        assert not (await sender.stats()).runtimes


async def test_a_listener_that_fails_is_started_again(make_runtime: Make) -> None:
    async with make_runtime(double, workers=0) as runtime, make_runtime(double):
        hear, failed = runtime._engine.subscriber._receive, []

        def fail_once(*message: bytes) -> None:
            if not failed:
                failed.append(message)
                raise ValueError("as told")
            hear(*message)

        runtime._engine.subscriber._receive = fail_once  # type: ignore[method-assign]
        found = await asyncio.gather(*(runtime.ask(f"user:{n}", double(n), timeout=PATIENCE) for n in range(50)))
        assert found == [2 * n for n in range(50)]
        assert failed


async def test_a_dispatcher_that_fails_in_a_turn_sends_it_again(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(double) as runtime, make_runtime(workers=0) as sender:
        (dispatcher,) = runtime._engine.consumer._dispatchers  # type: ignore[union-attr]
        shard, turn, failed = dispatcher._shard, dispatcher._shard.turn, []

        async def lose_some_replies(*args: object, **kwargs: object) -> object:
            reply = await turn(*args, **kwargs)  # type: ignore[arg-type]
            if len(failed) < 3 and reply is not None and reply.claims:
                failed.append(reply)
                raise ValueError("after the server has done it")
            return reply

        shard.turn = lose_some_replies  # type: ignore[method-assign]
        handles = await sender.send_many((f"user:{n}", double(n)) for n in range(50))
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == [2 * n for n in range(50)]
        assert len(failed) == 3
        stats = await sender.stats()
        assert (stats.finished, stats.pending) == (50, 0)
        await until(lambda: not db.hlen(f"{{fairactor/0}}:claims:{dispatcher.runtime}"))
