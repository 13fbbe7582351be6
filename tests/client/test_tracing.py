"""Tests tracing: the spans that an OpenTelemetry SDK receives, in this process and across processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import msgspec
import pytest
import redis
from opentelemetry import context, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from fairactor import Retry, Runtime, TaskFailed, actor, current_task
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Installs an SDK for one test, although OpenTelemetry allows setting it only once per process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


@actor
async def double(n: int) -> int:
    return 2 * n


@actor
async def fail() -> None:
    raise ValueError("as told")


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def span_id(span: ReadableSpan) -> tuple[int, int]:
    return span.get_span_context().trace_id, span.get_span_context().span_id


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


async def test_a_task_makes_two_spans_that_are_linked(make_runtime: Make, exporter: InMemorySpanExporter) -> None:
    tracer = trace.get_tracer("test")
    async with make_runtime(double) as runtime:
        with tracer.start_as_current_span("caller") as caller:
            handle = await runtime.send("user:1", double(2))
        await handle.result(timeout=PATIENCE)
    (sent,), (processed,) = named(exporter, "send double"), named(exporter, "process double")
    assert sent.kind is SpanKind.PRODUCER
    assert sent.parent is not None
    assert sent.parent.span_id == caller.get_span_context().span_id
    assert processed.kind is SpanKind.CONSUMER
    assert processed.parent is None
    assert links(processed) == [span_id(sent)]
    for span, operation in ((sent, "send"), (processed, "process")):
        attributes = dict(span.attributes or {})
        assert attributes["messaging.system"] == "fairactor"
        assert attributes["messaging.operation.name"] == operation
        assert attributes["messaging.destination.name"] == "user:1"
        assert attributes["messaging.message.id"] == handle.id
        assert span.status.status_code is StatusCode.UNSET


async def test_an_error_is_recorded_on_the_span(make_runtime: Make, exporter: InMemorySpanExporter) -> None:
    async with make_runtime(fail) as runtime:
        with pytest.raises(TaskFailed):
            await runtime.ask("user:1", fail(), timeout=PATIENCE)
    (processed,) = named(exporter, "process fail")
    assert processed.status.status_code is StatusCode.ERROR
    (event,) = processed.events
    assert event.name == "exception"
    assert dict(event.attributes or {})["exception.message"] == "as told"


async def test_each_attempt_has_a_span(make_runtime: Make, exporter: InMemorySpanExporter) -> None:
    @actor(max_retries=2)
    async def flaky() -> None:
        if current_task().attempt < 3:
            raise Retry(delay=0)

    async with make_runtime(flaky) as runtime:
        await runtime.ask("user:1", flaky(), timeout=PATIENCE)
    (sent,), attempts = named(exporter, "send flaky"), named(exporter, "process flaky")
    assert len(attempts) == 3
    assert all(links(attempt) == [span_id(sent)] for attempt in attempts)


async def test_what_a_handler_sends_belongs_to_its_span(make_runtime: Make, exporter: InMemorySpanExporter) -> None:
    @actor
    async def parent() -> int:
        return await runtime.ask("user:2", double(4))

    async with make_runtime(parent, double) as runtime:
        assert await runtime.ask("user:1", parent(), timeout=PATIENCE) == 8
    (outer,), (sent,), (inner,) = (named(exporter, n) for n in ("process parent", "send double", "process double"))
    assert sent.parent is not None
    assert sent.parent.span_id == outer.get_span_context().span_id
    assert inner.parent is None, "it is linked, and no child of whoever made its worker"
    assert links(inner) == [span_id(sent)]


async def test_spans_of_a_plain_handler_are_in_its_thread(make_runtime: Make, exporter: InMemorySpanExporter) -> None:
    @actor
    def plain() -> int:
        return trace.get_current_span().get_span_context().span_id

    async with make_runtime(plain) as runtime:
        found = await runtime.ask("user:1", plain(), timeout=PATIENCE)
    (processed,) = named(exporter, "process plain")
    assert found == processed.get_span_context().span_id


async def test_the_context_travels_in_the_record(
    make_runtime: Make, exporter: InMemorySpanExporter, db: redis.Redis
) -> None:
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", double(1))
        packed = db.get(f"{{fairactor/0}}:task:{handle.id}")
        assert packed is not None
        call = msgspec.json.decode(packed[packed.index(b"user:1") + 6 :])
        (sent,) = named(exporter, "send double")
        assert f"{sent.get_span_context().trace_id:032x}-{sent.get_span_context().span_id:016x}" in json.dumps(call)


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


async def test_the_context_reaches_another_process(
    make_runtime: Make, exporter: InMemorySpanExporter, url: str
) -> None:
    async with make_runtime(workers=0) as runtime:
        handle = await runtime.send("user:1", double(2))
        root = Path(__file__).parents[2]
        found = await anyio.run_process([sys.executable, "-c", WORKER, url], cwd=root, stderr=subprocess.PIPE)
        assert await handle.result(timeout=PATIENCE) == 4
    (sent,) = named(exporter, "send double")
    (processed,) = [json.loads(line) for line in found.stdout.splitlines()]
    assert processed["name"] == "process double"
    (link,) = processed["links"]
    assert int(link["context"]["trace_id"], 16) == sent.get_span_context().trace_id
    assert int(link["context"]["span_id"], 16) == sent.get_span_context().span_id


async def test_without_an_sdk_there_is_nothing(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", double(2))
        assert b"traceparent" not in (db.get(f"{{fairactor/0}}:task:{handle.id}") or b"")
        async with make_runtime(double):
            assert await handle.result(timeout=PATIENCE) == 4
    assert not trace.get_current_span().get_span_context().is_valid


async def test_without_an_sdk_the_context_of_the_caller_travels_on(make_runtime: Make, db: redis.Redis) -> None:
    caller = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(1)))
    async with make_runtime(workers=0) as sender:
        token = context.attach(trace.set_span_in_context(caller))
        try:
            handle = await sender.send("user:1", double(2))
        finally:
            context.detach(token)
        assert f"{0xABC:032x}-{0xDEF:016x}".encode() in (db.get(f"{{fairactor/0}}:task:{handle.id}") or b"")
