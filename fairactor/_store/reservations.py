"""Reservations: room in mailboxes for tasks that take several batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from fairactor._model.wire import whole_ms

AT_ONCE: Final = 400
"""The most tenants, and the most ids, in one call."""
_LASTS: Final = 60.0
_LASTS_FOR_EACH: Final = 0.001
"""Seconds that a reservation lasts, and that it lasts longer for each task: they have to be sent meanwhile."""

_Part = tuple[str, int, Sequence[str]]
"""A tenant, its number of tasks, and ids of some of them."""


class Reservations:
    """The method of `Shard` that reserves room."""

    _run: Any

    async def reserve(
        self,
        name: str,
        rooms: Mapping[str, int],
        ids: Mapping[str, Sequence[str]] = MappingProxyType({}),
        held: set[str] | None = None,
    ) -> str | None:
        """Reserves room in mailboxes for a minute or more, in steps.

        Args:
            name: the name of the reservation.
            rooms: the number of tasks by tenant; 0 frees what is reserved.
            ids: by tenant the ids that the caller has chosen. Such tasks may exist already, and then take no room.
            held: gets the tenants for which room may be reserved now, also if the call fails.

        Returns:
            A tenant whose mailbox is too full, or None. The steps before may have reserved room: free that of ``held``.
        """
        held = set() if held is None else held
        lasts = whole_ms(_LASTS + _LASTS_FOR_EACH * sum(rooms.values()))
        reserved: dict[str, int] = {}  # of tenants that take several calls
        for step in _steps(rooms, ids):
            tenants = [tenant for tenant, _, _ in step]
            held.update(tenants)
            flat: list[Any] = []
            for tenant, many, some in step:
                flat += (tenant, reserved.get(tenant, 0) + many, msgspec.msgpack.encode(some))
            full, has_policies, *found = await self._run("reserve", name, lasts, *flat)
            held.difference_update(tenants)
            if full:
                held.update(reserved)
                return str(full.decode())
            numbers = dict(zip(map(bytes.decode, found[::2]), found[1::2], strict=True))
            held.update(numbers)
            reserved = numbers
            if not has_policies:
                return None
        return None


def _steps(rooms: Mapping[str, int], ids: Mapping[str, Sequence[str]]) -> Iterator[list[_Part]]:
    """Yields the parts for each call. A tenant comes once in a call, and in calls that follow each other."""
    step: list[_Part] = []
    left = AT_ONCE
    for part in _parts(rooms, ids):
        weight = max(1, len(part[2]))
        if step and (weight > left or step[-1][0] == part[0]):
            yield step
            step, left = [], AT_ONCE
        step.append(part)
        left -= weight
    if step:
        yield step


def _parts(rooms: Mapping[str, int], ids: Mapping[str, Sequence[str]]) -> Iterable[_Part]:
    for tenant, many in rooms.items():
        chosen = ids.get(tenant, ())
        yield tenant, many - max(0, len(chosen) - AT_ONCE), chosen[:AT_ONCE]
        for start in range(AT_ONCE, len(chosen), AT_ONCE):
            some = chosen[start : start + AT_ONCE]
            yield tenant, len(some), some
