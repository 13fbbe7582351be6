"""The command ``fairactor worker``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .connect import Connection
from .options import connection_options, whole_number

_LEVELS = ("debug", "info", "warning", "error", "critical")


@click.command()
@click.argument("modules", metavar="MODULE[:NAME]...", nargs=-1, required=True)
@connection_options
@click.option(
    "--path", type=click.Path(path_type=Path), metavar="DIR", help="Keep the data of an embedded server here."
)
@click.option(
    "-p", "--processes", type=whole_number(0), default=1, show_default=True, help="Processes; 0 for none of their own."
)
@click.option("--workers", type=whole_number(1), help="Tasks that each process runs at once.")
@click.option("-q", "--queue", "queues", multiple=True, metavar="NAME", help="Serve this queue only; may be repeated.")
@click.option("--name", metavar="NAME", help="What the names of the runtimes begin with, instead of the host.")
@click.option("--grace", type=float, metavar="SECONDS", help="How long running tasks may go on after a signal.")
@click.option("--reload", is_flag=True, help="Start again when the code changes.")
@click.option(
    "--until-drained", is_flag=True, help="End when nothing is pending; with 1 if tasks have failed for good."
)
@click.option("--max-tasks", type=whole_number(1), help="Replace a process after so many tasks.")
@click.option("--max-memory", type=whole_number(1), metavar="MB", help="Replace a process that holds so many MB.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    help="Serve metrics for Prometheus; each process takes the next free port.",
)
@click.option(
    "--log-level",
    type=click.Choice(_LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="The least level that is logged.",
)
@click.option(
    "--log-format",
    type=click.Choice(("text", "json")),
    default="text",
    show_default=True,
    help="Lines of text, or of JSON.",
)
def worker(modules: tuple[str, ...], connection: Connection, queues: tuple[str, ...], **options: Any) -> int:
    """Run the actors of a module.

    MODULE is a dotted name or a file, such as app.py. NAME is an actor, a class with actors, a list of these, a
    Runtime that was not entered, or a function that returns one. Without NAME it runs the Runtime of the module, or
    else all its actors.

    SIGTERM and Ctrl-C stop it once running tasks have ended, a second signal at once. SIGHUP replaces the processes by
    new ones with the code as it is then.
    """
    from fairactor._worker_command.command import run
    from fairactor._worker_command.options import WorkerOptions

    given = {name: options.pop(name) for name in ("path", "workers", "grace")}
    given |= {"url": connection.url, "namespace": connection.namespace, "queues": list(queues) or None}
    settings = {name: str(value) if name == "path" else value for name, value in given.items() if value is not None}
    config = None if connection.config is None else str(connection.config)
    return run(WorkerOptions(targets=modules, settings=settings, config=config, worker=connection.worker, **options))
