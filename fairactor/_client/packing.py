"""Packing: divides the tasks of a `send_many` into batches, each of which goes with one call."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from fairactor._model.wire import BATCH, MOST_ROUTES, USUAL_BATCH, Item
from fairactor._util.one_call import check_one_call, wants_one_call

_Fields = tuple[Any, ...]
"""The fields of an `Item`. Python's garbage collector has to look at every `Item`, but not at such a tuple. So it stops
everything for less long, and less often, when a program sends 500,000 tasks at once."""


class Batches:
    """The batches of a shard, in the order in which they go. Those that are taken need no memory any more."""

    def __init__(self) -> None:
        self._waiting: deque[list[_Fields]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, item: Item) -> None:
        """Begins a batch."""
        self._waiting.append([tuple(item)])

    def add(self, item: Item) -> None:
        """Adds a task to the last batch, which is accepted as a whole."""
        self._waiting[-1].append((*item[:4], "+", *item[5:]))

    def take(self) -> list[Item]:
        """Takes the next batch."""
        return [Item(*fields) for fields in self._waiting.popleft()]

    def clear(self) -> None:
        """Drops the batches that are left."""
        self._waiting.clear()


class Packing:
    """The batches of each shard. The tasks of a shard, and so those of a tenant, stay in order.

    Args:
        budgets: for each shard the bytes that one call should carry.
    """

    def __init__(self, budgets: Sequence[int]) -> None:
        self.batches: list[Batches] = [Batches() for _ in budgets]
        self._budgets = budgets
        self._most, self._most_routes = (BATCH, BATCH) if wants_one_call() else (USUAL_BATCH, MOST_ROUTES)
        self._room = [0] * len(budgets)  # in the last batch of each shard
        self._bytes_left = [0] * len(budgets)  # likewise
        self._routes: list[set[bytes]] = [set() for _ in budgets]  # likewise

    def add(self, number: int, item: Item) -> bool:
        """Adds a task to the last batch of a shard. Returns whether it is the first of a new batch."""
        batches, routes = self.batches[number], self._routes[number]
        self._room[number] -= item.places
        self._bytes_left[number] -= item.size
        routes.add(item.route)
        if batches and self._room[number] >= 0 and len(routes) <= self._most_routes and self._bytes_left[number] >= 0:
            batches.add(item)
            return False
        self._routes[number] = {item.route}
        self._room[number] = self._most - item.places
        self._bytes_left[number] = self._budgets[number] - item.size
        batches.begin(item)
        return True

    def check(self) -> int:
        """Returns the number of batches.

        Raises:
            NotInOneCall: there are several, but the tasks must go with one call.
        """
        number = sum(map(len, self.batches))
        check_one_call(number)
        return number
