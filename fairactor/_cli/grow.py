"""The command ``fairactor grow``: adds shards to a namespace that runs, and shows how far it is."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from .connect import Connection
from .options import connection_options, whole_number

if TYPE_CHECKING:
    from fairactor.runtime import Runtime

_EACH: Final = 5.0  # seconds between two lines


@click.command()
@click.argument("shards", type=whole_number(1))
@connection_options
@click.option("--aging", type=float, hidden=True, help="Has no effect any more: the namespace says it.")
def grow(shards: int, connection: Connection, aging: float | None) -> None:  # noqa: ARG001 - see its help
    """Add shards to a namespace while it runs.

    SHARDS is the number of all shards, at least as many as before. Returns once all tenants have moved that should. If
    it is interrupted, the runtimes of the namespace go on; calling it again waits for the rest.
    """
    connection.run(partial(_grow, shards))


async def _grow(shards: int, runtime: Runtime) -> None:
    began = time.monotonic()
    growing = asyncio.ensure_future(runtime.grow(shards))
    while not (await asyncio.wait([growing], timeout=_EACH))[0]:
        click.echo(f"tenants still move, after {time.monotonic() - began:.0f} s")
    await growing
    click.echo(f"{runtime.settings.namespace} has {shards} shards now")
