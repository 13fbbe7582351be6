"""The command ``tenants``: lists tenants, shows, configures, pauses and purges them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from .bulk import Progress, change_many, check_filter
from .connect import Connection
from .exits import OK, PROBLEM
from .group import ListGroup, meant
from .options import (
    Bulk,
    Page,
    bulk_options,
    connection_options,
    output_options,
    page_options,
    watch_options,
)
from .output import Column, Facts, Output, Table, to_record
from .pages import show_pages
from .settings import amount, given_settings, rate, whole
from .text import duration, percent, visible

if TYPE_CHECKING:
    from fairactor import Tenant
    from fairactor.runtime import Runtime

_COLUMNS: Final = (
    Column("TENANT", "tenant"),
    Column("BACKLOG", "backlog", right=True),
    Column("RUNNING", "running", right=True, rank=1),
    Column("OLDEST", "oldest_wait", duration, right=True, rank=2),
    Column("RATE/S", "rate", right=True, rank=4),
    Column("SHARE", "share", percent, right=True, rank=3),
    Column("FAIR", "fair_share", percent, right=True, rank=4),
    Column("SCHEDULED", "scheduled", right=True, rank=5),
    Column("FAILED", "failed", right=True, rank=3),
    Column("WEIGHT", "weight", right=True, rank=6),
    Column("GROUP", "group", rank=7),
    Column("PAUSED", "paused", rank=2, style=lambda paused: "yellow" if paused else ""),
)
_LABELS: Final = {
    "tenant": "tenant", "paused": "paused", "weight": "weight", "concurrency": "concurrency", "rate": "rate",
    "burst": "burst", "backlog": "backlog limit", "group": "group", "queued": "queued", "started": "started",
    "scheduled": "scheduled", "deferred": "deferred", "finished": "finished", "failed": "failed",
    "canceled": "canceled",
}  # fmt: skip
_NAME: Final = click.argument("name")
_NAMES: Final = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@click.group(cls=ListGroup)
def tenants() -> None:
    """List tenants, show, configure, pause, resume and purge them. Without a command it lists them."""


@tenants.command("list")
@connection_options
@watch_options
@page_options
@click.option(
    "--order",
    type=click.Choice(["backlog", "oldest", "share", "running", "name"]),
    default="backlog",
    show_default=True,
    help="Which tenants come first.",
)
@click.option("--text", metavar="TEXT", help="Only tenants in whose name this text occurs.")
def list_(connection: Connection, output: Output, page: Page, order: Any, text: str | None) -> None:
    """List tenants: what waits, what runs, and the share that each gets of the workers."""

    async def read(runtime: Runtime, limit: int, after: str | None) -> tuple[Table, str | None]:
        found = await runtime.tenants(order_by=order, text=text, limit=limit, after=after)
        return Table(_COLUMNS, [to_record(each) for each in found.tenants], "no tenant is known"), found.after

    connection.run(lambda runtime: show_pages(runtime, output, page, read))


@tenants.command()
@_NAME
@connection_options
@output_options
def show(name: str, connection: Connection, output: Output) -> int:
    """Show the settings of a tenant, and count its tasks."""

    async def look(runtime: Runtime) -> int:
        from fairactor import Policy

        tenant = runtime.tenant(name)
        policy, counts = await tenant.policy(), to_record(await tenant.stats())
        output.show(Facts({"tenant": name, **to_record(policy), **counts}, _LABELS))
        if any(value for value in counts.values() if isinstance(value, int)) or policy != Policy():
            return OK
        near = [each.tenant for each in (await runtime.tenants(limit=1000)).tenants]
        output.note(f"nothing is known of a tenant {visible(name)!r}{meant(name, near)}")
        return PROBLEM

    return connection.run(look)


@tenants.command("set")
@_NAME
@click.option("--weight", type=amount, help="The share relative to tenants of weight 1.")
@click.option("--concurrency", type=whole, help="The most tasks that run at once; inf: no limit; none: the default.")
@click.option("--rate", type=rate, help="The most tasks that start per time, such as 10/s; inf, none.")
@click.option("--burst", type=whole, help="The most tasks that start at once; give it with --rate.")
@click.option("--backlog", type=whole, help="The most tasks that wait; inf, none.")
@click.option("--group", metavar="NAME", help="The group that the tenant belongs to; none: no group.")
@connection_options
@output_options
def set_(name: str, connection: Connection, output: Output, **given: Any) -> None:
    """Configure how a tenant is served, for all runtimes at once. What is not given stays as it is."""
    settings = given_settings(given)

    async def change(tenant: Tenant) -> None:
        output.show(Facts({"tenant": name, **to_record(await tenant.configure(**settings))}, _LABELS))

    connection.run(lambda runtime: change(runtime.tenant(name)))


@tenants.command()
@_NAMES
@connection_options
@output_options
def pause(names: Sequence[str], connection: Connection, output: Output) -> None:
    """Start no more tasks of tenants. Running tasks go on, and new ones wait."""
    _each(connection, output, names, "paused", lambda tenant: tenant.pause())


@tenants.command()
@_NAMES
@connection_options
@output_options
def resume(names: Sequence[str], connection: Connection, output: Output) -> None:
    """End the pause of tenants."""
    _each(connection, output, names, "resumed", lambda tenant: tenant.resume())


def _each(
    connection: Connection,
    output: Output,
    names: Sequence[str],
    done: str,
    change: Callable[[Tenant], Awaitable[None]],
) -> None:
    async def change_all(runtime: Runtime) -> None:
        for tenant in [runtime.tenant(name) for name in names]:
            await change(tenant)
            output.say(f"{tenant.name} {done}", record={"tenant": tenant.name, done: True})

    connection.run(change_all)


@tenants.command()
@click.argument("names", nargs=-1, metavar="NAME...")
@bulk_options
@connection_options
@output_options
def purge(names: Sequence[str], bulk: Bulk, connection: Connection, output: Output) -> int:
    """Cancel all tasks of tenants that wait: queued, scheduled and deferred ones. Running tasks go on."""
    check_filter(names, bulk, "waiting tasks", way_out="give names")
    if names and bulk.all_tenants:
        raise click.UsageError("give names or --all-tenants, not both")

    async def look(runtime: Runtime) -> tuple[int, bool]:
        if bulk.all_tenants:
            stats = await runtime.stats()
            return stats.queued + stats.scheduled + stats.deferred, False
        found = [await runtime.tenant(name).stats() for name in names]
        return sum(each.queued + each.scheduled + each.deferred for each in found), False

    async def change(runtime: Runtime, progress: Progress) -> int:
        done = 0
        async for name in _known(runtime) if bulk.all_tenants else _given(names):
            done += await runtime.tenant(name).purge()
            progress(done, done)
        return done

    return change_many(
        connection, output, bulk, noun="waiting task", verb="cancel", done="canceled", look=look, change=change
    )


async def _given(names: Sequence[str]) -> AsyncIterator[str]:
    for name in names:
        yield name


async def _known(runtime: Runtime) -> AsyncIterator[str]:
    """Yields all tenants that are known."""
    after: str | None = None
    while True:
        page = await runtime.tenants(order_by="name", limit=1000, after=after)
        for each in page.tenants:
            yield each.tenant
        after = page.after
        if after is None:
            return
