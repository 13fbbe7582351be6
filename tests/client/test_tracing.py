"""Tests the spans of sends and cancellations, and what travels from the sender to another process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
import redis
from opentelemetry import baggage, context, trace
from opentelemetry.trace import SpanKind

from fairactor import Handle, Message, Runtime, TaskFailed, actor
from fairactor._server.urls import parse_url
from fairactor._util.failures import exception_name
from fairactor.errors import (
    ConfigurationError,
    Deadlock,
    MailboxFull,
    NotSerializable,
    PayloadTooLarge,
    ServerUnavailable,
    TaskExists,
    UnknownActor,
)
from fairactor.plugins import Addressed, ProceedSend
from tests.support.polling import PATIENCE
from tests.support.servers import Instance
from tests.support.spans import Exporter, error, facts, links, parent, span_id

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


@actor
async def note(text: Any) -> None:
    pass


async def test_a_task_makes_two_spans_that_are_linked(make_runtime: Make, exporter: Exporter) -> None:
    async with make_runtime(double) as runtime:
        with trace.get_tracer("test").start_as_current_span("caller") as caller:
            handle = await runtime.send("user:1", double(2))
        await handle.result(timeout=PATIENCE)
    sent, processed = exporter.one("send double"), exporter.one("process double")
    assert (sent.kind, parent(sent)) == (SpanKind.PRODUCER, span_id(caller))
    assert (processed.kind, parent(processed), links(processed)) == (SpanKind.CONSUMER, None, [span_id(sent)])
    for span, operation in ((sent, "send"), (processed, "process")):
        assert error(span) is None
        assert (facts(span).items()) >= {
            "messaging.system": "fairactor",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": "user:1",
            "messaging.destination.template": "double",
            "messaging.fairactor.actor": "double",
            "messaging.message.id": handle.id,
        }.items()
    assert "messaging.fairactor.message.attempt" not in facts(sent)
    assert facts(processed)["messaging.fairactor.message.attempt"] == 1


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("redis://db.example.com", "db.example.com", 6379),
        ("rediss://user:secret@db.example.com:7000/0", "db.example.com", 7000),
        ("redis://[::1]:7000", "::1", 7000),
        ("redis://", "localhost", 6379),
        ("unix:///run/a%20server.sock", "/run/a server.sock", None),
    ],
)
def test_the_address_of_the_server_is_in_its_url(url: str, address: str, port: int | None) -> None:
    found = parse_url(url, "url=")
    assert (found.host, found.port) == (address, port)


async def test_a_span_names_the_server_and_its_scope(url: str, exporter: Exporter) -> None:
    async with Runtime(url, workers=0) as runtime:
        await runtime.send("user:1", double(2))
    assert facts(exporter.one("send double"))["server.address"] == url.removeprefix("unix://")
    assert "server.port" not in facts(exporter.one("send double"))
    scope = exporter.one("send double").instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("fairactor", metadata.version("fairactor"))
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"


@contextmanager
def stopped(server: Instance) -> Iterator[None]:
    """Stops a server for a while."""
    assert server._process is not None
    server._process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server._process.send_signal(signal.SIGCONT)


async def test_a_send_lasts_until_the_reply_and_fails_with_it(server: Instance, exporter: Exporter) -> None:
    async with Runtime(server.url, workers=0, connect_timeout=0.5) as runtime:
        await runtime.send("user:1", double(1))
        exporter.clear()
        with stopped(server), pytest.raises(ServerUnavailable) as caught:
            await runtime.send("user:1", double(2))
    sent = exporter.one("send double")
    assert error(sent) == "fairactor.errors.ServerUnavailable"
    assert facts(sent)["messaging.message.id"] == caught.value.ids[0], "it may have been accepted"
    assert sent.start_time is not None
    assert sent.end_time is not None
    assert sent.end_time - sent.start_time > 0.4e9
    (event,) = sent.events
    assert (event.name, dict(event.attributes or {})["exception.message"]) == ("exception", str(caught.value))


class Refusing:
    name = "refusing"

    async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
        if any(tenant == "refused" for tenant, _ in messages):
            raise PermissionError("as told")
        return await proceed(messages)


async def test_each_way_in_which_a_send_fails_is_in_its_span(make_runtime: Make, exporter: Exporter) -> None:
    @actor
    async def elsewhere() -> None: ...

    @actor
    async def asking() -> None:
        await runtime.ask("user:1", note(""))

    async def fails(kind: type[Exception], tenant: str, message: Message[Any], **options: Any) -> None:
        for send in (runtime.send, runtime.ask, send_many):
            exporter.clear()
            with pytest.raises(kind):
                await send(tenant, message, **options)
            sent = exporter.one(f"send {message.actor.name}")
            assert error(sent) == exception_name(kind), f"{send} of {message!r}"

    async def send_many(tenant: str, message: Message[Any], **options: Any) -> Any:
        return await runtime.send_many([(tenant, message.options(**options))])

    async with make_runtime(note, asking, plugins=[Refusing()], max_payload=1000) as runtime:
        await runtime.tenant("full").configure(backlog=1)
        await runtime.tenant("full").pause()
        await runtime.tenant("full").send(note(""))
        await fails(MailboxFull, "full", note(""))
        await fails(NotSerializable, "user:1", note(object()))
        await fails(PayloadTooLarge, "user:1", note("x" * 1000))
        await fails(UnknownActor, "user:1", elsewhere())
        await fails(ConfigurationError, "", note(""))
        await fails(PermissionError, "refused", note(""))
        await runtime.send("user:1", note(""), id="taken")
        await fails(TaskExists, "user:2", note(""), id="taken")
        await runtime.tenant("user:1").configure(concurrency=1)
        exporter.clear()
        with pytest.raises(TaskFailed):
            await runtime.ask("user:1", asking(), timeout=PATIENCE)
        assert error(exporter.one("send note")) == exception_name(Deadlock)


async def test_a_send_that_is_canceled_fails(server: Instance, exporter: Exporter) -> None:
    async with Runtime(server.url, workers=0) as runtime:
        with stopped(server), anyio.move_on_after(0.05):
            await runtime.send("user:1", double(2))
    assert error(exporter.one("send double")) == "asyncio.exceptions.CancelledError"


async def test_a_message_that_is_there_already_is_marked(make_runtime: Make, exporter: Exporter) -> None:
    async with make_runtime(workers=0) as runtime:
        first = await runtime.send("user:1", double(1), key="k")
        await runtime.send("user:1", double(1), key="k")
    again = exporter.named("send double")[1]
    assert facts(again)["messaging.message.id"] == first.id
    assert facts(again)["messaging.fairactor.message.duplicate"] is True


async def test_a_batch_has_a_span_and_one_for_each_message(make_runtime: Make, exporter: Exporter) -> None:
    async with make_runtime(double) as runtime:
        handles = await runtime.send_many([("user:1", double(n)) for n in range(3)])
        for handle in handles:
            await handle.result(timeout=PATIENCE)
        await runtime.send_many([("user:1", double(1)), ("user:2", note(""))][:1])
        assert await runtime.send_many([]) == []
    batch, other = exporter.named("send double")
    created, processed = exporter.named("create double")[:3], exporter.named("process double")
    assert (batch.kind, facts(batch)["messaging.batch.message_count"]) == (SpanKind.CLIENT, 3)
    assert facts(other)["messaging.batch.message_count"] == 1
    assert "messaging.message.id" not in facts(batch)
    assert [(span.kind, parent(span)) for span in created] == [(SpanKind.PRODUCER, span_id(batch))] * 3
    assert [facts(span)["messaging.message.id"] for span in created] == [handle.id for handle in handles]
    assert links(batch) == [span_id(span) for span in created]
    by_task = {facts(span)["messaging.message.id"]: links(span) for span in processed}
    assert [by_task[handle.id] for handle in handles] == [[span_id(span)] for span in created]


async def test_a_batch_is_described_by_what_its_messages_share(make_runtime: Make, exporter: Exporter) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send_many([("user:1", double(1)), ("user:2", note(""))])
    batch = exporter.one("send")
    assert {"messaging.destination.name", "messaging.destination.template"}.isdisjoint(facts(batch))


async def test_a_message_carries_the_context_of_its_send(make_runtime: Make, exporter: Exporter, url: str) -> None:
    class Repeating:
        name = "repeating"

        async def wrap_send(self, messages: Sequence[Addressed], proceed: ProceedSend) -> list[Handle[Any]]:
            with trace.get_tracer("test").start_as_current_span("wrapper"):
                context.attach(baggage.set_baggage("by", "wrapper"))
                return (await proceed([*messages, *messages]))[: len(messages)]

    @actor
    async def who() -> Any:
        return baggage.get_baggage("by")

    async with make_runtime(who, plugins=[Repeating()]) as runtime:
        assert await runtime.ask("user:1", who(), timeout=PATIENCE) == "wrapper"
        await runtime.drain(PATIENCE)
    sent = exporter.one("send who")
    assert [links(span) for span in exporter.named("process who")] == [[span_id(sent)]] * 2


async def test_cancellations_have_spans(make_runtime: Make, exporter: Exporter) -> None:
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", double(1))
        await handle.cancel()
        await runtime.send_many([("user:1", double(n)) for n in range(2)])
        assert await runtime.tenant("user:1").purge() == 2
    canceled, purged = exporter.one("cancel"), exporter.one("purge")
    assert facts(canceled)["messaging.message.id"] == handle.id
    assert facts(purged)["messaging.batch.message_count"] == 2
    exporter.clear()
    async with make_runtime(workers=0) as runtime:
        handles = await runtime.send_many([("user:1", double(n)) for n in range(3)])
        await runtime.cancel_many(handles)
    many = exporter.one("cancel")
    assert facts(many)["messaging.batch.message_count"] == 3
    for span in (canceled, purged, many):
        assert (span.kind, error(span), facts(span)["messaging.operation.type"]) == (SpanKind.CLIENT, None, "settle")
        assert facts(span)["messaging.destination.name"] == "user:1"


async def test_the_context_travels_in_the_record(make_runtime: Make, exporter: Exporter, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", double(1))
        packed = db.get(f"{{fairactor/0}}:task:{handle.id}")
        assert packed is not None
        call = msgspec.json.decode(packed[packed.index(b"user:1") + 6 :])
        trace_id, id_of_span = span_id(exporter.one("send double"))
        assert f"{trace_id:032x}-{id_of_span:016x}" in json.dumps(call)


WORKER = """
import sys
import anyio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from fairactor import Runtime, actor

provider = TracerProvider()
exporter = ConsoleSpanExporter(formatter=lambda span: span.to_json(None) + chr(10))
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

@actor
async def double(n: int) -> int:
    return 2 * n

async def main():
    async with Runtime(sys.argv[1], actors=[double]) as runtime:
        await runtime.drain()

anyio.run(main)
"""


async def test_the_context_reaches_another_process(make_runtime: Make, exporter: Exporter, url: str) -> None:
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", double(2))
        root = Path(__file__).parents[2]
        found = await anyio.run_process([sys.executable, "-c", WORKER, url], cwd=root, stderr=subprocess.PIPE)
        assert await handle.result(timeout=PATIENCE) == 4
    (processed,) = [json.loads(line) for line in found.stdout.splitlines()]
    assert processed["name"] == "process double"
    (link,) = processed["links"]
    linked = int(link["context"]["trace_id"], 16), int(link["context"]["span_id"], 16)
    assert linked == span_id(exporter.one("send double"))


@pytest.mark.parametrize("sdk", [True, False])
async def test_handlers_have_nothing_of_what_entered_the_runtime(
    make_runtime: Make, request: pytest.FixtureRequest, sdk: bool
) -> None:
    if sdk:
        request.getfixturevalue("exporter")

    @actor
    async def see() -> Any:
        return baggage.get_baggage("user")

    token = context.attach(baggage.set_baggage("user", "the service"))
    async with make_runtime(see) as runtime:
        context.detach(token)
        assert await runtime.ask("user:1", see(), timeout=PATIENCE) is None


async def test_without_an_sdk_there_is_nothing(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", double(2))
        assert b"traceparent" not in (db.get(f"{{fairactor/0}}:task:{handle.id}") or b"")
        async with make_runtime(double):
            assert await handle.result(timeout=PATIENCE) == 4
    assert not trace.get_current_span().get_span_context().is_valid


async def test_without_an_sdk_the_context_of_the_caller_goes_through(make_runtime: Make, db: redis.Redis) -> None:
    @actor
    async def forward() -> list[Any]:
        return [await current.ask("user:2", see(), timeout=PATIENCE), baggage.get_baggage("user")]

    @actor
    async def see() -> list[Any]:
        return [trace.get_current_span().get_span_context().trace_id, baggage.get_baggage("user")]

    caller = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(1)))
    async with make_runtime(forward, see) as current:
        token = context.attach(baggage.set_baggage("user", "u1", trace.set_span_in_context(caller)))
        try:
            found = await current.ask("user:1", forward(), timeout=PATIENCE)
        finally:
            context.detach(token)
        assert found == [[0xABC, "u1"], "u1"]
        handle = await current.send("user:1", see())
        assert b"traceparent" not in (db.get(f"{{fairactor/0}}:task:{handle.id}") or b"")
        assert await handle.result(timeout=PATIENCE) == [0, None], "nothing is left for the next task"
