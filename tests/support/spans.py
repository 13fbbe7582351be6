"""Spans that an OpenTelemetry SDK has received, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

CANCELED = "fairactor.errors.TaskCanceled"


class Exporter(InMemorySpanExporter):
    """Keeps the spans that have ended."""

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def names(self) -> list[str]:
        return sorted(span.name for span in self.get_finished_spans())


@contextmanager
def exporting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exporter]:
    """Installs an SDK for one test, although OpenTelemetry allows setting it only once per process."""
    exporter = Exporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def span_id(span: ReadableSpan | trace.Span) -> tuple[int, int]:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id, context.span_id


def parent(span: ReadableSpan) -> tuple[int, int] | None:
    return (span.parent.trace_id, span.parent.span_id) if span.parent else None


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def facts(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def error(span: ReadableSpan) -> str | None:
    """Returns why a span failed; None if it did not."""
    found = facts(span).get("error.type")
    assert (span.status.status_code is StatusCode.ERROR) is (found is not None)
    if found is not None:
        assert (span.status.description or "").startswith(str(found))
    return None if found is None else str(found)
