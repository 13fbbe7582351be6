"""The command line: ``fairactor``, or ``python -m fairactor``.

Each subcommand is a function in `COMMANDS` that adds its parser. What a subcommand does is imported when it is run.
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
"""The exit code after SIGINT, as shells have it: 128 and the signal's number."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code.

    Args:
        arguments: what was typed after ``fairactor``; None: ``sys.argv``.

    Raises:
        SystemExit: after ``--help``, ``--version`` and what cannot be parsed, as argparse does.
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except KeyboardInterrupt:  # before or after the subcommand listens to signals itself
        sys.stderr.write("fairactor: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or flushing at exit would fail, too
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
        description="Every installed Python distribution is a tenant, and each of its source files a task: read, "
        "hash, parse, count. All are queued first, the biggest tenant first; then the workers start.",
    )
    add = parser.add_argument
    add("--path", type=Path, metavar="DIR", help="take the sub-folders of DIR as tenants, and their .py files")
    add("--limit", type=_number(0), metavar="N", default=1000, help="files per tenant, at most; 0: all (default: 1000)")
    add("--workers", type=_number(1), metavar="N", help="worker processes (default: one per CPU)")
    add("--url", help="a Redis or Valkey server (default: FAIRACTOR_URL, else an embedded one)")
    add("--all", action="store_true", help="show every tenant in the table")
    add("--json", action="store_true", help="print one JSON document and nothing else")
    add("--svg", type=Path, metavar="FILE", help="save the table as a picture")
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


def _number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, {least} or more")
        return int(text)

    return parse


COMMANDS: Final[Sequence[Callable[[Any], None]]] = (_add_demo,)
