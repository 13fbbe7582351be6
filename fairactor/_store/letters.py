"""Dead letters in a shard: calls that list, redrive and delete them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairactor._model.wire import DeadLetter, as_bytes, as_text, sized


class Letters:
    """The methods of `Shard` for dead letters."""

    _run: Any

    async def list_dead_letters(
        self,
        place: int,
        limit: int,
        *,
        skip: int = 0,
        last: int | None = None,
        tenant: str = "",
        actor: str = "",
    ) -> tuple[int, list[DeadLetter], bool]:
        """Returns the place of the last dead letter, a page of dead letters in order, and whether others follow it.

        A task on the page that is no longer a dead letter has an empty record. A page with large records is shorter.

        Args:
            place: the place where the page begins.
            limit: the size of the page.
            skip: how many dead letters to pass over.
            last: the place after which the page ends; None for no limit.
            tenant: a tenant; those of others may be left out. '' for none.
            actor: likewise an actor, as `actor_in_index` returns it.
        """
        until = "+inf" if last is None else last
        end, is_short, *rest = await self._run("letters", place, until, skip, limit, tenant, actor)
        flat = iter(rest)
        found = [
            DeadLetter(int(at), as_text(task_id), packed) for at, task_id, packed in zip(flat, flat, flat, strict=True)
        ]
        return int(end), found, bool(is_short) or len(found) == limit

    async def redrive(self, tasks: Sequence[tuple[str, bytes]], tenant: str = "") -> list[bool | str]:
        """Sends dead letters of a tenant, '' for any, again. They are given as pairs (task, key from `pack_key`).

        Returns:
            For each, whether it was a dead letter, or the id of the task that now has its key.
        """
        packed = [sized(as_bytes(task_id)) + sized(key) for task_id, key in tasks]
        reply: list[int | bytes] = []
        while len(reply) < len(packed):
            reply += await self._run("redrive", tenant, *packed[len(reply) :])
        return [as_text(verdict) if isinstance(verdict, bytes) else bool(verdict) for verdict in reply]

    async def discard(self, tasks: Sequence[str], tenant: str = "") -> int:
        """Deletes dead letters of a tenant, '' for any; returns how many of the tasks were dead letters."""
        return int(await self._run("discard", tenant, *map(as_bytes, tasks)))
