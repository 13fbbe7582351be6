"""The tally of a runtime: what it has sent and run since its last report to the history."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from .history import FAILED, FINISHED, RUNS, SENT, STARTED, WAITS, Series, no_series, pack_report, range_of, short_name
from .route import actor_of, queue_of
from .wire import Item, Receipt

MOST_EVENTS: Final = 2000
"""The most different events that are kept until they are added up."""
MOST_FOLLOWED: Final = 1000
"""The most names of a kind between two reports. What comes after so many is counted in the sum of all only."""

_ROUTE: Final = re.compile(rb'\["(?:[^"\\]|\\.)*"')  # the beginning of a `Call`
_ENDS: Final = {"F": FINISHED, "X": FAILED}

Event = tuple[str, str, str, int, int]
"""Route, tenant, state as in a `Settlement`, range of the wait and of the run; -1 if it has none."""


class Tally:
    """Adds up what happens, by actor, by queue and by tenant.

    There may be very many tasks. So equal events are counted first, and added to the sums of their names later.
    """

    def __init__(self) -> None:
        self._events: dict[Event, int] = {}
        self._sent: Counter[tuple[bytes, str]] = Counter()
        self._clear()
        self.before_report: Callable[[], None] | None = None
        """Called before each report, to count what has begun and goes on."""

    def _clear(self) -> None:
        self._kinds: tuple[dict[str, Series], ...] = ({}, {}, {}, {})

    def sent(self, items: Sequence[Item], receipt: Receipt) -> None:
        """Counts the tasks of a batch that were accepted."""
        if not receipt.is_whole:
            accepted = zip(items, receipt.ids, strict=True)
            items = [
                item
                for number, (item, task_id) in enumerate(accepted)
                if item.id == task_id and number not in receipt.refused
            ]
        self._sent.update([(_beginning(item.body), item.tenant) for item in items])
        if len(self._sent) > MOST_EVENTS:
            self._add_up()

    def ran(self, route: str, tenant: str, state: str, waited: float | None, ran: float | None) -> None:
        """Counts an attempt, or a part of it.

        Args:
            route: the route of the task.
            tenant: its tenant.
            state: how it has ended, as in a `Settlement`; '' if it goes on.
            waited: how long it waited in seconds, if its start counts now.
            ran: how long it ran in seconds, if it has ended.
        """
        event = (
            route,
            tenant,
            state,
            -1 if waited is None else range_of(waited),
            -1 if ran is None else range_of(ran),
        )
        events = self._events
        events[event] = events.get(event, 0) + 1
        if len(events) > MOST_EVENTS:
            self._add_up()

    def failed(self, route: str | None, tenants: Iterable[str]) -> None:
        """Counts tasks that scripts have ended, because no runtime could run them; the route may be unknown."""
        for tenant in tenants:
            self._add(route, tenant, {FAILED: 1})

    def take(self) -> bytes | None:
        """Returns a report of all since the last one, packed; None if nothing has happened."""
        if self.before_report is not None:
            self.before_report()
        self._add_up()
        kinds = self._kinds
        self._clear()
        return pack_report(kinds) if kinds[0] else None

    def _add_up(self) -> None:
        events, self._events = self._events, {}
        for (route, tenant, state, wait, run), number in events.items():
            places = dict.fromkeys([STARTED, WAITS + wait] if wait >= 0 else [], number)
            if run >= 0:
                places[RUNS + run] = number
            if state in _ENDS:
                places[_ENDS[state]] = number
            self._add(route, tenant, places)
        sent, self._sent = self._sent, Counter()
        for (beginning, tenant), number in sent.items():
            self._add(_route_in(beginning), tenant, {SENT: number})

    def _add(self, route: str | None, tenant: str, places: dict[int, int]) -> None:
        actor, queue = (None, None) if route is None else (actor_of(route), queue_of(route))
        for series, name in zip(self._kinds, ("", actor or None, queue, tenant or None), strict=True):
            if name is None:
                continue
            found = series.get(short := short_name(name))
            if found is None:
                if len(series) >= MOST_FOLLOWED:
                    continue
                found = series[short] = no_series()
            for place, number in places.items():
                found[place] += number


def _beginning(body: bytes) -> bytes:
    """Returns the beginning of a call, with its route. It may have more, if there are escapes in the route."""
    end = body.find(b'"', 2)
    while body[end - 1] == _BACKSLASH:
        end = body.find(b'"', end + 1)
    return body[:end]


_BACKSLASH: Final = ord("\\")


def _route_in(beginning: bytes) -> str | None:
    match = _ROUTE.match(beginning + b'"')
    if match is None:
        return None
    route: str = msgspec.json.decode(match[0][1:], type=str)
    return route
