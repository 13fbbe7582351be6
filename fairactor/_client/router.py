"""The router: posts tasks on the shards of their tenants, in a namespace that has grown or grows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

import anyio
import attrs

from fairactor._model.record import LIVE
from fairactor._model.wire import Item
from fairactor._store.script_runner import Elsewhere
from fairactor._store.shards import Shards
from fairactor.errors import ServerUnavailable

from .batcher import Batcher

_ATTEMPTS: Final = 20
_ARRIVES: Final = 5.0
"""Seconds that a task waits for the one that it replaces to arrive on its new shard."""
_LOOK: Final = 0.02


@attrs.frozen
class Router:
    """Posts tasks on the shards of their tenants.

    Args:
        shards: the shards of the namespace.
        batchers: a batcher for each shard.
    """

    _shards: Shards
    _batchers: Sequence[Batcher]

    def is_needed(self, items: Sequence[Item]) -> bool:
        """Whether tasks may belong elsewhere than it seems, or must not be accepted because of what is elsewhere."""
        layout = self._shards.layout
        if layout.growing or not layout.epoch:
            return layout.growing
        return any((item.chosen or item.key) and len(layout.places(item.tenant)) > 1 for item in items)

    async def post(self, hint: int, items: Sequence[Item], replicas: int, reservation: str) -> list[str]:
        """Posts tasks; returns and raises as `Batcher.post`.

        Args:
            hint: the number of the shard on which the caller thinks that they belong.
            items: the tasks.
            replicas: how many replicas must confirm them.
            reservation: the name of the reservation for these tasks on that shard, or ''.

        Raises:
            ServerUnavailable: also if tasks with data for plugins belong on another shard: the data name shards, too.
        """
        ids: dict[int, str] = {}
        for attempt in range(_ATTEMPTS):
            left = [index for index in range(len(items)) if index not in ids]
            if not left or (attempt > 1 and any(items[index].extra for index in left)):
                break
            numbers = await self._find({items[index].tenant for index in left})
            ids |= await self._earlier(left, items, numbers)
            by_number: dict[int, list[int]] = {}
            for index in left:
                if index not in ids:
                    by_number.setdefault(numbers[items[index].tenant], []).append(index)
            others = (items[index] for number in by_number.keys() - {hint} for index in by_number[number])
            if any(item.extra for item in others):
                break
            for number, indexes in by_number.items():
                named = reservation if number == hint else ""
                found = await self._post(number, [items[index] for index in indexes], replicas, named)
                ids |= dict(zip(indexes, found, strict=False))  # none, or all
        if gone := [item.tenant for index, item in enumerate(items) if index not in ids]:
            problem = f"tenant {gone[0]!r} has just moved to another shard: send this again"
            raise ServerUnavailable(problem, maybe_accepted=bool(ids))
        return [ids[index] for index in range(len(items))]

    async def _post(self, number: int, items: list[Item], replicas: int, reservation: str) -> Sequence[str]:
        """Posts tasks on a shard; returns nothing if they belong elsewhere."""
        if items[0].flag == "+":
            items[0] = items[0]._replace(flag="")
        try:
            return await self._batchers[number].post(items, replicas=replicas, reservation=reservation)
        except Elsewhere:
            await self._shards.renew()  # the shard may know more than this runtime
            return ()

    async def _find(self, tenants: set[str]) -> Mapping[str, int]:
        names = list(tenants)
        if not self._shards.layout.growing:
            return {name: self._shards.number_of(name) for name in names}
        return dict(zip(names, await asyncio.gather(*map(self._shards.find, names)), strict=True))

    async def _earlier(
        self, indexes: Sequence[int], items: Sequence[Item], numbers: Mapping[str, int]
    ) -> dict[int, str]:
        """Returns the earlier tasks that have the id or the key of a task, where its tenant was before, by index."""
        layout = self._shards.layout
        asked: dict[tuple[int, str], list[int]] = {}
        for index in indexes:
            item = items[index]
            if item.chosen or item.key:
                for number in layout.places(item.tenant):
                    if number < numbers[item.tenant]:
                        asked.setdefault((number, item.tenant), []).append(index)
        found: dict[int, str] = {}
        for (number, tenant), some in asked.items():
            await self._let_arrive(number, tenant, [items[index].key for index in some if items[index].replaces])
            tasks = [
                (items[index].id if items[index].chosen else "", b"" if items[index].replaces else items[index].key)
                for index in some
            ]
            earlier = await self._shards[number].past(tenant, tasks)
            found |= {index: task_id for index, task_id in zip(some, earlier, strict=True) if task_id}
        return {index: "" if task_id == items[index].id else task_id for index, task_id in found.items()}

    async def _let_arrive(self, number: int, tenant: str, keys: Sequence[bytes]) -> None:
        """Waits until the tasks with these keys, which others replace, have moved to the new shard of their tenant."""
        shard, deadline = self._shards[number], time.monotonic() + _ARRIVES
        while keys:
            owners = await shard.past(tenant, [("", key) for key in keys])
            found = [await shard.inspect(owner, tenant) if owner else None for owner in owners]
            keys = [key for key, task in zip(keys, found, strict=True) if task and task[1][:1] == LIVE]
            if keys and time.monotonic() > deadline:
                raise ServerUnavailable(f"a task of tenant {tenant!r} that this one replaces moves: send this again")
            await anyio.sleep(_LOOK if keys else 0)
