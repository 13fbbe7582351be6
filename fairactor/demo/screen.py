"""The display of the demo: progress bars while it runs, then a table. Only the display needs rich."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Final

import anyio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from .bars import bars
from .report import Report
from .table import table, verdict
from .workload import Progress

_FRAME: Final = 0.1  # seconds between two frames
_PICTURE: Final = 112  # columns of the picture if the output is not a terminal
_WEB_FONT: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class _Console(Console):
    """A console that leaves broken pipes to the command line."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Screen:
    """Displays the demo on a terminal, or writes the final report to a file or a pipe.

    Args:
        quiet: display nothing; the report can still be saved as a picture.
        every_tenant: give each tenant a row, even if they do not fit on the screen.
    """

    def __init__(self, *, quiet: bool = False, every_tenant: bool = False) -> None:
        self._console = _Console(file=io.StringIO() if quiet else sys.stdout, highlight=False, emoji=False)
        self._every_tenant = every_tenant
        self._report: Report | None = None

    async def follow(self, progress: Progress) -> None:
        """Displays the progress until canceled. If the output is not a terminal, it only prints when the run begins."""
        console = self._console
        if not console.is_terminal:
            await progress.queued.wait()
            self._print(_beginning(progress))
            return
        with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
            while True:
                live.update(bars(progress, rows=max(6, min(24, console.height - 4))), refresh=True)
                await anyio.sleep(_FRAME)

    def finish(self, report: Report) -> None:
        """Displays the report."""
        self._report = report
        self._print(self._drawn(report, self._console.width))

    def save(self, file: Path) -> None:
        """Saves the report as an SVG picture. The picture refers to no web fonts, so it loads nothing.

        Raises:
            OSError: the file cannot be written.
        """
        if self._report is None:
            return
        width = self._console.width if self._console.is_terminal else _PICTURE
        recorder = Console(
            file=io.StringIO(), record=True, width=width, force_terminal=True, color_system="truecolor", highlight=False
        )
        recorder.print(self._drawn(self._report, width))
        picture = recorder.export_svg(title="fairactor demo", unique_id="fairactor-demo")
        file.write_text(_WEB_FONT.sub("", picture), encoding="utf-8")

    def _drawn(self, report: Report, width: int) -> RenderableType:
        rows = len(report.tenants) if self._every_tenant else max(8, min(20, self._console.height - 12))
        return Group(table(report, rows, width), *verdict(report))

    def _print(self, content: RenderableType) -> None:
        self._console.print(content)
        self._console.file.flush()


def _beginning(progress: Progress) -> Text:
    tenants, tasks = len(progress.sources), len(progress.places)
    return Text(f"{tasks:,} files of {tenants} tenants are queued; {progress.processes} worker processes start on them")
