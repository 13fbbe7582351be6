"""Changes to many things at once: counted first, confirmed, and done with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from .connect import Connection
from .exits import OK, PROBLEM
from .options import Bulk
from .output import Output
from .text import count, visible

if TYPE_CHECKING:
    from fairactor.runtime import Runtime

Progress = Callable[[int, int], None]
Count = Callable[["Runtime"], Awaitable[tuple[int, bool]]]
"""Returns how many there are, and whether there may be more."""
Change = Callable[["Runtime", Progress], Awaitable[int]]
"""Changes them; returns how many it has changed."""


def change_many(
    connection: Connection, output: Output, bulk: Bulk, *, noun: str, verb: str, done: str, look: Count, change: Change
) -> int:
    """Counts what a command would change, asks, and changes it; returns the exit code.

    Args:
        connection: where.
        output: how it prints.
        bulk: what the options say.
        noun: what is changed, such as ``task``.
        verb: what is done, as in "cancel 3 tasks?".
        done: likewise, as in "canceled 3 tasks".
        look: counts them.
        change: changes them.
    """
    found, more = connection.run(look)
    what = ("at least " if more else "") + count(found, noun)
    if bulk.dry_run or not found:
        output.say(
            f"{what} would be {done}" if found else f"no {noun} matches",
            record={"matches": found, "complete": not more, done: 0, "dry_run": bulk.dry_run},
        )
        return OK
    if not bulk.yes and not _confirmed(verb, what):
        output.note("nothing was changed")
        return PROBLEM
    changed = connection.run(lambda runtime: _change(runtime, output, change, found, done))
    output.say(
        f"{count(changed, noun)} {done}",
        record={"matches": found, "complete": not more, done: changed, "dry_run": False},
    )
    return OK


def check_filter(given: object, bulk: Bulk, what: str, *, way_out: str = "add --tenant, another filter") -> None:
    """Refuses to change everything by mistake.

    Raises:
        click.UsageError: there is no filter, and no ``--all-tenants``; or both.
    """
    if not given and not bulk.all_tenants:
        raise click.UsageError(f"without a filter this takes all {what} of all tenants: {way_out}, or --all-tenants")


def _confirmed(verb: str, what: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(
            f"this would {verb} {what}, and without a terminal nobody can confirm it: add --yes, or --dry-run to count"
        )
    return click.confirm(visible(f"{verb} {what}?"), err=True)


async def _change(runtime: Runtime, output: Output, change: Change, found: int, done: str) -> int:
    if output.json or not sys.stderr.isatty():
        return await change(runtime, lambda _done, _looked: None)
    bar: Any
    with click.progressbar(length=found, label=done, file=sys.stderr) as bar:

        def show(changed: int, _: int) -> None:
            bar.update(min(changed, found) - bar.pos)

        return await change(runtime, show)
