"""The state of the screen, and what was read for it. No input or output here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final

import attrs

from fairactor._model.info import TaskInfo
from fairactor._model.limit import LimitPolicy, LimitUsage
from fairactor._store.stats import Health
from fairactor.views import TENANT_ORDERS, QueueView, RunningTask, TaskDetails, TenantView, WorkerView


class View(StrEnum):
    """What the screen shows."""

    TENANTS = "tenants"
    QUEUES = "queues"
    LIMITS = "limits"
    WORKERS = "workers"
    FAILURES = "failures"
    TASKS = "tasks"
    RUNS = "runs"
    TASK = "task"


TABS: Final = (View.TENANTS, View.QUEUES, View.LIMITS, View.WORKERS, View.FAILURES)
"""The views that a digit chooses, from 1."""

ORDERS: Final[Mapping[View, Sequence[str]]] = {
    View.TENANTS: TENANT_ORDERS,
    View.QUEUES: ("backlog", "oldest", "running", "name"),
    View.LIMITS: ("name",),
    View.WORKERS: ("busy", "started", "name"),
    View.FAILURES: ("newest",),
    View.TASKS: ("all", "queued", "started", "scheduled", "deferred", "failed", "finished", "canceled"),
    View.RUNS: ("oldest",),
    View.TASK: ("",),
}
"""The orders of each view; for the tasks of a tenant, the states that are shown. The first is the default."""

LETTERS: Final[Mapping[str, str]] = {"b": "backlog", "o": "oldest", "s": "share", "u": "running", "n": "name"}
"""Keys that choose an order."""


@attrs.frozen
class LimitView:
    """A limit, and how it is used."""

    name: str
    policy: LimitPolicy
    usage: LimitUsage | None
    """None if it could not be read."""


Item = TenantView | QueueView | LimitView | WorkerView | TaskInfo | RunningTask | TaskDetails


@attrs.frozen
class Subject:
    """Whose tasks are shown: of a tenant, a queue or a worker; or which task."""

    view: View
    """TENANTS, QUEUES, WORKERS, or TASK."""
    name: str
    tenant: str | None = None
    """The tenant of the task."""


@attrs.frozen
class Place:
    """Where the user is in a view."""

    view: View = View.TENANTS
    subject: Subject | None = None
    order: str = "backlog"
    text: str = ""
    """The filter: a part of the name."""
    cursors: tuple[str, ...] = ()
    """Where the pages before the current one ended, and where the current one begins."""
    selected: int = 0
    """The row of the cursor on the page; of a task, the first line that is shown."""
    key: str | None = None
    """The item of the row; the cursor follows it while it is on the page."""

    @property
    def after(self) -> str | None:
        """Where the current page begins; None for the first one."""
        return self.cursors[-1] if self.cursors else None

    @property
    def query(self) -> tuple[object, ...]:
        """What decides which page is read."""
        return self.view, self.subject, self.order, self.text, self.after


@attrs.frozen
class Page:
    """The rows that were read for a place."""

    query: tuple[object, ...]
    """`Place.query` of the place."""
    items: Sequence[Item] = ()
    after: str | None = None
    """Where the next page begins; None after the last one."""
    known: int | None = None
    """How many items there are without a filter, if that is known."""


@attrs.frozen
class Snapshot:
    """What was read from the server at one time."""

    namespace: str
    server: str
    """The URL without the password."""
    at: datetime
    took: float
    """The seconds that reading it took."""
    health: Health | None = None
    """The last report of a server that answered."""
    rate: float | None = None
    """How many tasks have ended per second since the snapshot before."""
    minutes: Sequence[float] = ()
    """The tasks that were started per second, for each of the last minutes."""
    page: Page | None = None
    trouble: str | None = None
    """Why something could not be read; the rest is what was read last."""
    away: bool = False
    """Whether the server does not answer."""


class Act(StrEnum):
    """What can be done to the selected item."""

    PAUSE = "pause"
    RESUME = "resume"
    PURGE = "purge"
    CANCEL = "cancel"
    REDRIVE = "redrive"


@attrs.frozen
class Deed:
    """Something to do to an item, once the user has agreed."""

    act: Act
    kind: View
    """What the item is: TENANTS, LIMITS or TASK."""
    name: str
    tenant: str | None = None
    """The tenant of the task."""


@attrs.frozen
class Question:
    """Asks whether to do something."""

    deed: Deed
    text: str


@attrs.frozen
class State:
    """What the user has chosen."""

    places: tuple[Place, ...] = (Place(),)
    """The current place is the last one; Esc leads back to the one before."""
    frozen: bool = False
    help: bool = False
    typed: str | None = None
    """The filter that is being typed."""
    question: Question | None = None
    message: str = ""
    """What the footer says: how the last action ended."""
    failed: bool = False
    """Whether the message is about a failure."""

    @property
    def place(self) -> Place:
        """The current place."""
        return self.places[-1]

    def at(self, place: Place) -> State:
        """Returns the state with another place instead of the current one."""
        return attrs.evolve(self, places=(*self.places[:-1], place))

    def say(self, message: str, *, failed: bool = False) -> State:
        """Returns the state with a message."""
        return attrs.evolve(self, message=message, failed=failed)


def key_of(item: Item) -> str:
    """Returns what tells an item from the others of its view."""
    match item:
        case TenantView():
            return item.tenant
        case QueueView():
            return item.queue
        case LimitView():
            return item.name
        case WorkerView():
            return item.runtime.name
        case TaskDetails():
            return item.info.id
        case _:
            return item.id


def current_page(state: State, snapshot: Snapshot | None) -> Page | None:
    """Returns the page if it is the one of the current place; None until it was read."""
    page = snapshot.page if snapshot else None
    return page if page and page.query == state.place.query else None


def selected_row(place: Place, page: Page) -> int:
    """Returns the row of the cursor: that of its item, or else the same row as before."""
    for row, item in enumerate(page.items):
        if key_of(item) == place.key:
            return row
    return max(0, min(place.selected, len(page.items) - 1))


def selected_item(state: State, snapshot: Snapshot | None) -> Item | None:
    """Returns the item under the cursor."""
    page = current_page(state, snapshot)
    if page is None or not page.items:
        return None
    return page.items[0 if state.place.view is View.TASK else selected_row(state.place, page)]
