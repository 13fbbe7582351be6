"""What commands print: tables for people, JSON lines for programs."""

from __future__ import annotations

import asyncio
import json
import sys
import unicodedata
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from .text import plain, visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as RichTable

Record = Mapping[str, Any]

_LONGEST_CELL: Final = 200  # characters, in a table on a terminal
_NARROWEST: Final = 6  # characters that a column keeps on a narrow terminal
_WIDEST: Final = 60  # characters to which a column of a table without a terminal is padded
_GAP: Final = 2  # spaces between two columns


@attrs.frozen
class Column:
    """A column of a table."""

    title: str
    key: str
    """The name of the value in the records."""
    show: Callable[[Any], str] = plain
    right: bool = False
    """Whether it is aligned to the right, as numbers are."""
    rank: int = 0
    """On a terminal that is too narrow, columns of the highest rank are left out first; those of rank 0 never are."""
    style: Callable[[Any], str] | None = None
    """Returns the style of a value, such as ``red``."""


@attrs.frozen
class Table:
    """A table of records. As JSON, each of them is a line, with all its values."""

    columns: Sequence[Column]
    records: Sequence[Record]
    empty: str = ""
    """What is said if there are no records."""


@attrs.frozen
class Facts:
    """One record, shown as a line for each value; those without a label are only in the JSON line."""

    record: Record
    labels: Mapping[str, str]
    show: Mapping[str, Callable[[Any], str]] = attrs.field(factory=dict)


@attrs.frozen
class Text:
    """A line for people, which is not in the JSON."""

    line: str
    style: str = ""


Part = Table | Facts | Text


@attrs.frozen
class Output:
    """How a command prints."""

    json: bool = False
    watch: float | None = None
    """The seconds after which a listing is repeated; None to print it once."""

    @property
    def on_terminal(self) -> bool:
        """Whether people read the output on a terminal."""
        return not self.json and sys.stdout.isatty()

    def show(self, *parts: Part) -> None:
        """Prints tables, facts and texts: as JSON lines, plain, or in colours that fit the terminal."""
        if self.json:
            for part in parts:
                self.write(records_of(part))
        elif self.on_terminal and (console := _console()) is not None:
            for part in parts:
                console.print(_rendered(part, console.width))
        else:
            for part in parts:
                for line in _plain_lines(part):
                    click.echo(line)

    def write(self, records: Iterable[Record]) -> None:
        """Prints records as JSON lines."""
        for record in records:
            click.echo(to_json_line(record))

    def say(self, line: str, *, record: Record | None = None) -> None:
        """Prints a line for people; with ``--json`` the record instead, if there is one."""
        if not self.json:
            self.show(Text(line))
        elif record is not None:
            self.write([record])

    def note(self, line: str) -> None:
        """Prints a line for people to stderr, so that it is not among what a program reads."""
        click.echo(visible(line, lines=True), err=True)

    async def follow(self, look: Callable[[], Awaitable[Sequence[Part]]]) -> None:
        """Prints what a function returns, and with ``--watch`` again and again, in place on a terminal."""
        console = _console() if self.watch is not None and self.on_terminal else None
        if console is None:
            self.show(*await look())
            while self.watch is not None:
                await asyncio.sleep(self.watch)
                self.show(*await look())
            return
        from rich.console import Group
        from rich.live import Live

        assert self.watch is not None  # noqa: S101 - otherwise there is no console
        with Live(console=console, auto_refresh=False) as live:
            while True:
                parts = [_rendered(part, console.width) for part in await look()]
                live.update(Group(*parts), refresh=True)
                await asyncio.sleep(self.watch)


def records_of(part: Part) -> Sequence[Record]:
    """Returns the records of a part, for JSON lines."""
    match part:
        case Table():
            return part.records
        case Facts():
            return [part.record]
        case Text():
            return []


def to_json_line(record: Record) -> str:
    """Returns a record as one line of JSON in ASCII, which is exact whatever the names are."""
    return json.dumps(_to_json(record), ensure_ascii=True, allow_nan=False, separators=(", ", ": "))


def _to_json(value: Any) -> Any:  # noqa: PLR0911 - one for each kind of value
    from datetime import datetime
    from enum import Enum, IntEnum

    match value:
        case float():
            return value if abs(value) < float("inf") else None  # JSON has neither infinity nor NaN
        case IntEnum():
            return value.name.lower()
        case Enum():
            return _to_json(value.value)
        case datetime():
            return value.isoformat()
        case Mapping():
            return {key if isinstance(key, str) else str(_to_json(key)): _to_json(each) for key, each in value.items()}
        case str() | bool() | int() | None:
            return value
        case Sequence() | set() | frozenset():
            return [_to_json(each) for each in value]
        case _ if hasattr(value, "__struct_fields__"):  # of msgspec
            return {name: _to_json(getattr(value, name)) for name in value.__struct_fields__}
        case _ if attrs.has(type(value)):
            return {
                field.name: _to_json(getattr(value, field.name))
                for field in attrs.fields(type(value))
                if not field.name.startswith("_")
            }
        case _:
            return str(value)


def to_record(value: Any) -> dict[str, Any]:
    """Returns the fields of an attrs object by name, as they are."""
    return {field.name: getattr(value, field.name) for field in attrs.fields(type(value))}


# On a terminal


def _console() -> Any:
    """Returns rich's console for stdout; None without rich."""
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        return None
    return Console(highlight=False, emoji=False, markup=False)


def _rendered(part: Part, width: int) -> RenderableType:
    from rich.text import Text as RichText

    match part:
        case Text():
            return RichText(visible(part.line, lines=True), style=part.style)
        case Facts():
            lines = [RichText.assemble((f"{label}  ", "dim"), value) for label, value in _labelled(part)]
            return RichText("\n").join(lines)
        case Table():
            return _table(part, width) if part.records else RichText(part.empty, style="dim")


def _table(part: Table, width: int) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    cells = {column.key: [_cell(column, record, _LONGEST_CELL) for record in part.records] for column in part.columns}
    columns = _fitting(part.columns, cells, width)
    table = RichTable(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis")
    for number, record in enumerate(part.records):
        table.add_row(
            *(
                RichText(cells[column.key][number], style=column.style(record.get(column.key)) if column.style else "")
                for column in columns
            )
        )
    return table


def _fitting(columns: Sequence[Column], cells: Mapping[str, Sequence[str]], width: int) -> list[Column]:
    """Returns the columns that fit into a width, if those of rank 0 are shortened."""
    left = list(columns)
    needs = {column.key: max(map(width_of, (column.title, *cells[column.key])), default=0) for column in columns}

    def needed() -> int:
        of_each = [
            min(needs[column.key], max(_NARROWEST, width // 3)) if not column.rank else needs[column.key]
            for column in left
        ]
        return sum(of_each) + _GAP * (len(left) - 1)

    while needed() > width and (rank := max(column.rank for column in left)):
        left.remove(next(column for column in reversed(left) if column.rank == rank))
    return left


# Without a terminal


def _plain_lines(part: Part) -> list[str]:
    match part:
        case Text():
            return [visible(part.line, lines=True)]
        case Facts():
            return [f"{label}  {value}" for label, value in _labelled(part)]
        case Table():
            return _plain_table(part) if part.records else [part.empty] if part.empty else []


def _plain_table(part: Table) -> list[str]:
    rows = [[column.title for column in part.columns]]
    rows += [[_cell(column, record) for column in part.columns] for record in part.records]
    # A long name does not make all other lines long.
    widths = [min(_WIDEST, max(width_of(row[number]) for row in rows)) for number in range(len(part.columns))]
    lines = []
    for row in rows:
        padded = []
        for column, cell, width in zip(part.columns, row, widths, strict=True):
            space = " " * (width - width_of(cell))
            padded.append(space + cell if column.right else cell + space)
        lines.append((" " * _GAP).join(padded).rstrip())
    return lines


def _cell(column: Column, record: Record, longest: int | None = None) -> str:
    text = column.show(record.get(column.key))
    return visible(text) if longest is None else visible(text, longest=longest)


def _labelled(part: Facts) -> list[tuple[str, str]]:
    shown = [
        (label, visible(part.show.get(key, plain)(part.record[key]), lines=True))
        for key, label in part.labels.items()
        if part.record.get(key) is not None
    ]
    width = max((len(label) for label, _ in shown), default=0)
    return [(label.ljust(width), value.replace("\n", "\n" + " " * (width + _GAP))) for label, value in shown]


def width_of(text: str) -> int:
    """Returns how many cells of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
