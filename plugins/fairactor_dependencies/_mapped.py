"""The items of a run: the tasks that ``each()`` sends while the run is under way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import attrs

from fairactor import Handle, TaskState
from fairactor.errors import FairactorError
from fairactor.plugins import Host

from ._options import NAME
from ._placeholders import IdOf
from ._plan import Step
from ._states import read_letters, state_of

SPREAD = f"{NAME}.spread"
JOIN = f"{NAME}.join"


class Attempt(NamedTuple):
    """The ids that the two steps of an ``each()`` had in one attempt at a run."""

    spread: str
    join: str


@attrs.frozen
class Item:
    """A task for one item."""

    id: str
    tenant: str
    state: TaskState | None
    """None if its record has expired."""


@attrs.frozen(eq=False)
class Mapped:
    """An ``each()`` of a run."""

    name: str
    """The name of its actor, numbered from the second ``each()`` with this actor on."""
    spread: Step
    join: Step
    tenant: str
    attempts: Sequence[Attempt]
    """The latest one first."""

    async def items(self, host: Host) -> dict[int, Item]:
        """Returns the tasks that were sent, by the indexes of their items."""
        many, sent = 0, 0
        for attempt in self.attempts:
            count, accepted = await self._counts(host, attempt)
            many, sent = max(many, count), max(sent, accepted)
        found: dict[int, Item] = {}
        left: Sequence[int] = range(many)
        for attempt in self.attempts:
            ids = {number: item_id(attempt.join, number) for number in left}
            letters = await read_letters(host, [(each, self.tenant) for each in ids.values()])
            found |= {
                number: Item(each, self.tenant, state_of(letters[each]))
                for number, each in ids.items()
                if each in letters
            }
            left = [number for number in left if number not in found]
        latest = self.attempts[0].join
        found |= {number: Item(item_id(latest, number), self.tenant, None) for number in left if number < sent}
        return dict(sorted(found.items()))

    async def _counts(self, host: Host, attempt: Attempt) -> tuple[int, int]:
        """Returns how many items an attempt has, and how many of these were sent at most."""
        await host.find([self.tenant])
        for shard in host.shards_of(self.tenant):
            many, accepted = await host.call(f"{NAME}/mapped", shard, attempt.join, 0)
            if many or accepted:
                return many, accepted
        try:
            info = await host.runtime.handle(attempt.spread, self.tenant).info()
            if info.state is not TaskState.FINISHED:
                return 0, 0
            many = await host.runtime.handle(attempt.spread, self.tenant).result(1)
        except FairactorError:  # it has expired, or has not finished
            return 0, 0
        return many, many

    async def stop(self, host: Host) -> None:
        """Makes the server refuse items that are still to be sent."""
        await host.call(f"{NAME}/mapped", self.tenant, self.attempts[0].join, 1)

    def item_name(self, number: int) -> str:
        """Returns the name of an item's task."""
        return f"{self.name}[{number}]"


def item_id(join: str, number: int) -> str:
    """Returns the id of an item's task; it derives from that of the joining task, so no item is sent twice."""
    return f"{join}/{number}"


def maps_in(
    names: Mapping[Step, str], handles: Mapping[str, Handle[Any]], past: Mapping[Step, Sequence[Attempt]]
) -> list[Mapped]:
    """Returns each ``each()`` of a run."""
    found: list[Mapped] = []
    numbers: dict[str, int] = {}
    for step, name in names.items():
        if step.actor.name != SPREAD:
            continue
        join = next(argument.of for argument in step.args if isinstance(argument, IdOf))
        target = str(step.args[0])
        number = numbers[target] = numbers.get(target, 0) + 1
        handle = handles[names[join]]
        attempts = (Attempt(handles[name].id, handle.id), *past.get(join, ()))
        found.append(Mapped(target if number == 1 else f"{target}.{number}", step, join, handle.tenant or "", attempts))
    return found
