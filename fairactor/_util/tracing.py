"""Tracing with the OpenTelemetry API alone. Without an SDK it costs two look-ups per task.

``send {actor}`` is a PRODUCER span. Its context travels with the task. ``process {actor}`` is a CONSUMER span, which
links to the PRODUCER span. Names and attributes follow the semantic conventions for messaging.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import context, propagate, trace

_tracer: Final = trace.get_tracer("fairactor")


def has_sdk() -> bool:
    """Whether a tracer provider is installed. A runtime asks once, when it is entered."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def outgoing(actor: str, tenant: str, task_id: str, *, sdk: bool) -> dict[str, str]:
    """Returns the trace context for a task: that of its ``send`` span, or without an SDK that of the caller."""
    carrier: dict[str, str] = {}
    if sdk:
        attributes = _attributes("send", tenant, task_id)
        with _tracer.start_as_current_span(f"send {actor}", kind=trace.SpanKind.PRODUCER, attributes=attributes):
            propagate.inject(carrier)
    elif context.get_current():
        propagate.inject(carrier)
    return carrier


@contextmanager
def processing(actor: str, tenant: str, task_id: str, carrier: dict[str, str]) -> Iterator[None]:
    """Wraps an attempt in a span, which records the error of the handler."""
    sent = trace.get_current_span(propagate.extract(carrier, context=context.Context())).get_span_context()
    links = [trace.Link(sent)] if sent.is_valid else []
    attributes = _attributes("process", tenant, task_id)
    with _tracer.start_as_current_span(
        f"process {actor}", context.Context(), trace.SpanKind.CONSUMER, attributes=attributes, links=links
    ):
        yield


def _attributes(operation: str, tenant: str, task_id: str) -> dict[str, Any]:
    return {
        "messaging.system": "fairactor",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": tenant,
        "messaging.message.id": task_id,
    }
