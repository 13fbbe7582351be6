"""Carries the OpenTelemetry context of a sender to the handler: its trace and its baggage.

This takes the API alone. With an SDK there are spans, too, see `spans`.
"""

from __future__ import annotations

from typing import Final

from opentelemetry import baggage, context, propagate, trace

LINK_ONLY: Final = "fairactor-link"
"""Marks the context of what is sent again and again: its tasks link to it, and do not go on with it."""


def carried(span: trace.Span | None = None) -> dict[str, str]:
    """Returns the caller's context as it travels with a task; {} if there is none.

    Args:
        span: the span that the task refers to. None means the caller's.
    """
    carrier: dict[str, str] = {}
    if span is not None:
        propagate.inject(carrier, trace.set_span_in_context(span))
    elif context.get_current():
        propagate.inject(carrier)
    return carrier


def carried_by_template() -> dict[str, str]:
    """Returns the caller's trace for what is sent again and again, perhaps for years; {} if there is none."""
    carrier: dict[str, str] = {}
    if trace.get_current_span().get_span_context().is_valid:
        propagate.inject(carrier, baggage.clear())
        carrier[LINK_ONLY] = ""
    return carrier


def leave() -> None:
    """Leaves the current context: what runs from now on in the context of the code belongs to nobody's trace."""
    if context.get_current():
        context.attach(context.Context())


def restored(carrier: dict[str, str]) -> context.Context:
    """Returns the context that has travelled with a task."""
    return propagate.extract(carrier, context.Context())


def restore(carrier: dict[str, str]) -> None:
    """Makes the context that has travelled with a task the current one, for the rest of the handler's context."""
    if LINK_ONLY not in carrier:
        context.attach(restored(carrier))
