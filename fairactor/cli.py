"""The command line: ``fairactor``, or ``python -m fairactor``.

Each function in `COMMANDS` adds the parser of one subcommand. The code of a subcommand is imported when it runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from . import __version__

INTERRUPTED: Final = 130
"""The exit code after SIGINT. Like shells, it is 128 plus the signal's number."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    Args:
        arguments: the arguments after ``fairactor``. None takes them from ``sys.argv``.

    Raises:
        SystemExit: after ``--help`` or ``--version``, or if the arguments cannot be parsed.
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:  # outside the time in which the subcommand handles signals itself
        sys.stderr.write("fairactor: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise flushing at exit would fail too
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fairactor", description="An actor-style asyncio runtime for services with many tenants."
    )
    parser.add_argument("--version", action="version", version=f"fairactor {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(subparsers)
    return parser


def _add_demo(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="watch one big tenant and many small ones share the workers",
        description="Makes each installed Python distribution a tenant, and each of its source files a task that "
        "reads, hashes and parses the file. All tasks are queued before the workers start, the largest tenant's first.",
    )
    add = parser.add_argument
    add("--path", type=Path, metavar="DIR", help="use the subfolders of DIR as tenants, and their .py files as tasks")
    add("--limit", type=_number(0), metavar="N", default=1000, help="most files per tenant; 0 for all (default: 1000)")
    add("--workers", type=_number(1), metavar="N", help="number of worker processes (default: one per CPU)")
    add("--url", help="the Redis or Valkey server (default: $FAIRACTOR_URL, else an embedded server)")
    add("--all", action="store_true", help="show every tenant in the table")
    add("--json", action="store_true", help="print only a JSON document")
    add("--svg", type=Path, metavar="FILE", help="save the table as an SVG picture")
    parser.set_defaults(run=_run_demo)


def _run_demo(options: argparse.Namespace) -> int:
    from .demo.command import Options, run

    return run(
        Options(
            path=options.path,
            limit=options.limit,
            workers=options.workers,
            url=options.url,
            every_tenant=options.all,
            json=options.json,
            svg=options.svg,
        )
    )


def _add_grow(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "grow",
        help="add shards to a namespace while it runs",
        description="Adds shards to a namespace while it runs, and returns once all tenants have moved that should. If "
        "it is interrupted, the runtimes of the namespace go on; calling it again waits for the rest.",
    )
    add = parser.add_argument
    add("shards", type=_number(1), metavar="N", help="the number of all shards, at least as many as before")
    add("--url", help="the Redis or Valkey server (default: $FAIRACTOR_URL)")
    add("--namespace", default="fairactor", help="the namespace (default: fairactor)")
    add("--aging", type=float, default=60.0, metavar="S", help="aging= of the namespace (default: 60)")
    parser.set_defaults(run=_run_grow)


def _run_grow(options: argparse.Namespace) -> int:
    from ._grow_command import GrowOptions, run

    url = options.url or os.environ.get("FAIRACTOR_URL")
    if not url:
        sys.stderr.write("fairactor grow: give the server, as --url or FAIRACTOR_URL\n")
        return 2
    return run(GrowOptions(options.shards, url, options.namespace, options.aging))


def _number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, {least} or more")
        return int(text)

    return parse


COMMANDS: Final[Sequence[Callable[[Any], None]]] = (_add_demo, _add_grow)
