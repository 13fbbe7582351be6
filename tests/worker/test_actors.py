"""Tests actors: which objects @actor accepts, and how and where each kind of handler runs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from functools import partial, wraps
from types import ModuleType
from typing import Any

import pytest

from fairactor import FairactorError, Handle, Runtime, TaskCanceled, TaskFailed, TaskState, actor, current_task
from fairactor.errors import ConfigurationError, RuntimeNotRunning
from tests.support import service
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


# Accepted and refused handlers


@pytest.mark.parametrize("process", [True, False])
def test_generators_are_refused(process: bool) -> None:
    def plain() -> Iterator[int]:
        yield 1

    async def asynchronous() -> AsyncIterator[int]:
        yield 1

    class Holder:
        def numbers(self) -> Iterator[int]:
            yield 1

    for handler in (plain, asynchronous):
        with pytest.raises(ConfigurationError, match="a generator has no single result; return a list instead"):
            actor(process=process)(handler)
    with pytest.raises(ConfigurationError, match=r"Holder.numbers: a generator has no single result"):
        actor(Holder)


@pytest.mark.parametrize("wrong", [5, "name", object(), [len]])
def test_what_is_no_function_and_no_class_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"@actor cannot make an actor of .*: give a function or a class"):
        actor(wrong)


@pytest.mark.parametrize("name", [5, b"x", "", "x" * 513, "\udcff"])
def test_a_name_that_cannot_be_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="actor name"):
        actor(name=name)(service.nap.function)


def test_a_process_cannot_run_what_it_cannot_import_or_await() -> None:
    def local() -> None: ...

    async def asynchronous() -> None: ...

    with pytest.raises(ConfigurationError, match=r"local: process=True .*at the top level of a module"):
        actor(process=True)(local)
    with pytest.raises(ConfigurationError, match="process=True is for plain functions; write it as def"):
        actor(process=True)(asynchronous)
    with pytest.raises(ConfigurationError, match="process=True is for functions"):
        actor(process=True)(type("Cart", (), {"add": lambda self: None}))


def test_a_class_without_messages_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Empty has no public method"):

        @actor
        class Empty:
            def started(self) -> None: ...
            def _private(self) -> None: ...


def test_a_module_without_actors_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="module empty contains no actors: decorate its handlers"):
        Runtime(actors=[ModuleType("empty")])


def test_an_actor_looks_like_its_function() -> None:
    assert service.nap.__name__ == "nap"
    assert service.nap.__doc__ == "Sleeps and returns the id of its process."
    assert repr(service.nap) == "<actor nap>"
    assert service.nap.__wrapped__ is service.nap.function


# Kinds of handlers


async def test_an_async_handler_runs_on_the_event_loop(make_runtime: Make) -> None:
    @actor
    async def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    async with make_runtime(where) as runtime:
        assert await runtime.ask("user:1", where(), timeout=PATIENCE)


async def test_a_plain_handler_runs_in_a_thread_and_knows_its_task(make_runtime: Make) -> None:
    @actor
    def where(*, n: int = 1) -> tuple[bool, str, int]:
        return threading.current_thread() is threading.main_thread(), current_task().tenant, n

    async with make_runtime(where) as runtime:
        assert await runtime.ask("user:1", where(n=2), timeout=PATIENCE) == (False, "user:1", 2)


async def test_a_plain_handler_that_blocks_does_not_hold_up_the_others(make_runtime: Make) -> None:
    release = threading.Event()

    @actor
    def block() -> bool:
        return release.wait(timeout=PATIENCE)

    @actor
    async def free() -> None:
        release.set()

    async with make_runtime(block, free) as runtime:
        blocking = await runtime.send("user:1", block())
        await runtime.ask("user:2", free(), timeout=PATIENCE)
        assert await blocking.result(timeout=PATIENCE)


async def test_a_process_handler_runs_in_another_process(make_runtime: Make) -> None:
    async with make_runtime(service.crunch) as runtime:
        pid, square = await runtime.ask("user:1", service.crunch(7), timeout=PATIENCE)
        assert square == 49
        assert pid != os.getpid()
        assert (await service.crunch(8))[1] == 64


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("told", "ValueError", "ValueError: told"),
        ("custom", "tests.support.service.NotCarried", r"NotCarried: it did not fit \(5\)"),
        ("exit", "WorkerProcessDied", r"crunch_and_fail\(\): its process exited with status 9 before the handler"),
    ],
)
async def test_an_error_in_another_process_comes_back(make_runtime: Make, how: str, error: str, words: str) -> None:
    async with make_runtime(service.crunch_and_fail, service.crunch) as runtime:
        with pytest.raises(TaskFailed, match=words) as caught:
            await runtime.ask("user:1", service.crunch_and_fail(how), timeout=PATIENCE)
        assert caught.value.error.endswith(error)
        assert how == "exit" or "in crunch_and_fail" in caught.value.traceback
        assert await runtime.ask("user:1", service.crunch(3), timeout=PATIENCE)


async def test_a_retry_in_another_process_is_one(make_runtime: Make) -> None:
    async with make_runtime(service.crunch_and_fail) as runtime:
        handle = await runtime.send("user:1", service.crunch_and_fail("retry"), max_retries=2)
        with pytest.raises(TaskFailed, match=r"failed after 3 attempt\(s\): .*asked for a retry"):
            await handle.result(timeout=PATIENCE)


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_another_process_is_ended_with_its_task(make_runtime: Make, how: str) -> None:
    async with make_runtime(service.crunch_long, service.crunch) as runtime:
        await runtime.ask("user:1", service.crunch(1), timeout=PATIENCE)  # starts the process
        began = asyncio.get_running_loop().time()
        if how == "timeout":
            with pytest.raises(TaskFailed, match="TimeoutError"):
                await runtime.ask("user:1", service.crunch_long(60).options(timeout=0.3), timeout=PATIENCE)
        else:
            handle = await runtime.send("user:1", service.crunch_long(60))
            await until(partial(is_started, handle))
            await handle.cancel()
            with pytest.raises(TaskCanceled):
                await handle.result(timeout=PATIENCE)
        assert asyncio.get_running_loop().time() - began < 20


async def is_started(handle: Handle[Any]) -> bool:
    return await handle.state() is TaskState.STARTED


async def test_decorated_functions_keep_their_kind(make_runtime: Make) -> None:
    def logged(function: Any) -> Any:
        @wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return wrapper

    @actor
    @logged
    async def add(a: int, b: int) -> int:
        return a + b

    async with make_runtime(add) as runtime:
        assert await runtime.ask("user:1", add(1, b=2), timeout=PATIENCE) == 3
        with pytest.raises(TypeError, match="missing a required argument"):
            add(1)


async def test_a_module_brings_all_its_actors(make_runtime: Make) -> None:
    module = ModuleType("module")
    module.crunch, module.nap, module.other = service.crunch, service.nap, 5  # type: ignore[attr-defined]
    async with make_runtime(module, service.crunch, without_plugins=True) as runtime:
        (info,) = (await runtime.stats()).runtimes
        assert tuple(info.actors) == ("crunch", "nap")


async def test_a_name_of_its_own(make_runtime: Make) -> None:
    @actor(name="a name: with {all} *kinds*")
    async def handler() -> str:
        return current_task().actor

    async with make_runtime(handler) as runtime:
        assert await runtime.ask("user:1", handler(), timeout=PATIENCE) == "a name: with {all} *kinds*"


# Classes


class Count:
    """Implements a counter, with methods of every kind."""

    def __init__(self) -> None:
        self.count = 0

    async def add(self, n: int = 1) -> int:
        self.count += n
        return self.count

    def plain(self, *, by: int) -> tuple[int, bool]:
        return self.count * by, threading.current_thread() is threading.main_thread()

    @staticmethod
    def helper(n: int) -> int:
        return n

    @classmethod
    def make(cls) -> Count:
        return cls()

    @property
    def double(self) -> int:
        return 2 * self.count

    def _private(self) -> None: ...


def counter(*, hooks: str = "plain") -> tuple[Any, list[str]]:
    """Returns an actor class with hooks, and the list to which the hooks append."""
    said: list[str] = []

    class Plain(Count):
        def started(self) -> None:
            said.append(f"started {self.count}")

        def stopped(self) -> None:
            said.append(f"stopped {self.count}")

    class Asynchronous(Count):
        async def started(self) -> None:
            said.append(f"started {self.count}")

        async def stopped(self) -> None:
            said.append(f"stopped {self.count}")

    return actor(name="Counter")(Plain if hooks == "plain" else Asynchronous), said


@pytest.mark.parametrize("hooks", ["async", "plain"])
async def test_a_class_keeps_its_state_between_messages(make_runtime: Make, hooks: str) -> None:
    cls, said = counter(hooks=hooks)
    async with make_runtime(cls, without_plugins=True) as runtime:
        assert said == ["started 0"]
        assert await runtime.ask("user:1", cls.add(2), timeout=PATIENCE) == 2
        assert await runtime.ask("user:2", cls.add(), timeout=PATIENCE) == 3
        assert await runtime.ask("user:1", cls.plain(by=10), timeout=PATIENCE) == (30, False)
        (info,) = (await runtime.stats()).runtimes
        assert tuple(info.actors) == ("Counter.add", "Counter.plain"), "a static or class method is no message"
    assert said == ["started 0", "stopped 3"]


async def test_a_message_of_a_class_awaited_in_place_gets_a_fresh_instance() -> None:
    cls, said = counter()
    assert await cls.add(5) == 5
    assert await cls.add(1) == 1
    assert said == ["started 0", "stopped 5", "started 0", "stopped 1"]
    with pytest.raises(AttributeError, match="has no attribute 'ad'"):
        cls.ad(1)
    with pytest.raises(TypeError, match=r"Counter\.add"):
        cls.add(1, 2)


async def test_a_class_that_does_not_stop_does_not_keep_others_from_it(
    make_runtime: Make, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = []

    class Base:
        def run(self) -> str:
            return "inherited"

        def stopped(self) -> None:
            stopped.append(type(self).__name__)
            raise RuntimeError("will not")

    one, two = actor(type("One", (Base,), {})), actor(type("Two", (Base,), {}))
    async with make_runtime(one, two) as runtime:
        assert await runtime.ask("user:1", two.run(), timeout=PATIENCE) == "inherited"
    assert stopped == ["Two", "One"]
    assert caplog.text.count("stopped() failed") == 2


async def test_a_runtime_without_workers_makes_no_instances(make_runtime: Make) -> None:
    cls, said = counter()
    async with make_runtime(cls, workers=0) as runtime:
        await runtime.send("user:1", cls.add(1))
    assert said == []


# Without a server


async def test_a_message_awaited_in_place_runs_here_without_a_server() -> None:
    @actor
    async def add(a: int, b: int = 2) -> int:
        return a + b

    @actor
    def plain(n: int) -> bool:
        return threading.current_thread() is not threading.main_thread()

    assert await add(1) == 3
    assert await add(b=5, a=1) == 6
    assert await plain(1)
    with pytest.raises(ZeroDivisionError):
        await actor(partial_division)(1, 0)
    with pytest.raises(RuntimeNotRunning):
        current_task()


async def partial_division(a: int, b: int) -> float:
    return a / b


async def test_a_handler_called_in_place_is_a_part_of_the_task_that_calls_it(make_runtime: Make) -> None:
    @actor
    async def inner() -> tuple[str, str]:
        return current_task().tenant, current_task().id

    @actor
    async def outer() -> bool:
        tenant, task_id = await inner()
        return (tenant, task_id) == ("user:1", current_task().id)

    async with make_runtime(inner, outer) as runtime:
        assert await runtime.ask("user:1", outer(), timeout=PATIENCE)
    assert await inner() == ("local", "local")


async def test_tasks_do_not_see_each_other_s_context_variables(make_runtime: Make) -> None:
    user: ContextVar[str] = ContextVar("user", default="nobody")

    @actor
    async def login(name: str) -> str:
        before = user.get()
        user.set(name)
        return before

    async with make_runtime(login, workers=1) as runtime:
        found = [await runtime.ask(f"user:{n}", login(f"user:{n}"), timeout=PATIENCE) for n in range(3)]
    assert found == ["nobody"] * 3


def test_partials_are_refused_or_named() -> None:
    with pytest.raises(FairactorError):
        actor(partial(partial_division, 1))
    assert actor(name="half")(partial(partial_division, b=2)).name == "half"
