"""Tests XCom: the values that tasks store for others, and when, where and for how long they can be read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest
import redis
from fairactor_xcom import MISSING, Value, Values, XCom, xcom

from fairactor import Retry, Runtime, TaskFailed, actor, current_task
from fairactor.errors import ConfigurationError, InvalidPayload, NotSerializable, PayloadTooLarge, RuntimeNotRunning
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

NAMES = ["a", "1:a", "a:1", "", "{a}", "*", "a\x00b", "Ünïcode ✓", "fairactor/0}:plugin:", "x" * 400]
"""Names for tenants, runs and keys; '' means none."""


@attrs.frozen
class Invoice:
    order: int
    due: dt.date


@actor
async def push(values: dict[str, Any], ttl: float | None = None) -> None:
    for key, value in values.items():
        await xcom.push(key, value, ttl=ttl)


@actor
async def pull(key: str, from_task: str | None = None) -> Any:
    return await xcom.pull(key, from_task=from_task, default="nothing")


@actor(xcom="invoice")
async def bill(order: int) -> Invoice:
    return Invoice(order, dt.date(2026, 12, 24))


@pytest.fixture
def make(make_runtime: Make) -> Callable[[], Runtime]:
    return lambda *more: make_runtime(push, pull, bill, *more, plugins=[XCom()])


async def test_a_value_is_pulled_by_others_of_the_run(make: Make) -> None:
    async with make() as runtime:
        await runtime.ask("t", push({"n": [1, {"x": None}]}), xcom_run="r", id="first", timeout=PATIENCE)
        await runtime.ask("t", push({"n": 2}), xcom_run="r", id="second", timeout=PATIENCE)
        for task, value in ((None, 2), ("first", [1, {"x": None}]), ("second", 2), ("third", "nothing")):
            assert await runtime.ask("t", pull("n", task), xcom_run="r", timeout=PATIENCE) == value
        assert await runtime.ask("t", pull("n"), xcom_run="another", timeout=PATIENCE) == "nothing"
        assert await runtime.ask("t", pull("other"), xcom_run="r", timeout=PATIENCE) == "nothing"
        values = Values(runtime, "t", "r")
        assert await values.pull("n", from_task=["second", "first", "second"]) == [2, [1, {"x": None}], 2]
        assert await values.pull("n", from_task=[]) == []
        await check_invariants(runtime)


async def test_a_task_without_a_run_is_one_of_its_own(make: Make) -> None:
    @actor
    async def pull_both(ids: list[str]) -> list[Any]:
        assert await xcom.pull("n", from_task=ids[0]) == 1
        return await xcom.pull("n", from_task=ids, default=0)

    async with make(pull_both) as runtime:
        handles = [await runtime.send("t", push({"n": n})) for n in (1, 2)]
        for handle in handles:
            await handle.result(timeout=PATIENCE)
        ids = [handle.id for handle in handles]
        assert await runtime.ask("t", pull_both([*ids, "nobody"]), timeout=PATIENCE) == [1, 2, 0]
        assert await Values(runtime, "t", ids[1]).pull("n", from_task=handles[1]) == 2


async def test_it_is_seen_when_its_task_has_finished_and_by_that_before(make: Make) -> None:
    seen: list[Any] = []

    @actor
    async def look() -> None:
        task = current_task()
        assert task.runtime is not None
        for n in (1, 2):
            await xcom.push("n", n)
            seen.extend([await xcom.pull("n"), await xcom.pull("n", from_task=task.id), await xcom.list()])
            seen.append(await Values(task.runtime, "t", "r").pull("n", default=MISSING))

    async with make(look) as runtime:
        with pytest.raises(TaskFailed, match="KeyError"):
            await runtime.ask("t", look(), xcom_run="r", timeout=PATIENCE)
        assert seen == [1, 1, []]
        with pytest.raises(KeyError, match="run 'r' of tenant 't' has no value 'n'"):
            await Values(runtime, "t", "r").pull("n")


async def test_what_a_failed_attempt_has_pushed_is_gone(make: Make) -> None:
    @actor(max_retries=1)
    async def flaky() -> None:
        attempt = current_task().attempt
        await xcom.push(f"attempt {attempt}", attempt)
        if attempt == 1:
            raise Retry(delay=0)

    async with make(flaky) as runtime:
        await runtime.ask("t", flaky(), xcom_run="r", timeout=PATIENCE)
        assert [value.key for value in await Values(runtime, "t", "r").list()] == ["attempt 2"]


async def test_an_actor_pushes_its_result_by_itself_and_it_is_pulled_as_what_it_was(make: Make) -> None:
    async with make() as runtime:
        handle = await runtime.send("t", bill(7))
        await handle.result(timeout=PATIENCE)
        values = Values(runtime, "t", handle.id)
        assert await values.pull("invoice", type=Invoice) == Invoice(7, dt.date(2026, 12, 24))
        assert await values.pull("invoice") == {"order": 7, "due": "2026-12-24"}
        with pytest.raises(InvalidPayload, match="the value 'invoice': expected int"):
            await values.pull("invoice", type=int)


async def test_no_tenant_run_or_key_sees_anothers_whatever_its_name(make: Make) -> None:
    async with make() as runtime:
        places = [(tenant, run) for tenant in NAMES if tenant for run in NAMES if run]
        messages = [
            (tenant, push({key: [tenant, run, key] for key in NAMES if key}).options(xcom_run=run))
            for tenant, run in places
        ]
        for handle in await runtime.send_many(messages):
            await handle.result(timeout=PATIENCE)
        for tenant, run in places:
            values = Values(runtime, tenant, run)
            assert len(await values.list()) == len(NAMES) - 1
            for key in filter(None, NAMES):
                assert await values.pull(key) == [tenant, run, key]


async def test_values_are_listed_and_deleted(make: Make) -> None:
    async with make() as runtime:
        for task in "ab":
            await runtime.ask("t", push({"n": task, "m": task}), xcom_run="r", id=task, timeout=PATIENCE)
        values = Values(runtime, "t", "r")
        listed = await values.list()
        assert [(value.key, value.task) for value in listed] == [("m", "a"), ("n", "a"), ("m", "b"), ("n", "b")]
        assert all(isinstance(value, Value) and value.expires_at for value in listed)
        assert await values.delete("n", from_task="a") == 1
        assert await values.pull("n") == "b"
        assert await values.delete("n", from_task="b") == 1
        assert await values.pull("n", default=None) is None
        assert await values.delete("m") == 2
        assert await values.delete("m") == 0
        assert await values.list() == []
        await runtime.ask("t", push({"n": 1, "m": 2}), xcom_run="r", timeout=PATIENCE)
        assert await values.clear() == 2
        assert await values.clear() == 0


async def test_handlers_list_delete_and_clear_too(make: Make) -> None:
    @actor
    async def tidy() -> list[Any]:
        return [len(await xcom.list()), await xcom.delete("a"), await xcom.clear(), await xcom.list()]

    async with make(tidy) as runtime:
        await runtime.ask("t", push({"a": 1, "b": 2, "c": 3}), xcom_run="r", timeout=PATIENCE)
        assert await runtime.ask("t", tidy(), xcom_run="r", timeout=PATIENCE) == [3, 1, 2, []]


async def is_over(values: Values, key: str) -> bool:
    return key not in {value.key for value in await values.list()}


async def test_values_go_when_their_time_is_over(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        values = Values(runtime, "t", "r")
        place = "{fairactor/0}:plugin:fairactor_xcom:1:tr"
        await runtime.ask("t", push({"short": 1}, ttl=50), xcom_run="r", timeout=PATIENCE)
        assert 40 < db.ttl(place) <= 50  # type: ignore[operator]
        await runtime.ask("t", push({"day": 1}), xcom_run="r", timeout=PATIENCE)
        assert 86390 < db.ttl(place) <= 86400  # type: ignore[operator]
        await runtime.ask("t", push({"shorter": 1}, ttl=0.001), xcom_run="r", timeout=PATIENCE)
        assert 86390 < db.ttl(place) <= 86400  # type: ignore[operator]
        await until(partial(is_over, values, "shorter"))
        assert await values.pull("shorter", default="over") == "over"
        await runtime.ask("t", push({"ever": 1}, ttl=0), xcom_run="r", timeout=PATIENCE)
        assert db.ttl(place) == -1
        assert {value.key: value.expires_at is None for value in await values.list()} == {
            "short": False, "day": False, "ever": True,
        }  # fmt: skip
        await runtime.ask("t", push({"day": 2}), xcom_run="r", timeout=PATIENCE)
        assert db.ttl(place) == -1


class Opaque:
    pass


@pytest.mark.parametrize(
    ("key", "value", "ttl", "error", "words"),
    [
        ("", 1, None, ConfigurationError, "xcom key ''"),
        ("k", 1, -1, ConfigurationError, "ttl=-1"),
        ("k", "x" * 70_000, None, PayloadTooLarge, "70002 bytes, the limit is 65536"),
        ("k", {"a": Opaque()}, None, NotSerializable, r"xcom value 'k'\['a'\]: .* is a Opaque"),
    ],
)
async def test_what_cannot_be_pushed_is_refused_in_the_handler(
    make: Make, key: str, value: Any, ttl: float | None, error: type[Exception], words: str
) -> None:
    @actor
    async def wrong() -> None:
        with pytest.raises(error, match=words):
            await xcom.push(key, value, ttl=ttl)
        await xcom.push("right", 1)

    async with make(wrong) as runtime:
        await runtime.ask("t", wrong(), xcom_run="r", timeout=PATIENCE)
        assert [each.key for each in await Values(runtime, "t", "r").list()] == ["right"]


async def test_outside_of_a_handler_and_without_a_server_it_says_so() -> None:
    with pytest.raises(RuntimeNotRunning, match="current_task"):
        await xcom.push("k", 1)
    await push({"k": 1})  # a direct call stores nothing
    with pytest.raises(RuntimeNotRunning, match="xcom needs a server"):
        await pull("k")


async def test_it_is_installed_with_fairactor(make_runtime: Make) -> None:
    async with make_runtime(push) as runtime:
        await runtime.ask("t", push({"n": 1}), xcom_run="r", timeout=PATIENCE)
        assert await Values(runtime, "t", "r").pull("n") == 1
