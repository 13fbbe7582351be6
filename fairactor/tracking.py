"""Following tasks: where they are, what is known of them, and waiting for their outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import anyio
import attrs

from . import record
from .codec import Codec
from .context import running_task
from .errors import Deadlock
from .inbox import Inbox, Outcome
from .keys import shard_of
from .settings import seconds
from .shard import Shard


def check_timeout(timeout: float | None) -> None:
    """Refuses what is no time to wait.

    Raises:
        ConfigurationError: it is not None, nor seconds from 0.
    """
    if timeout is not None:
        seconds("timeout", timeout)


@attrs.frozen(eq=False)
class Tracker:
    """What handles share: the shards of a runtime, and its inbox."""

    shards: Sequence[Shard]
    inbox: Inbox
    codec: Callable[[str], Codec | None]
    """The codec of an actor, if it is registered here."""
    check: Callable[[], None]
    """Raises RuntimeNotRunning where the runtime cannot be used."""
    canceled_ttl: float
    """Seconds for which the record of a canceled task is kept."""

    def shard(self, tenant: str) -> Shard:
        """The shard that keeps a tenant."""
        return self.shards[shard_of(tenant, len(self.shards))]

    async def find(self, task_id: str, tenant: str | None) -> Shard | None:
        """The shard that has a task: by its tenant, or else by asking them all."""
        if tenant is not None:
            return self.shard(tenant)
        if len(self.shards) == 1:
            return self.shards[0]
        for shard in self.shards:
            if await shard.inspect(task_id):
                return shard
        return None

    async def outcome(self, task_id: str, shard: Shard, timeout: float | None) -> Outcome:  # noqa: ASYNC109
        """Asks for the outcome of a task, and waits for it; raises as `Handle.result`."""
        check_timeout(timeout)
        task = running_task()
        if task is not None and task.id == task_id:
            raise Deadlock(f"task {task_id!r} waits for itself: its handler asks for its own outcome")
        future = self.inbox.expect(task_id, shard, inside=task.tenant if task else "")
        return await self.wait(future, task_id, timeout)

    async def wait(self, outcome: asyncio.Future[Outcome], task_id: str, timeout: float | None) -> Outcome:  # noqa: ASYNC109
        """Waits for an outcome that was asked for; a running task lends its slot out meanwhile.

        Raises:
            TimeoutError: it did not come in time.
        """
        task = running_task()
        async with task.lend() if task is not None and not outcome.done() else nullcontext():
            with anyio.move_on_after(timeout):
                return await outcome
        raise TimeoutError(f"task {task_id!r} has no outcome after {timeout:g} s; it goes on")

    async def cancel(self, task_id: str, shard: Shard) -> str:
        """Cancels a task; returns the state in which it was found, as cancel.lua says."""
        body = record.encode(record.Outcome(error=record.Error("TaskCanceled", "by handle.cancel()")))
        return await shard.cancel(task_id, ttl=self.canceled_ttl, body=body)
