"""The commands ``config check``, ``config show`` and ``config apply``."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from .connect import Connection
from .exits import OK, PROBLEM
from .group import Group
from .options import output_options
from .output import Column, Output, Table, Text
from .text import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fairactor.config import Change, Config

Function = Callable[..., Any]
_LEVELS: Final = {"error": "red", "warning": "yellow"}


@click.group(cls=Group)
def config() -> None:
    """Check files with settings, show what holds, and apply policies, limits and schedules.

    FILE is TOML or YAML; without it, $FAIRACTOR_CONFIG, fairactor.toml, fairactor.yaml or pyproject.toml is used.
    """


def _file(command: Function) -> Function:
    """Adds ``FILE`` and ``--worker``; the command gets ``found``, the configuration."""

    @wraps(command)
    def call(*args: Any, file: Path | None, worker: str | None, **named: Any) -> Any:
        from fairactor.config import load

        return command(*args, found=load(file, worker=worker), **named)

    for option in (
        click.option("--worker", metavar="NAME", help="Use the settings of this worker in the file."),
        click.argument("file", required=False, type=click.Path(path_type=Path)),
    ):
        call = option(call)
    return call


def _actors(command: Function) -> Function:
    return click.option(
        "--actors", "modules", multiple=True, metavar="MODULE", help="A module with actors of the service; repeatable."
    )(command)


@config.command()
@_file
@_actors
@output_options
def check(found: Config, modules: Sequence[str], output: Output) -> int:
    """Check a file: all its mistakes are named, and the tenants and queues that no worker serves.

    The exit code is 0 if all is well, 1 if a tenant or a queue that the file names is served by nobody, and 2 if the
    file has mistakes.
    """
    from fairactor._actors.registry import Registry

    registered = Registry(_imported(modules)).actors.values()
    findings = found.check(registered)
    if output.json:
        output.write([attrs.asdict(each) for each in findings])
    else:
        output.show(*(Text(str(each), "dim") for each in found.converted))
        output.show(*(Text(str(each), _LEVELS[each.level]) for each in findings))
        if not findings:
            output.show(Text(f"ok: {found.source or 'the environment'}", "green"))
    return PROBLEM if any(each.level == "error" for each in findings) else OK


@config.command()
@_file
@click.option("--all", "everything", is_flag=True, help="Show defaults, too.")
@output_options
def show(found: Config, everything: bool, output: Output) -> int:  # noqa: FBT001 - click gives options by name
    """Show each value, and where it was given. What may be secret is hidden."""
    records = list(_records(found, everything=everything))
    columns = (Column("setting", "setting"), Column("value", "value", show=str), Column("from", "from"))
    output.show(Table(columns, records, empty="nothing is set"))
    return OK


@config.command()
@_file
@_actors
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@click.option("--prune", is_flag=True, help="Also reset and remove what the file does not name.")
@output_options
def apply(found: Config, modules: Sequence[str], dry_run: bool, prune: bool, output: Output) -> int:  # noqa: FBT001 - as above
    """Apply the policies, groups, limits and schedules of a file to the namespace.

    Only what differs is written. Schedules need the actors that they call: give their modules as --actors.
    """
    settings = found.settings
    if settings.url is None:
        raise click.UsageError("give the server, as url = … in the file or FAIRACTOR_URL")
    if dry_run:  # it must not create the namespace
        Connection(settings.url, settings.namespace).ping(timeout=settings.connect_timeout)
    changes = asyncio.run(_apply(found, _imported(modules), dry_run=dry_run, prune=prune))
    if output.json:
        output.write([attrs.asdict(change) for change in changes])
        return OK
    output.show(*(Text(str(change)) for change in changes))
    said = "would change" if dry_run else "changed"
    output.show(Text(f"{count(len(changes), 'setting')} {said}" if changes else "nothing to change", "green"))
    return OK


async def _apply(found: Config, modules: Iterable[Any], *, dry_run: bool, prune: bool) -> Sequence[Change]:
    from fairactor.runtime import Runtime

    async with Runtime.from_config(attrs.evolve(found, apply=False), actors=modules, workers=0) as runtime:
        return await runtime.apply(found, dry_run=dry_run, prune=prune)


def _imported(modules: Iterable[str]) -> list[Any]:
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python -m` does
    try:
        return [import_module(name) for name in modules]
    except ModuleNotFoundError as error:
        raise click.UsageError(f"there is no module {error.name!r}; modules are looked for here, too") from None
    finally:
        sys.path.pop(0)


def _records(found: Config, *, everything: bool) -> Iterable[Mapping[str, Any]]:
    from fairactor.config import shown_values

    for setting, value, source in shown_values(found, defaults=everything):
        yield {"setting": setting, "value": value, "from": source}
