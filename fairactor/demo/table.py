"""The table and the verdict at the end of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from .layout import choose_rows, seconds, short, span
from .report import Report, Served, TenantReport

_NAME: Final = (10, 28)  # the least and the most columns for a tenant's name
_NUMBER: Final = 7  # columns for a number or a time
_FILES: Final = 6
_FIXED: Final = 6 * _NUMBER + _FILES + 9  # columns for all but names and timelines, with the gaps
_LINE: Final = 8  # the least useful columns for a timeline


def table(report: Report, rows: int, width: int) -> RenderableType:
    """Draws a row for each of at most ``rows`` tenants: its waits with fairactor, and in one FIFO queue."""
    chosen = choose_rows(len(report.tenants), rows)
    shown = [report.tenants[place] for place in chosen]
    left_over = len(report.tenants) - len(shown)
    least, most = _NAME
    room = max(least, min(most, width - _FIXED, max(len(tenant.tenant) for tenant in shown)))
    line = (width - _FIXED - room) // 2 - 1
    line = line if line >= _LINE else 0
    whole = max(report.fair.ended, report.fifo.ended)
    sides = Table.grid(padding=(0, 2, 0, 0))
    names = _names(report, shown, left_over, room)
    fair = _side("waits with fairactor", "green", whole, line)
    fifo = _side("waits in one FIFO queue", "yellow", whole, line)
    for drawn, served, overall in (
        (fair, [tenant.fair for tenant in shown], report.fair),
        (fifo, [tenant.fifo for tenant in shown], report.fifo),
    ):
        for each in served:
            drawn.add_row(*_cells(each, whole, line))
        if left_over:
            drawn.add_row()
        drawn.add_row("", *_cells(overall, whole, 0)[1:], style="bold")
    sides.add_row(names, fair, fifo)
    return sides


def _names(report: Report, shown: Sequence[TenantReport], left_over: int, room: int) -> Table:
    drawn = _empty_table(" ")
    drawn.add_column("tenant", width=room, no_wrap=True, overflow="ellipsis")
    drawn.add_column("files", width=_FILES, justify="right", no_wrap=True)
    for tenant in shown:
        drawn.add_row(Text(tenant.tenant), f"{tenant.tasks:,}")
    if left_over:
        others = report.tasks - sum(tenant.tasks for tenant in shown)
        drawn.add_row(f"… and {left_over} more", f"{others:,}", style="dim")
    drawn.add_row("all", f"{report.tasks:,}", style="bold")
    return drawn


def _side(title: str, style: str, whole: float, line: int) -> Table:
    drawn = _empty_table(Text(title, style=f"bold {style}"))
    for name in ("first", "median", "files/s"):
        drawn.add_column(name, width=_NUMBER, justify="right", no_wrap=True, style=style)
    if line:
        drawn.add_column(_axis(whole, line), width=line, no_wrap=True, style=style)
    return drawn


def _cells(served: Served, whole: float, line: int) -> list[str]:
    cells = [seconds(served.first), seconds(served.median), short(served.throughput)]
    return [*cells, span(served.first, served.ended, whole, line)] if line else cells


def _empty_table(title: str | Text) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
        pad_edge=False,
        header_style="dim",
    )


def _axis(whole: float, width: int) -> str:
    end = seconds(whole)
    return "0 s" + end.rjust(width - 3)


def verdict(report: Report) -> list[Text]:
    """Says in words what the table shows."""
    last = report.tenants[-1]
    files = "1 file" if last.tasks == 1 else f"{last.tasks:,} files"
    contents = report.contents
    lines = [
        Text(),
        Text.assemble(
            f"The smallest tenant ({last.tenant}, {files}) waited ",
            (seconds(last.fair.first), "bold green"),
            "; one FIFO would have made it wait ",
            (seconds(last.fifo.first), "bold yellow"),
            ".",
        ),
        Text.assemble(
            "Jain's index while all had work: ",
            (f"{report.jain:.3f}", "bold green"),
            " of 1; in one FIFO ",
            (f"{report.fifo_jain:.3f}", "bold yellow"),
            f". ({report.compared} tenants with {report.least} files or more)",
        ),
        Text(
            f"{report.tasks:,} files in {seconds(report.fair.ended)}: {contents.lines:,} lines, "
            f"{contents.functions:,} functions, {contents.classes:,} classes; {contents.errors:,} do not parse.",
            style="dim",
        ),
    ]
    if report.failed:
        lines.append(Text(f"{report.failed:,} tasks failed and are not included above.", style="bold red"))
    if report.left_out:
        lines.append(Text(f"{report.left_out:,} more files were left out; --limit 0 takes all.", style="dim"))
    return lines
