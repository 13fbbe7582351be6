"""What a runtime offers to operators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from fairactor._model.states import TaskState

if TYPE_CHECKING:
    from fairactor._engine import Engine
    from fairactor.views import (
        History,
        HistoryBy,
        QueueView,
        TaskDetails,
        TaskPage,
        TenantOrder,
        TenantPage,
        WorkerView,
    )

    from .selection import Selection

States = TaskState | str | Iterable[TaskState | str] | None


class OperatorClient(ABC):
    """Lists what a namespace does, and changes many tasks at once. `Runtime` is one."""

    @abstractmethod
    def _running(self) -> Engine:
        """Returns the parts; raises RuntimeNotRunning if the runtime cannot be used here."""

    async def tasks(
        self,
        *,
        tenant: str | None = None,
        state: States = None,
        actor: str | None = None,
        queue: str | None = None,
        since: datetime | None = None,
        text: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> TaskPage:
        """Returns a page of tasks."""
        raise NotImplementedError  # helper A

    async def task(self, task_id: str, tenant: str | None = None) -> TaskDetails:
        """Returns everything that is known about a task; raises TaskNotFound."""
        raise NotImplementedError  # helper A

    def select(
        self,
        *,
        tenant: str | None = None,
        state: States = None,
        actor: str | None = None,
        queue: str | None = None,
        since: datetime | None = None,
        text: str | None = None,
    ) -> Selection:
        """Selects tasks, to count, cancel, retry, redrive, purge or move them in slices."""
        raise NotImplementedError  # helper A

    async def tenants(
        self,
        *,
        order_by: TenantOrder = "backlog",
        text: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> TenantPage:
        """Returns a page of tenants; `text` is a part of the name."""
        raise NotImplementedError  # helper B

    async def queues(self) -> Sequence[QueueView]:
        """Returns all queues that have tasks or that a runtime names."""
        raise NotImplementedError  # helper B

    async def workers(self, *, tasks: int = 20) -> Sequence[WorkerView]:
        """Returns the runtimes that hold a lease, each with some of the tasks that it runs."""
        raise NotImplementedError  # helper B

    async def history(self, *, by: HistoryBy | None = None, name: str | None = None, days: bool = False) -> History:
        """Returns what happened in the last hour by minutes, or with ``days=True`` in three days by ten minutes.

        An event counts in the stretch in which its runtime reports it, a few seconds later. Runtimes with the setting
        ``history=False`` are missing.

        Args:
            by: whether each ``actor``, ``queue`` or ``tenant`` has a series of its own; None for all together, under
                the name ''. Each stretch has the 50 most active ones, and the history has the 50 of these that were
                most active in all.
            name: the only one to return.
            days: whether the last three days are wanted.

        Raises:
            ConfigurationError: an argument is invalid.
            ServerUnavailable: as `send`.
            ServerError: as `send`.
        """
        from .history import read_history

        return await read_history(self._running().shards[0], by=by, name=name, days=days)
