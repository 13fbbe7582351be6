"""Asking for another attempt."""

from __future__ import annotations

from datetime import timedelta

from .settings import duration, seconds


class Retry(Exception):
    """Raised by a handler to ask for another attempt, ``delay`` seconds from now.

    Without a delay the actor's back-off decides. It counts as an attempt: when ``max_retries`` are used up the
    task fails.
    """

    def __init__(
        self, message: str = "the handler asked for a retry", *, delay: float | timedelta | None = None
    ) -> None:
        super().__init__(message)
        after = duration(delay)
        self.delay = None if after is None else seconds("Retry(delay=)", after)
