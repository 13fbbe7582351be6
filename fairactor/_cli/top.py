"""The command ``fairactor top``."""

from __future__ import annotations

from pathlib import Path

import click

from .connect import Connection
from .options import connection_options, whole_number

_VIEWS = ("tenants", "queues", "limits", "workers", "failures")
_LEAST = 0.1  # seconds


@click.command()
@connection_options
@click.option("--view", type=click.Choice(_VIEWS), help="What to show first.")
@click.option("--order", metavar="NAME", help="The order, such as backlog, oldest, share, running or name.")
@click.option("--filter", "text", metavar="TEXT", default="", help="Only tenants (or others) with TEXT in the name.")
@click.option("--interval", type=float, default=1.0, show_default=True, help="The seconds between two readings.")
@click.option("--once", is_flag=True, help="Print one screen, and end. Without a terminal it does so anyway.")
@click.option("--json", is_flag=True, help="Print JSON lines: the totals, then an object for each row.")
@click.option("--rows", type=whole_number(1), default=50, show_default=True, help="Most rows of a view with --json.")
@click.option("--svg", type=click.Path(path_type=Path), metavar="FILE", help="Print once, and save it as a picture.")
def top(
    connection: Connection,
    view: str | None,
    order: str | None,
    text: str,
    interval: float,
    once: bool,  # noqa: FBT001 - click gives options by name
    json: bool,  # noqa: FBT001 - as above
    rows: int,
    svg: Path | None,
) -> int:
    """Watch a namespace: tenants, queues, limits, workers and failures.

    On a terminal it is a full screen that stays up to date; press ? for the keys.
    """
    if not interval >= _LEAST:
        raise click.BadParameter(f"{interval:g}: give {_LEAST:g} seconds or more", param_hint="--interval")
    connection.settings()  # says what is missing before the screen changes
    try:
        from fairactor._top.command import TopOptions, run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise
        raise click.ClickException('the screen needs rich: pip install "fairactor[cli]"') from None
    from fairactor._top.model import ORDERS, View

    chosen = None if view is None else View(view)
    orders = ORDERS[chosen or View.TENANTS]
    if order is not None and order not in orders:
        raise click.BadParameter(f"{order!r}: give one of {', '.join(orders)}", param_hint="--order")
    return run(TopOptions(chosen, order, text, interval, once, json, rows, svg), connection.open)
