"""Pages of tasks: `Runtime.tasks`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from typing import Final
from zlib import crc32

import attrs
import msgspec

from fairactor._model.info import TaskInfo
from fairactor._model.inspection import read_info
from fairactor._store.pages import Listed, Slice
from fairactor._store.shard import Shard
from fairactor._store.shards import Shards
from fairactor._util.checks import check_whole_number, shown
from fairactor.errors import ConfigurationError
from fairactor.views import TaskPage

from .filters import Filter

MOST_IN_PAGE: Final = 1000
_LOOKED_AT: Final = 2000
"""How many tasks one page looks at, at most."""
_CALLS: Final = 20
"""How many calls one page makes, at most, after those that find something at once."""
_SUM: Final = 4
"""Bytes of the checksum of a cursor."""
_MOST_BYTES: Final = 4_000_000
_AT_ONCE: Final = 200
"""How many records one call reads."""
_INDEXED: Final = 5
"""Calls with which a page completes the index of dead letters."""


@attrs.frozen
class Place:
    """Where a walk over tasks is: in a list, on a shard, at a position there."""

    list: int = 0
    shard: int = 0
    position: bytes = b""


@attrs.define
class Step:
    """What a step of a walk has found."""

    shard: Shard
    tasks: list[tuple[Listed, Place]]
    """Each with the place behind it."""
    after: Place | None
    """Where the next step begins; None if this was the last one."""
    looked_at: int
    now: float
    """The time of the server, unix seconds."""


class Walk:
    """Goes over the tasks that a filter may take, in steps."""

    def __init__(self, shards: Shards, wanted: Filter, *, newest_first: bool = True) -> None:
        self._shards = shards
        self._wanted = wanted
        self._newest_first = newest_first

    async def _places(self) -> Sequence[Shard]:
        tenant = self._wanted.tenant
        return list(self._shards) if tenant is None else sorted(await self._shards.places(tenant), key=self._number)

    def _number(self, shard: Shard) -> int:
        return list(self._shards).index(shard)

    async def step(self, place: Place, limit: int, *, records: bool) -> Step | None:
        """Takes a step from a place; None if nothing is left there."""
        lists = self._wanted.lists
        shards = [(self._number(shard), shard) for shard in await self._places()]
        ahead = [(number, shard) for number, shard in shards if number >= place.shard]
        if place.list >= len(lists):
            return None
        if not ahead:
            return await self.step(Place(place.list + 1), limit, records=records)
        number, shard = ahead[0]
        position = place.position if number == place.shard else b""
        found = await self._read(shard, lists[place.list], limit, position, records=records)
        behind: Place | None = Place(place.list, number, found.position)
        if not found.position:
            behind = Place(place.list, number + 1) if ahead[1:] else Place(place.list + 1)
            if behind.list >= len(lists):
                behind = None
        tasks = [(task, Place(place.list, number, task.position)) for task in found.tasks]
        return Step(shard, tasks, behind, found.looked_at, found.now)

    async def _read(self, shard: Shard, name: str, limit: int, position: bytes, *, records: bool) -> Slice:
        wanted = self._wanted
        if name == "failed" and not position and (wanted.tenant is not None or wanted.actor):
            await shard.index_letters(_INDEXED)
        return await shard.list_tasks(
            name,
            limit,
            position,
            tenant=wanted.tenant or "",
            actor=wanted.actor_in_json,
            newest_first=self._newest_first,
            records=records,
        )

    async def steps(self, limit: int = _AT_ONCE, *, records: bool) -> AsyncIterator[Step]:
        """Yields all steps."""
        place: Place | None = Place()
        while place is not None:
            step = await self.step(place, limit, records=records)
            if step is None:
                return
            yield step
            place = step.after


async def read_page(shards: Shards, wanted: Filter, limit: int, after: str | None) -> TaskPage:
    """Returns a page; see `Runtime.tasks`."""
    check_whole_number("limit", limit, 1, MOST_IN_PAGE)
    place: Place | None = Place() if after is None else _unpack(after, wanted)
    walk = Walk(shards, wanted)
    tasks: list[TaskInfo] = []
    looked_at = size = calls = 0
    while place is not None and len(tasks) < limit and looked_at < _LOOKED_AT and calls < _CALLS and size < _MOST_BYTES:
        at_once = _AT_ONCE if wanted.reads_records else min(_AT_ONCE, limit - len(tasks))
        step = await walk.step(place, at_once, records=True)
        if step is None:
            place = None
            break
        calls += 1
        place = step.after
        for number, (task, behind) in enumerate(step.tasks):
            size += len(task.record)
            info = describe(task, list(wanted.lists)[behind.list])
            if wanted.takes(info):
                tasks.append(info)
            if len(tasks) == limit:
                is_last = number == len(step.tasks) - 1
                place = step.after if is_last else behind
                looked_at += number + 1 - step.looked_at
                break
        looked_at += step.looked_at
    return TaskPage(tuple(tasks), None if place is None else _pack(place, wanted), max(looked_at, len(tasks)))


def describe(task: Listed, name: str) -> TaskInfo:
    """Returns the description of a task in a list."""
    state = b"failed" if name in {"failed", "ended"} else name.encode()
    return read_info(task.id, state, task.record, task.due, task.runtime, -1, task.progress)


def _pack(place: Place, wanted: Filter) -> str:
    packed = msgspec.msgpack.encode([place.list, place.shard, place.position])
    return base64.urlsafe_b64encode(_sum(packed, wanted) + packed).decode().rstrip("=")


def _sum(packed: bytes, wanted: Filter) -> bytes:
    return crc32(packed + wanted.key).to_bytes(_SUM, "big")


def _unpack(after: str, wanted: Filter) -> Place:
    """Returns the place that a cursor names.

    Raises:
        ConfigurationError: it was not made for this filter, or is damaged.
    """
    try:
        given = base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)) if isinstance(after, str) else b""
    except (ValueError, binascii.Error):
        given = b""
    if not given or given[:_SUM] != _sum(given[_SUM:], wanted):
        raise ConfigurationError(
            f"after={shown(after)}: give what the page before has as `after`, with the same filters as for that page"
        )
    return Place(*msgspec.msgpack.decode(given[_SUM:], type=tuple[int, int, bytes]))
