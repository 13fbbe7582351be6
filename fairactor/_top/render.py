"""Draws the screen as lines of text that are never longer than it is wide. No input or output here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from fairactor.views import TaskDetails

from .columns import COLUMNS, Column, choose
from .details import detail_lines
from .model import ORDERS, TABS, Item, Page, Snapshot, State, View, current_page, selected_row
from .text import fit, fold, number, rate, sparkline, visible

_PROBLEMS: Final = 3  # at most so many lines
_LOW: Final = 16  # a screen with fewer lines shows one problem, and no notes
_WIDE: Final = 60  # columns from which on the title has the name of the program
_MINUTES: Final = 30
_HELP: Final = """\
1-5 tab     tenants, queues, limits, workers, failures
arrows j k  move; PgUp PgDn turn the page; g G first, last
enter       tasks of a tenant or a queue, details of a task
esc         back
< >         another order, or another state of tasks
b o s u n   order: backlog, oldest, share, running, name
/           filter by a part of the name
space p     freeze the screen; again to go on
r           read again now
q           quit

These change something, and ask first:
P  R        pause, resume a tenant or a limit
X           cancel all waiting tasks of a tenant
C           cancel a task
D           send a dead letter again"""


def render(state: State, snapshot: Snapshot | None, width: int, height: int, *, interactive: bool = True) -> list[Text]:
    """Returns the lines of the screen, at most ``height``, none wider than ``width``.

    Args:
        state: what the user has chosen.
        snapshot: what was read; None before the server was reached.
        width: the columns of the screen.
        height: the lines of the screen.
        interactive: whether there are keys: a cursor, and a footer.
    """
    width, height = max(1, width), max(1, height)
    head = _head(state, snapshot, width, height)
    foot = _foot(state, snapshot, width)[-height:] if interactive else []
    room = max(0, height - len(head) - len(foot))
    body = _body(state, snapshot, width, room, interactive=interactive)[:room]
    body += [Text()] * (room - len(body))
    lines = [*head, *body][: height - len(foot)]
    return [_clipped(line, width) for line in (*lines, *foot)]


def table_rows(state: State, snapshot: Snapshot | None, width: int, height: int) -> int:
    """Returns how many rows of a table fit on the screen."""
    return max(1, height - len(_head(state, snapshot, width, height)) - 2)


def _clipped(line: Text, width: int) -> Text:
    if cell_len(line.plain) > width:
        line = line.copy()
        line.truncate(width, overflow="ellipsis")
    line.no_wrap = True
    return line


def _head(state: State, snapshot: Snapshot | None, width: int, height: int) -> list[Text]:
    """Returns the lines above the table: title, totals, problems, tabs."""
    if snapshot is None:
        return [Text("fairactor top", style="bold"), _tabs(state, width)]
    lines = [_title(state, snapshot, width)]
    if snapshot.health and snapshot.health.stats:
        lines.append(_totals(snapshot, width))
    few = height < _LOW
    lines += list(_troubles(snapshot, width))[: 1 if few else _PROBLEMS]
    if not few:
        lines.append(Text())
    return [*lines, _tabs(state, width)]


def _title(state: State, snapshot: Snapshot, width: int) -> Text:
    left = Text.assemble(
        ("fairactor top" if width >= _WIDE else "top", "bold"),
        "  ",
        (visible(snapshot.namespace), "cyan"),
        "  ",
        (visible(snapshot.server), "dim"),
    )
    right = Text(snapshot.at.astimezone().strftime("%H:%M:%S"), style="dim")
    if state.frozen:
        right = Text.assemble((" FROZEN ", "reverse yellow"), " ", right)
    elif snapshot.trouble:
        right = Text.assemble((" AWAY " if snapshot.away else " ERROR ", "reverse red"), " ", right)
    left.truncate(max(0, width - right.cell_len - 1), overflow="ellipsis", pad=True)
    return Text.assemble(left, " ", right)


def _totals(snapshot: Snapshot, width: int) -> Text:
    """Returns the totals that fit, with a sparkline of the last minutes if there is room."""
    stats = snapshot.health.stats if snapshot.health else None
    assert stats is not None  # noqa: S101 - the caller has looked
    parts = [
        ("queued", number(stats.queued), "bold"),
        ("running", number(stats.started), "bold green"),
        *([("/s", rate(snapshot.rate), "bold")] if snapshot.rate is not None else []),
        ("failed", number(stats.dead_letters), "bold red" if stats.dead_letters else "bold"),
        ("tenants", number(stats.known_tenants), "bold"),
        ("runtimes", number(len(stats.runtimes)), "bold" if stats.runtimes else "bold red"),
        ("later", number(stats.scheduled + stats.deferred), "bold"),
        ("done", number(stats.finished), "bold"),
    ]
    line = Text()
    for name, value, style in parts:
        part = Text.assemble((value, style), name if name == "/s" else f" {name}")
        if line.cell_len + part.cell_len + 2 > width:
            break
        line = Text.assemble(line, "  " if line else "", part)
    room = min(_MINUTES, width - line.cell_len - 2)
    if snapshot.minutes and room >= 6:  # noqa: PLR2004 - fewer bars say nothing
        bars = sparkline(snapshot.minutes, room)
        line = Text.assemble(line, " " * (width - line.cell_len - len(bars)), (bars, "green"))
    return line


def _troubles(snapshot: Snapshot, width: int) -> Iterator[Text]:
    if snapshot.trouble:
        yield Text(fit("! " + visible(snapshot.trouble), width).rstrip(), style="bold red")
        return
    if snapshot.health:
        for problem in snapshot.health.problems:
            yield Text(fit("! " + visible(problem), width).rstrip(), style="red")
        for note in snapshot.health.notes:
            yield Text(fit("· " + visible(note), width).rstrip(), style="dim")


def _tabs(state: State, width: int) -> Text:
    """Returns the tabs; their names are shortened, or only the current one stays, if there is no room."""
    chosen = state.places[0].view
    for most in (9, 4, 1):
        line = Text()
        for place, view in enumerate(TABS, 1):
            name = view if view is chosen else view[:most]
            line = Text.assemble(line, (f" {place} {name} ", "reverse bold" if view is chosen else "dim"))
        if line.cell_len <= width:
            break
    return line


def _body(state: State, snapshot: Snapshot | None, width: int, room: int, *, interactive: bool) -> list[Text]:
    if state.help:
        return [Text(fit(line, width).rstrip()) for line in _HELP.splitlines()]
    page = current_page(state, snapshot)
    if snapshot is None or page is None:
        return [Text("reading …" if snapshot else "connecting …", style="dim")]
    if state.place.view is View.TASK:
        return _details(state, page, width, room)
    return _table(state, page, snapshot.at, width, room, interactive=interactive)


def _details(state: State, page: Page, width: int, room: int) -> list[Text]:
    if not page.items:
        return [Text("this task is not known any more: its record has expired, or was deleted", style="dim")]
    (task,) = page.items
    assert isinstance(task, TaskDetails)  # noqa: S101 - as the reader makes such pages
    lines = detail_lines(task, width)
    first = max(0, min(state.place.selected, len(lines) - room))
    return lines[first:]


def _table(state: State, page: Page, now: datetime, width: int, room: int, *, interactive: bool) -> list[Text]:
    place = state.place
    columns = choose(
        COLUMNS[place.view],
        width,
        lambda column: max((cell_len(column.cell(item, now)) for item in page.items), default=0),
    )
    lines = [_titles(columns, place.order, width)]
    row = selected_row(place, page)
    rows = max(1, room - 1)
    first = max(0, min(row - rows + 1, len(page.items) - rows)) if row >= rows else 0
    for place_, item in enumerate(page.items[first : first + rows], first):
        line = _row(columns, item, now)
        if interactive and place_ == row:
            line.pad_right(max(0, width - line.cell_len))
            line.stylize("reverse")
        lines.append(line)
    if not page.items:
        lines.append(Text(fit(_nothing(state, page), width).rstrip(), style="dim"))
    return lines


def _nothing(state: State, page: Page) -> str:
    if page.after:
        return "nothing here so far; PgDn looks further"
    if state.place.text:
        return f"nothing matches {visible(state.place.text)!r}; Esc takes the filter away"
    return {View.FAILURES: "no task has failed", View.WORKERS: "no runtime runs tasks"}.get(
        state.place.view, "there is nothing here"
    )


def _titles(columns: Sequence[tuple[Column, int]], order: str, width: int) -> Text:
    line = Text()
    for column, size in columns:
        title = f"{column.title}▾" if column.order == order else column.title
        title = title if cell_len(title) <= size else column.title
        style = "bold underline" if column.order == order else "bold"
        line = Text.assemble(line, " " if line else "", (fit(title, size, right=_is_right(column)), style))
    line.pad_right(max(0, width - line.cell_len))
    return line


def _row(columns: Sequence[tuple[Column, int]], item: Item, now: datetime) -> Text:
    line = Text()
    for place, (column, size) in enumerate(columns):
        if place:
            line.append(" ")
        style = column.style(item) if column.style else ""
        line.append(fit(column.cell(item, now), size, right=_is_right(column)), style or None)
    return line


def _is_right(column: Column) -> bool:
    return not column.grows and not column.left


def _foot(state: State, snapshot: Snapshot | None, width: int) -> list[Text]:
    """Returns the last lines: one, or as many as a question needs."""
    if state.question is not None:
        return [Text(line, style="bold yellow") for line in fold(f"{state.question.text} Type y to do it.", width, 8)]
    if state.typed is not None:
        text = visible(state.typed)
        while cell_len(text) > max(1, width - 9):  # the end is what is being typed
            text = text[1:]
        return [Text.assemble(("filter: ", "bold"), text, ("▏", "bold"))]
    if state.message:
        return [Text(fit(visible(state.message), width).rstrip(), style="bold red" if state.failed else "bold green")]
    return [_hints(state, snapshot, width)]


def _hints(state: State, snapshot: Snapshot | None, width: int) -> Text:
    """Says where the user is, and the keys as far as there is room."""
    place, page = state.place, current_page(state, snapshot)
    where = [] if place.subject is None else [visible(place.subject.name)]
    if len(ORDERS[place.view]) > 1 and place.order != "all":
        where.append(("by " if place.view is not View.TASKS else "") + place.order)
    if place.text:
        where.append(f"filter {visible(place.text)}")
    if page is not None and page.known is not None:
        where.append(f"of {number(page.known)}")
    if place.cursors or (page and page.after):
        where.append(f"page {len(place.cursors) + 1}" + ("+" if page and page.after else ""))
    left = ", ".join(where)
    keys = "? help  q quit  / filter  < > order  P R X C D"
    while keys and cell_len(left) + len(keys) + 2 > width:
        keys = keys.rpartition("  ")[0]
    left = fit(left, max(0, width - len(keys) - (2 if keys else 0)))
    return Text.assemble((left, "cyan"), "  " if keys else "", (keys, "dim"))
