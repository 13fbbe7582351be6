"""Tests the settings that stand in for options: a message counts most, then its actor, then the runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from fairactor import Handle, Priority, Runtime, TaskFailed, actor, current_task
from fairactor.errors import ConfigurationError, TaskNotFound
from fairactor.settings import Settings
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor(backoff=0)
async def fail() -> None:
    raise ValueError("as told")


@actor(max_retries=1, backoff=0)
async def fail_twice() -> None:
    raise ValueError("as told")


async def attempts(handle: Handle[Any]) -> int:
    with pytest.raises(TaskFailed):
        await handle.result(PATIENCE)
    return (await handle.info()).attempt


async def test_the_retries_of_a_message_count_more_than_those_of_its_actor_and_these_more_than_the_default(
    make_runtime: Make,
) -> None:
    async with make_runtime(fail, fail_twice, max_retries=2) as runtime:
        assert await attempts(await runtime.send("t", fail())) == 3
        assert await attempts(await runtime.send("t", fail(), max_retries=0)) == 1
        assert await attempts(await runtime.send("t", fail_twice())) == 2
        assert await attempts(await runtime.send("t", fail_twice(), max_retries=3)) == 4


@actor
async def wait(seconds: float) -> str:
    await anyio.sleep(seconds)
    return "done"


@actor(timeout=PATIENCE)
async def wait_long(seconds: float) -> str:
    await anyio.sleep(seconds)
    return "done"


@actor(timeout=0.01)
async def wait_shortly() -> None:
    await anyio.sleep_forever()


async def test_the_timeout_of_the_runtime_holds_where_there_is_no_other(make_runtime: Make) -> None:
    async with make_runtime(wait, wait_long, wait_shortly, timeout=0.05) as runtime:
        for message, words in (
            (wait(3600), "its timeout of 0.05 s"),
            (wait_shortly(), "its timeout of 0.01 s"),
            (wait_long(3600).options(timeout=0.02), "its timeout of 0.02 s"),
        ):
            with pytest.raises(TaskFailed, match=words):
                await (await runtime.send("t", message)).result(PATIENCE)
        assert await runtime.ask("t", wait_long(0.1), timeout=PATIENCE) == "done"
        assert await (await runtime.send("t", wait(0.1), timeout=PATIENCE)).result(PATIENCE) == "done"


@actor
async def show() -> str:
    return current_task().priority.name


@actor(priority="low")
async def show_low() -> str:
    return current_task().priority.name


async def test_the_priority_of_the_sender_holds_where_there_is_no_other(make_runtime: Make) -> None:
    async with make_runtime(show, show_low, priority="high") as runtime, make_runtime(workers=0) as other:
        assert await runtime.ask("t", show(), timeout=PATIENCE) == "HIGH"
        assert await runtime.ask("t", show_low(), timeout=PATIENCE) == "LOW"
        assert await runtime.ask("t", show_low(), priority=Priority.VERY_HIGH, timeout=PATIENCE) == "VERY_HIGH"
        assert await other.ask("t", show(), timeout=PATIENCE) == "NORMAL"


@actor(result_ttl=60)
async def kept() -> None: ...


async def test_the_time_that_records_are_kept_is_that_of_the_message_its_actor_or_the_runtime(
    make_runtime: Make,
) -> None:
    async with make_runtime(show, kept, result_ttl=0) as runtime:
        handles = [await runtime.send("t", show()), await runtime.send("t", kept(), result_ttl=0)]
        stays = [await runtime.send("t", kept()), await runtime.send("t", show(), result_ttl=60)]
        await runtime.drain(PATIENCE)
        for handle in handles:
            with pytest.raises(TaskNotFound):
                await handle.result(PATIENCE)
        assert await runtime.results(stays, PATIENCE) == [None, "NORMAL"]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"priority": "urgent"}, "priority='urgent': give one of very_low"),
        ({"priority": None}, "priority=None: give one of"),
        ({"timeout": 0}, "timeout=0: give a finite number of seconds, more than 0"),
        ({"max_retries": -1}, "max_retries=-1: give a whole number from 0 to 65534"),
        ({"max_retries": None}, "max_retries=None"),
    ],
)
def test_wrong_defaults_are_refused(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Settings(**setting)
