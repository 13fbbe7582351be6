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
        """Returns a page of tenants. Its cost does not depend on how many tasks or tenants there are.

        Up to 1,000 tenants are all read, so the order is exact. Of more, those that come first are found by what the
        server knows, so the order is nearly exact (see docs/inspect.md), and the others follow.

        Args:
            order_by: ``backlog``: those with the most queued tasks first; ``oldest``: those whose first task has
                waited for longest; ``share``: those that have got the most of late; ``running``: those that run the
                most tasks; or ``name``.
            text: only tenants with this part in their names.
            limit: the most tenants on the page, up to 1,000. A page of those with a certain part in their names may be
                shorter, although others follow.
            after: what the page before says in its ``after``; None for the first page.

        Raises:
            ConfigurationError: an argument is invalid.
            ServerUnavailable: as `send`.
            ServerError: as `send`.
        """
        from .tenants import read_tenants

        return await read_tenants(self._running().shards, order_by, text, limit, after)

    async def queues(self) -> Sequence[QueueView]:
        """Returns all queues that have tasks or that a runtime names, those with the most queued tasks first.

        Raises:
            ServerUnavailable: as `send`.
            ServerError: as `send`.
        """
        from .queues import read_queues

        return await read_queues(self._running().shards)

    async def workers(self, *, tasks: int = 20) -> Sequence[WorkerView]:
        """Returns the runtimes that hold a lease, each with some of the tasks that it has claimed.

        Args:
            tasks: the most tasks for each runtime, up to 100, the first claims first. Of a runtime with more than 500
                claims on a shard, 500 are looked at.

        Raises:
            ConfigurationError: `tasks` is no number from 0 to 100.
            ServerUnavailable: as `send`.
            ServerError: as `send`.
        """
        from .workers import read_workers

        return await read_workers(self._running().shards, tasks)

    async def history(self, *, by: HistoryBy | None = None, name: str | None = None, days: bool = False) -> History:
        """Returns what happened in the last hour by minutes, or in the last three days by ten minutes (`days`)."""
        raise NotImplementedError  # helper C
