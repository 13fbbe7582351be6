"""Tasks in a shard, for those who look at them: calls that list them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from fairactor._model.wire import as_bytes, as_text

_INDEXED_AT_ONCE: Final = 100


class Listed(NamedTuple):
    """A task in a list."""

    id: str
    tenant: str
    """'' if its record cannot be read."""
    letter: bytes
    """The first byte of its record."""
    record: bytes
    """b"" if it was not asked for."""
    due: bytes
    """When it is due, unix ms, if it is scheduled; else b""."""
    runtime: bytes
    """The runtime that runs it, if it has started; else b""."""
    progress: bytes
    position: bytes
    """The position behind it."""


class Slice(NamedTuple):
    """Some tasks of a list."""

    tasks: list[Listed]
    position: bytes
    """Where the next slice begins; b"" if this is the last one."""
    looked_at: int
    now: float
    """The time of the server, unix seconds."""


def flat(tasks: Sequence[tuple[str, str]]) -> list[bytes | str]:
    """Returns pairs (task, tenant) as arguments of a script."""
    return [part for task_id, tenant in tasks for part in (as_bytes(task_id), tenant)]


class Pages:
    """The methods of `Shard` that list tasks."""

    _run: Any

    async def list_tasks(
        self,
        state: str,
        limit: int,
        position: bytes = b"",
        *,
        tenant: str = "",
        actor: str = "",
        newest_first: bool = True,
        records: bool = True,
    ) -> Slice:
        """Returns some tasks of a state; see tasks.lua.

        Args:
            state: the state, or ``ended`` for finished and canceled tasks.
            limit: the most tasks to look at.
            position: where to begin; b"" for the beginning.
            tenant: the tenant; '' for all.
            actor: the actor as JSON text. Tasks of others may be left out. '' for all.
            newest_first: whether failed tasks come with the latest one first.
            records: whether to read the records.
        """
        flags = int(newest_first), int(records)
        end, looked_at, now, *flat = await self._run("tasks", state, tenant, actor, limit, *flags, position)
        parts = iter(flat)
        tasks = [
            Listed(as_text(task_id), as_text(name), *others)
            for task_id, name, *others in zip(*[parts] * 8, strict=True)
        ]
        return Slice(tasks, end, looked_at, int(now) / 1e6)

    async def details(self, task_id: str, tenant: str = "") -> list[Any]:
        """Returns what is known of a task of a tenant, '' for any, and why it does not start; see details.lua."""
        reply: list[Any] = await self._run("details", task_id, tenant)
        return reply

    async def hasten(self, tasks: Sequence[tuple[str, str]]) -> list[bool]:
        """Queues scheduled tasks, given as pairs (task, tenant or '' for any), now; returns which were scheduled."""
        return list(map(bool, await self._run("hasten", *flat(tasks))))

    async def reroute(self, queue: str, tasks: Sequence[tuple[str, str]]) -> list[int]:
        """Moves waiting tasks, given likewise, to a queue, given as JSON text, '' for the default one.

        Returns:
            For each 1 if it is in the queue now, -1 if its names are too long together, else 0.
        """
        reply: list[int] = []
        while len(reply) < len(tasks):
            reply += await self._run("reroute", queue, *flat(tasks[len(reply) :]))
        return reply

    async def forget(self, tasks: Sequence[str], tenant: str = "") -> int:
        """Deletes the records of finished and canceled tasks of a tenant, '' for any; returns how many there were."""
        return int(await self._run("forget", tenant, *map(as_bytes, tasks)))

    async def index_letters(self, steps: int | None = None) -> bool:
        """Completes the indexes of dead letters, with so many calls at most; returns whether they are complete."""
        done = 0
        while steps is None or done < steps:
            if not await self._run("index_letters", _INDEXED_AT_ONCE):
                return True
            done += 1
        return False
