"""Tests calls that cannot work: each raises a specific exception that names the cause and the remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from fairactor import Runtime, TaskFailed, actor, current_task
from fairactor.errors import ConfigurationError, DuplicateActor, RuntimeNotRunning, TaskNotFound, UnknownActor
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


@actor
async def anything(value: Any = None, *rest: Any, **named: Any) -> Any:
    return value


# Actors


async def test_an_actor_that_is_not_registered_is_refused_with_the_nearest_name(make_runtime: Make) -> None:
    @actor
    async def dubble() -> None: ...

    async with make_runtime(double) as runtime:
        with pytest.raises(UnknownActor, match=r"no actor 'dubble' is registered here.*did you mean 'double'\?"):
            await runtime.send("user:1", dubble())
        with pytest.raises(LookupError):
            await runtime.send_many([("user:1", double(1)), ("user:1", dubble())])
        assert (await runtime.stats()).pending == 0


async def test_a_task_whose_actor_nobody_has_registered_fails(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(anything, unknown_ttl=0):
        with pytest.raises(TaskFailed, match="no running process has registered an actor 'double'") as caught:
            await sender.ask("user:1", double(1), timeout=PATIENCE)
        assert caught.value.error == "fairactor.errors.UnknownActor"


async def test_a_task_whose_actor_another_runtime_has_gets_there(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(anything), make_runtime(double):
        results = await asyncio.gather(*(sender.ask(f"user:{n}", double(n), timeout=PATIENCE) for n in range(20)))
        assert results == [2 * n for n in range(20)]
        assert (await sender.stats()).failed == 0


def test_two_actors_of_one_name_are_refused() -> None:
    @actor(name="double")
    async def other() -> None: ...

    with pytest.raises(
        DuplicateActor, match=r"two actors are named 'double': .*test_misuse\.double and .*other; give one"
    ):
        Runtime(actors=[double, other])
    Runtime(actors=[double, double])  # the same actor twice is allowed


async def test_what_is_no_message_is_refused(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        for wrong in (double, 5, None, "double", lambda: None):
            with pytest.raises(
                ConfigurationError, match=r"is not a message: call an actor to make one, as in send\(tenant"
            ):
                await runtime.send("user:1", wrong)  # type: ignore[arg-type]


async def test_what_does_not_exist_is_told(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        handle = runtime.handle("no such task")
        for use in (handle.result, handle.state, handle.info, handle.cancel):
            with pytest.raises(TaskNotFound, match=r"no task 'no such task': .*never sent, or its record"):
                await use()


# A tenant's policy


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"weight": 0}, "weight=0: give a number from 0.001 to 1e\\+06"),
        ({"weight": -1}, "weight=-1"),
        ({"weight": float("nan")}, "weight=nan"),
        ({"weight": float("inf")}, "weight=inf"),
        ({"weight": "2"}, "weight='2'"),
        ({"weight": True}, "weight=True"),
        ({"concurrency": 0}, "concurrency=0: give a whole number, 1 or more, or None"),
        ({"concurrency": 1.5}, "concurrency=1.5"),
        ({"concurrency": True}, "concurrency=True"),
        ({"concurency": 1}, "there is no setting 'concurency' here"),
    ],
)
async def test_a_policy_that_cannot_work_is_refused(make_runtime: Make, policy: dict[str, Any], words: str) -> None:
    async with make_runtime(workers=0) as runtime:
        with pytest.raises(ConfigurationError, match=words):
            await runtime.tenant("user:1").configure(**policy)


# Calls in the wrong place


def uses(runtime: Runtime) -> list[Callable[[], Any]]:
    return [
        lambda: runtime.send("user:1", double(1)),
        lambda: runtime.send_many([("user:1", double(1))]),
        lambda: runtime.ask("user:1", double(1)),
        runtime.stats,
        runtime.health,
        runtime.drain,
        runtime.run,
        lambda: runtime.tenant("user:1").stats(),
        lambda: runtime.tenant("user:1").configure(weight=2),
    ]


async def refused(runtime: Runtime, words: str) -> None:
    for use in uses(runtime):
        with pytest.raises(RuntimeNotRunning, match=words):
            await use()
    with pytest.raises(RuntimeNotRunning, match=words):
        await runtime.handle("some id").state()


async def test_a_runtime_is_used_only_while_it_is_entered(make_runtime: Make) -> None:
    runtime = make_runtime(double)
    await refused(runtime, "was not entered yet: use it inside `async with Runtime")
    async with runtime:
        handle = await runtime.send("user:1", double(1))
        with pytest.raises(RuntimeNotRunning, match="can be entered once; make a new one"):
            await runtime.__aenter__()
    await refused(runtime, "was left: use it inside")
    with pytest.raises(RuntimeNotRunning, match="was left"):
        await handle.result()
    with pytest.raises(RuntimeNotRunning, match="can be entered once; make a new one"):
        await runtime.__aenter__()


async def test_a_runtime_belongs_to_its_event_loop(make_runtime: Make) -> None:
    words = "another event loop or thread: .*anyio.from_thread.run"
    async with make_runtime(double) as runtime:
        await anyio.to_thread.run_sync(lambda: asyncio.run(refused(runtime, words)))

        def from_a_thread() -> int:
            with pytest.raises(RuntimeNotRunning, match=words):
                runtime.check()
            return anyio.from_thread.run(runtime.ask, "user:1", double(2))

        assert await anyio.to_thread.run_sync(from_a_thread) == 4


def test_outside_a_handler_there_is_no_current_task() -> None:
    with pytest.raises(RuntimeNotRunning, match="only inside a handler"):
        current_task()


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), "half", None])
async def test_a_progress_that_cannot_be_is_refused(make_runtime: Make, fraction: Any) -> None:
    @actor
    async def report() -> str:
        with pytest.raises(ConfigurationError, match=r"progress\(.*\): give a fraction from 0 to 1"):
            await current_task().progress(fraction)
        return "refused"

    async with make_runtime(report) as runtime:
        assert await runtime.ask("user:1", report(), timeout=PATIENCE) == "refused"


@pytest.mark.parametrize("seconds", [-1, float("nan"), "5"])
async def test_a_time_to_wait_that_cannot_be_is_refused(make_runtime: Make, seconds: Any) -> None:
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", double(1))
        for use in (handle.result, runtime.drain, partial(runtime.ask, "user:1", double(2))):
            with pytest.raises(ConfigurationError, match="timeout="):
                await use(timeout=seconds)
        assert (await runtime.stats()).queued == 1
