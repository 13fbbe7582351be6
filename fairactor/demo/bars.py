"""The display of the running demo: a progress bar for each tenant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .layout import choose_rows, seconds
from .workload import Progress

_NAME: Final = 24  # the most columns for a tenant's name


def bars(progress: Progress, rows: int) -> RenderableType:
    """Draws the current progress."""
    if not progress.sources:
        return Text("looking for tenants …", style="dim")
    if progress.queued_at is None:
        files, tenants = len(progress.places), len(progress.sources)
        return Text(f"{files:,} files of {tenants} tenants found …", style="dim")
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(max_width=_NAME, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    chosen = choose_rows(len(progress.sources), rows)
    for place in chosen:
        grid.add_row(*_row(progress, progress.sources[place].tenant, [place]))
    others = sorted(set(range(len(progress.sources))) - set(chosen))
    if others:
        grid.add_row(*_row(progress, f"… and {len(others)} more", others))
    return Group(_title(progress), grid, _footer(progress))


def _row(progress: Progress, name: str, places: Iterable[int]) -> list[RenderableType]:
    places = list(places)
    done = sum(progress.settled[place] for place in places)
    total = sum(len(progress.sources[place].files) for place in places)
    waits = [progress.first_waits[place] for place in places]
    known = [wait for wait in waits if wait is not None]
    wait = Text(seconds(max(known)), style="cyan") if len(known) == len(waits) else Text("waits", style="dim")
    bar = ProgressBar(total=total, completed=done, complete_style="magenta", finished_style="green")
    return [Text(name, style="dim" if len(places) > 1 else ""), bar, Text(f"{done:,}/{total:,}"), wait]


def _title(progress: Progress) -> Table:
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    tenants, processes = len(progress.sources), progress.processes
    line.add_row(
        Text.assemble(("fairactor", "bold"), f"  {tenants} tenants share {processes} worker processes"),
        Text("done   first wait", style="dim"),
    )
    return line


def _footer(progress: Progress) -> Table:
    done, total, elapsed = sum(progress.settled), len(progress.places), progress.elapsed
    speed = done / elapsed if elapsed else 0.0
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    left = f"about {(total - done) / speed:.0f} s left" if speed and elapsed > 1 else ""
    line.add_row(
        Text.assemble((f"{done:,}", "bold"), f" of {total:,} files   ", (f"{speed:,.0f}", "bold"), " a second"),
        Text.assemble((left, "dim"), f"   {elapsed:.1f} s"),
    )
    return line
