"""The spans of a runtime, for an OpenTelemetry SDK.

Names and attributes follow the semantic conventions for messaging. docs/telemetry.md lists all spans.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import metadata
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from fairactor.errors import TaskCanceled

from .checks import DEFAULT_QUEUE
from .failures import exception_name, exception_names, text_of, traceback_of
from .tracing import LINK_ONLY, carried, restored

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
NO_SPAN: Final = nullcontext[None]()
"""Stands in for a span where nothing is traced."""

_CANCELED: Final = exception_name(TaskCanceled)
_INTERRUPTED: Final = exception_name(CancelledError)
_MESSAGE_LIMIT: Final = 500  # characters of a message in the status of a span; the event has all of it

Attributes = Mapping[str, Any]


def has_sdk() -> bool:
    """Whether a tracer provider is installed. A runtime asks once, when it is entered."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def version() -> str | None:
    """Returns the version of fairactor; None if it runs from a copy that was never installed."""
    try:
        return metadata.version("fairactor")
    except metadata.PackageNotFoundError:  # it runs from a copy that was never installed
        return None


class CreationSpan:
    """A span whose context travels with messages."""

    def __init__(self, spans: Spans, span: trace.Span, *, batch: bool = False) -> None:
        self._spans = spans
        self._span = span
        self._batch = batch

    def carried(self, task_id: str) -> dict[str, str]:
        """Returns the context that travels with a message, and notes the id of its task."""
        self._span.set_attribute("messaging.message.id", task_id)
        return carried(self._span)

    @contextmanager
    def creating(self, actor: str, tenant: str, queue: str = "") -> Iterator[CreationSpan]:
        """Wraps the encoding of a message in a span of its own, if it is one of a batch."""
        if not self._batch:
            yield self
            return
        with self._spans.active(*self._spans.facts("create", actor, tenant, queue=queue), SpanKind.PRODUCER) as span:
            self._span.add_link(span.get_span_context())
            yield CreationSpan(self._spans, span)

    def is_duplicate_of(self, task_id: str) -> None:
        """Notes that nothing was sent, because an earlier task stands for the message."""
        self._span.set_attributes({"messaging.message.id": task_id, "messaging.fairactor.message.duplicate": True})


class AttemptSpan:
    """The span of an attempt at a task, or of the end of a task that never ran."""

    def __init__(self, span: trace.Span, restored: context.Context) -> None:
        self._span = span
        self._restored = restored

    @property
    def context(self) -> trace.SpanContext:
        """What links refer to."""
        return self._span.get_span_context()

    def link(self, span: trace.Span) -> None:
        """Links it to another span."""
        self._span.add_link(span.get_span_context())

    def enter(self) -> None:
        """Makes it the current span, for the rest of the handler's context."""
        context.attach(trace.set_span_in_context(self._span, self._restored))

    def fail(self, error: BaseException) -> None:
        """Notes how the attempt failed."""
        _fail(self._span, error)

    def interrupt(self) -> None:
        """Ends it, because the runtime gave up the task before the attempt ended."""
        _mark(self._span, _INTERRUPTED, "the runtime stopped or lost its lease, so the task returns to its mailbox")
        self._span.end()

    def cancel(self, reason: str) -> None:
        """Ends it, because the task was canceled."""
        self.give_up(_CANCELED, reason)

    def give_up(self, error_type: str, message: str) -> None:
        """Ends it, because the task failed outside of any attempt."""
        _mark(self._span, error_type, message)
        self._span.end()

    def put_off(self, delay: float) -> None:
        """Notes that the attempt does not count, and when the next one follows. That is no error."""
        self._span.set_attribute("messaging.fairactor.message.put_off", delay)

    def skip(self) -> None:
        """Ends it, because the task had nothing to do. That is no error."""
        self._span.set_attribute("messaging.fairactor.message.skipped", value=True)
        self._span.end()

    def end(self) -> None:
        """Ends it."""
        self._span.end()


class Spans:
    """Makes the spans of a runtime.

    Args:
        address: the name of the server, or the path of its socket.
        port: its port; None for a socket.
        as_children: whether an attempt belongs to the trace of the send. Otherwise it links to the send.
    """

    def __init__(self, address: str, port: int | None, *, as_children: bool) -> None:
        self._tracer = trace.get_tracer("fairactor", version(), schema_url=SCHEMA)
        self._server: dict[str, Any] = {"server.address": address} if address else {}
        if port is not None:
            self._server["server.port"] = port
        self._as_children = as_children

    # Sending and canceling

    @contextmanager
    def sending(self, actor: str, tenant: str, queue: str = "") -> Iterator[CreationSpan]:
        """Wraps the sending of a message."""
        with self.active(*self.facts("send", actor, tenant, queue=queue), SpanKind.PRODUCER) as span:
            yield CreationSpan(self, span)

    @contextmanager
    def sending_many(self, count: int, actors: Collection[str], tenants: Collection[str]) -> Iterator[CreationSpan]:
        """Wraps the sending of a batch. What all its messages share describes it."""
        actor, tenant = (next(iter(names)) if len(names) == 1 else "" for names in (actors, tenants))
        name, attributes = self.facts("send", actor, tenant)
        attributes["messaging.batch.message_count"] = count
        with self.active(name, attributes, SpanKind.CLIENT) as span:
            yield CreationSpan(self, span, batch=True)

    @contextmanager
    def canceling(self, task_id: str, tenant: str) -> Iterator[None]:
        """Wraps the cancellation of a task; the tenant may be unknown."""
        name, attributes = self.facts("cancel", "", tenant, task_id)
        with self.active(name, attributes, SpanKind.CLIENT):
            yield

    @contextmanager
    def canceling_many(self, count: int, tenants: Collection[str]) -> Iterator[None]:
        """Wraps the cancellation of many tasks; '' among the tenants stands for one that is not known."""
        name, attributes = self.facts("cancel", "", next(iter(tenants)) if len(tenants) == 1 else "")
        attributes["messaging.batch.message_count"] = count
        with self.active(name, attributes, SpanKind.CLIENT):
            yield

    @contextmanager
    def purging(self, tenant: str) -> Iterator[trace.Span]:
        """Wraps the cancellation of the waiting tasks of a tenant."""
        with self.active(*self.facts("purge", "", tenant), SpanKind.CLIENT) as span:
            yield span

    # Running

    def attempt(
        self,
        actor: str,
        tenant: str,
        task_id: str,
        attempt: int | None,
        carrier: dict[str, str],
        queue: str = "",
    ) -> AttemptSpan:
        """Starts the span of an attempt. What is not known of the task is empty.

        Args:
            actor: the name of its actor.
            tenant: its tenant.
            task_id: its id.
            attempt: the number of the attempt.
            carrier: the context that has travelled with it.
            queue: its queue.
        """
        name, attributes = self.facts("process", actor, tenant, task_id, queue=queue)
        if attempt is not None:
            attributes["messaging.fairactor.message.attempt"] = attempt
        found = restored(carrier) if carrier else context.Context()
        sent = trace.get_current_span(found).get_span_context()
        passed_on = context.Context() if LINK_ONLY in carrier else found
        if self._as_children and LINK_ONLY not in carrier:
            links = []
        else:  # a root, to which the sampler may apply baggage
            links = [trace.Link(sent)] if sent.is_valid else []
            passed_on = trace.set_span_in_context(trace.INVALID_SPAN, passed_on)
        span = self._tracer.start_span(name, passed_on, SpanKind.CONSUMER, attributes, links)
        return AttemptSpan(span, passed_on)

    @contextmanager
    def running_batch(self, actor: str, tenant: str, attempts: Sequence[AttemptSpan]) -> Iterator[None]:
        """Wraps one run of a handler for several attempts, in a span that is linked with theirs."""
        name, attributes = self.facts("process", actor, tenant)
        attributes["messaging.batch.message_count"] = len(attempts)
        links = [trace.Link(each.context) for each in attempts]
        with self.active(name, attributes, SpanKind.CONSUMER, links) as span:
            for each in attempts:
                each.link(span)
            yield

    # Details

    def facts(
        self, operation: str, actor: str, tenant: object, task_id: str = "", *, queue: str = ""
    ) -> tuple[str, dict[str, Any]]:
        """Returns the name and the attributes of a span. What is not known is empty."""
        kind = operation if operation in _TYPES else "settle"
        attributes: dict[str, Any] = {
            "messaging.system": "fairactor",
            "messaging.operation.name": operation,
            "messaging.operation.type": kind,
        }
        if tenant and isinstance(tenant, str):  # what else a sender gives is refused later
            attributes["messaging.destination.name"] = tenant
        if actor:
            attributes["messaging.destination.template"] = actor
            attributes["messaging.fairactor.actor"] = actor
        if queue and queue != DEFAULT_QUEUE:
            attributes["messaging.fairactor.queue"] = queue
        if task_id:
            attributes["messaging.message.id"] = task_id
        return f"{operation} {actor}" if actor else operation, attributes | self._server

    @contextmanager
    def active(
        self, name: str, attributes: Attributes, kind: SpanKind, links: Sequence[trace.Link] = ()
    ) -> Iterator[trace.Span]:
        """Wraps the block in a span, which fails as the block does."""
        span = self._tracer.start_span(name, None, kind, attributes, links)
        token = context.attach(trace.set_span_in_context(span))
        try:
            yield span
        except BaseException as error:
            _fail(span, error)
            raise
        finally:
            context.detach(token)
            span.end()


_TYPES: Final = frozenset({"create", "send", "process"})


def _fail(span: trace.Span, error: BaseException) -> None:
    """Notes an error. That of the SDK would raise what the code of the error's class raises."""
    if span.is_recording():
        kind, text = exception_names(error)[0], text_of(error)
        event = {"exception.type": kind, "exception.message": text, "exception.stacktrace": traceback_of(error)}
        span.add_event("exception", event)
        _mark(span, kind, text)


def _mark(span: trace.Span, error_type: str, message: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(Status(StatusCode.ERROR, f"{error_type}: {message[:_MESSAGE_LIMIT]}" if message else error_type))
