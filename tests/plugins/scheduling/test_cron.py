"""Holds cron expressions against a cron daemon that looks at the clock every minute."""

from __future__ import annotations

import datetime as dt
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

import pytest
from fairactor_scheduling._cron import check_cron
from fairactor_scheduling._times import Cron, in_ms, moment

from fairactor.errors import ConfigurationError
from tests.support.scheduling.cron_walker import DAY, Walker
from tests.support.scheduling.random_cron import random_expression

ZONES: Final = [
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Havana",
    "Asia/Beirut", "Africa/Casablanca", "Pacific/Apia", "America/St_Johns", "Pacific/Chatham",
]  # fmt: skip
END: Final = dt.date(2099, 12, 28)


def is_refused(expression: str) -> bool:
    """Whether an expression is refused because no date matches it."""
    try:
        check_cron(expression)
    except ConfigurationError as refused:
        if "there is no date" not in str(refused):
            raise
        return True
    return False


def compare(seed: int, many: int) -> None:
    """Compares the next times of random expressions with those of the walker."""
    random = Random(seed)
    for _ in range(many):
        expression, zone = random_expression(random), random.choice(ZONES)
        start = dt.datetime(random.randint(1971, 2097), 1, 1, tzinfo=dt.UTC) + random.random() * 366 * DAY
        if random.random() < 0.5:  # often, around a change of the clock
            start = start.replace(month=random.choice([3, 4, 10, 11]), day=random.randint(1, 30))
        walker = Walker(expression, zone)
        if is_refused(expression):
            assert not walker.has_any_date(), expression
            continue
        cron = Cron(expression, ZoneInfo(zone), "s")
        for _ in range(2):
            at = cron.after(in_ms(start) - 1 if start.microsecond % 1000 == 0 else in_ms(start))
            found = None if at is None else moment(at)
            last = END if found is None or found.date() > END else found.date() + DAY
            wanted = walker.first(start, last)
            assert (found if found and found.date() <= END else None) == wanted, f"{expression!r} {zone} from {start}"
            if found is None or wanted is None:
                break
            start = found + dt.timedelta(milliseconds=1)


def test_every_expression_means_what_cron_says() -> None:
    compare(1, 300)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 140))
def test_a_hundred_thousand_expressions_mean_what_cron_says(seed: int) -> None:
    compare(seed, 2500)
