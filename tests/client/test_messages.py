"""Tests messages, options and names: each call checks them before it sends anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fairactor import FairactorError, Message, Priority, Runtime, TaskState, actor, current_task
from fairactor.errors import ConfigurationError, TaskExists
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE

Make = Callable[..., Runtime]

NAN, INF = float("nan"), float("inf")
ETA = datetime(2099, 1, 1, tzinfo=UTC)


@actor
async def add(a: int, b: int = 2, *, c: int = 3) -> int:
    return a + b + c


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delya": 5}, "no option 'delya'; did you mean 'delay'"),
        ({"delay": -1}, "delay=-1: give a finite number of seconds, 0 or more"),
        ({"delay": NAN}, "delay=nan: give a finite"),
        ({"delay": INF}, "delay=inf: give a finite"),
        ({"delay": "5"}, "delay='5': give seconds as a number"),
        ({"delay": True}, "delay=True: give seconds as a number"),
        ({"delay": timedelta(seconds=-1)}, "delay=-1.0: give a finite"),
        ({"delay": timedelta.max}, "delay=.*at most"),
        ({"delay": 1e300}, "delay=.*at most"),
        ({"delay": 5, "eta": ETA}, "delay= or eta=, not both"),
        ({"eta": datetime(2099, 1, 1)}, "has no time zone; give one, such as"),  # noqa: DTZ001
        ({"eta": "tomorrow"}, "eta='tomorrow': give a datetime with a time zone"),
        ({"eta": 5.0}, "eta=5.0: give a datetime"),
        ({"timeout": -1}, "timeout=-1: give a finite"),
        ({"timeout": NAN}, "timeout=nan: give a finite"),
        ({"timeout": "soon"}, "timeout='soon': give seconds"),
        ({"timeout": 0}, "timeout=0: give a finite number of seconds, more than 0"),
        ({"expires": -1}, "expires=-1: give a finite"),
        ({"result_ttl": -1}, "result_ttl=-1: give a finite"),
        ({"result_ttl": 1e17}, "result_ttl=1e\\+17: .*at most"),
        ({"max_retries": -1}, "max_retries=-1: give a whole number from 0 to 65534"),
        ({"max_retries": 1.5}, "max_retries=1.5: give a whole number"),
        ({"max_retries": True}, "max_retries=True: give a whole number"),
        ({"priority": 0}, "priority=0: give one of very_low \\(1\\).*critical \\(6\\)"),
        ({"priority": 7}, "priority=7: give one of"),
        ({"priority": "urgent"}, "priority='urgent': give one of"),
        ({"priority": []}, "priority=\\[\\]: give one of"),
        ({"id": ""}, "task id '': give a string that is not empty"),
        ({"id": 5}, "task id 5: give a string"),
        ({"id": b"x"}, "task id b'x': give a string"),
        ({"id": "x" * 513}, "task id 'x+'…: 513 bytes long, the limit is 512"),
        ({"id": "é" * 257}, "514 bytes long, the limit is 512"),
        ({"id": "\udcff"}, "half a surrogate pair"),
    ],
)
def test_an_option_that_cannot_work_is_refused_by_name(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        add(1).options(**options)
    if "id" not in options:
        with pytest.raises(ConfigurationError, match=words):
            actor(**options)


def test_an_actor_cannot_give_all_its_tasks_one_id() -> None:
    with pytest.raises(ConfigurationError, match=r"id=.*to a single message"):
        actor(id="the same")


def test_options_make_a_copy() -> None:
    message = add(1)
    later = message.options(delay=5, priority="high")
    assert message.task_options.delay is None
    assert (later.task_options.delay, later.task_options.priority) == (5.0, Priority.HIGH)
    assert later.options(priority=1).task_options == later.options(priority=Priority.VERY_LOW).task_options


def test_options_of_a_message_come_before_those_of_its_actor() -> None:
    @actor(max_retries=3, timeout=timedelta(minutes=1), delay=7)
    async def slow() -> None: ...

    assert (slow().task_options.max_retries, slow().task_options.timeout, slow().task_options.delay) == (3, 60.0, 7.0)
    assert slow().options(max_retries=0).task_options.max_retries == 0
    assert slow().options(eta=ETA).task_options.delay is None, "eta= replaces the actor's delay="
    assert slow().options(delay=0).task_options.delay == 0


@pytest.mark.parametrize("priority", [1, "very_low", "VERY_LOW", Priority.VERY_LOW])
def test_a_priority_may_be_named_or_numbered(priority: Any) -> None:
    assert add(1).options(priority=priority).task_options.priority is Priority.VERY_LOW


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"d": 4}, "unexpected keyword argument 'd'"),
        ((1,), {"a": 4}, "multiple values for argument 'a'"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_where_it_stands(args: Any, kwargs: Any, words: str) -> None:
    with pytest.raises(TypeError, match=rf"add\(\): .*{words}.*; it takes \(a: .*int.*, b: .*c: .*\)"):
        add(*args, **kwargs)


def test_a_message_shows_what_it_is() -> None:
    assert isinstance(add(1), Message)
    assert "add" in repr(add(1))


# Names


NAMES = [
    ("", "give a string that is not empty"),
    (None, "give a string"),
    (5, "give a string"),
    (b"bytes", "give a string"),
    ("x" * 513, "513 bytes long, the limit is 512"),
    ("é" * 257, "514 bytes long, the limit is 512"),
    ("\ud800", "half a surrogate pair, which UTF-8 cannot encode"),
]


@pytest.mark.parametrize(("bad", "words"), NAMES)
@pytest.mark.anyio
async def test_a_name_that_cannot_be_is_refused(make_runtime: Make, bad: Any, words: str) -> None:
    async with make_runtime(add) as runtime:
        for use in (
            lambda: runtime.send(bad, add(1)),
            lambda: runtime.ask(bad, add(1)),
            lambda: runtime.send_many([(bad, add(1))]),
        ):
            with pytest.raises(ConfigurationError, match=f"tenant .*{words}"):
                await use()
        with pytest.raises(ConfigurationError, match=f"tenant .*{words}"):
            runtime.tenant(bad)
        with pytest.raises(ConfigurationError, match=f"task id .*{words}"):
            runtime.handle(bad)
        if bad is not None:
            with pytest.raises(ConfigurationError, match=f"tenant .*{words}"):
                runtime.handle("an id", bad)
            with pytest.raises(ConfigurationError, match=f"task id .*{words}"):
                await runtime.send("user:1", add(1), id=bad)


@pytest.mark.parametrize(
    "odd",
    ["x" * 512, "a:b{c}d*e[f]g?h", " ", "\n", "\0", "'\"\\", "☃", "日本", "\U0001f600" * 128, "a/b", "%s%n", "\x7f"],
)
@pytest.mark.anyio
async def test_any_other_text_will_do_as_a_name(make_runtime: Make, odd: str) -> None:
    @actor
    async def who() -> tuple[str, str]:
        return current_task().tenant, current_task().id

    async with make_runtime(who) as runtime:
        await runtime.tenant(odd).configure(concurrency=1)
        handle = await runtime.send(odd, who(), id=odd)
        assert await handle.result(timeout=PATIENCE) == (odd, odd)
        info = await runtime.handle(odd).info()
        assert (info.id, info.tenant) == (odd, odd)
        assert (await runtime.tenant(odd).stats()).finished == 1
        later = await runtime.send(odd, who(), id=odd[:-1] + "2", delay=3600)
        assert await later.cancel() is TaskState.SCHEDULED
        await check_invariants(runtime)


@pytest.mark.anyio
async def test_an_id_that_another_tenant_has_is_refused(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send("user:1", add(1), id="mine")
        with pytest.raises(TaskExists, match="the id 'mine' is taken by a task of another tenant"):
            await runtime.send("user:2", add(1), id="mine")
        messages = [("user:2", add(n).options(id=task_id)) for n, task_id in enumerate(["a", "mine", "b"])]
        with pytest.raises(TaskExists, match="'mine'"):
            await runtime.send_many(messages)
        assert (await runtime.stats()).queued == 3


@pytest.mark.anyio
async def test_sends_with_one_bad_among_many_lose_only_the_bad_one(make_runtime: Make) -> None:
    async with make_runtime(add) as runtime:
        await runtime.send("user:0", add(0), id="taken")
        sends = [runtime.send(f"user:{n}", add(n), **({"id": "taken"} if n == 5 else {})) for n in range(1, 10)]
        found = await asyncio.gather(*sends, return_exceptions=True)
        assert [type(each).__name__ for each in found if isinstance(each, FairactorError)] == ["TaskExists"]
        await runtime.drain(timeout=PATIENCE)
        assert (await runtime.stats()).finished == 9
