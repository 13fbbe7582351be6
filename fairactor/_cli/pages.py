"""Listings in pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from .options import Page
from .output import Output, Part, Table

if TYPE_CHECKING:
    from fairactor.runtime import Runtime

Read = Callable[["Runtime", int, str | None], Awaitable[tuple[Table, str | None]]]
"""Reads a page, given its size and the mark of the page before; returns it with the mark for the next one."""


async def show_pages(runtime: Runtime, output: Output, page: Page, read: Read) -> None:
    """Prints a page, and says how to get the next one; or all pages."""
    if output.watch is not None and not page.everything:

        async def look() -> Sequence[Part]:
            return [(await read(runtime, page.limit, page.after))[0]]

        await output.follow(look)
        return
    after, first = page.after, True
    while True:
        table, after = await read(runtime, page.limit, after)
        if first or table.records:
            output.show(table)
        first = False
        if after is None:
            return
        if not page.everything:
            output.note(f"there are more: --after {after!r}, or --all")
            return
