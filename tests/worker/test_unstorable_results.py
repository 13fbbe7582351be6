"""A result that cannot be stored fails the task at once: its work is done, so no attempt repeats it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fairactor_xcom import XCom

from fairactor import Runtime, TaskFailed, actor
from tests.support import process_actors
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

runs: list[str] = []


@actor(max_retries=3, backoff=0)
async def give(what: str) -> Any:
    runs.append(what)
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    results = {
        "large": "x" * 2000,
        "lock": {"lock": asyncio.Lock()},
        "deep": deep,
        "text": "\udcff",
        "nan": [float("nan")],
    }
    return results[what]


@actor(max_retries=3, backoff=0)
async def number() -> int:
    runs.append("number")
    return "7 apples"  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        (give("large"), "PayloadTooLarge", r"give\(\) result: 2002 bytes, the limit is 1000"),
        (give("lock"), "NotSerializable", r"give\(\) result\['lock'\]: <asyncio.*> is a Lock"),
        (give("deep"), "NotSerializable", r"give\(\) result: more than 200 levels"),
        (give("text"), "NotSerializable", r"give\(\) result: .* is a str that has no JSON form"),
        (give("nan"), "NotSerializable", r"give\(\) result\[0\]: expected a finite float, got nan"),
        (number(), "NotSerializable", r"number\(\) result: expected int, got str '7 apples'"),
    ],
)
async def test_it_fails_at_once(make_runtime: Make, message: Any, error: str, words: str) -> None:
    runs.clear()
    async with make_runtime(give, number, max_payload=1000) as runtime:
        handle = await runtime.send("t", message)
        with pytest.raises(TaskFailed, match=rf"failed after 1 attempt.*{words}") as caught:
            await handle.result(timeout=PATIENCE)
        assert caught.value.error == f"fairactor.errors.{error}"
        assert len(runs) == 1
        (attempt,) = (await handle.info()).history
        assert attempt.error == caught.value.error


async def test_it_fails_at_once_from_a_worker_process(make_runtime: Make) -> None:
    async with make_runtime(process_actors.long_result, max_payload=1000) as runtime:
        with pytest.raises(TaskFailed, match=r"failed after 1 attempt.*result: 2002 bytes, the limit is 1000"):
            await runtime.ask("t", process_actors.long_result(2000), max_retries=3, backoff=0, timeout=PATIENCE)


async def test_it_fails_at_once_if_xcom_cannot_keep_it(make_runtime: Make) -> None:
    runs.clear()

    @actor(max_retries=3, backoff=0)
    async def large() -> str:
        runs.append("large")
        return "x" * 100_000

    async with make_runtime(large, plugins=[XCom()]) as runtime:
        with pytest.raises(TaskFailed, match=r"failed after 1 attempt.*PayloadTooLarge"):
            await runtime.ask("t", large(), xcom="key", timeout=PATIENCE)
    assert runs == ["large"]
