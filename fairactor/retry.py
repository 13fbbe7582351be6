"""Another attempt: how a handler asks for one, which errors get one, and how long it waits."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from .errors import RemoteError
from .settings import duration, seconds

BACKOFF: Final = 1.0
"""Seconds before the second attempt, at most; doubled for each one after it."""
BACKOFF_CAP: Final = 300.0
"""Seconds that no back-off exceeds."""

_DOUBLINGS: Final = 63  # more would be no number any more


class Retry(Exception):
    """Raised by a handler to ask for another attempt, ``delay`` seconds from now, whatever the error filters say.

    Without a delay the actor's back-off decides. It counts as an attempt: when ``max_retries`` are used up the
    task fails.
    """

    def __init__(
        self, message: str = "the handler asked for a retry", *, delay: float | timedelta | None = None
    ) -> None:
        super().__init__(message)
        after = duration(delay)
        self.delay = None if after is None else seconds("Retry(delay=)", after)


def name_of(kind: type[BaseException]) -> str:
    """The name by which a type of exception travels; nothing is ever imported by it."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def names_of(error: BaseException) -> Sequence[str]:
    """The name of an error's type, then those of its bases; also of one that could not be carried over as it is."""
    if isinstance(error, RemoteError) and error.types:
        return error.types
    return [name_of(kind) for kind in type(error).__mro__ if issubclass(kind, BaseException)]


def may_retry(error: BaseException, attempt: int, options: Mapping[str, Any]) -> bool:
    """Whether an attempt that failed with this error is followed by another one.

    Args:
        error: what the handler raised.
        attempt: the number of the attempt, from 1.
        options: those of the task, as they travel.
    """
    if attempt > options.get("max_retries", 0):
        return False
    if isinstance(error, Retry):
        return True
    only, never = options.get("retry_on"), options.get("no_retry_on")
    return (only is None or _is_one_of(error, only)) and (never is None or not _is_one_of(error, never))


def delay_before_next(error: BaseException, attempt: int, options: Mapping[str, Any]) -> float:
    """Seconds until the next attempt: exponential back-off with full jitter, unless the error says how long.

    Brooker 2015, "Exponential Backoff And Jitter".
    """
    if isinstance(error, Retry) and error.delay is not None:
        return error.delay
    most: float = options.get("backoff", BACKOFF) * 2.0 ** min(attempt - 1, _DOUBLINGS)
    return random.uniform(0, min(options.get("backoff_cap", BACKOFF_CAP), most))  # noqa: S311 - jitter


def _is_one_of(error: BaseException, names: Iterable[str]) -> bool:
    if not set(names).isdisjoint(names_of(error)):
        return True
    return isinstance(error, BaseExceptionGroup) and all(_is_one_of(each, names) for each in error.exceptions)
