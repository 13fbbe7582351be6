"""Plugins: what wraps, what observes, in what order, for how long, and which options they add."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from fairactor import Handle, Message, Retry, Runtime, TaskCanceled, TaskFailed, TaskState, actor, current_task
from fairactor.context import Task
from fairactor.errors import ConfigurationError, RuntimeNotRunning
from fairactor.plugins import Addressed, Option, ProceedExecute, ProceedSend
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
numbers = itertools.count()


@actor
async def double(n: int) -> int:
    return 2 * n


class Named:
    def __init__(self, name: str = "", log: list[Any] | None = None, **rest: Any) -> None:
        self.name = name or type(self).__name__.lower()
        self.log = [] if log is None else log
        vars(self).update(rest)


class Wrapper(Named):
    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        self.log.append(f"{self.name} sends {len(messages)}")
        try:
            return await proceed(messages)
        finally:
            self.log.append(f"{self.name} sent")

    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        self.log.append(f"{self.name} starts {task.actor}")
        try:
            return await proceed()
        finally:
            self.log.append(f"{self.name} ended")


async def test_wrappers_come_before_in_order_and_after_in_reverse(make_runtime: Make) -> None:
    log: list[str] = []
    plugins = [Wrapper("a", log), Wrapper("b", log)]
    async with make_runtime(double, plugins=plugins) as runtime:
        assert await runtime.ask("t", double(4), timeout=PATIENCE) == 8
        around = ["a sends 1", "b sends 1", "b sent", "a sent"]
        assert [said for said in log if "se" in said] == around
        assert [said for said in log if "se" not in said] == [
            "a starts double",
            "b starts double",
            "b ended",
            "a ended",
        ]
        log.clear()
        handles = await runtime.send_many(("t", double(n)) for n in range(3))
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == [0, 2, 4]
        assert [said for said in log if "se" in said] == ["a sends 3", "b sends 3", "b sent", "a sent"]


class Changing(Named):
    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        return await proceed([("other", double(10)) for _ in messages])

    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        return await proceed() + await proceed()


@pytest.mark.parametrize("how", ["send", "ask", "send_many"])
async def test_a_wrapper_may_change_what_is_sent_and_run_it_twice(make_runtime: Make, how: str) -> None:
    async with make_runtime(double, plugins=[Changing()]) as runtime:
        if how == "ask":
            assert await runtime.ask("t", double(1), timeout=PATIENCE) == 40
            return
        handle = (
            await runtime.send("t", double(1)) if how == "send" else (await runtime.send_many([("t", double(1))]))[0]
        )
        assert handle.tenant == "other"
        assert await handle.result(timeout=PATIENCE) == 40


class Splitting(Named):
    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        return (await proceed([*messages, ("beside", double(0))]))[: len(messages)]


async def test_a_wrapper_may_send_more_than_it_was_given_also_when_it_is_asked_for_one(make_runtime: Make) -> None:
    async with make_runtime(double, plugins=[Splitting()]) as runtime:
        assert await runtime.ask("t", double(1), timeout=PATIENCE) == 2
        await runtime.drain(PATIENCE)
        assert (await runtime.tenant("beside").stats()).finished == 1


class Refusing(Named):
    after_it = False

    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        if self.after_it:
            await proceed(messages)
        raise PermissionError("not today")


@pytest.mark.parametrize("after_it", [False, True])
@pytest.mark.parametrize("how", ["send", "ask", "send_many"])
async def test_what_a_wrapper_raises_goes_to_who_sends(make_runtime: Make, how: str, after_it: bool) -> None:
    async with make_runtime(plugins=[Refusing(after_it=after_it)]) as runtime:
        with pytest.raises(PermissionError, match="not today"):
            await (
                runtime.send_many([("t", double(1))]) if how == "send_many" else getattr(runtime, how)("t", double(1))
            )
        assert (await runtime.tenant("t").stats()).queued == after_it
        assert not runtime.inbox._awaited


class Losing(Named):
    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        return (await proceed(messages))[1:]


async def test_a_wrapper_that_returns_too_few_handles_is_named(make_runtime: Make) -> None:
    async with make_runtime(workers=0, plugins=[Losing()]) as runtime:
        with pytest.raises(ConfigurationError, match=r"Losing.wrap_send returned 1 handles for 2 messages"):
            await runtime.send_many([("t", double(1))] * 2)


class Failing(Named):
    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        self.log.append(task.attempt)
        if len(self.log) == 1:
            raise Retry(delay=0)
        if task.actor != "double":
            await anyio.sleep_forever()
        return await proceed()


async def test_what_a_wrapper_of_execution_raises_is_how_the_attempt_fails(make_runtime: Make) -> None:
    @actor
    async def other() -> None: ...

    plugin = Failing()
    async with make_runtime(double, other, plugins=[plugin]) as runtime:
        assert await runtime.ask("t", double(2), max_retries=1, timeout=PATIENCE) == 4
        assert plugin.log == [1, 2]
        with pytest.raises(TaskFailed, match="longer than its timeout"):
            await runtime.ask("t", other().options(timeout=0.05), timeout=PATIENCE)


class Watching(Named):
    def sent(self, handle: Handle[Any], message: Message[Any]) -> None:
        self.log.append(("sent", handle.id, handle.duplicate, message.actor.name))

    def started(self, task: Task) -> None:
        self.log.append(("started", task.id, task.attempt))

    def finished(self, task: Task, result: Any) -> None:
        self.log.append(("finished", task.id, result))

    def failed(self, task: Task, error: BaseException) -> None:
        self.log.append(("failed", task.id, str(error)))

    def retried(self, task: Task, error: BaseException, delay: float) -> None:
        self.log.append(("retried", task.id, delay))

    def canceled(self, task: Task, reason: str) -> None:
        self.log.append(("canceled", task.id, reason))

    def dead(self, task: Task, error: BaseException) -> None:
        self.log.append(("dead", task.id, task.tenant, task.actor, type(error).__name__))


async def test_observers_hear_of_what_is_sent_and_of_what_finishes(make_runtime: Make) -> None:
    plugin = Watching()
    async with make_runtime(double, plugins=[plugin]) as runtime:
        await runtime.ask("t", double(1).options(id="a"), timeout=PATIENCE)
        assert plugin.log == [("sent", "a", False, "double"), ("started", "a", 1), ("finished", "a", 2)]
        await runtime.tenant("t").pause()
        plugin.log.clear()
        await runtime.send_many([("t", double(n).options(id=f"b{n}", key="k")) for n in range(2)])
        assert plugin.log == [("sent", "b0", False, "double"), ("sent", "b0", True, "double")]


async def test_observers_hear_of_what_fails_is_tried_again_and_dies(make_runtime: Make) -> None:
    plugin = Watching()

    @actor
    async def fail() -> None:
        raise Retry("again", delay=0) if current_task().attempt == 1 else KeyError("no")

    async with make_runtime(fail, plugins=[plugin]) as runtime:
        with pytest.raises(TaskFailed):
            await runtime.ask("t", fail().options(id="a", max_retries=1), timeout=PATIENCE)
    assert plugin.log[1:] == [
        ("started", "a", 1), ("failed", "a", "again"), ("retried", "a", 0),
        ("started", "a", 2), ("failed", "a", "'no'"), ("dead", "a", "t", "fail", "KeyError"),
    ]  # fmt: skip


async def test_observers_hear_of_what_is_canceled_while_it_runs_and_of_what_cannot_be_decoded(
    make_runtime: Make, db: Any
) -> None:
    plugin = Watching()
    begun = anyio.Event()

    @actor
    async def run() -> None:
        begun.set()
        await anyio.sleep_forever()

    async with make_runtime(run, plugins=[plugin]) as runtime, make_runtime(workers=0, plugins=[]) as sender:
        handle = await sender.send("t", run().options(id="a"))
        await begun.wait()
        await handle.cancel()
        with pytest.raises(TaskCanceled):
            await handle.result(timeout=PATIENCE)
        assert plugin.log == [("started", "a", 1), ("canceled", "a", "by handle.cancel()")]
        plugin.log.clear()
        await runtime.tenant("t").pause()
        await sender.send("t", run().options(id="b"))
        db.append("{fairactor/0}:task:b", "\n\n")
        db.setrange("{fairactor/0}:task:b", 20, "no json")
        await runtime.tenant("t").resume()
        await until(lambda: plugin.log)
    assert plugin.log == [("dead", "b", "t", "", "InvalidPayload")]


async def test_what_an_observer_raises_is_logged_and_goes_no_further(
    make_runtime: Make, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Named):
        def sent(self, handle: Handle[Any], message: Message[Any]) -> None:
            raise RuntimeError("broken")

        started = finished = sent

    plugin = Watching()
    async with make_runtime(double, plugins=[Broken(), plugin]) as runtime:
        with caplog.at_level(logging.ERROR):
            assert await runtime.ask("t", double(1), timeout=PATIENCE) == 2
    assert {f"plugin broken: {what}() failed" for what in ("sent", "started", "finished")} == set(caplog.messages)
    assert [each[0] for each in plugin.log] == ["sent", "started", "finished"]


# Their order


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
        ([Wrapper], r"the class Wrapper: give a plugin, as in plugins=\[Wrapper\(\)\]"),
        ([Named("a")], "'a' does nothing: it has none of lifespan"),
        ([object()], "a plugin has a name"),
        (5, "plugins=5: give a list"),
        (Wrapper("a"), "give a list"),
    ],
)
def test_what_cannot_be_is_refused_at_once(plugins: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Runtime("redis://nowhere", plugins=plugins)


# How long they live


class Living(Named):
    runtime: Runtime

    @asynccontextmanager
    async def lifespan(self, runtime: Runtime) -> AsyncIterator[None]:
        await runtime.send("t", double(1).options(id=f"{self.name} begins"))
        self.log.append(f"{self.name} begins")
        yield
        await runtime.send("t", double(1).options(id=f"{self.name} ends"))
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
        async def lifespan(self, runtime: Runtime) -> AsyncIterator[None]:
            raise RuntimeError("no licence")
            yield

    log: list[str] = []
    runtime = make_runtime(double, plugins=[Living("a", log), Broken()])
    with pytest.raises(RuntimeError, match="no licence"):
        await runtime.__aenter__()
    assert log == ["a begins"]  # an exception goes through its lifespan
    with pytest.raises(RuntimeNotRunning):
        await runtime.stats()


async def test_an_actor_of_a_plugin_is_started_again_and_ends_with_the_runtime(make_runtime: Make) -> None:
    begun: list[int] = []
    ended = anyio.Event()

    class Working(Named):
        @asynccontextmanager
        async def lifespan(self, runtime: Runtime) -> AsyncIterator[None]:
            runtime.supervise("work", self.work)
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


# Their options


def whole(value: Any) -> int:
    if not isinstance(value, int):
        raise ConfigurationError(f"tries={value!r}: give a whole number")
    return value


def option(convert: Callable[[Any], Any] = lambda value: value, plugin: str = "reading") -> str:
    """A new option."""
    return Option(f"tries{next(numbers)}", plugin=plugin, convert=convert).name


class Reading(Named):
    async def wrap_execute(self, task: Task, proceed: ProceedExecute) -> Any:
        self.log.append(dict(task.options))
        return await proceed()


async def test_options_travel_to_the_worker_those_of_a_message_over_those_of_its_actor(make_runtime: Make) -> None:
    mine, other = option(whole), option()
    plugin = Reading()

    @actor(**{mine: 3}, timeout=9)
    async def run() -> None: ...

    async with make_runtime(run, plugins=[plugin]) as runtime:
        await runtime.ask("t", run(), timeout=PATIENCE)
        await runtime.ask("t", run().options(**{mine: 4, other: ["x"]}), timeout=PATIENCE)
        await runtime.ask("t", run(), timeout=PATIENCE, **{other: {"y": 1}, mine: None})
    assert plugin.log == [
        {mine: 3, "timeout": 9}, {mine: 4, other: ["x"], "timeout": 9}, {mine: 3, other: {"y": 1}, "timeout": 9},
    ]  # fmt: skip


def test_an_option_that_is_none_is_refused_with_the_nearest() -> None:
    mine = option()
    with pytest.raises(ConfigurationError, match=f"no option '{mine}x'; did you mean '{mine}'"):
        double(1).options(**{f"{mine}x": 1})
    with pytest.raises(ConfigurationError, match="no option 'timeuot'; did you mean 'timeout'"):
        actor(timeuot=3)
    with pytest.raises(ConfigurationError, match="no option 'of_plugins'"):
        double(1).options(of_plugins={})


def test_a_value_that_cannot_be_is_refused_where_it_is_given() -> None:
    mine = option(whole)
    with pytest.raises(ConfigurationError, match="tries='x': give a whole number"):
        double(1).options(**{mine: "x"})


async def test_an_option_of_a_plugin_that_is_not_here_is_refused(make_runtime: Make) -> None:
    mine = option()
    async with make_runtime(workers=0, plugins=[]) as runtime:
        with pytest.raises(
            ConfigurationError, match=f"'{mine}' is of the plugin 'reading', which this Runtime has not"
        ):
            await runtime.send("t", double(1), **{mine: 1})
        assert (await runtime.stats()).pending == 0
    with pytest.raises(ConfigurationError, match="of the plugin 'reading'"):
        make_runtime(actor(name="x", **{mine: 1})(lambda: None), plugins=[])


def test_two_plugins_cannot_add_one_option_and_one_may_make_it_again() -> None:
    mine = option()
    Option(mine, plugin="reading")
    with pytest.raises(ConfigurationError, match=f"'{mine}': plugins 'reading' and 'other' both add it"):
        Option(mine, plugin="other")
