"""The commands ``stats``, ``queues``, ``workers`` and ``history``: how a namespace fares, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from .connect import Connection
from .options import connection_options, watch_options, whole_number
from .output import Column, Facts, Output, Part, Table, Text, to_record
from .text import duration, moment, percent

if TYPE_CHECKING:
    from fairactor.runtime import Runtime
    from fairactor.views import Bucket, WorkerView

_COUNTS: Final = {
    "queued": "queued", "started": "started", "scheduled": "scheduled", "due": "  of these due", "deferred": "deferred",
    "finished": "finished", "failed": "failed", "canceled": "canceled", "dead_letters": "dead letters",
    "waiting_tenants": "tenants that wait", "throttled_tenants": "tenants held by rate", "known_tenants": "tenants",
    "workers": "workers",
}  # fmt: skip


@click.command()
@connection_options
@watch_options
def stats(connection: Connection, output: Output) -> None:
    """Count the tasks in each state.

    It costs the server the same, however many tasks there are.
    """

    async def follow(runtime: Runtime) -> None:
        await output.follow(partial(_stats, runtime))

    connection.run(follow)


async def _stats(runtime: Runtime) -> Sequence[Part]:
    found = to_record(await runtime.stats())
    runtimes = found.pop("runtimes")
    found["workers"] = sum(each.size for each in runtimes)
    found["runtimes"] = len(runtimes)
    return [Facts({"namespace": runtime.settings.namespace, **found}, {"namespace": "namespace", **_COUNTS})]


@click.command()
@connection_options
@watch_options
def queues(connection: Connection, output: Output) -> None:
    """List the queues: what waits in each, and how many runtimes serve it."""

    async def look(runtime: Runtime) -> Sequence[Part]:
        return [Table(_QUEUES, [to_record(each) for each in await runtime.queues()], "no queue has tasks")]

    async def follow(runtime: Runtime) -> None:
        await output.follow(partial(look, runtime))

    connection.run(follow)


_QUEUES: Final = (
    Column("QUEUE", "queue"),
    Column("BACKLOG", "backlog", right=True),
    Column("RUNNING", "running", right=True, rank=1),
    Column("OLDEST", "oldest_wait", duration, right=True, rank=2),
    Column("RUNTIMES", "runtimes", right=True, rank=1, style=lambda many: "" if many else "red"),
)


@click.command()
@connection_options
@watch_options
@click.option("--tasks", type=whole_number(0), default=0, help="List so many of the tasks that each runs, too.")
def workers(connection: Connection, output: Output, tasks: int) -> None:
    """List the runtimes that run tasks, and how busy they are."""

    async def look(runtime: Runtime) -> Sequence[Part]:
        found = await runtime.workers(tasks=tasks)
        parts: list[Part] = [Table(_WORKERS, [_worker(each) for each in found], "no runtime runs tasks")]
        for each in found if tasks and not output.json else ():
            parts += [
                Text(f"\n{each.runtime.name}", "bold"),
                Table(_RUNNING, [to_record(task) for task in each.tasks], "runs nothing"),
            ]
        return parts

    async def follow(runtime: Runtime) -> None:
        await output.follow(partial(look, runtime))

    connection.run(follow)


def _worker(view: WorkerView) -> dict[str, Any]:
    info = view.runtime
    pulse = info.pulse
    return {
        **to_record(info),
        "size": info.size,
        "busy": None if pulse is None else pulse.busy,
        "oldest_run": None if pulse is None or not pulse.busy else pulse.oldest_run,
        "started": view.started,
        "tasks": list(view.tasks),
    }


_WORKERS: Final = (
    Column("RUNTIME", "name"),
    Column("HOST", "host", rank=4),
    Column("PID", "pid", right=True, rank=3),
    Column("SLOTS", "size", right=True, rank=1),
    Column("BUSY", "busy", right=True, rank=1),
    Column("CLAIMED", "started", right=True, rank=2),
    Column("OLDEST", "oldest_run", duration, right=True, rank=3),
    Column("LEASE", "lease_left", duration, right=True, rank=2, style=lambda left: "red" if (left or 0) < 0 else ""),
    Column("QUEUES", "queues", lambda names: "all" if names is None else ", ".join(names), rank=5),
)
_RUNNING: Final = (
    Column("TASK", "id"),
    Column("TENANT", "tenant", rank=1),
    Column("ACTOR", "actor", rank=1),
    Column("ATTEMPT", "attempt", right=True, rank=3),
    Column("CLAIMED", "claimed_at", moment, rank=2),
)


@click.command()
@connection_options
@watch_options
@click.option("--by", type=click.Choice(["actor", "queue", "tenant"]), help="A row for each of these.")
@click.option("--name", metavar="NAME", help="Only this actor, queue or tenant, by time.")
@click.option("--days", is_flag=True, help="The last three days by ten minutes, not the last hour by minutes.")
def history(connection: Connection, output: Output, by: Any, name: str | None, days: bool) -> None:  # noqa: FBT001 - click gives options by name
    """Show what happened in the last hour, or in the last days: throughput, failures, and how long tasks took."""
    if name is not None and by is None:
        raise click.UsageError("--name needs --by: is it an actor, a queue or a tenant?")

    async def look(runtime: Runtime) -> Sequence[Part]:
        found = await runtime.history(by=by, name=name, days=days)
        if by is not None and name is None and not output.json:
            rows = [{"name": each, **_summed(buckets)} for each, buckets in sorted(found.series.items())]
            return [Table((Column(by.upper(), "name"), *_HISTORY), rows, "nothing has happened")]
        rows = [
            {"by": by, "name": each, **_of_bucket(bucket)}
            for each, buckets in found.series.items()
            for bucket in buckets
            if output.json or bucket.sent or bucket.started or bucket.finished or bucket.failed
        ]
        return [Table((Column("TIME", "start", moment), *_HISTORY), rows, "nothing has happened")]

    async def follow(runtime: Runtime) -> None:
        await output.follow(partial(look, runtime))

    connection.run(follow)


def _of_bucket(bucket: Bucket) -> dict[str, Any]:
    return {
        **to_record(bucket),
        "wait_p50": bucket.wait.quantile(0.5),
        "wait_p95": bucket.wait.quantile(0.95),
        "run_p50": bucket.run.quantile(0.5),
        "run_p95": bucket.run.quantile(0.95),
    }


def _summed(buckets: Sequence[Bucket]) -> dict[str, Any]:
    """Adds up buckets, for a row of a table."""
    from fairactor.views import Histogram

    def added(histograms: Sequence[Histogram]) -> Histogram:
        bounds = histograms[0].bounds if histograms else ()
        return Histogram(bounds, [sum(counts) for counts in zip(*(each.counts for each in histograms), strict=True)])

    wait, run = added([each.wait for each in buckets]), added([each.run for each in buckets])
    ended = sum(each.finished + each.failed for each in buckets)
    failed = sum(each.failed for each in buckets)
    return {
        "sent": sum(each.sent for each in buckets),
        "started": sum(each.started for each in buckets),
        "finished": ended - failed,
        "failed": failed,
        "failed_share": failed / ended if ended else None,
        "wait_p50": wait.quantile(0.5),
        "wait_p95": wait.quantile(0.95),
        "run_p50": run.quantile(0.5),
        "run_p95": run.quantile(0.95),
    }


def _at_most(seconds: float | None) -> str:
    return "-" if seconds is None else "long" if seconds == float("inf") else f"≤{duration(seconds)}"


_HISTORY: Final = (
    Column("SENT", "sent", right=True, rank=2),
    Column("STARTED", "started", right=True, rank=3),
    Column("FINISHED", "finished", right=True, rank=1),
    Column("FAILED", "failed", right=True, rank=1, style=lambda many: "red" if many else ""),
    Column("FAILED %", "failed_share", percent, right=True, rank=5),
    Column("WAIT P50", "wait_p50", _at_most, right=True, rank=4),
    Column("WAIT P95", "wait_p95", _at_most, right=True, rank=3),
    Column("RUN P50", "run_p50", _at_most, right=True, rank=4),
    Column("RUN P95", "run_p95", _at_most, right=True, rank=3),
)
