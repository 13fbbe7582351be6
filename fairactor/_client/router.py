"""The router: posts tasks on the shards of their tenants, in a namespace that has grown or grows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from fairactor._model.wire import Item
from fairactor._store.script_runner import Elsewhere
from fairactor._store.shards import Shards
from fairactor.errors import ServerUnavailable

from .batcher import Batcher

_ATTEMPTS: Final = 20


@attrs.frozen
class Router:
    """Posts tasks on the shards of their tenants.

    Args:
        shards: the shards of the namespace.
        batchers: a batcher for each shard.
    """

    _shards: Shards
    _batchers: Sequence[Batcher]

    async def post(self, hint: int, items: Sequence[Item], replicas: int, reservation: str) -> list[str]:
        """Posts tasks; returns and raises as `Batcher.post`.

        Args:
            hint: the number of the shard on which the caller thinks that they belong.
            items: the tasks.
            replicas: how many replicas must confirm them.
            reservation: the name of the reservation for these tasks on that shard, or ''.
        """
        ids: dict[int, str] = {}
        for _ in range(_ATTEMPTS):
            left = [index for index in range(len(items)) if index not in ids]
            numbers = await self._find({items[index].tenant for index in left})
            ids |= await self._earlier([index for index in left if index not in ids], items, numbers)
            by_number: dict[int, list[int]] = {}
            for index in left:
                if index not in ids:
                    by_number.setdefault(numbers[items[index].tenant], []).append(index)
            _check_no_extra(items[index] for number in by_number.keys() - {hint} for index in by_number[number])
            for number, indexes in by_number.items():
                some = [items[index] for index in indexes]
                if some[0].flag == "+":
                    some[0] = some[0]._replace(flag="")
                named = reservation if number == hint else ""
                try:
                    found = await self._batchers[number].post(some, replicas=replicas, reservation=named)
                except Elsewhere:
                    continue
                ids |= dict(zip(indexes, found, strict=True))
            if len(ids) == len(items):
                return [ids[index] for index in range(len(items))]
        raise ServerUnavailable(f"the shard of tenant {items[left[0]].tenant!r} is not found: send this again")

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
            tasks = [(items[index].id if items[index].chosen else "", items[index].key) for index in some]
            earlier = await self._shards[number].past(tenant, tasks)
            found |= {index: task_id for index, task_id in zip(some, earlier, strict=True) if task_id}
        return {index: "" if task_id == items[index].id else task_id for index, task_id in found.items()}


def _check_no_extra(items: Iterable[Item]) -> None:
    """Checks tasks that would go to another shard than their sender thinks, before any of them is posted.

    Raises:
        ServerUnavailable: one has data for plugins, which may name shards of other tasks.
    """
    for item in items:
        if item.extra:
            raise ServerUnavailable(f"tenant {item.tenant!r} has just moved to another shard: send this again")
