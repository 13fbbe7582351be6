"""Tests what `fairactor top` draws and what its keys do, without a terminal and a server."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from fairactor._model.info import TaskInfo
from fairactor._model.limit import LimitPolicy, LimitUsage
from fairactor._model.record import Error
from fairactor._model.states import Priority, TaskState
from fairactor._store.runtimes import Pulse, RuntimeInfo
from fairactor._store.stats import Health, Stats
from fairactor._top.keys import KeyParser
from fairactor._top.model import (
    ORDERS,
    Act,
    Deed,
    Item,
    LimitView,
    Page,
    Place,
    Question,
    Snapshot,
    State,
    Subject,
    View,
    selected_item,
)
from fairactor._top.press import Ask, Do, Effect, press
from fairactor._top.render import render, table_rows
from fairactor._top.text import fit, fold, number, percent, span, sparkline, visible
from fairactor.views import Dependency, Event, LogLine, QueueView, RunningTask, TaskDetails, TenantView, WorkerView

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NASTY = [
    "evil\x1b[2J\u202egnp",
    "日本商事",
    "e\u0301" * 40,
    "👩‍👩‍👧",
    "a\nb\rc\td",
    "x" * 300,
    "\ud800",
    "",
    "\u3164\u115f",
]


def tenant(name: str, backlog: int = 0, **more: object) -> TenantView:
    facts = {"oldest_wait": 75.0, "running": 2, "scheduled": 1, "deferred": 1, "finished": 1234567, "failed": 3}
    facts |= {"canceled": 0, "rate": 12.3, "share": 0.1, "fair_share": 0.5, "weight": 1.0, "group": None}
    return TenantView(tenant=name, backlog=backlog, **({"paused": False} | facts | more))  # type: ignore[arg-type]


def task(
    name: str = "t1", tenant: str = "acme", state: TaskState = TaskState.FAILED, text: str = "no order"
) -> TaskInfo:
    error = Error("ValueError", text, f"Traceback\n  in {text}") if state is TaskState.FAILED else None
    ended = NOW - timedelta(seconds=70)
    return TaskInfo(name, tenant, "bill", state, Priority.NORMAL, 3, ended, ended_at=ended, error=error, args=[text])


def details(info: TaskInfo, note: str = "") -> TaskDetails:
    other = Dependency("t0", info.tenant, "started")
    logs = [LogLine(NOW, "ERROR", "app", note, 1)]
    return TaskDetails(info, [Event(NOW, "sent", note)], 1.5, [other], [other], note or None, logs, NOW)


def worker(name: str = "host:1:ab", lease: float = 12.0) -> WorkerView:
    pulse = Pulse(4, 1, 30.0, 0.1, 0.5)
    return WorkerView(RuntimeInfo(name, "host", 1, 4, ("bill", name), lease, pulse, {"workers": 4}, (name,)), 99, [])


def health(*problems: str) -> Health:
    counts = {
        "queued": 12345,
        "started": 3,
        "scheduled": 0,
        "deferred": 0,
        "finished": 10**9,
        "failed": 2,
        "canceled": 0,
    }
    more = {"dead_letters": 2, "due": 0, "waiting_tenants": 1, "throttled_tenants": 0, "known_tenants": 3, "stolen": 0}
    stats = Stats(**counts, **more, by_priority={}, unassigned_tenants=(), runtimes=(worker().runtime,))
    return Health(ok=not problems, problems=problems, latency=0.001, stats=stats, notes=("all is well",))


def at(view: View, subject: Subject | None = None, **more: object) -> State:
    place = Place(view, subject, order=ORDERS[view][0])
    return State(places=(attrs.evolve(place, **more),))


def snapshot(state: State, items: Sequence[Item], after: str | None = None, **more: object) -> Snapshot:
    page = Page(state.place.query, items, after, len(items))
    made = Snapshot("shop", "redis://host:1", NOW, 0.01, health(), 12.3, [1.0, 2.0, 5.0] * 20, page)
    return attrs.evolve(made, **more)


def every_screen(name: str) -> Iterable[tuple[State, Snapshot | None]]:
    """Yields a screen of each view, with the same nasty text wherever there is one."""
    usage = LimitUsage(3, 1.5, 2, float("inf"))
    rows: dict[View, list[Item]] = {
        View.TENANTS: [tenant(name, 5, group=name, paused=True), tenant("acme")],
        View.QUEUES: [QueueView(name, 5, 1.0, 2, 0)],
        View.LIMITS: [
            LimitView(name, LimitPolicy(3, "10/s", None, None, True), usage),
            LimitView("a", LimitPolicy(), None),
        ],
        View.WORKERS: [worker(name), worker(name, -5.0)],
        View.FAILURES: [task(name, name, text=name)],
        View.TASKS: [task(name, name, state, name) for state in TaskState],
        View.RUNS: [RunningTask(name, name, name, NOW, 1, (0.5, name)), RunningTask("t", "a", "b", None, 1, None)],
        View.TASK: [details(task(name, name, text=name), name)],
    }
    for view, items in rows.items():
        state = at(view, Subject(View.TENANTS, name) if view is View.TASKS else None, text=name)
        yield state, snapshot(state, items, health=health(name, name), namespace="shop", server=name)
        yield attrs.evolve(state, frozen=True, message=name, failed=True), snapshot(state, items, trouble=name)
        yield attrs.evolve(state, typed=name), snapshot(state, [])
        yield attrs.evolve(state, question=Question(Deed(Act.PAUSE, View.TENANTS, name), visible(name))), None
        yield attrs.evolve(state, help=True), snapshot(state, items)


@pytest.mark.parametrize(("width", "height"), [(40, 10), (80, 24), (200, 60), (20, 4), (7, 3), (1, 1)])
@pytest.mark.parametrize("name", NASTY)
def test_no_line_is_too_long_and_nothing_harmful_is_in_it(name: str, width: int, height: int) -> None:
    for state, shown in every_screen(name):
        lines = render(state, shown, width, height)
        assert len(lines) <= height
        assert table_rows(state, shown, width, height) >= 1
        for line in lines:
            assert cell_len(line.plain) <= width, (state.place.view, line.plain)
            assert line.plain.isprintable(), line.plain


@given(st.text())
def test_any_text_becomes_visible(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    for width in (1, 2, 5, 20):
        assert cell_len(fit(shown, width)) == width
        folded = fold(shown, width)
        assert width == 1 or all(cell_len(line) <= width for line in folded)
        assert cell_len(shown) > width * 4 or width == 1 or "".join(folded) == shown or len(folded) == 4


def test_what_is_hidden_is_escaped() -> None:
    assert visible("a\x1b[2J") == r"a\x1b[2J"
    assert visible("ab\u202edc") == r"ab\u202edc"
    assert visible("a\nb\u2028") == r"a\nb\u2028"
    assert visible("日本 é") == "日本 é"
    assert visible("a\u00a0b") == r"a\xa0b"
    assert visible("x\u0336\u0337\u0338\u0339") == "x\u0336\u0337" + r"\u0338\u0339"
    assert len(visible("x" * 100_000)) == 1024


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0.0s"),
        (9.94, "9.9s"),
        (12.9, "12s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3725, "1h02m"),
        (1e6, "11d13h"),
    ],
)
def test_times(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


def test_numbers_fit_their_columns() -> None:
    for value in (0, 999, 12345, 99_999, 100_000, 12_345_678, 10**12):
        assert len(number(value)) <= 6
    assert [number(99_999), number(123_456), number(1.5e9)] == ["99,999", "123k", "1.50G"]
    assert [percent(0.0), percent(0.1234), percent(1.0)] == ["0.0%", "12.3%", "100%"]
    assert sparkline([0, 1, 10, 0.01], 4) == "▁▂█▂"
    assert sparkline([0, 0], 4) == "▁▁"
    assert sparkline([1] * 9, 4) == "████"


def test_columns_are_dropped_by_importance() -> None:
    state = at(View.TENANTS)
    shown = snapshot(state, [tenant("acme", 5, paused=True)])
    titles = [
        next(line.plain for line in render(state, shown, width, 20) if line.plain.startswith("tenant")).split()
        for width in (20, 40, 80, 140)
    ]
    for fewer, more in itertools.pairwise(titles):
        assert set(fewer) < set(more)
    assert titles[1] == ["tenant", "backlog▾", "oldest", "running"]
    assert titles[-1][-2:] == ["weight", "group"]


def test_a_tenant_that_gets_less_than_its_share_stands_out() -> None:
    state = at(View.TENANTS)
    shown = snapshot(state, [tenant("acme", 5), tenant("bolt", 5, share=0.5)])
    rows = {line.plain.split()[0]: line for line in render(state, shown, 100, 20) if line.plain[:4] in ("acme", "bolt")}
    assert any("yellow" in str(each.style) for each in rows["acme"].spans)
    assert not any("yellow" in str(each.style) for each in rows["bolt"].spans)


def test_problems_come_before_notes_and_are_few() -> None:
    state = at(View.TENANTS)
    shown = snapshot(state, [], health=health("one", "two", "three", "four"))
    assert [line.plain for line in render(state, shown, 80, 24) if line.plain.startswith("! ")] == [
        "! one",
        "! two",
        "! three",
    ]
    assert [line.plain for line in render(state, shown, 80, 10) if line.plain.startswith("! ")] == ["! one"]


def pressed(state: State, keys: Iterable[str], shown: Snapshot | None = None) -> State:
    for key in keys:
        state, _ = press(state, key, shown, 3)
    return state


def test_the_cursor_follows_its_tenant() -> None:
    state = at(View.TENANTS)
    first = snapshot(state, [tenant("a"), tenant("b"), tenant("c")])
    state = pressed(state, ["down"], first)
    later = snapshot(state, [tenant("b"), tenant("c"), tenant("a")])
    found = selected_item(state, later)
    assert isinstance(found, TenantView)
    assert found.tenant == "b"
    gone = selected_item(state, snapshot(state, [tenant("x")]))
    assert isinstance(gone, TenantView)
    assert gone.tenant == "x"


def test_pages_turn_at_the_end_and_back() -> None:
    state = at(View.TENANTS)
    shown = snapshot(state, [tenant("a"), tenant("b")], after="2")
    state = pressed(state, ["down", "down"], shown)
    assert state.place.cursors == ("2",)
    assert selected_item(state, shown) is None  # the page of another place
    second = snapshot(state, [tenant("c"), tenant("d")], after="4")
    state = pressed(state, ["pgdn"], second)
    assert state.place.cursors == ("2", "4")
    third = snapshot(state, [tenant("e")])
    assert pressed(state, ["down", "G", "pgdn"], third).place.cursors == ("2", "4")
    assert pressed(state, ["up"], third).place.cursors == ("2",)
    assert pressed(state, ["g"], third).place.cursors == ()


def test_another_order_begins_at_the_first_page() -> None:
    state = at(View.TENANTS, cursors=("2",), selected=5, key="x")
    for key, order in (
        (">", "oldest"),
        ("<", "name"),
        ("n", "name"),
        ("s", "share"),
        ("u", "running"),
        ("b", "backlog"),
    ):
        place = pressed(state, [key]).place
        assert (place.order, place.cursors, place.selected, place.key) == (order, (), 0, None)
    assert pressed(at(View.LIMITS), ["s"]).place.order == "name"  # there is no such order there


def test_filter_typing() -> None:
    state = pressed(at(View.TENANTS), ["/", "q", "P", "x", "backspace", "paste:ab\ncd"])
    assert state.typed == "qPab"
    assert pressed(state, ["esc"]).typed is None
    done = pressed(state, ["enter"])
    assert (done.place.text, done.typed) == ("qPab", None)
    assert pressed(done, ["esc"]).place.text == ""
    assert pressed(pressed(done, ["/"]), ["ctrl-u", "enter"]).place.text == ""


def test_enter_leads_into_things_and_esc_out_again() -> None:
    state = at(View.TENANTS)
    state = pressed(state, ["enter"], snapshot(state, [tenant("acme")]))
    assert (state.place.view, state.place.subject) == (View.TASKS, Subject(View.TENANTS, "acme"))
    state = pressed(state, ["enter"], snapshot(state, [task("t9")]))
    assert (state.place.view, state.place.subject) == (View.TASK, Subject(View.TASK, "t9", "acme"))
    state = pressed(state, ["enter", "down", "down", "up"], snapshot(state, [details(task())]))
    assert state.place.selected == 1
    assert pressed(state, ["esc", "esc"]).place.view is View.TENANTS
    assert pressed(state, ["3"]).places == (Place(View.LIMITS, order="name"),)
    assert pressed(pressed(state, ["tab"]), ["backtab"]).place.view is View.TENANTS


ACTIONS = [
    (View.TENANTS, tenant("acme"), "PRX", "CD", Deed(Act.PAUSE, View.TENANTS, "acme")),
    (View.LIMITS, LimitView("acme", LimitPolicy(), None), "PR", "XCD", Deed(Act.PAUSE, View.LIMITS, "acme")),
    (View.FAILURES, task("t1"), "CD", "PRX", Deed(Act.CANCEL, View.TASK, "t1", "acme")),
    (View.TASK, details(task("t1")), "CD", "PRX", Deed(Act.CANCEL, View.TASK, "t1", "acme")),
    (View.RUNS, RunningTask("t1", "acme", "a", NOW, 1, None), "CD", "PRX", Deed(Act.CANCEL, View.TASK, "t1", "acme")),
    (View.WORKERS, worker(), "", "PRXCD", None),
    (View.QUEUES, QueueView("q", 1, 1.0, 1, 1), "", "PRXCD", None),
]


@pytest.mark.parametrize(("view", "item", "fitting", "others", "first"), ACTIONS)
def test_only_capitals_change_something_and_only_where_they_fit(
    view: View, item: Item, fitting: str, others: str, first: Deed | None
) -> None:
    state = at(view)
    shown = snapshot(state, [item])
    for place, key in enumerate(fitting):
        _, effect = press(state, key, shown, 3)
        assert isinstance(effect, Ask)
        assert place or effect.deed == first
    for key in others:
        after, effect = press(state, key, shown, 3)
        assert effect is None
        assert after.failed
    for key in "abcdefghijklmnopstuvwxyz0y/<>? ":
        assert not isinstance(press(state, key, shown, 3)[1], Ask | Do)
    for key in fitting:
        assert press(state, key, snapshot(state, []), 3)[1] is None  # there is nothing under the cursor


def test_a_question_is_answered_by_y_alone() -> None:
    deed = Deed(Act.PURGE, View.TENANTS, "acme")
    state = attrs.evolve(at(View.TENANTS), question=Question(deed, "?"))
    assert press(state, "y", None, 3) == (attrs.evolve(state, question=None), Do(deed))
    for key in ("n", "enter", "Y", "q", "esc", "paste:y", "X"):
        after, effect = press(state, key, None, 3)
        assert (after.question, effect) == (None, None)
    assert press(state, "ctrl-c", None, 3)[1] is Effect.INTERRUPT


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"aZ1 ", ["a", "Z", "1", " "]),
        (b"\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[H\x1b[4~\x1b[Z", ["up", "down", "pgup", "pgdn", "home", "end", "backtab"]),
        (b"\r\n\x7f\x03\x1a", ["enter", "enter", "backspace", "ctrl-c", "ctrl-z"]),
        ("é日".encode(), ["é", "日"]),
        (b"\xff\x00\x01q", ["q"]),
        (b"\x1b[1;5A\x1b[200~P\x1b[Ay\n\x1b[201~j", ["up", "paste:P\x1b[Ay\n", "j"]),
        (b"\x1b[<0;1;1M\x1b[?1;2cq", ["q"]),
        (b"\x1bq", ["esc", "q"]),
        (b"\x1b\x1b[A", ["esc", "up"]),
    ],
)
def test_keys(data: bytes, keys: list[str]) -> None:
    assert KeyParser().feed(data) == keys
    parser = KeyParser()
    assert [key for place in range(len(data)) for key in parser.feed(data[place : place + 1])] == keys
    assert not parser.waits


def test_escape_alone_is_known_after_a_while() -> None:
    parser = KeyParser()
    assert parser.feed(b"\x1b") == []
    assert parser.waits
    assert parser.flush() == ["esc"]
    assert parser.feed(b"\x1b[") == []
    assert parser.flush() == []
    assert not parser.waits
    assert parser.feed(b"j") == ["j"]


@given(st.lists(st.binary(max_size=20)))
def test_any_bytes_can_be_typed(parts: list[bytes]) -> None:
    parser = KeyParser()
    state = at(View.TENANTS)
    shown = snapshot(state, [tenant("a"), tenant("b")], after="2")
    for part in parts:
        for key in [*parser.feed(part), *parser.flush()]:
            state, _ = press(state, key, shown, 3)
    assert render(state, shown, 80, 24)
