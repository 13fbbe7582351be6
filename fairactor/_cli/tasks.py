"""The command ``tasks``: lists tasks, shows, cancels, retries and moves them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from .bulk import Progress, change_many, check_filter
from .connect import Connection
from .details import show_task
from .exits import OK, PROBLEM
from .group import ListGroup
from .options import (
    Bulk,
    Filter,
    Page,
    bulk_options,
    connection_options,
    filter_options,
    output_options,
    page_options,
    watch_options,
)
from .output import Column, Output, Table, to_record
from .pages import show_pages
from .text import moment, state_style, visible

if TYPE_CHECKING:
    from fairactor._operate.selection import Selection
    from fairactor.runtime import Runtime

COLUMNS: Final = (
    Column("ID", "id"),
    Column("TENANT", "tenant"),
    Column("ACTOR", "actor", rank=1),
    Column("STATE", "state", style=state_style),
    Column("SENT", "enqueued_at", moment, rank=3),
    Column("ATTEMPT", "attempt", right=True, rank=4),
    Column("QUEUE", "queue", rank=5),
    Column("ERROR", "error", lambda error: "-" if error is None else f"{error.type}: {error.message}", rank=2),
)
_TENANT: Final = click.option("--tenant", metavar="NAME", help="The tenant of the task; other tenants' do not exist.")


@click.group(cls=ListGroup)
def tasks() -> None:
    """List tasks, show, cancel, retry and move them. Without a command it lists them."""


@tasks.command("list")
@connection_options
@watch_options
@filter_options
@page_options
def list_(connection: Connection, output: Output, wanted: Filter, page: Page) -> None:
    """List tasks, newest first."""

    async def read(runtime: Runtime, limit: int, after: str | None) -> tuple[Table, str | None]:
        found = await runtime.tasks(**wanted.arguments(), limit=limit, after=after)
        return Table(COLUMNS, [to_record(each) for each in found.tasks], "no task matches"), found.after

    connection.run(lambda runtime: show_pages(runtime, output, page, read))


@tasks.command()
@click.argument("task_id", metavar="ID")
@_TENANT
@connection_options
@output_options
def show(task_id: str, tenant: str | None, connection: Connection, output: Output) -> None:
    """Show everything that is known about a task."""
    connection.run(lambda runtime: show_task(runtime, output, task_id, tenant))


@tasks.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@filter_options
@bulk_options
@connection_options
@output_options
def cancel(ids: Sequence[str], wanted: Filter, bulk: Bulk, connection: Connection, output: Output) -> int:
    """Cancel tasks: those with these ids, or all that a filter selects."""
    if ids:
        check_ids_alone(wanted)
        return connection.run(lambda runtime: each_id(runtime, output, ids, wanted.tenant, "canceled", _cancel_one))
    return change_selected(connection, output, bulk, wanted, verb="cancel", done="canceled", change="cancel")


@tasks.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@filter_options
@bulk_options
@connection_options
@output_options
def retry(ids: Sequence[str], wanted: Filter, bulk: Bulk, connection: Connection, output: Output) -> int:
    """Run tasks now that wait for their next attempt or their time: those with these ids, or a filter's.

    A task that has failed for good is sent again if its id is given; for many, see `fairactor dead redrive`.
    """
    if ids:
        check_ids_alone(wanted)
        return connection.run(lambda runtime: each_id(runtime, output, ids, wanted.tenant, "retried", _retry_one))
    return change_selected(connection, output, bulk, wanted, verb="retry", done="retried", change="retry")


@tasks.command()
@click.argument("target", metavar="QUEUE")
@filter_options
@bulk_options
@connection_options
@output_options
def move(target: str, wanted: Filter, bulk: Bulk, connection: Connection, output: Output) -> int:
    """Move tasks that wait, which a filter selects, to another queue.

    The option --queue is part of the filter, and says where they are.
    """
    return change_selected(
        connection, output, bulk, wanted, verb=f"move to {target!r}", done="moved", change="move", to=(target,)
    )


def change_selected(
    connection: Connection,
    output: Output,
    bulk: Bulk,
    wanted: Filter,
    *,
    verb: str,
    done: str,
    change: str,
    to: tuple[Any, ...] = (),
    noun: str = "task",
    states: Sequence[str] = (),
) -> int:
    """Changes the tasks that a filter selects; returns the exit code.

    Args:
        connection: where.
        output: how it prints.
        bulk: what the options say.
        wanted: the filter.
        verb: what is done, as in "cancel 3 tasks?".
        done: likewise, as in "canceled 3 tasks".
        change: the method of `Selection`.
        to: its arguments.
        noun: what is changed.
        states: the states in which tasks can be changed, if the filter does not name any.
    """
    check_filter(wanted, bulk, f"{noun}s")

    def select(runtime: Runtime) -> Selection:
        arguments = wanted.arguments()
        arguments["state"] = arguments["state"] or list(states) or None
        return runtime.select(**arguments)

    async def look(runtime: Runtime) -> tuple[int, bool]:
        found = await select(runtime).count()
        return found.count, not found.complete

    async def apply(runtime: Runtime, progress: Progress) -> int:
        changed: int = await getattr(select(runtime), change)(*to, progress=progress)
        return changed

    return change_many(connection, output, bulk, noun=noun, verb=verb, done=done, look=look, change=apply)


def check_ids_alone(wanted: Filter) -> None:
    """Refuses ids together with a filter.

    Raises:
        click.UsageError: there is more than a tenant.
    """
    if wanted != Filter(tenant=wanted.tenant):
        raise click.UsageError("give ids or a filter, not both; only --tenant can be given with ids")


async def each_id(
    runtime: Runtime,
    output: Output,
    ids: Sequence[str],
    tenant: str | None,
    done: str,
    change: Callable[[Runtime, str, str | None], Awaitable[str]],
) -> int:
    """Changes tasks one by one; returns 1 if one of them could not be changed.

    Args:
        runtime: the runtime.
        output: how it prints.
        ids: their ids.
        tenant: the tenant of all of them, if it was given.
        done: what is done to them.
        change: changes one, and returns what became of it if that is something else, or ''.
    """
    from fairactor import FairactorError
    from fairactor.errors import ServerError, TaskNotFound

    code = OK
    for task_id in ids:
        try:
            problem = await change(runtime, task_id, tenant)
        except ServerError:
            raise
        except FairactorError as error:
            problem = "there is no such task" if isinstance(error, TaskNotFound) else str(error)
        if problem:
            code = PROBLEM
            output.note(f"{visible(task_id)}: {problem}")
        if output.json or not problem:
            output.say(f"{task_id} {done}", record={"id": task_id, done: not problem, "problem": problem or None})
    return code


async def _cancel_one(runtime: Runtime, task_id: str, tenant: str | None) -> str:
    before = await runtime.handle(task_id, tenant).cancel()
    return f"it had {before.value} already" if before.settled else ""


async def _retry_one(runtime: Runtime, task_id: str, tenant: str | None) -> str:
    handle = runtime.handle(task_id, tenant)
    info = await handle.info()
    if info.state == "failed":
        await handle.redrive()
        return ""
    if info.state != "scheduled":
        return f"it is {info.state.value}; only tasks that wait for a time, or have failed, can be retried"
    shards = runtime._shards()  # noqa: SLF001 - a selection does the same with many
    (done,) = await shards.at_home(info.tenant, lambda shard: shard.hasten([(task_id, info.tenant)]))
    return "" if done else "it has just started"
