"""Runs the command line: parses it, calls the command, and makes every error a message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from fairactor.errors import ConfigurationError, EmbeddedServerError, FairactorError, NamespaceMismatch, ServerError

from .exits import INTERRUPTED, OK, PROBLEM, SERVER, USAGE
from .group import main as group
from .names import COMPLETE, PROGRAM
from .text import visible


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code.

    Args:
        arguments: the arguments after ``fairactor``. None takes them from ``sys.argv``.
    """
    if arguments is None and COMPLETE in os.environ:
        group.main(prog_name=PROGRAM, complete_var=COMPLETE)  # answers the shell, and exits
    try:
        code = _invoke(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise flushing at exit would fail too
        return PROBLEM
    return code


def _invoke(arguments: list[str]) -> int:
    where = PROGRAM
    try:
        with group.make_context(PROGRAM, arguments) as context:
            where = " ".join([PROGRAM, *arguments[:1]])
            code: int | None = group.invoke(context)
            return OK if code is None else code
    except click.exceptions.Exit as left:
        return left.exit_code
    except (Exception, BaseExceptionGroup, KeyboardInterrupt) as raised:
        cause = _first(raised)
        if isinstance(cause, BrokenPipeError):
            raise cause from None
        code = _told(where, cause)
        if code is None:
            raise
        return code


def _told(where: str, error: BaseException) -> int | None:
    """Prints an error, and returns its exit code; None for one that is a bug."""
    match error:
        case click.UsageError():
            return _refuse(error)
        case click.ClickException():
            _say(where, error.format_message())
            return error.exit_code
        case KeyboardInterrupt() | click.Abort():
            _say(PROGRAM, "interrupted")
            return INTERRUPTED
        case FairactorError():
            _say(where, str(error))
            return code_of(error)
        case _:
            return None


def code_of(error: FairactorError) -> int:
    """Returns the exit code for an error."""
    if isinstance(error, ServerError | NamespaceMismatch | EmbeddedServerError):
        return SERVER
    return USAGE if isinstance(error, ConfigurationError) else PROBLEM


def _refuse(error: click.UsageError) -> int:
    """Says what is wrong with the command line, and how it is used."""
    context = error.ctx
    if context is not None:
        click.echo(context.get_usage(), err=True)
        click.echo(f"Try '{context.command_path} --help' for help.\n", err=True)
    _say(context.command_path if context else PROGRAM, error.format_message())
    return USAGE


def _say(where: str, message: str) -> None:
    click.echo(f"{where}: {visible(message, lines=True)}", err=True)


def _first(error: BaseException) -> BaseException:
    """Returns the first exception in nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
