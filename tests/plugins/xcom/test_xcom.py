"""Tests XCom: the values that tasks store for others, and when, where and for how long they can be read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

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
        assert await values.pull("invoice", type=dict) == {"order": 7, "due": "2026-12-24"}
        with pytest.raises(InvalidPayload, match="the value 'invoice': expected int"):
            await values.pull("invoice", type=int)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (dt.date(2026, 1, 2), dt.date), (b"x", bytes), ({1, 2}, set[int]), ({1: "a"}, dict[int, str]),
        (Invoice(7, dt.date(2026, 1, 2)), Invoice), ([UUID(int=1)], list[UUID]), (Decimal("1.50"), Decimal),
    ],
)  # fmt: skip
async def test_a_value_that_json_does_not_have_is_never_pulled_as_another(make: Make, value: Any, kind: Any) -> None:
    @actor
    async def both() -> None:
        await xcom.push("k", value)
        assert await xcom.pull("k", type=kind) == value
        with pytest.raises(InvalidPayload, match="the value 'k' was pushed as something"):
            await xcom.pull("k")

    async with make(both) as runtime:
        await runtime.ask("t", both(), xcom_run="r", timeout=PATIENCE)
        values = Values(runtime, "t", "r")
        assert await values.pull("k", type=kind) == value
        with pytest.raises(InvalidPayload, match="pull it with type="):
            await values.pull("k", default=None)


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


async def store(runtime: Runtime, key: str, ttl: float, task: str) -> None:
    """Stores the name of a task under a key. The task leaves no record, so its id can be used again."""
    await runtime.send("t", push({key: task}, ttl), xcom_run="r", id=task, result_ttl=0)
    await runtime.drain(PATIENCE)


async def test_the_last_value_is_the_last_of_those_that_are_still_there(make: Make) -> None:
    async with make() as runtime:
        values = Values(runtime, "t", "r")
        await store(runtime, "n", 0, "ever")
        await store(runtime, "n", 60, "minute")
        for task in ("a", "b"):
            await store(runtime, "n", 0.03, task)
        await store(runtime, "nn", 60, "another key")
        await until(lambda: has_keys(values, "n", "n", "nn"))
        assert await values.pull("n") == "minute"
        assert await runtime.ask("t", pull("n"), xcom_run="r", timeout=PATIENCE) == "minute"
        await store(runtime, "n", 60, "later")
        assert await values.pull("n") == "later"
        assert await values.delete("n", from_task="later") == 1
        assert await values.pull("n") == "minute"
        await store(runtime, "n", 60, "ever")  # again: now it is the last one
        assert await values.pull("n") == "ever"
        assert [value.task for value in await values.list()] == ["minute", "another key", "ever"]
        assert await values.delete("n", from_task="minute") == 1
        assert await values.delete("n", from_task="ever") == 1
        assert await values.pull("n", default="nothing") == "nothing"
        assert await values.pull("nn") == "another key"


async def has_keys(values: Values, *keys: str) -> bool:
    return sorted(value.key for value in await values.list()) == sorted(keys)


async def test_the_last_value_is_found_behind_hundreds_that_have_expired(make: Make) -> None:
    async with make() as runtime:
        values = Values(runtime, "t", "r")
        await store(runtime, "n", 60, "first")
        await runtime.results(
            await runtime.send_many(("t", push({"n": n}, 0.1).options(xcom_run="r")) for n in range(350)), PATIENCE
        )
        await until(lambda: has_keys(values, "n"))
        assert await values.pull("n") == "first"


async def test_what_has_expired_is_removed_by_what_is_pushed_next(make: Make, db: redis.Redis) -> None:
    def sizes() -> list[Any]:
        own = "{fairactor/0}:plugin:fairactor_xcom:"
        return [db.hlen(f"{own}1:tr"), db.zcard(f"{own}index:1:tr"), db.zcard(f"{own}expiry:1:tr")]

    async with make() as runtime:
        values = Values(runtime, "t", "r")
        await runtime.ask("t", push({str(n): n for n in range(9)}, 0.03), xcom_run="r", timeout=PATIENCE)
        await store(runtime, "ever", 0, "ever")
        await until(lambda: has_keys(values, "ever"))
        for n in range(5):
            await store(runtime, "ever", 0, f"ever {n}")
        assert sizes() == [6, 6, 0]
        assert await values.clear() == 6
        assert sizes() == [0, 0, 0]


@actor(xcom="total", xcom_ttl=30)
async def briefly() -> int:
    await xcom.push("part", 1)
    await xcom.push("own", 2, ttl=0)
    return 3


@actor(xcom="total")
async def as_usual() -> int:
    await xcom.push("part", 1, ttl=dt.timedelta(seconds=20))
    return 3


async def test_how_long_values_are_kept_is_said_by_the_push_the_task_and_the_plugin(make_runtime: Make) -> None:
    async with make_runtime(briefly, as_usual, plugins=[XCom(ttl=dt.timedelta(hours=2))]) as runtime:

        async def kept(task: Any, **options: Any) -> dict[str, float | None]:
            handle = await runtime.send("t", task.options(**options))
            await handle.result(PATIENCE)
            listed = await Values(runtime, "t", handle.id).list()
            return {each.key: each.expires_at and round(each.expires_at - each.pushed_at) for each in listed}

        assert await kept(briefly()) == {"total": 30, "part": 30, "own": None}
        assert await kept(briefly(), xcom_ttl=0) == {"total": None, "part": None, "own": None}
        assert await kept(as_usual()) == {"total": 7200, "part": 20}
        assert await kept(as_usual(), xcom_ttl=dt.timedelta(seconds=5)) == {"total": 5, "part": 20}
    for wrong in (-1, "1"):
        with pytest.raises(ConfigurationError, match=r"XCom\(ttl=\)="):
            XCom(ttl=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="xcom_ttl="):
            as_usual().options(xcom_ttl=wrong)  # type: ignore[arg-type]


async def test_a_runtime_without_the_plugin_refuses_to_push(make_runtime: Make) -> None:
    @actor
    async def lost() -> None:
        with pytest.raises(ConfigurationError, match="which this Runtime leaves out"):
            await xcom.push("k", 1)

    async with make_runtime(lost, without_plugins=["fairactor_xcom"]) as runtime:
        await runtime.ask("t", lost(), timeout=PATIENCE)


@actor
async def seen(key: str, from_task: list[str] | None = None) -> list[Any]:
    if from_task:
        return await xcom.pull(key, from_task=from_task, default=None)
    return [await xcom.pull(key, default=None)]


async def test_pull_falls_back_to_the_parents_whatever_their_runs_are(make_runtime: Make) -> None:
    async with make_runtime(push, seen, shards=2) as runtime:
        first = await runtime.send("t", push({"n": "first", "a": 1}), xcom_run="r")
        await first.result(PATIENCE)
        second = await runtime.send("t", push({"n": "second", "b": 2}))
        await second.result(PATIENCE)
        grandchild = {"depends_on": [await runtime.send("t", push({}), depends_on=[first])]}
        other = await runtime.send("u", push({"c": 3}))
        for key, value in (("a", 1), ("b", 2), ("n", "second"), ("nothing", None)):
            for order in ([first, second], [second, first]):
                assert await runtime.ask("t", seen(key), depends_on=order, timeout=PATIENCE) == [value]
        assert await runtime.ask("t", seen("c"), depends_on=[other], timeout=PATIENCE) == [None], "another tenant's"
        assert await runtime.ask("t", seen("a"), timeout=PATIENCE, **grandchild) == [None], "not of their parents"  # type: ignore[arg-type]
        ids = [second.id, first.id, "nobody"]
        assert await runtime.ask("t", seen("n", ids), timeout=PATIENCE) == ["second", "first", None]
        assert await runtime.ask("t", seen("n"), depends_on=[second], xcom_run="r", timeout=PATIENCE) == ["first"]
        assert await runtime.ask("t", seen("b"), depends_on=[second], xcom_run="r", timeout=PATIENCE) == [2]
        graph = push({"x": "of the graph"}) >> seen("x")
        assert await (await runtime.send("t", graph)).result(PATIENCE) == ["of the graph"]
        apart = push({"x": "apart"}).options(xcom_run="elsewhere") >> seen("x")
        assert await (await runtime.send("t", apart)).result(PATIENCE) == ["apart"]
