"""Tests the spans of attempts: one for each way in which a task ends; and what of the sender reaches the handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import redis
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan

from fairactor import Handle, Retry, Runtime, TaskCanceled, TaskFailed, TaskState, actor, current_task
from fairactor._model.wire import turn_mark
from fairactor._worker.claim import Claim
from tests.support import process_actors
from tests.support.polling import PATIENCE, until
from tests.support.spans import CANCELED, Exporter, error, facts, links, parent, span_id

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("broken")


async def ends(handle: Handle[Any]) -> None:
    with pytest.raises((TaskFailed, TaskCanceled)):
        await handle.result(timeout=PATIENCE)


def message_of(span: ReadableSpan) -> str:
    """Returns the message of the exception that a span has recorded."""
    (event,) = span.events
    assert event.name == "exception"
    return str((event.attributes or {})["exception.message"])


async def test_whatever_a_handler_raises_is_on_the_span(make_runtime: Make, exporter: Exporter) -> None:
    @actor
    async def fail(how: str) -> None:
        raise {
            "value": ValueError("as told"),
            "exit": SystemExit(3),
            "cancel": asyncio.CancelledError(),
            "broken": Broken(),
            "lone": ValueError("\ud800"),
        }[how]

    async with make_runtime(fail) as runtime:
        for how in ("value", "exit", "cancel", "broken", "lone"):
            await ends(await runtime.send("user:1", fail(how)))
    spans = exporter.named("process fail")
    assert [error(span) for span in spans] == [
        "ValueError",
        "SystemExit",
        "asyncio.exceptions.CancelledError",
        f"{__name__}.Broken",
        "ValueError",
    ]
    assert message_of(spans[0]) == "as told"
    assert "raise {" in str((spans[0].events[0].attributes or {})["exception.stacktrace"])
    assert message_of(spans[3]) == "(its message cannot be read: RuntimeError)"
    assert message_of(spans[4]) == "\\ud800"


async def test_each_attempt_has_a_span(make_runtime: Make, exporter: Exporter) -> None:
    @actor(max_retries=2)
    async def flaky() -> None:
        if current_task().attempt < 3:
            raise Retry(delay=0)

    async with make_runtime(flaky) as runtime:
        await runtime.ask("user:1", flaky(), timeout=PATIENCE)
    sent, attempts = exporter.one("send flaky"), exporter.named("process flaky")
    assert [facts(attempt)["messaging.fairactor.message.attempt"] for attempt in attempts] == [1, 2, 3]
    assert [error(attempt) for attempt in attempts] == ["fairactor.Retry", "fairactor.Retry", None]
    assert all(links(attempt) == [span_id(sent)] for attempt in attempts)


async def test_a_task_that_fails_outside_its_handler_has_a_span(make_runtime: Make, exporter: Exporter) -> None:
    ran: list[str] = []

    @actor(name="strict")
    async def loose(n: Any) -> None: ...

    @actor
    async def strict(n: int) -> None:
        ran.append("strict")

    @actor(timeout=0.01)
    async def slow() -> None:
        await anyio.sleep_forever()

    @actor
    async def unstorable() -> Any:
        return object()

    @actor
    async def large() -> str:
        return "x" * 5000

    @actor
    async def gone() -> None: ...

    async with make_runtime(workers=0) as sender:
        tasks = await sender.send_many(
            ("user:1", message)
            for message in (loose("no number"), slow(), unstorable(), large(), gone(), double(1).options(expires=0.001))
        )
        await anyio.sleep(0.01)  # so that one has expired
        async with make_runtime(strict, slow, unstorable, large, double, unknown_ttl=0, max_payload=2000):
            for task in tasks:
                await ends(task)
    assert ran == []
    sent = {facts(span)["messaging.message.id"]: span_id(span) for span in exporter.get_finished_spans() if is_of(span)}
    found = {}
    for task, name in zip(tasks, ("strict", "slow", "unstorable", "large", "gone", "double"), strict=True):
        span = exporter.one(f"process {name}")
        assert facts(span)["messaging.message.id"] == task.id
        assert facts(span)["messaging.destination.name"] == "user:1"
        assert links(span) == [sent[task.id]]
        found[name] = (error(span) or "").rpartition(".")[2]
    assert found == {
        "strict": "InvalidPayload",
        "slow": "TimeoutError",
        "unstorable": "NotSerializable",
        "large": "PayloadTooLarge",
        "gone": "UnknownActor",
        "double": "TaskCanceled",
    }


def is_of(span: ReadableSpan) -> bool:
    return span.name.startswith("create ")


async def test_waiting_for_a_service_that_is_away_makes_no_spans(make_runtime: Make, exporter: Exporter) -> None:
    @actor
    async def away() -> None: ...

    async with make_runtime(workers=0) as sender, make_runtime(double, unknown_ttl=600):
        await sender.send("user:1", away())

        async def waits() -> bool:
            load = (await sender.health()).load
            return load is not None and [each.actor for each in load.unserved] == ["away"]

        await until(waits)
    assert exporter.names() == ["send away"]


async def test_spans_name_the_queue_if_it_is_not_the_default(make_runtime: Make, exporter: Exporter) -> None:
    async with make_runtime(double) as runtime:
        await runtime.ask("user:1", double(1).options(queue="gpu"), timeout=PATIENCE)
        handles = await runtime.send_many([("user:1", double(n).options(queue=f"q{n}")) for n in range(2)])
        assert await runtime.results(handles, timeout=PATIENCE) == [0, 2]
        await runtime.ask("user:1", double(1).options(queue="default"), timeout=PATIENCE)
    found = [
        (span.name.split()[0], facts(span).get("messaging.fairactor.queue")) for span in exporter.get_finished_spans()
    ]
    expected = [(name, queue) for name in ("send", "process") for queue in ("gpu", None)]
    expected += [(name, f"q{n}") for name in ("create", "process") for n in range(2)]
    assert sorted(found, key=repr) == sorted([*expected, ("send", None)], key=repr)


async def test_a_record_that_cannot_be_decoded_has_a_span(
    make_runtime: Make, exporter: Exporter, db: redis.Redis
) -> None:
    async with make_runtime(workers=0) as sender:
        task = await sender.send("user:1", double(1))
        key = f"{{fairactor/0}}:task:{task.id}"
        packed = db.get(key)
        assert packed is not None
        db.set(key, packed.replace(b"[", b"{"))
        async with make_runtime(double):
            await ends(task)
    span = exporter.one("process")
    assert error(span) == "fairactor.errors.InvalidPayload"
    assert (facts(span)["messaging.message.id"], facts(span)["messaging.destination.name"]) == (task.id, "user:1")


async def test_a_canceled_task_says_so_wherever_it_was(make_runtime: Make, exporter: Exporter) -> None:
    begun = anyio.Event()

    @actor
    async def wait(how: str) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            if how == "fails":
                raise ValueError("while it was canceled")

    async with make_runtime(wait, workers=1) as runtime:
        for how in ("ends", "fails"):
            begun = anyio.Event()
            running = await runtime.send("user:1", wait(how))
            await begun.wait()
            await running.cancel()
            await ends(running)
    assert [error(span) for span in exporter.named("process wait")] == [CANCELED, CANCELED]
    assert exporter.named("process wait")[0].status.description == f"{CANCELED}: by handle.cancel()"


async def test_a_task_that_is_canceled_before_it_starts_here_has_a_span(make_runtime: Make, exporter: Exporter) -> None:
    async with make_runtime(workers=0) as sender:
        task = await sender.send("user:1", double(1))
        (shard,) = sender._shards()
        await shard.join("claims", lease=60.0, info={})
        _, packed = (await shard.turn("claims", 1, lease=60.0, want=1)).claims
        async with make_runtime(double) as runtime:
            assert runtime._engine is not None
            consumer = runtime._engine.consumer
            assert consumer is not None
            assert consumer._pool is not None
            claim = Claim(task.id, packed, turn_mark(1), consumer._dispatchers[0], 0.0, 0.0)
            claim.runtime = "claims"
            consumer._pool.submit([claim], at_once=False)
            assert consumer._pool.cancel(task.id, "as told")
        await shard.leave("claims")
    span = exporter.one("process double")
    assert (error(span), span.status.description) == (CANCELED, f"{CANCELED}: as told")
    assert links(span) == [span_id(exporter.one("send double"))]


async def test_a_task_that_goes_back_says_so(make_runtime: Make, exporter: Exporter) -> None:
    begun = anyio.Event()

    @actor
    async def hold() -> None:
        begun.set()
        await anyio.sleep_forever()

    async with make_runtime(workers=0) as sender:
        task = await sender.send("user:1", hold())
        async with make_runtime(hold, grace=0):
            await begun.wait()
        assert await task.state() is TaskState.QUEUED
        await task.cancel()
    assert error(exporter.one("process hold")) == "asyncio.exceptions.CancelledError"
    assert "returns to its mailbox" in (exporter.one("process hold").status.description or "")


@pytest.mark.parametrize("kept", [3600.0, 0.0])
async def test_a_task_that_is_given_up_has_a_span(make_runtime: Make, exporter: Exporter, kept: float) -> None:
    async with make_runtime(workers=0) as sender:
        (shard,) = sender._shards()
        task = await sender.send("user:1", double(1))
        await shard.join("dead", lease=0.001, info={})
        assert (await shard.turn("dead", 1, lease=0.001, want=1)).claims
        async with make_runtime(double, max_deliveries=1, failed_ttl=kept):
            span = (await until(lambda: exporter.named("process double" if kept else "process")))[0]
        if kept:
            await ends(task)
    assert error(span) == "WorkerDied"
    assert facts(span)["messaging.message.id"] == task.id
    assert links(span) == ([span_id(exporter.one("send double"))] if kept else [])


async def test_what_a_handler_sends_belongs_to_its_span(make_runtime: Make, exporter: Exporter) -> None:
    @actor
    async def outer() -> int:
        return await runtime.ask("user:2", double(4), timeout=PATIENCE)

    async with make_runtime(outer, double) as runtime:
        assert await runtime.ask("user:1", outer(), timeout=PATIENCE) == 8
    sent, inner = exporter.one("send double"), exporter.one("process double")
    assert parent(sent) == span_id(exporter.one("process outer"))
    assert parent(inner) is None, "it is linked, and no child of whoever made its worker"
    assert links(inner) == [span_id(sent)]


async def test_spans_can_be_children_of_the_send(make_runtime: Make, exporter: Exporter) -> None:
    async with make_runtime(double, tracing="parent") as runtime:
        await runtime.ask("user:1", double(1), timeout=PATIENCE)
        (handle,) = await runtime.send_many([("user:1", double(1))])
        await handle.result(timeout=PATIENCE)
    senders = [exporter.named("send double")[0], exporter.one("create double")]
    for span, sender in zip(exporter.named("process double"), senders, strict=True):
        assert parent(span) == span_id(sender)
        assert links(span) == []


async def test_baggage_reaches_handlers_of_all_kinds_and_what_they_send(make_runtime: Make, exporter: Exporter) -> None:
    @actor
    async def child() -> Any:
        return baggage.get_baggage("user")

    @actor
    def in_thread() -> list[Any]:
        return [baggage.get_baggage("user"), trace.get_current_span().get_span_context().span_id]

    @actor
    async def outer() -> list[Any]:
        in_a_task = await asyncio.create_task(child.function())
        return [
            baggage.get_baggage("user"),
            in_a_task,
            await runtime.ask("user:2", child(), timeout=PATIENCE),
            await runtime.ask("user:2", in_thread(), timeout=PATIENCE),
            await runtime.ask("user:2", process_actors.traced(), timeout=PATIENCE),
        ]

    async with make_runtime(child, in_thread, outer, process_actors.traced) as runtime:
        token = context.attach(baggage.set_baggage("user", "u 1"))
        try:
            handle = await runtime.send("user:1", outer())
        finally:
            context.detach(token)
        found = await handle.result(timeout=PATIENCE)
        assert await runtime.ask("user:1", child(), timeout=PATIENCE) is None, "nothing is left for the next task"
    thread_span, process_span = exporter.one("process in_thread"), exporter.one("process traced")
    assert found == ["u 1", "u 1", "u 1", ["u 1", span_id(thread_span)[1]], ["u 1", *span_id(process_span)]]


async def test_observers_and_the_log_are_in_the_span(make_runtime: Make, exporter: Exporter) -> None:
    class Observer:
        name = "observer"

        def finished(self, task: object, result: object) -> None:
            seen.append(trace.get_current_span().get_span_context().span_id)

    seen: list[int] = []
    async with make_runtime(double, plugins=[Observer()]) as runtime:
        await runtime.ask("user:1", double(1), timeout=PATIENCE)
    assert seen == [span_id(exporter.one("process double"))[1]]
