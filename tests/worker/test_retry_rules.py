"""Tests the retry rules without a server: which errors are retried, and after what delay."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairactor import Retry, actor
from fairactor._actors.retry import delay_before_next, may_retry
from fairactor._util.checks import CENTURY
from fairactor._util.failures import exception_name
from fairactor.errors import ConfigurationError


@actor
async def fail(text: str = "as told") -> None:
    raise ValueError(text)


# Delays


@given(st.floats(0, CENTURY), st.floats(0, CENTURY), st.integers(1, 10**12))
def test_a_back_off_is_never_longer_than_doubling_and_its_cap_allow(base: float, cap: float, attempt: int) -> None:
    delay = delay_before_next(ValueError(), attempt, {"backoff": base, "backoff_cap": cap})
    assert 0 <= delay <= cap
    assert delay <= Fraction(base) * 2 ** min(attempt - 1, 2000)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.integers(1, 100))
def test_a_back_off_may_be_as_long_as_they_allow(base: float, cap: float, attempt: int) -> None:
    most = float(min(Fraction(cap), Fraction(base) * 2 ** (attempt - 1)))
    delays = [delay_before_next(ValueError(), attempt, {"backoff": base, "backoff_cap": cap}) for _ in range(150)]
    assert max(delays) > 0.7 * most  # fails by chance once in 10^23 runs
    assert min(delays) < 0.3 * most


@pytest.mark.parametrize("attempt", [1, 2, 9, 65_535, 10**30])
def test_by_default_a_back_off_begins_with_a_second_and_ends_at_five_minutes(attempt: int) -> None:
    delays = [delay_before_next(ValueError(), attempt, {}) for _ in range(500)]
    most = {1: 1, 2: 2, 9: 256}.get(attempt, 300)
    assert 0.9 * most < max(delays) <= most
    assert min(delays) < 0.1 * most


def test_a_retry_may_say_how_long() -> None:
    assert delay_before_next(Retry(delay=7), 3, {"backoff": 0}) == 7
    assert delay_before_next(Retry(delay=0), 3, {"backoff": 5}) == 0
    assert delay_before_next(Retry(delay=timedelta(hours=1)), 1, {"backoff_cap": 5}) == 3600


# Retried errors


class Special(ConnectionError): ...


def names(*kinds: type[BaseException]) -> list[str]:
    return [exception_name(kind) for kind in kinds]


@pytest.mark.parametrize(
    ("error", "options", "again"),
    [
        (ValueError(), {}, True),
        (Special(), {"retry_on": names(ConnectionError)}, True),
        (Special(), {"retry_on": names(Exception)}, True),
        (ConnectionError(), {"retry_on": names(Special)}, False),
        (ValueError(), {"retry_on": names(ConnectionError, KeyError)}, False),
        (ValueError(), {"retry_on": []}, False),
        (ValueError(), {"no_retry_on": []}, True),
        (Special(), {"no_retry_on": names(OSError)}, False),
        (OSError(), {"no_retry_on": names(Special)}, True),
        (Special(), {"retry_on": names(OSError), "no_retry_on": names(Special)}, False),
        (Retry(), {"retry_on": names(KeyError), "no_retry_on": names(Retry)}, True),
        (ExceptionGroup("", [Special(), OSError()]), {"retry_on": names(OSError)}, True),
        (ExceptionGroup("", [Special(), ValueError()]), {"retry_on": names(OSError)}, False),
        (ExceptionGroup("", [ValueError()]), {"retry_on": names(ExceptionGroup)}, True),
        (ExceptionGroup("", [Special(), ValueError()]), {"no_retry_on": names(OSError)}, True),
        (ExceptionGroup("", [Special()]), {"no_retry_on": names(OSError)}, False),
    ],
)
def test_errors_are_told_apart_by_their_types(error: Exception, options: dict[str, Any], again: bool) -> None:
    assert may_retry(error, 1, options | {"max_retries": 1}) is again
    assert not may_retry(error, 2, options | {"max_retries": 1}), "there is none left"
    assert not may_retry(error, 1, options), "there never was one"


KINDS: Sequence[type[Exception]] = (OSError, Special, ConnectionError, KeyError, LookupError, ValueError)
TREES: st.SearchStrategy[Exception] = st.recursive(
    st.sampled_from(KINDS).map(lambda kind: kind()),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda errors: ExceptionGroup("of some", errors)),
)


def leaves(error: BaseException) -> list[BaseException]:
    return (
        [leaf for each in error.exceptions for leaf in leaves(each)] if isinstance(error, ExceptionGroup) else [error]
    )


@given(TREES, st.sets(st.sampled_from(KINDS)), st.sets(st.sampled_from(KINDS)))
def test_of_a_group_all_that_is_in_it_counts(
    error: Exception, only: set[type[Exception]], never: set[type[Exception]]
) -> None:
    wanted = all(isinstance(leaf, tuple(only)) for leaf in leaves(error))
    refused = all(isinstance(leaf, tuple(never)) for leaf in leaves(error))
    options = {"max_retries": 1, "retry_on": names(*only), "no_retry_on": names(*never)}
    assert may_retry(error, 1, options) is (wanted and not refused)


def test_types_of_errors_are_names_and_nothing_is_imported_by_them() -> None:
    options = {"max_retries": 1, "retry_on": ["antigravity.Error", "no.such.module.Error"]}
    assert not may_retry(ValueError(), 1, options)
    assert "antigravity" not in sys.modules
    named_so = type("Error", (Exception,), {"__module__": "no.such.module"})
    assert may_retry(named_so(), 1, options)


DURATIONS: Sequence[Any] = (-1, float("nan"), float("inf"), "5", True, timedelta(seconds=-1), 1e300)
NO_TYPES: Sequence[Any] = ("ValueError", ValueError(), [int], [ValueError, "KeyError"], 5, {"a": 1})


@pytest.mark.parametrize(
    ("option", "bad"),
    [(option, bad) for option in ("backoff", "backoff_cap") for bad in DURATIONS]
    + [(option, bad) for option in ("retry_on", "no_retry_on") for bad in NO_TYPES],
)
def test_an_option_that_cannot_work_is_refused_by_name(option: str, bad: Any) -> None:
    for use in (actor, fail().options):
        with pytest.raises(ConfigurationError, match=f"{option}="):
            use(**{option: bad})
