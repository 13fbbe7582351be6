"""Tests graphs with a task for each item of a result, and one that joins them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from fairactor_dependencies import Dependencies, each, graph, result_of, results

from fairactor import Runtime, TaskCanceled, TaskFailed, actor
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@attrs.frozen
class User:
    name: str


@actor
async def users() -> list[User]:
    return [User("ann"), User("bob"), User("cy")]


@actor
async def greet(user: User, word: str, mark: str = "") -> str:
    if user.name == word:
        raise ValueError("no")
    return f"{word} {user.name}{mark}"


@actor
async def a() -> str:
    return "a"


@actor
async def join(parts: list[Any]) -> str:
    return str(parts)


@pytest.fixture
def make(make_runtime: Make) -> Make:
    return lambda *more: make_runtime(users, greet, a, join, *more, plugins=[Dependencies()])


async def test_for_each_item_of_a_result_there_is_a_task(make: Make) -> None:
    async with make() as runtime:
        run = await runtime.send("t", users() >> each(greet, None, "hi", mark="!") >> join(results()))
        assert await run.result(PATIENCE) == "[['hi ann!', 'hi bob!', 'hi cy!']]"
        run = await runtime.send("t", graph(each(greet, result_of(users()), "yo")))
        assert await run.result(PATIENCE) == ["yo ann", "yo bob", "yo cy"]
        run = await runtime.send("t", graph(each(greet, [User("dan")], "yo")))
        assert await run.result(PATIENCE) == ["yo dan"]
        run = await runtime.send("t", each(greet, [], "yo"))
        assert await run.result(PATIENCE) == []
        await check_invariants(runtime)


async def test_for_each_works_where_a_tenant_runs_one_at_a_time(make: Make) -> None:
    async with make() as runtime:
        await runtime.tenant("t").configure(concurrency=1)
        run = await runtime.send("t", users() >> each(greet, None, "hi"))
        assert await run.result(PATIENCE) == ["hi ann", "hi bob", "hi cy"]


async def test_where_one_of_each_fails_what_joins_them_does_not_run_and_a_retry_repeats_it(make: Make) -> None:
    words = ["bob"]

    @actor
    async def check(user: User) -> str:
        if user.name in words:
            raise ValueError("no")
        return user.name

    async with make(check) as runtime:
        run = await runtime.send("t", users() >> each(check))
        with pytest.raises(TaskCanceled, match=r"upstream task .*/1 failed"):
            await run.result(PATIENCE)
        words.clear()
        assert await (await run.retry()).result(PATIENCE) == ["ann", "bob", "cy"]


async def test_for_each_of_what_is_no_list_fails_by_name(make: Make) -> None:
    async with make() as runtime:
        run = await runtime.send("t", a() >> each(greet, None, "hi"))
        with pytest.raises(TaskCanceled, match="failed"):
            await run.result(PATIENCE)
        with pytest.raises(TaskFailed, match=r"each\(greet, …\) needs a list of items, and got 'a'"):
            await run.handles["fairactor_dependencies.spread"].result(PATIENCE)
        with pytest.raises(TypeError, match="missing a required argument: 'word'"):
            each(greet)
