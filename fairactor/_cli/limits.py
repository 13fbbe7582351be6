"""The command ``limits``: lists limits that tenants share, and changes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from .connect import Connection
from .exits import OK, PROBLEM
from .group import ListGroup, meant
from .options import connection_options, duration, output_options, watch_options
from .output import Column, Facts, Output, Part, Table, to_record
from .settings import amount, given_settings, rate, whole
from .text import duration as shown_duration
from .text import visible

if TYPE_CHECKING:
    from fairactor import LimitPolicy
    from fairactor._client.limit import Limit
    from fairactor.runtime import Runtime

_LABELS: Final = {
    "limit": "limit", "concurrency": "concurrency", "rate": "rate", "burst": "burst", "per": "per", "paused": "paused",
    "running": "running", "owed": "owed", "waiting": "waiting", "paused_for": "paused for",
}  # fmt: skip
_COLUMNS: Final = (
    Column("LIMIT", "limit"),
    Column("CONCURRENCY", "concurrency", right=True, rank=1),
    Column("RATE", "rate", right=True, rank=1),
    Column("PER", "per", rank=3),
    Column("RUNNING", "running", right=True, rank=2),
    Column("WAITING", "waiting", right=True, rank=2),
    Column("PAUSED", "paused", rank=1, style=lambda paused: "yellow" if paused else ""),
)


@click.group(cls=ListGroup)
def limits() -> None:
    """List limits that tenants share or that actors have, and change them. Without a command it lists them."""


@limits.command("list")
@connection_options
@watch_options
def list_(connection: Connection, output: Output) -> None:
    """List all limits that are configured or declared by actors."""

    async def look(runtime: Runtime) -> Sequence[Part]:
        policies = await runtime.limits()
        records = await asyncio.gather(*(_record(runtime, name, policy) for name, policy in sorted(policies.items())))
        return [Table(_COLUMNS, records, "there are no limits")]

    async def follow(runtime: Runtime) -> None:
        await output.follow(partial(look, runtime))

    connection.run(follow)


async def _record(runtime: Runtime, name: str, policy: LimitPolicy, tenant: str | None = None) -> dict[str, Any]:
    usage = await runtime.limit(name).usage(tenant)
    return {
        "limit": name,
        **to_record(policy),
        "running": usage.running,
        "owed": usage.owed,
        "waiting": usage.waiting,
        "paused_for": usage.paused or None,
    }


_NAME: Final = click.argument("name")
_TENANT: Final = click.option("--tenant", metavar="NAME", help="Only for this tenant.")


@limits.command()
@_NAME
@_TENANT
@connection_options
@output_options
def show(name: str, tenant: str | None, connection: Connection, output: Output) -> int:
    """Show a limit and how it is used now."""

    async def look(runtime: Runtime) -> int:
        policy = await runtime.limit(name).policy()
        record = await _record(runtime, name, policy, tenant)
        known = await runtime.limits()
        if name not in known and not (record["running"] or record["waiting"]):
            output.note(f"there is no limit {name!r}{meant(name, known)}; fairactor limits list names them")
            return PROBLEM
        shown: dict[str, Callable[[Any], str]] = {"owed": lambda value: f"{value:g}", "paused_for": shown_duration}
        output.show(Facts(record, _LABELS, shown))
        return OK

    return connection.run(look)


@limits.command("set")
@_NAME
@click.option("--concurrency", type=whole, help="The most tasks that run at once; inf: no limit; none: reset it.")
@click.option("--rate", type=rate, help="What starts take per time, such as 10/s or 90000/min; inf, none.")
@click.option("--burst", type=amount, help="What starts may take at once; give it with --rate.")
@click.option("--per", type=click.Choice(["tenant", "none"]), help="Whether each tenant has the limit for itself.")
@connection_options
@output_options
def set_(name: str, connection: Connection, output: Output, **given: Any) -> None:
    """Configure a limit, for all runtimes at once. What is not given stays as it is."""
    settings = given_settings(given)

    async def change(limit: Limit) -> None:
        policy = await limit.configure(**settings)
        output.show(Facts({"limit": limit.name, **to_record(policy)}, _LABELS))

    connection.run(lambda runtime: change(runtime.limit(name)))


@limits.command()
@_NAME
@_TENANT
@click.option("--for", "seconds", type=duration, help="For how long, such as 30s; by default until it is resumed.")
@connection_options
@output_options
def pause(name: str, tenant: str | None, seconds: float | None, connection: Connection, output: Output) -> None:
    """Start no more tasks that count for a limit. Running tasks go on."""
    _change(connection, output, name, "paused", lambda limit: limit.pause(seconds, tenant=tenant))


@limits.command()
@_NAME
@_TENANT
@connection_options
@output_options
def resume(name: str, tenant: str | None, connection: Connection, output: Output) -> None:
    """End a pause."""
    _change(connection, output, name, "resumed", lambda limit: limit.resume(tenant=tenant))


@limits.command()
@_NAME
@connection_options
@output_options
def reset(name: str, connection: Connection, output: Output) -> None:
    """Remove all settings of a limit. What the code of an actor says holds again."""
    _change(connection, output, name, "reset", lambda limit: limit.remove())


def _change(
    connection: Connection, output: Output, name: str, done: str, change: Callable[[Limit], Awaitable[None]]
) -> None:
    connection.run(lambda runtime: change(runtime.limit(name)))
    output.say(f"limit {visible(name)} {done}", record={"limit": name, done: True})
