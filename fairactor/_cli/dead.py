"""The command ``dead``: lists dead letters, sends them again, deletes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from .bulk import Progress, change_many
from .connect import Connection
from .details import show_task
from .group import ListGroup
from .options import Bulk, Filter, bulk_options, connection_options, filter_options, output_options, whole_number
from .output import Column, Output, Table, to_record
from .tasks import change_selected, check_ids_alone, each_id
from .text import moment

if TYPE_CHECKING:
    from fairactor.runtime import Runtime

_COLUMNS: Final = (
    Column("ID", "id"),
    Column("TENANT", "tenant"),
    Column("ACTOR", "actor", rank=1),
    Column("FAILED", "ended_at", moment, rank=3),
    Column("ATTEMPT", "attempt", right=True, rank=4),
    Column("ERROR", "error", lambda error: "-" if error is None else f"{error.type}: {error.message}"),
)
_PAGE: Final = 50
_ERROR: Final = click.option("--error", metavar="TYPE", help="Only those with this exception, such as ValueError.")


@click.group(cls=ListGroup)
def dead() -> None:
    """List dead letters: tasks that have failed for good. Send them again, and delete them."""


@dead.command("list")
@click.option("--tenant", metavar="NAME", help="Only those of this tenant.")
@click.option("--actor", metavar="NAME", help="Only those of this actor.")
@_ERROR
@click.option("--limit", type=whole_number(1), default=_PAGE, show_default=True, help="The most that are listed.")
@click.option("--all", "everything", is_flag=True, help="List all of them.")
@connection_options
@output_options
def list_(connection: Connection, output: Output, limit: int, everything: bool, **wanted: Any) -> None:  # noqa: FBT001 - click gives options by name
    """List dead letters, the oldest failure first."""

    async def look(runtime: Runtime) -> None:
        found: list[dict[str, Any]] = []
        shown = 0
        async for info in runtime.dead_letters.find(**wanted):
            if not everything and shown + len(found) == limit:
                output.note(f"there are more: --limit {limit * 2}, or --all")
                break
            found.append(to_record(info))
            if output.json and len(found) == _PAGE:
                output.show(Table(_COLUMNS, found))
                shown, found = shown + len(found), []
        output.show(Table(_COLUMNS, found, "" if shown else "there are no dead letters"))

    connection.run(look)


@dead.command()
@click.argument("task_id", metavar="ID")
@click.option("--tenant", metavar="NAME", help="The tenant of the task.")
@connection_options
@output_options
def show(task_id: str, tenant: str | None, connection: Connection, output: Output) -> None:
    """Show a dead letter, with its arguments, its attempts and the traceback."""
    connection.run(lambda runtime: show_task(runtime, output, task_id, tenant))


@dead.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@filter_options
@_ERROR
@bulk_options
@connection_options
@output_options
def redrive(
    ids: Sequence[str], wanted: Filter, error: str | None, bulk: Bulk, connection: Connection, output: Output
) -> int:
    """Send dead letters again: those with these ids, or all that a filter selects.

    Each keeps its id and its history, and gets all its retries again.
    """
    if ids:
        check_ids_alone(wanted)
        return connection.run(lambda runtime: each_id(runtime, output, ids, wanted.tenant, "redriven", _redrive_one))
    return _change(connection, output, bulk, wanted, error, verb="redrive", done="redriven", change="redrive")


@dead.command()
@filter_options
@_ERROR
@bulk_options
@connection_options
@output_options
def purge(wanted: Filter, error: str | None, bulk: Bulk, connection: Connection, output: Output) -> int:
    """Delete the dead letters that a filter selects."""
    return _change(connection, output, bulk, wanted, error, verb="delete", done="deleted", change="purge")


def _change(
    connection: Connection,
    output: Output,
    bulk: Bulk,
    wanted: Filter,
    error: str | None,
    *,
    verb: str,
    done: str,
    change: str,
) -> int:
    if set(wanted.state) - {"failed"}:
        raise click.UsageError("dead letters have the state failed: leave --state out")
    if error is None:
        return change_selected(
            connection, output, bulk, wanted, verb=verb, done=done, change=change, noun="dead letter", states=["failed"]
        )
    if wanted.queue or wanted.since or wanted.text:
        raise click.UsageError("--error can be combined with --tenant and --actor only")
    given = {"tenant": wanted.tenant, "actor": wanted.actor, "error": error}

    async def look(runtime: Runtime) -> tuple[int, bool]:
        number = 0
        async for _ in runtime.dead_letters.find(**given):
            number += 1
        return number, False

    async def apply(runtime: Runtime, progress: Progress) -> int:
        method: Callable[..., Any] = getattr(runtime.dead_letters, change)
        changed: int = await method(**given)
        progress(changed, changed)
        return changed

    return change_many(connection, output, bulk, noun="dead letter", verb=verb, done=done, look=look, change=apply)


async def _redrive_one(runtime: Runtime, task_id: str, tenant: str | None) -> str:
    await runtime.handle(task_id, tenant).redrive()
    return ""
