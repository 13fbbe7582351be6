"""What the command prints without a terminal: one screen as text, or a snapshot as JSON lines."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
import msgspec
from rich.console import Console
from rich.text import Text

from fairactor._model.states import Priority
from fairactor.errors import FairactorError
from fairactor.runtime import Runtime

from .model import ORDERS, Item, Place, Snapshot, State, View
from .reader import Reader
from .render import render, table_rows

_SIZE: Final = (100, 40)
"""Columns and lines without a terminal."""
_WEB_FONT: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


class CannotRead(FairactorError):
    """The server did not answer."""


async def print_once(runtime: Runtime, state: State, picture: Path | None = None) -> None:
    """Prints one screen, and saves it as an SVG picture if wished.

    Raises:
        CannotRead: the server did not answer.
        OSError: the picture cannot be written.
    """
    width, height = _size()
    reader = Reader(runtime)
    snapshot = await _read(reader, state.place, table_rows(state, None, width, height), reader.nothing())
    lines = render(state, snapshot, width, height, interactive=False)
    while lines and not lines[-1].plain.strip():
        lines.pop()
    console = Console(width=width, highlight=False, emoji=False, markup=False, legacy_windows=False)
    for line in lines:
        if not console.is_terminal:
            line.rstrip()
        console.print(line, no_wrap=True, crop=False, overflow="ignore")
    if picture is not None:
        await anyio.Path(picture).write_text(_drawn(lines, width), encoding="utf-8")


def _size() -> tuple[int, int]:
    if sys.stdout.isatty() or {"COLUMNS", "LINES"} & os.environ.keys():
        return shutil.get_terminal_size(_SIZE)
    return _SIZE


def _drawn(lines: list[Text], width: int) -> str:
    """Draws the screen as a picture. It refers to no web fonts, so it loads nothing."""
    recorder = Console(
        file=io.StringIO(), record=True, width=width, force_terminal=True, color_system="truecolor", highlight=False
    )
    for line in lines:
        recorder.print(line, no_wrap=True, crop=False, overflow="ignore")
    return _WEB_FONT.sub("", recorder.export_svg(title="fairactor top", unique_id="fairactor-top"))


async def print_json(runtime: Runtime, places: list[Place], rows: int) -> None:
    """Prints the totals as a JSON line, and then a line for each item of each place.

    Raises:
        CannotRead: the server did not answer.
    """
    reader = Reader(runtime)
    snapshot = reader.nothing()
    for number, place in enumerate(places):
        snapshot = await _read(reader, place, rows, snapshot)
        if not number:
            _print(_totals(snapshot))
        page = snapshot.page
        assert page is not None  # noqa: S101 - it was read
        for item in page.items:
            _print({"kind": _KINDS[place.view], **_plain(item)})
    sys.stdout.flush()


def default_place(view: View, order: str | None, text: str) -> Place:
    """Returns the place at which a view begins."""
    return Place(view, order=order or ORDERS[view][0], text=text)


async def _read(reader: Reader, place: Place, rows: int, before: Snapshot) -> Snapshot:
    snapshot = await reader.read(place, rows, before)
    if snapshot.trouble:
        raise CannotRead(snapshot.trouble)
    return snapshot


def _totals(snapshot: Snapshot) -> dict[str, Any]:
    health = snapshot.health
    assert health is not None  # noqa: S101 - it was read
    assert health.stats is not None  # noqa: S101 - as above
    stats = health.stats
    names = ("queued", "started", "scheduled", "deferred", "finished", "failed", "canceled", "dead_letters")
    return {
        "kind": "namespace",
        "namespace": snapshot.namespace,
        "server": snapshot.server,
        "at": snapshot.at.isoformat(),
        **{name: getattr(stats, name) for name in names},
        "tenants": stats.known_tenants,
        "runtimes": len(stats.runtimes),
        "ok": health.ok,
        "problems": list(health.problems),
        "notes": list(health.notes),
        "started_per_second": list(snapshot.minutes),
    }


_KINDS: Final = {
    View.TENANTS: "tenant",
    View.QUEUES: "queue",
    View.LIMITS: "limit",
    View.WORKERS: "worker",
    View.FAILURES: "failure",
}


def _plain(item: Item) -> dict[str, Any]:
    """Returns the fields of an item as JSON can write them."""
    fields = {name: getattr(item, name) for name in (field.name for field in attrs.fields(type(item)))}
    return {name: _value(value) for name, value in fields.items()}


def _value(value: Any) -> Any:
    match value:
        case msgspec.Struct() | datetime():
            return msgspec.to_builtins(value)
        case Mapping():
            return {str(key): _value(each) for key, each in value.items()}
        case list() | tuple():
            return [_value(each) for each in value]
        case Priority():
            return value.name.lower()
        case float():
            return value if math.isfinite(value) else None  # JSON does not know infinity
        case _:
            return _plain(value) if attrs.has(type(value)) else value


def _print(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
