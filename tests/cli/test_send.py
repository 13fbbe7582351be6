"""Tests ``send``, and messages for actors that are known by name."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from fairactor import Message, Runtime, TaskFailed, actor, current_task
from fairactor.errors import ConfigurationError, UnknownActor

from .conftest import HOSTILE, Run, bill


async def nothing(_: Runtime) -> None: ...


def test_a_message_is_sent_and_its_result_printed(run: Run, beside: Callable[..., Any]) -> None:
    done = beside(lambda: run("send", "acme", "bill", "[21]", "--wait"), bill)
    assert done.out == "42\n"
    done = beside(lambda: run("send", HOSTILE, "bill", '{"number": 4}', "--timeout", "5", "--json"), bill)
    assert (done.record["result"], done.record["tenant"]) == (8, HOSTILE)
    assert not done.err


def test_a_task_that_fails(run: Run, beside: Callable[..., Any]) -> None:
    said = beside(lambda: run("send", "acme", "bill", "[13]", "--wait", code=1), bill).err
    assert "failed after 1 attempt(s): ValueError: no money for e\\u202evil\\x1b[2J\n" in said
    said = beside(lambda: run("send", "acme", "bill", '["a"]', "--wait", code=1), bill).err
    assert "InvalidPayload" in said


def test_options_and_a_result_that_is_late(run: Run, prepare: Callable[..., Any]) -> None:
    prepare(nothing)
    sent = run("send", "acme", "bill", "[1]", "--id", "one", "--delay", "1h", "--priority", "high", "--json").record
    assert sent == {"id": "one", "tenant": "acme", "duplicate": False}
    late = run("send", "acme", "bill", "[1]", "--key", "k", "--queue", "slow", "--timeout", "0.01", code=1)
    assert "the task goes on: fairactor tasks show " in late.err
    again = run("send", "acme", "bill", "[1]", "--key", "k")
    assert "(an earlier task with this key)" in again.out
    info = prepare(lambda runtime: runtime.handle("one", "acme").info())
    assert (info.state, info.priority.name, info.args) == ("scheduled", "HIGH", [1])


def test_it_warns_of_an_actor_that_no_runtime_has(run: Run, beside: Callable[..., Any], prepare: Any) -> None:
    prepare(nothing)
    assert "no runtime runs here" in run("send", "acme", "bill").err
    said = beside(lambda: run("send", "acme", "bil", "[1]"), bill).err
    assert "warning: no runtime has an actor 'bil'; did you mean 'bill'?" in said


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("7", "the arguments are a int"),
        ("{", "the arguments are not JSON"),
        ("[NaN]", "NaN is not JSON"),
        ("[" * 100_000, "the arguments are not JSON"),
        ('{"name": 1, "self": 2}', ""),
    ],
)
def test_arguments(arguments: str, problem: str, run: Run, prepare: Callable[..., Any]) -> None:
    prepare(nothing)
    assert problem in run("send", "acme", "bill", arguments, code=2 if problem else 0).err


def test_arguments_from_a_pipe(run: Run, beside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("[5]\n"))
    assert beside(lambda: run("send", "acme", "bill", "-", "--wait"), bill).out == "10\n"


# Message.for_actor


class Down(Exception):
    """The service is away."""


@actor(max_retries=2, backoff=0, retry_on=Down, result_ttl=0)
async def flaky(tries: list[int]) -> int:
    attempt = current_task().attempt
    if attempt < 3:
        raise Down
    return attempt


@pytest.mark.anyio
async def test_the_actor_says_how_often_it_is_tried(make_runtime: Callable[..., Runtime]) -> None:
    async with make_runtime(flaky) as runtime:
        assert await runtime.ask("acme", Message.for_actor("flaky", []), timeout=10) == 3
        with pytest.raises(TaskFailed):
            await runtime.ask("acme", Message.for_actor("flaky", []).options(max_retries=1), timeout=10)


@actor
async def add(left: int, right: int = 1, *, times: int = 1) -> int:
    return (left + right) * times


@pytest.mark.anyio
async def test_a_message_by_name_is_as_one_of_the_actor(make_runtime: Callable[..., Runtime]) -> None:
    async with make_runtime(add) as runtime:
        assert await runtime.ask("acme", Message.for_actor("add", 1, right=2, times=3)) == 9
        assert await runtime.ask("acme", Message.for_actor("add", 1).options(delay=0.001)) == 2
        with pytest.raises(UnknownActor, match="did you mean 'add'"):
            await runtime.send("acme", Message.for_actor("ad"))


@pytest.mark.anyio
async def test_a_message_by_name_cannot_run_here() -> None:
    message = Message.for_actor("add", 1, times=2)
    assert repr(message) == "add(1, times=2)"
    with pytest.raises(UnknownActor, match="send it"):
        await message
    for name in ("", "a\x1fb", None):
        with pytest.raises(ConfigurationError):
            Message.for_actor(name)  # type: ignore[arg-type]
