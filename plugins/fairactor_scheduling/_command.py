"""The command ``fairactor schedules``: lists schedules, shows their next times, pauses them, and runs them now."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from fairactor.commands import (
    OK,
    PROBLEM,
    Column,
    Connection,
    Facts,
    ListGroup,
    Output,
    Table,
    Text,
    connection_options,
    meant,
    moment,
    output_options,
    plain,
    shown_duration,
    to_record,
    visible,
    watch_options,
    whole_number,
)

from ._schedule import Schedule, ScheduleNotFound
from ._schedules import MAX_TIMES, Schedules

if TYPE_CHECKING:
    from fairactor import Runtime

_STYLES: Final = {"paused": "yellow", "finished": "dim"}
_LABELS: Final = {
    "tenant": "tenant", "id": "name", "state": "state", "when": "when", "timezone": "zone", "actor": "actor",
    "steps": "steps", "next_time": "next time", "runs": "runs", "waiting": "waiting", "budget": "budget",
    "start": "start", "end": "end", "jitter": "jitter", "grace": "grace", "catch_up": "catch up",
    "overlap": "overlap", "created_at": "created", "declared": "declared",
}  # fmt: skip
_RUNS: Final = (
    Column("PLANNED", "planned", moment),
    Column("OUTCOME", "outcome"),
    Column("TASK", "task", rank=1),
    Column("HANDLED", "at", moment, rank=2),
)


def _when(value: Any) -> str:
    if isinstance(value, dt.timedelta):
        return f"every {shown_duration(value.total_seconds())}"
    return f"once, at {moment(value)}" if isinstance(value, dt.datetime) else plain(value)


def _zoned(value: dt.datetime | None) -> str:
    return "-" if value is None else f"{value:%Y-%m-%d %H:%M:%S %Z (%z)}"


_COLUMNS: Final = (
    Column("TENANT", "tenant"),
    Column("NAME", "id"),
    Column("STATE", "state", rank=1, style=lambda state: _STYLES.get(state, "")),
    Column("WHEN", "when", _when, rank=1),
    Column("ZONE", "timezone", rank=5),
    Column("NEXT", "next_time", moment, rank=2),
    Column("RUNS", "runs", right=True, rank=4),
    Column("ACTOR", "actor", rank=3),
)
_ID: Final = click.argument("name")
_TENANT: Final = click.option("--tenant", metavar="NAME", help="The tenant; needed if several have one with this name.")


@click.group(cls=ListGroup)
def schedules() -> None:
    """List schedules, show their next times, pause and resume them, run them now. Without a command it lists them."""


@schedules.command("list")
@click.option("--tenant", metavar="NAME", help="Only those of this tenant.")
@connection_options
@watch_options
def list_(tenant: str | None, connection: Connection, output: Output) -> None:
    """List schedules, the next one first."""

    async def follow(runtime: Runtime) -> None:
        async def look() -> Sequence[Table]:
            found = [each async for each in Schedules(runtime).list(tenant)]
            found.sort(key=lambda each: (each.next_time is None, each.next_time, each.tenant, each.id))
            return [Table(_COLUMNS, [_record(each) for each in found], "there are no schedules")]

        await output.follow(look)

    connection.run(follow)


def _record(schedule: Schedule) -> dict[str, Any]:
    record = to_record(schedule)
    if isinstance(schedule.when, dt.timedelta):
        record["every"] = schedule.when.total_seconds()  # for JSON
    return record


@schedules.command()
@_ID
@_TENANT
@connection_options
@output_options
def show(name: str, tenant: str | None, connection: Connection, output: Output) -> int:
    """Show a schedule, and what became of its last times."""

    async def look(_: Schedules, found: Schedule) -> None:
        record = _record(found)
        if output.json:
            output.write([record])
            return
        parts = [Text("\nlast times", "bold"), Table(_RUNS, [to_record(each) for each in found.last_runs])]
        output.show(Facts(record, _LABELS, {"when": _when}), *(parts if found.last_runs else ()))

    return _with(connection, output, name, tenant, look)


@schedules.command("next")
@_ID
@_TENANT
@click.option("-n", "number", type=whole_number(1), default=5, show_default=True, help="How many times.")
@connection_options
@output_options
def next_(name: str, tenant: str | None, number: int, connection: Connection, output: Output) -> int:
    """Show the next times of a schedule, in its time zone."""
    if number > MAX_TIMES:
        raise click.UsageError(f"-n {number}: give {MAX_TIMES} at most")

    async def look(schedules: Schedules, found: Schedule) -> None:
        times = await schedules.next_times(found.tenant, found.id, number)
        if found.state == "paused":
            output.note("the schedule is paused: it sends nothing until it is resumed")
        records = [{"time": each, "timezone": found.timezone} for each in times]
        output.show(Table((Column("TIME", "time", _zoned), Column("ZONE", "timezone", rank=1)), records, "never again"))

    return _with(connection, output, name, tenant, look)


@schedules.command()
@_ID
@_TENANT
@connection_options
@output_options
def pause(name: str, tenant: str | None, connection: Connection, output: Output) -> int:
    """Pause a schedule: it sends nothing until it is resumed."""

    async def change(schedules: Schedules, found: Schedule) -> None:
        await schedules.pause(found.tenant, found.id)
        output.say(f"{found.id} paused", record={"tenant": found.tenant, "id": found.id, "paused": True})

    return _with(connection, output, name, tenant, change)


@schedules.command()
@_ID
@_TENANT
@connection_options
@output_options
def resume(name: str, tenant: str | None, connection: Connection, output: Output) -> int:
    """Resume a paused schedule."""

    async def change(schedules: Schedules, found: Schedule) -> None:
        await schedules.resume(found.tenant, found.id)
        output.say(f"{found.id} resumed", record={"tenant": found.tenant, "id": found.id, "paused": False})

    return _with(connection, output, name, tenant, change)


@schedules.command()
@_ID
@_TENANT
@connection_options
@output_options
def run(name: str, tenant: str | None, connection: Connection, output: Output) -> int:
    """Send a run now, beside those that are planned; it prints the id of the task."""

    async def send(schedules: Schedules, found: Schedule) -> None:
        handle = await schedules.run_now(found.tenant, found.id)
        output.say(handle.id, record={"tenant": found.tenant, "id": found.id, "task": handle.id})

    return _with(connection, output, name, tenant, send)


def _with(
    connection: Connection,
    output: Output,
    name: str,
    tenant: str | None,
    work: Callable[[Schedules, Schedule], Awaitable[None]],
) -> int:
    """Finds a schedule by its name, and does something with it; returns the exit code."""

    async def run(runtime: Runtime) -> int:
        schedules = Schedules(runtime)
        found = await _find(schedules, name, tenant, output)
        if found is None:
            return PROBLEM
        await work(schedules, found)
        return OK

    return connection.run(run)


async def _find(schedules: Schedules, name: str, tenant: str | None, output: Output) -> Schedule | None:
    if tenant is not None:
        try:
            return await schedules.get(tenant, name)
        except ScheduleNotFound:
            pass
    listed = [each async for each in schedules.list(tenant)]
    found = [each for each in listed if each.id == name]
    if len(found) == 1:
        return found[0]
    if found:
        tenants = ", ".join(visible(repr(each.tenant)) for each in found[:10])
        output.note(f"{len(found)} tenants have a schedule {name!r}: add --tenant, one of {tenants}")
        return None
    of_tenant = "" if tenant is None else f" of tenant {visible(tenant)!r}"
    output.note(f"there is no schedule {name!r}{of_tenant}{meant(name, {each.id for each in listed})}")
    return None
