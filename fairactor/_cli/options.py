"""The options that commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .connect import Connection
from .output import Output

Function = Callable[..., Any]


def whole_number(least: int) -> Callable[[str], int]:
    """Returns the type of an option that is a whole number from `least` on."""

    def n(text: str | int) -> int:  # the help shows the name
        if not str(text).isdecimal() or int(text) < least:
            raise click.BadParameter(f"{text!r}: give a whole number, {least} or more")
        return int(text)

    return n


def connection_options(command: Function) -> Function:
    """Adds ``--url``, ``--namespace``, ``--config`` and ``--worker``; the command gets ``connection``."""

    @wraps(command)
    def call(
        *args: Any, url: str | None, namespace: str | None, config: Path | None, worker: str | None, **named: Any
    ) -> Any:
        return command(*args, connection=Connection(url, namespace, config, worker), **named)

    options = (
        click.option("--url", metavar="URL", help="The server; by default $FAIRACTOR_URL."),
        click.option("--namespace", metavar="NAME", help="The namespace; by default that of the file, or fairactor."),
        click.option("-c", "--config", type=click.Path(path_type=Path), metavar="FILE", help="A file with settings."),
        click.option("--worker", metavar="NAME", help="Use the settings of this worker in the file."),
    )
    return _with(options, call)


def output_options(command: Function) -> Function:
    """Adds ``--json``; the command gets ``output``."""

    @wraps(command)
    def call(*args: Any, json: bool, **named: Any) -> Any:
        return command(*args, output=Output(json=json), **named)

    return _with([click.option("--json", is_flag=True, help="Print JSON lines.")], call)


def _with(options: Sequence[Callable[[Function], Function]], call: Function) -> Function:
    for option in reversed(options):
        call = option(call)
    return call
