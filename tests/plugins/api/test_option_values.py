"""Tests plugin options that are given as typed values, which type checkers can check."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from fairactor import Runtime, Task, actor
from fairactor.errors import ConfigurationError
from fairactor.plugins import Option
from tests.support.plugins import Named
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

day: Option[date] = Option("report_day", plugin="reports", convert=date.isoformat)


class Reports(Named):
    def started(self, task: Task) -> None:
        self.log.append(task.options)


@actor(day(date(2026, 1, 1)), timeout=9)
async def report() -> None: ...


async def test_they_are_given_wherever_options_are(make_runtime: Make) -> None:
    plugin = Reports("reports")
    async with make_runtime(report, plugins=[plugin]) as runtime:
        await runtime.ask("t", report(), timeout=PATIENCE)
        await runtime.ask("t", report().options(day(date(2026, 1, 2)), timeout=8), timeout=PATIENCE)
        await runtime.ask("t", report(), day(date(2026, 1, 3)), timeout=PATIENCE)
        await (await runtime.send("t", report(), day(date(2026, 1, 4)))).result(PATIENCE)
        await (await runtime.tenant("t").send(report(), day(date(2026, 1, 5)))).result(PATIENCE)
        await runtime.ask("t", report().options(report_day=date(2026, 1, 6)), timeout=PATIENCE)  # type: ignore[call-arg]
    assert plugin.log == [
        {"report_day": f"2026-01-0{number}", "timeout": 8 if number == 2 else 9} for number in range(1, 7)
    ]


def test_what_is_not_an_option_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="got 5 instead of an option: give options by name"):
        report().options(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="option 'report_day' is given twice"):
        report().options(day(date(2026, 1, 1)), report_day=date(2026, 1, 2))  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="@actor takes one handler, but got 2"):
        actor(report, report)  # type: ignore[call-overload]
