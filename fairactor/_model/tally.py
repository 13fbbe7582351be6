"""The tally of a runtime: what it has sent and run since its last report to the history."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nlargest
from typing import Final, Protocol

from .history import (
    BOUNDS,
    FAILED,
    FINISHED,
    MOST,
    RANGES,
    RUNS,
    SENT,
    STARTED,
    WAITS,
    Series,
    activity,
    no_series,
    pack_report,
    short_name,
)
from .route import actor_of, queue_of
from .wire import Item, Receipt

MOST_FOLLOWED: Final = 1000
"""The most names of a kind between two reports. What comes after so many is counted in the sum of all only."""

_STATES: Final = {"F": 0, "X": 1, "": 3}
_OTHER: Final = 2
_ENDS: Final = (FINISHED, FAILED, None, None)
_NONE: Final = RANGES  # instead of the range of a duration
_BASE: Final = RANGES + 1


class Attempt(Protocol):
    """An attempt at a task. Its times are those of ``time.monotonic()``."""

    @property
    def due(self) -> float | None:
        """When it was due."""
        ...

    @property
    def began(self) -> float | None:
        """When it began; None if it has not."""
        ...

    @property
    def ended_at(self) -> float | None:
        """When it ended; None if it has not."""
        ...


def usual_event(state: str, waited: float, ran: float) -> int:
    """Returns what has happened as a number: an attempt that waited, and ran, for so many seconds; see `event_of`."""
    return (_STATES.get(state, _OTHER) * _BASE + bisect_left(BOUNDS, waited)) * _BASE + bisect_left(BOUNDS, ran)


def event_of(state: str, attempt: Attempt | None, *, starts: bool = True) -> int:
    """Returns what has happened as a number.

    Args:
        state: how the task has ended, as in a `Settlement`; '' if it goes on.
        attempt: the attempt, if there was one.
        starts: whether its start counts now.
    """
    wait = run = _NONE
    if attempt is not None and (began := attempt.began) is not None:
        ended = attempt.ended_at
        if ended is not None:
            run = bisect_left(BOUNDS, ended - began)
        if starts and (ended is not None or not state):
            wait = bisect_left(BOUNDS, began - (began if attempt.due is None else attempt.due))
    return (_STATES.get(state, _OTHER) * _BASE + wait) * _BASE + run


class Tally:
    """Adds up what happens, by actor, by queue and by tenant.

    This costs a task a fraction of a microsecond: what happened is noted as a number, by route and by tenant. It is
    added up once there is a report, for those tenants only that will be in it.
    """

    def __init__(self) -> None:
        self.before_report: Callable[[], None] | None = None
        """Called before each report, to count what has begun and goes on."""
        self._clear()

    def _clear(self) -> None:
        self._sent_by_route: Counter[str] = Counter()
        self._sent_by_tenant: Counter[str] = Counter()
        self._by_route: defaultdict[str, list[int]] = defaultdict(list)
        self._by_tenant: dict[str, list[int]] = {}
        self._all: dict[str, Series] = {}
        self._actors: dict[str, Series] = {}
        self._queues: dict[str, Series] = {}
        self._tenants: dict[str, Series] = {}

    def sent(self, items: Sequence[Item], receipt: Receipt) -> None:
        """Counts the tasks of a batch that were accepted."""
        if not receipt.is_whole:
            accepted = zip(items, receipt.ids, strict=True)
            items = [
                item
                for number, (item, task_id) in enumerate(accepted)
                if item.id == task_id and number not in receipt.refused
            ]
        self._sent_by_route.update([item.called for item in items])
        self._sent_by_tenant.update([item.tenant for item in items])

    def note(self, route: str, tenant: str, event: int) -> None:
        """Counts an attempt, or a part of it, of a task with this route and tenant; ``event`` is from `event_of`."""
        self._by_route[route].append(event)
        events = self._by_tenant.get(tenant)
        if events is not None:
            events.append(event)
        elif len(self._by_tenant) < MOST_FOLLOWED:
            self._by_tenant[tenant] = [event]

    def failed(self, route: str, tenants: Iterable[str]) -> None:
        """Counts tasks that scripts have ended, because no runtime could run them."""
        for tenant in tenants:
            self.note(route, tenant, event_of("X", None))

    def take(self) -> bytes | None:
        """Returns a report of all since the last one, packed; None if nothing has happened."""
        self.add_up()
        kinds = (self._all, self._actors, self._queues, self._tenants)
        if not self._all:
            return None
        self._clear()
        return pack_report(kinds)

    def add_up(self) -> None:
        """Adds up what was noted, so that it takes little room."""
        if self.before_report is not None:
            self.before_report()
        by_route, self._by_route = self._by_route, defaultdict(list)
        by_tenant, self._by_tenant = self._by_tenant, {}
        sent_by_route, self._sent_by_route = self._sent_by_route, Counter()
        sent_by_tenant, self._sent_by_tenant = self._sent_by_tenant, Counter()
        for route in by_route.keys() | sent_by_route.keys():
            added = _added_up(by_route.get(route, ()), sent_by_route[route])
            _add(self._all, "", added)
            _add(self._actors, actor_of(route), added)
            _add(self._queues, queue_of(route), added)
        for tenant in _most_active(by_tenant, sent_by_tenant):
            _add(self._tenants, tenant, _added_up(by_tenant.get(tenant, ()), sent_by_tenant[tenant]))


def _most_active(events: Mapping[str, Sequence[int]], sent: Mapping[str, int]) -> list[str]:
    names = events.keys() | sent.keys()
    names.discard("")  # their records could not be read
    return nlargest(MOST, names, key=lambda name: len(events.get(name, ())) + sent.get(name, 0))


def _added_up(events: Sequence[int], sent: int) -> Series:
    series = no_series()
    series[SENT] = sent
    for event, number in Counter(events).items():
        rest, run = divmod(event, _BASE)
        state, wait = divmod(rest, _BASE)
        if wait != _NONE:
            series[STARTED] += number
            series[WAITS + wait] += number
        if run != _NONE:
            series[RUNS + run] += number
        end = _ENDS[state]
        if end is not None:
            series[end] += number
    return series


def _add(kind: dict[str, Series], name: str, series: Series) -> None:
    if not activity(series):
        return
    name = short_name(name)
    found = kind.get(name)
    if found is not None:
        kind[name] = [one + other for one, other in zip(found, series, strict=True)]
    elif len(kind) < MOST_FOLLOWED:
        kind[name] = series
