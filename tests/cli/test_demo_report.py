"""Tests the demo's report, its charts, and its picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from fairactor.demo.bars import bars
from fairactor.demo.layout import choose_rows, seconds, short, span
from fairactor.demo.report import AllFailed, make_report
from fairactor.demo.screen import Screen
from fairactor.demo.sources import Source
from fairactor.demo.survey import Survey
from fairactor.demo.table import table, verdict
from fairactor.demo.workload import Progress

from .conftest import TREE


def played(sizes: dict[str, int], *, failed: Sequence[int] = ()) -> Progress:
    """Makes a run in which one process served the tenants in turn, one second per task."""
    progress = Progress(processes=1)
    progress.begin([Source(tenant, tuple(f"{n}.py" for n in range(size)), 5) for tenant, size in sizes.items()])
    progress.queued_at = 100.0
    turn = {number: progress.places[:number].count(place) for number, place in enumerate(progress.places)}
    order = sorted(turn, key=lambda number: (turn[number], progress.places[number]))
    for second, number in enumerate(order):
        if number in failed:
            progress.note_failure(number)
        else:
            progress.note(number, Survey(10, 2, 1, 200, "", 0, 100.0 + second, 101.0 + second))
    return progress


MANY = {f"tenant-{size}-of-a-rather-long-name": size for size in range(60, 0, -1)}


def drawn(what: RenderableType | list[Any], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    for part in what if isinstance(what, list) else [what]:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_report_tells_waits_and_fairness_of_the_run_and_of_a_fifo() -> None:
    report = make_report(played({"big": 20, "small": 2}))
    big, small = report.tenants
    assert (big.fair.first, small.fair.first) == (0, 1)
    assert (big.fifo.first, small.fifo.first) == (0, 20)
    assert small.fair.median == 2
    assert small.fifo.median == 20.5
    assert (small.fair.throughput, small.fifo.throughput) == (0.5, pytest.approx(2 / 22))
    assert (report.compared, report.least) == (2, 2)
    assert report.jain == pytest.approx(1)
    assert report.fifo_jain == pytest.approx(1 / 2)
    assert (report.contents.lines, report.left_out, report.tasks) == (220, 10, 22)


def test_failed_tasks_are_left_out_and_told() -> None:
    report = make_report(played({"a": 3, "b": 1}, failed=[3]))
    assert [tenant.tenant for tenant in report.tenants] == ["a"]
    assert (report.tasks, report.failed) == (3, 1)
    assert any("1 tasks failed" in line for line in drawn(verdict(report), 80))
    with pytest.raises(AllFailed, match="all 2 tasks failed"):
        make_report(played({"a": 2}, failed=[0, 1]))


@given(st.integers(1, 300), st.integers(3, 60))
def test_rows_go_to_the_largest_the_smallest_and_some_between(tenants: int, rows: int) -> None:
    chosen = choose_rows(tenants, rows)
    assert chosen == sorted(set(chosen))
    assert (chosen[0], chosen[-1]) == (0, tenants - 1)
    assert len(chosen) == (tenants if tenants <= rows else rows - 1)
    assert chosen[: rows // 2] == list(range(min(tenants, rows // 2)))


@given(st.floats(0, 10), st.floats(0, 10), st.floats(0, 10), st.integers(1, 40))
def test_a_line_of_time_has_its_width_and_shows_something(a: float, b: float, rest: float, width: int) -> None:
    line = span(a, a + b, a + b + rest, width)
    assert len(line) == width
    assert line.strip()
    assert " " not in line.strip()


def test_numbers_are_short() -> None:
    assert [short(value) for value in (0, 0.004, 9.996, 99.96, 12345.6)] == ["0.00", "0.00", "10.0", "100", "12,346"]
    assert seconds(1.234) == "1.23 s"


@pytest.mark.parametrize("width", [60, 80, 112, 200])
@pytest.mark.parametrize("sizes", [{"one": 1}, {"two": 2, "one": 1}, MANY])
def test_the_table_fits(width: int, sizes: dict[str, int]) -> None:
    report = make_report(played(sizes))
    lines = drawn(table(report, 12, width), width)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 12 + 6
    if width >= 80:
        assert not any("…" in line[29:] for line in lines), "names may be cut, numbers not"
        assert any("median" in line for line in lines)
        assert any(f"{report.tasks:,}" in line for line in lines)
    assert ("━" in "".join(lines)) == (width > 80)


@pytest.mark.parametrize("width", [80, 120])
def test_the_bars_fit_and_count_those_without_a_row(width: int) -> None:
    progress = played(MANY)
    lines = drawn(bars(progress, rows=10), width)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 13
    assert any("… and 51 more" in line for line in lines)
    assert any("60/60" in line for line in lines)


def test_the_bars_before_there_is_anything_to_show() -> None:
    progress = Progress(processes=2)
    assert "looking for tenants" in drawn(bars(progress, rows=10), 80)[0]
    progress.begin([Source("a", ("x.py",))])
    assert "1 files of 1 tenants found" in drawn(bars(progress, rows=10), 80)[0]
    progress.queued_at = 0.0
    assert "waits" in drawn(bars(progress, rows=10), 80)[1]


@pytest.mark.anyio
async def test_a_terminal_gets_bars_while_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    async with anyio.create_task_group() as group:
        group.start_soon(Screen().follow, played(TREE))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    said = capsys.readouterr().out
    assert "12/12" in said
    assert said.rindex("\x1b[?25h") > said.index("\x1b[?25l"), "the cursor is shown again"


def test_the_picture_loads_nothing_from_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(quiet=True, every_tenant=True)
    screen.finish(make_report(played(MANY)))
    screen.save(tmp_path / "picture.svg")
    picture = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    assert "font-face" not in picture
    assert "url(http" not in picture
    assert "href" not in picture
    assert "Jain" in picture
    assert picture.count("-of-a-rather") == len(MANY) + 1  # the verdict names the smallest
    assert not capsys.readouterr().out
