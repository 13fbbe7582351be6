"""What each key does to the state. No input or output here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import attrs

from fairactor._model.info import TaskInfo
from fairactor.views import QueueView, RunningTask, TaskDetails, TenantView, WorkerView

from .model import (
    LETTERS,
    ORDERS,
    TABS,
    Act,
    Deed,
    Item,
    LimitView,
    Page,
    Place,
    Snapshot,
    State,
    Subject,
    View,
    current_page,
    key_of,
    selected_item,
    selected_row,
)

ACTS: Final[Mapping[str, Act]] = {
    "P": Act.PAUSE,
    "R": Act.RESUME,
    "X": Act.PURGE,
    "C": Act.CANCEL,
    "D": Act.REDRIVE,
}
"""The keys that change something: capitals only."""
_FITTING: Final[Mapping[View, tuple[Act, ...]]] = {
    View.TENANTS: (Act.PAUSE, Act.RESUME, Act.PURGE),
    View.LIMITS: (Act.PAUSE, Act.RESUME),
    View.TASK: (Act.CANCEL, Act.REDRIVE),
}
_UP: Final = ("up", "k")
_DOWN: Final = ("down", "j")
_FIRST: Final = ("home", "g")
_LAST: Final = ("end", "G", "pgdn")
_LONGEST_FILTER: Final = 256  # characters


class Effect(StrEnum):
    """What is to be done besides changing the state."""

    QUIT = "quit"
    INTERRUPT = "interrupt"
    REFRESH = "refresh"
    REDRAW = "redraw"
    SUSPEND = "suspend"


@attrs.frozen
class Ask:
    """The user wants to do something: find out what it would do, and ask."""

    deed: Deed


@attrs.frozen
class Do:
    """The user has agreed."""

    deed: Deed


_TABS: Final[Mapping[str, int]] = {str(number + 1): number for number in range(len(TABS))}
_ALWAYS: Final[Mapping[str, Effect]] = {
    "ctrl-c": Effect.INTERRUPT,
    "ctrl-z": Effect.SUSPEND,
    "ctrl-l": Effect.REDRAW,
}
Outcome = tuple[State, Effect | Ask | Do | None]


def press(state: State, key: str, snapshot: Snapshot | None, rows: int) -> Outcome:
    """Returns the state after a key, and what else is to be done.

    Args:
        state: the state before.
        key: the name of the key, from `KeyParser`.
        snapshot: what is on the screen.
        rows: how many rows of the table fit on the screen.
    """
    if key in _ALWAYS:
        return state, _ALWAYS[key]
    if state.question is not None:
        return _answer(state, state.question.deed, key)
    if state.typed is not None:
        return _type(state, state.typed, key)
    if state.help:
        return attrs.evolve(state, help=False), Effect.QUIT if key == "q" else None
    return _command(state.say(""), key, snapshot, rows)


def _command(state: State, key: str, snapshot: Snapshot | None, rows: int) -> Outcome:
    """Returns what a key does while nothing is asked or typed."""
    if key in _SIMPLE:
        return _SIMPLE[key](state)
    if key in ACTS:
        return _act(state, ACTS[key], selected_item(state, snapshot))
    if key == "enter":
        return _enter(state, selected_item(state, snapshot)), None
    return _choose(state, key) or _move(state, key, current_page(state, snapshot), rows), None


def _choose(state: State, key: str) -> State | None:
    """Returns the state after a key that chooses a view or an order; None if it is another key."""
    if key in _TABS:
        return _tab(state, _TABS[key])
    if LETTERS.get(key) in ORDERS[state.place.view]:
        return _order(state, LETTERS[key])
    return None


def _answer(state: State, deed: Deed, key: str) -> Outcome:
    state = attrs.evolve(state, question=None)
    return (state, Do(deed)) if key == "y" else (state.say("nothing was changed"), None)


def _type(state: State, typed: str, key: str) -> Outcome:
    if key == "enter":
        place = attrs.evolve(state.place, text=typed, cursors=(), selected=0, key=None)
        return attrs.evolve(state.at(place), typed=None), None
    if key == "esc":
        return attrs.evolve(state, typed=None), None
    if key == "backspace":
        typed = typed[:-1]
    elif key == "ctrl-u":
        typed = ""
    elif key.startswith("paste:"):
        typed += key.removeprefix("paste:").split("\n")[0].rstrip("\r")
    elif len(key) == 1:
        typed += key
    return attrs.evolve(state, typed=typed[:_LONGEST_FILTER]), None


def _back(state: State) -> Outcome:
    place = state.place
    if len(state.places) > 1:
        return attrs.evolve(state, places=state.places[:-1]), None
    if place.text:
        return state.at(attrs.evolve(place, text="", cursors=(), selected=0, key=None)), None
    return state.at(attrs.evolve(place, cursors=(), selected=0, key=None)), None


def _filter(state: State) -> Outcome:
    if state.place.view in (View.TASK, View.RUNS):
        return state.say("there is nothing to filter here"), None
    return attrs.evolve(state, typed=state.place.text), None


def _freeze(state: State) -> Outcome:
    return attrs.evolve(state, frozen=not state.frozen), None


def _turn(step: int) -> Callable[[State], Outcome]:
    def turn(state: State) -> Outcome:
        orders = ORDERS[state.place.view]
        now = orders.index(state.place.order) if state.place.order in orders else 0
        return _order(state, orders[(now + step) % len(orders)]), None

    return turn


def _next_tab(step: int) -> Callable[[State], Outcome]:
    def turn(state: State) -> Outcome:
        view = state.places[0].view
        return _tab(state, (TABS.index(view) + step) % len(TABS)), None

    return turn


def _order(state: State, order: str) -> State:
    return state.at(attrs.evolve(state.place, order=order, cursors=(), selected=0, key=None))


def _tab(state: State, number: int) -> State:
    view = TABS[number]
    return attrs.evolve(state, places=(Place(view, order=ORDERS[view][0]),))


_SIMPLE: Final[Mapping[str, Callable[[State], Outcome]]] = {
    "q": lambda state: (state, Effect.QUIT),
    "r": lambda state: (state, Effect.REFRESH),
    "?": lambda state: (attrs.evolve(state, help=True), None),
    "h": lambda state: (attrs.evolve(state, help=True), None),
    " ": _freeze,
    "p": _freeze,
    "/": _filter,
    "esc": _back,
    "left": _back,
    "<": _turn(-1),
    ">": _turn(1),
    "tab": _next_tab(1),
    "backtab": _next_tab(-1),
}


def _enter(state: State, item: Item | None) -> State:
    """Opens what is under the cursor."""
    match item:
        case TenantView():
            place = _inside(View.TASKS, Subject(View.TENANTS, item.tenant))
        case QueueView():
            place = _inside(View.TASKS, Subject(View.QUEUES, item.queue))
        case WorkerView():
            place = _inside(View.RUNS, Subject(View.WORKERS, item.runtime.name))
        case TaskInfo() | RunningTask():
            place = _inside(View.TASK, Subject(View.TASK, item.id, item.tenant))
        case _:
            return state
    return attrs.evolve(state, places=(*state.places, place))


def _inside(view: View, subject: Subject) -> Place:
    return Place(view, subject, order=ORDERS[view][0])


def _act(state: State, act: Act, item: Item | None) -> Outcome:
    """Finds what an action is for; the question comes once the server has said how many tasks it is about."""
    subject = state.place.subject
    deed: Deed | None = None
    match item:
        case TenantView():
            deed = Deed(act, View.TENANTS, item.tenant)
        case LimitView():
            deed = Deed(act, View.LIMITS, item.name)
        case TaskInfo() | RunningTask():
            deed = Deed(act, View.TASK, item.id, item.tenant)
        case TaskDetails():
            deed = Deed(act, View.TASK, item.info.id, item.info.tenant)
        case _:
            pass
    if act in _FITTING[View.TENANTS] and state.place.view is View.TASKS and subject and subject.view is View.TENANTS:
        deed = Deed(act, View.TENANTS, subject.name)
    if deed is None or act not in _FITTING[deed.kind]:
        return state.say(f"there is nothing to {act} here", failed=True), None
    return state, Ask(deed)


def _move(state: State, key: str, page: Page | None, rows: int) -> State:
    """Moves the cursor, or turns the page."""
    place = state.place
    if page is None:
        return state
    if place.view is View.TASK:
        return state.at(attrs.evolve(place, selected=_scrolled(place.selected, key, rows)))
    row, last = selected_row(place, page), len(page.items) - 1
    if page.after and (key == "pgdn" or (key in _DOWN and row >= last)):
        place = _other_page(place, (*place.cursors, page.after), 0)
    elif place.cursors and (key == "pgup" or (key in _UP and row == 0)):
        place = _other_page(place, place.cursors[:-1], rows if key in _UP else 0)
    elif key in _FIRST:
        place = _other_page(place, (), 0)
    elif page.items:
        steps = {**dict.fromkeys(_UP, -1), **dict.fromkeys(_DOWN, 1), **dict.fromkeys(_LAST, last), "pgup": -last}
        row = max(0, min(row + steps.get(key, 0), last))
        place = attrs.evolve(place, selected=row, key=key_of(page.items[row])) if key in steps else place
    return state.at(place)


def _other_page(place: Place, cursors: tuple[str, ...], row: int) -> Place:
    return attrs.evolve(place, cursors=cursors, selected=row, key=None)


def _scrolled(line: int, key: str, rows: int) -> int:
    steps = {**dict.fromkeys(_UP, -1), **dict.fromkeys(_DOWN, 1), "pgup": -rows, "pgdn": rows}
    return 0 if key in _FIRST else max(0, line + steps.get(key, 0))
