"""The options that commands share. Each decorator says what the command gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, Final

import attrs
import click

from .connect import Connection
from .output import Output

Function = Callable[..., Any]

STATES: Final = ("queued", "started", "scheduled", "deferred", "finished", "failed", "canceled")
_EVERY: Final = 2.0  # seconds between two listings
_PAGE: Final = 50
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SHORTEST: Final = 0.1  # seconds between two listings


# The types of options


def whole_number(least: int) -> Callable[[str], int]:
    """Returns the type of an option that is a whole number from `least` on."""

    def n(text: str | int) -> int:  # the help shows the name
        if not str(text).isdecimal() or int(text) < least:
            raise click.BadParameter(f"{text!r}: give a whole number, {least} or more")
        return int(text)

    return n


def duration(text: str | float) -> float:
    """Reads seconds, or a number with a unit: ``90``, ``90s``, ``15m``, ``2h``, ``7d``."""
    given = str(text).strip()
    number, unit = (given[:-1], _UNITS[given[-1]]) if given[-1:] in _UNITS else (given, 1.0)
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise click.BadParameter(f"{given!r}: give seconds, or a number with a unit, as in 90s, 15m, 2h or 7d")
    return seconds


def ago(text: str | datetime) -> datetime:
    """Reads a point in time: how long ago it was, or a date with a time zone."""
    if isinstance(text, datetime):
        return text
    try:
        return datetime.now(UTC) - timedelta(seconds=duration(text))
    except (click.BadParameter, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r}: give how long ago, as in 2h, or a time, as in 2026-01-31T12:00:00Z"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


# Where the namespace is, and how the command prints


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

    return _with([_JSON], call)


def watch_options(command: Function) -> Function:
    """Adds ``--json`` and ``--watch``; the command gets ``output``, whose `Output.follow` repeats a listing."""

    @wraps(command)
    def call(*args: Any, json: bool, watch: float | None, **named: Any) -> Any:
        if watch is not None and watch < _SHORTEST:
            raise click.UsageError(f"--watch {watch:g}: give {_SHORTEST:g} seconds or more")
        return command(*args, output=Output(json=json, watch=watch), **named)

    watching = click.option(
        "--watch",
        type=duration,
        is_flag=False,
        flag_value=str(_EVERY),
        metavar="[SECONDS]",
        help=f"Repeat the listing, every {_EVERY:g} seconds, or as often as given.",
    )
    return _with([_JSON, watching], call)


_JSON: Final = click.option("--json", is_flag=True, help="Print JSON lines.")


# Pages


@attrs.frozen
class Page:
    """Which part of a long listing is wanted."""

    limit: int = _PAGE
    after: str | None = None
    everything: bool = False


def page_options(command: Function) -> Function:
    """Adds ``--limit``, ``--after`` and ``--all``; the command gets ``page``."""

    @wraps(command)
    def call(*args: Any, limit: int, after: str | None, everything: bool, **named: Any) -> Any:
        return command(*args, page=Page(limit, after, everything), **named)

    options = (
        click.option("--limit", type=whole_number(1), default=_PAGE, show_default=True, help="The size of a page."),
        click.option("--after", metavar="MARK", help="Go on where the page before ended; it said the mark."),
        click.option("--all", "everything", is_flag=True, help="List all pages, one after the other."),
    )
    return _with(options, call)


# Filters, and changes to many


@attrs.frozen
class Filter:
    """Which tasks are meant."""

    tenant: str | None = None
    state: tuple[str, ...] = ()
    actor: str | None = None
    queue: str | None = None
    since: datetime | None = None
    text: str | None = None

    def __bool__(self) -> bool:
        return self != Filter()

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments for `Runtime.tasks` and `Runtime.select`."""
        found = {field.name: getattr(self, field.name) for field in attrs.fields(Filter)}
        return found | {"state": list(self.state) or None}


def filter_options(command: Function) -> Function:
    """Adds ``--tenant``, ``--state``, ``--actor``, ``--queue``, ``--since`` and ``--text``; it gets ``wanted``."""

    @wraps(command)
    def call(
        *args: Any,
        tenant: str | None,
        state: tuple[str, ...],
        actor: str | None,
        queue: str | None,
        since: datetime | None,
        text: str | None,
        **named: Any,
    ) -> Any:
        return command(*args, wanted=Filter(tenant, state, actor, queue, since, text), **named)

    options = (
        click.option("--tenant", metavar="NAME", help="Only the tasks of this tenant."),
        click.option("--state", multiple=True, type=click.Choice(STATES), help="Only tasks in this state; repeatable."),
        click.option("--actor", metavar="NAME", help="Only the tasks of this actor."),
        click.option("--queue", metavar="NAME", help="Only the tasks of this queue."),
        click.option("--since", type=ago, metavar="TIME", help="Only tasks sent since then: 2h ago, or a date."),
        click.option("--text", metavar="TEXT", help="Only tasks with this text in their id or arguments."),
    )
    return _with(options, call)


@attrs.frozen
class Bulk:
    """How a command that changes many things at once asks."""

    yes: bool = False
    dry_run: bool = False
    all_tenants: bool = False


def bulk_options(command: Function) -> Function:
    """Adds ``--yes``, ``--dry-run`` and ``--all-tenants``; the command gets ``bulk``."""

    @wraps(command)
    def call(*args: Any, yes: bool, dry_run: bool, all_tenants: bool, **named: Any) -> Any:
        return command(*args, bulk=Bulk(yes, dry_run, all_tenants), **named)

    options = (
        click.option("--yes", "-y", is_flag=True, help="Do it without asking."),
        click.option("--dry-run", is_flag=True, help="Only count, and change nothing."),
        click.option("--all-tenants", is_flag=True, help="Needed to take everything, without any filter."),
    )
    return _with(options, call)


def _with(options: Sequence[Callable[[Function], Function]], call: Function) -> Function:
    for option in reversed(options):
        call = option(call)
    return call
