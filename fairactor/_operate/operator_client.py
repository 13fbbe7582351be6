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
        """Returns a page of tasks. It costs the same however many tasks there are.

        The started tasks come first, then those that are queued, deferred, scheduled, failed, and have finished or were
        canceled. Queued and scheduled tasks come tenant by tenant, each in the order in which they are due. Of those
        that have ended the last one comes first. Finished and canceled tasks are listed as long as their records are
        kept, and only the last ones of each tenant (setting ``ended_index``); without ``tenant`` the last ones of each
        shard.

        Args:
            tenant: only tasks of this tenant.
            state: only tasks in this state, or in one of these.
            actor: only tasks of the actor of this name.
            queue: only tasks of this queue. That of finished tasks is not known.
            since: only tasks that were sent (or are due) at that time or later, or, if they have ended, have ended.
            text: only tasks with this text in their id, or in their arguments as compact JSON. Case matters. The
                arguments of finished tasks are not known.
            limit: the most tasks of the page, up to 1,000.
            after: `TaskPage.after` of the page before; the filters must be the same.

        Returns:
            A page. It looks at 2,000 tasks at most, so with ``actor``, ``queue``, ``since`` or ``text`` it may be
            short, or even empty, although more pages follow: ``after`` is None only on the last one.

        Raises:
            ConfigurationError: an argument is invalid; the message names it.
            ServerUnavailable: as `Runtime.send`.
            ServerError: as `Runtime.send`.
        """
        from .filters import Filter
        from .tasks import read_page

        shards = self._running().shards
        wanted = Filter.checked(tenant=tenant, state=state, actor=actor, queue=queue, since=since, text=text)
        return await read_page(shards, wanted, limit, after)

    async def task(self, task_id: str, tenant: str | None = None) -> TaskDetails:
        """Returns everything that is known about a task: arguments, attempts, timeline, and what it waits for.

        Args:
            task_id: the id of the task.
            tenant: its tenant, if it is known: then only its shard is asked. A task of another tenant is not found.

        Raises:
            TaskNotFound: there is no such task, or its record has expired.
            ConfigurationError: an argument is invalid.
            ServerUnavailable: as `Runtime.send`.
            ServerError: as `Runtime.send`.
        """
        from .details import read_details

        return await read_details(self._running(), task_id, tenant)

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
        """Selects tasks, to count, cancel, retry, redrive, purge or move them in slices. Nothing is read yet.

        The arguments are those of `tasks`. Of finished and canceled tasks it selects those that are listed.

        Raises:
            ConfigurationError: an argument is invalid; the message names it.
        """
        from .filters import Filter
        from .selection import Selection

        engine = self._running()
        wanted = Filter.checked(tenant=tenant, state=state, actor=actor, queue=queue, since=since, text=text)
        return Selection(engine, wanted, engine.tracker.canceled_ttl)

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
        """Returns what happened in the last hour by minutes, or in the last three days by ten minutes (`days`)."""
        raise NotImplementedError  # helper C
