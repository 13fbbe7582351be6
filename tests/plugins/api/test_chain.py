"""Tests the hooks of plugins that wrap sending and running, and those that observe."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import pytest

from fairactor import Handle, Message, Retry, Runtime, Task, TaskCanceled, TaskFailed, actor, current_task
from fairactor.errors import ConfigurationError
from fairactor.plugins import Addressed, ProceedExecute, ProceedSend
from tests.support.plugins import Named, Wrapper
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


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
        assert not runtime._engine._outcomes._awaited


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
        assert sorted(plugin.log) == [("finished", "a", 2), ("sent", "a", False, "double"), ("started", "a", 1)]
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
    assert [each for each in plugin.log if each[0] != "sent"] == [
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

    async with make_runtime(run, plugins=[plugin]) as runtime, make_runtime(workers=0, without_plugins=True) as sender:
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
    assert {each[0] for each in plugin.log} == {"sent", "started", "finished"}


async def test_observers_learn_how_long_a_task_waited_and_ran(make_runtime: Make) -> None:
    times: list[tuple[str, float, float]] = []

    def note(event: str) -> Callable[..., None]:
        return lambda task, *_: times.append((event, task.waited, task.seconds))

    @actor(max_retries=1, backoff=0)
    async def slow() -> None:
        task = current_task()
        await anyio.sleep(0.05)
        assert 0.04 < task.seconds < PATIENCE
        if task.attempt == 1:
            raise ValueError("as told")

    plugin = Named()
    for event in ("started", "finished", "failed", "retried", "canceled"):
        setattr(plugin, event, note(event))
    async with make_runtime(slow, plugins=[plugin]) as runtime:
        await (await runtime.send("t", slow(), delay=0.1)).result(PATIENCE)
        with pytest.raises(TaskCanceled):
            await (await runtime.send("t", slow(), delay=0.05, expires=0.00001)).result(PATIENCE)
        assert [event for event, _, _ in times] == ["started", "failed", "retried", "started", "finished", "canceled"]
        assert all(0 <= waited < PATIENCE for _, waited, _ in times)
        assert all(
            0.04 < seconds < PATIENCE for event, _, seconds in times if event in {"finished", "failed", "retried"}
        )
        assert all(seconds < 0.04 for event, _, seconds in times if event in {"started", "canceled"})
        await runtime.tenant("t").pause()
        times.clear()
        handle = await runtime.send("t", slow())
        await anyio.sleep(0.1)
        await runtime.tenant("t").resume()
        await handle.result(PATIENCE)
        assert 0.1 <= times[0][1] < PATIENCE
