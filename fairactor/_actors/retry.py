"""Retries: how a handler asks for a retry, which errors are retried, and the pause before the next attempt."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final

from fairactor._util.backoff import doubled
from fairactor._util.checks import check_bool, check_seconds, to_seconds
from fairactor._util.failures import exception_names

BACKOFF: Final = 1.0
"""The longest pause before the second attempt, in seconds; it doubles with each further attempt."""
BACKOFF_CAP: Final = 300.0
"""No pause is longer than this many seconds."""
MOST_UNCOUNTED: Final = 10_000
"""How many retries of a task need not count. Those after them count, so that no task goes on for ever."""


class Retry(Exception):
    """A handler raises this to ask for another attempt, regardless of ``retry_on`` and ``no_retry_on``.

    The attempt counts: when ``max_retries`` are used up, the task fails. With ``count=False`` the handler says that it
    could not try, for example because a service answered 429 with a Retry-After: the task comes back later as the same
    attempt. It may do so 10,000 times, and not beyond ``expires``.

    Args:
        message: the reason, for the history of the task.
        delay: the seconds (or a timedelta) until the next attempt. None uses the task's ``backoff``.
        count: whether the attempt counts towards ``max_retries``.
    """

    def __init__(
        self,
        message: str = "the handler asked for a retry",
        *,
        delay: float | timedelta | None = None,
        count: bool = True,
    ) -> None:
        super().__init__(message)
        after = to_seconds(delay)
        self.delay = None if after is None else check_seconds("Retry(delay=)", after)
        self.count = check_bool("Retry(count=)", count)


class UnstorableResult(Exception):
    """A handler has returned, but its result cannot be stored. The task fails at once, because its work is done.

    Attributes:
        reason: the error with which the task fails.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


Retry.__module__ = "fairactor"  # where users import it; the history of a task names it so


def may_retry(error: BaseException, attempt: int, options: Mapping[str, Any], max_retries: int = 0) -> bool:
    """Whether another attempt follows one that failed with this error.

    Args:
        error: the error that the handler raised.
        attempt: the number of the failed attempt, from 1.
        options: the options that travel with the task.
        max_retries: how many retries a task has whose options do not say it.
    """
    if attempt > options.get("max_retries", max_retries):
        return False
    if isinstance(error, Retry):
        return True
    only, never = options.get("retry_on"), options.get("no_retry_on")
    return (only is None or _is_one_of(error, only)) and (never is None or not _is_one_of(error, never))


def delay_before_next(error: BaseException, attempt: int, options: Mapping[str, Any]) -> float:
    """Returns the seconds until the next attempt: exponential back-off with full jitter, unless the error has a delay.

    See Brooker 2015, "Exponential Backoff And Jitter".
    """
    if isinstance(error, Retry) and error.delay is not None:
        return error.delay
    longest = doubled(options.get("backoff", BACKOFF), attempt - 1, options.get("backoff_cap", BACKOFF_CAP))
    return random.uniform(0, longest)  # noqa: S311 - jitter


def _is_one_of(error: BaseException, names: Iterable[str]) -> bool:
    if not set(names).isdisjoint(exception_names(error)):
        return True
    return isinstance(error, BaseExceptionGroup) and all(_is_one_of(each, names) for each in error.exceptions)
