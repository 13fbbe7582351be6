"""Tests the order of plugins and their lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from fairactor import Runtime, Task, TaskState, actor
from fairactor.errors import ConfigurationError, RuntimeNotRunning
from fairactor.plugins import Host
from tests.support.plugins import Named, Wrapper
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


# Order


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ({"c": {}, "a": {}, "b": {}}, "cab"),
        ({"a": {"after": ["b"]}, "b": {}}, "ba"),
        ({"a": {}, "b": {"before": ["a", "nobody"]}}, "ba"),
        ({"d": {}, "a": {"after": ["c"]}, "b": {}, "c": {"after": ["b"]}, "e": {}}, "dbcae"),
    ],
)
async def test_they_stand_as_they_ask_for_and_else_as_they_were_given(
    make_runtime: Make, given: dict[str, Any], order: str
) -> None:
    log: list[str] = []
    plugins = [Wrapper(name, log, **wishes) for name, wishes in given.items()]
    async with make_runtime(workers=0, plugins=plugins) as runtime:
        await runtime.send("t", double(1))
    assert [said[0] for said in log[: len(order)]] == list(order)


@pytest.mark.parametrize(
    ("plugins", "why"),
    [
        ([Wrapper("a", after=["b"]), Wrapper("b", after=["a"])], r"cannot be put in order: (a → b → a|b → a → b)"),
        ([Wrapper("a"), Wrapper("a")], "two plugins are named 'a'"),
        ([Wrapper("a", after="b")], "after is 'b': give a list"),
        ([Wrapper], r"the class Wrapper: give an instance, as in plugins=\[Wrapper\(\)\]"),
        ([Named("a")], "'a' does nothing: it has none of lifespan"),
        ([object()], "a plugin must have a name"),
        (5, "plugins=5: give a list"),
        (Wrapper("a"), "give a list"),
    ],
)
def test_what_cannot_be_is_refused_at_once(plugins: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Runtime("redis://nowhere", plugins=plugins)


# Lifespan


class Living(Named):
    @asynccontextmanager
    async def lifespan(self, host: Host) -> AsyncIterator[None]:
        await host.runtime.send("t", double(1).options(id=f"{self.name} begins"))
        self.log.append(f"{self.name} begins")
        yield
        await host.runtime.send("t", double(1).options(id=f"{self.name} ends"))
        self.log.append(f"{self.name} ends")

    def started(self, task: Task) -> None:
        self.log.append("started")


async def test_they_live_from_before_the_first_task_until_after_the_last(make_runtime: Make) -> None:
    log: list[str] = []
    async with make_runtime(workers=0) as other:
        async with make_runtime(double, plugins=[Living("a", log), Living("b", log)]) as runtime:
            await runtime.drain(PATIENCE)
        assert log[:2] == ["a begins", "b begins"]
        assert log[-2:] == ["b ends", "a ends"]
        assert log.count("started") == 4
        assert await other.handle("a ends").state() is TaskState.QUEUED


async def test_one_that_cannot_begin_stops_the_runtime_and_ends_those_that_have(make_runtime: Make) -> None:
    class Broken(Named):
        @asynccontextmanager
        async def lifespan(self, host: Host) -> AsyncIterator[None]:
            raise RuntimeError("no licence")
            yield

    log: list[str] = []
    runtime = make_runtime(double, plugins=[Living("a", log), Broken()])
    with pytest.raises(RuntimeError, match="no licence"):
        await runtime.__aenter__()
    assert log == ["a begins"]  # an exception left its lifespan, so that it logged no end
    with pytest.raises(RuntimeNotRunning):
        await runtime.stats()


async def test_an_actor_of_a_plugin_is_started_again_and_ends_with_the_runtime(make_runtime: Make) -> None:
    begun: list[int] = []
    ended = anyio.Event()

    class Working(Named):
        @asynccontextmanager
        async def lifespan(self, host: Host) -> AsyncIterator[None]:
            host.supervise("work", self.work)
            yield

        async def work(self) -> None:
            begun.append(1)
            if len(begun) == 1:
                raise OSError("once")
            try:
                await anyio.sleep_forever()
            finally:
                ended.set()

    async with make_runtime(workers=0, plugins=[Working()]):
        await until(lambda: len(begun) == 2)
        assert not ended.is_set()
    assert ended.is_set()
