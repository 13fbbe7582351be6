"""Pages of tenants, in several orders.

Few tenants are all read, so their order is exact. Of many, those that come first are found by what the shards know: an
index of those with large backlogs, the rings, the claims. The others follow in the order in which the server has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from fairactor._model.wire import as_bytes
from fairactor._store.shards import Shards
from fairactor._util.checks import check_one_of, check_whole_number, shown
from fairactor.errors import ConfigurationError
from fairactor.views import TENANT_ORDERS, TenantOrder, TenantPage, TenantView

from .shares import EstimatedShares, ExactShares, FairShares
from .tenant_facts import Facts, Survey

FEW: Final = 1000
"""So many tenants are all read for each page."""
MOST: Final = 1000
"""The most tenants on a page."""
_LOOKED_AT: Final = 5000
"""About how many names a page looks at to find those with a part of a name."""
_DESCRIBED: Final = 1500
"""About how many tenants a page looks at to find those that were on no page before."""
_NAMES_AT_ONCE: Final = 500
_FIRST: Final = 200
"""How many tenants of each ring may come first."""
_LARGEST: Final = 100
_DIGITS: Final = 20
"""The most digits of a number that says where a page begins: a cursor of the server."""
_CLAIMS: Final = 20_000
"""The most claims that are counted for a page."""

_KEYS: Final[dict[TenantOrder, Callable[[TenantView], Any]]] = {
    "backlog": lambda view: (-view.backlog, view.tenant),
    "oldest": lambda view: (-1.0 if view.oldest_wait is None else -view.oldest_wait - 2, view.tenant),
    "share": lambda view: (-view.share, view.tenant),
    "running": lambda view: (-view.running, view.tenant),
    "name": lambda view: view.tenant,
}


class _Place(NamedTuple):
    """Where a page begins."""

    phase: str
    """'all': at a number of all tenants; 'index': at a rank of each shard's index; 'first': at a number of those that
    come first; 'rest': in a shard, at a cursor of its scan, and at a number of what that returns."""
    at: tuple[int, ...]

    def pack(self, order: TenantOrder) -> str:
        return ":".join([order, self.phase, *map(str, self.at)])

    @staticmethod
    def read(after: str, order: TenantOrder, shards: int) -> _Place:
        """Reads a place.

        Raises:
            ConfigurationError: it is none of a page in this order.
        """
        parts = after.split(":") if isinstance(after, str) else []
        found = parts[:1] == [order] and all(
            part.isascii() and part.isdigit() and len(part) <= _DIGITS for part in parts[2:]
        )
        place = _Place(parts[1], tuple(map(int, parts[2:]))) if found and len(parts) > 2 else None  # noqa: PLR2004 - order, phase
        fits = {"all": (1,), "first": (1,), "rest": (3,), "index": range(1, shards + 1)}
        if place is None or len(place.at) not in fits.get(place.phase, ()):
            raise ConfigurationError(
                f"after={shown(after)}: give what the page before, in the order {order!r}, says in its `after`"
            )
        return place


async def read_tenants(
    shards: Shards, order: TenantOrder, text: str | None, limit: int, after: str | None
) -> TenantPage:
    """Returns a page of tenants.

    Args:
        shards: the shards.
        order: the order.
        text: a part of their names; None for all.
        limit: the most tenants on the page.
        after: where the page before has ended; None for the first page.

    Raises:
        ConfigurationError: an argument is invalid.
        ServerUnavailable: as `Runtime.send`.
        ServerError: as `Runtime.send`.
    """
    check_one_of("order_by", order, TENANT_ORDERS)
    check_whole_number("limit", limit, 1, MOST)
    part = _part_of_name(text)
    survey = await Survey.begin(shards)
    place = None if after is None else _Place.read(after, order, len(shards))
    pages = _Pages(survey, order, part, limit)
    if survey.known <= FEW and (place is None or place.phase == "all"):
        return await pages.of_all(place)
    return await pages.of_many(place)


def _part_of_name(text: str | None) -> bytes:
    try:
        return b"" if text is None else as_bytes(text)
    except (AttributeError, UnicodeEncodeError) as error:
        raise ConfigurationError(f"text={shown(text)}: give a part of a name as a string, or None") from error


class _Pages:
    """Reads a page of tenants."""

    def __init__(self, survey: Survey, order: TenantOrder, text: bytes, limit: int) -> None:
        self._survey = survey
        self._order: TenantOrder = order
        self._text = text
        self._limit = limit
        self._looked_at = 0

    async def of_all(self, place: _Place | None) -> TenantPage:
        """Returns a page of few tenants."""
        facts = await self._survey.describe(await self._survey.all_names())
        self._looked_at = len(facts)
        views = self._views([each for each in facts if self._text in each.name], ExactShares(facts))
        start = place.at[0] if place else 0
        end = start + self._limit
        return self._page(views[start:end], _Place("all", (end,)) if end < len(views) else None)

    async def of_many(self, place: _Place | None) -> TenantPage:
        """Returns a page of many tenants."""
        if place is None or place.phase == "all":  # there were few when the page before was read
            place = self._beginning()
        found: list[Facts] = []
        if place.phase == "index":
            found, following = await self._of_index(place)
        elif place.phase == "first":
            found, following = await self._of_first(place)
        else:
            following = place
        if following is not None and following.phase == "rest" and len(found) < self._limit:
            rest, following = await self._of_rest(following, self._limit - len(found))
            found = found + [each for each in rest if each.name not in {known.name for known in found}]
        shares = EstimatedShares(self._survey.sizes)
        return self._page(self._views(found, shares), following)

    def _beginning(self) -> _Place:
        if self._order == "backlog":
            return _Place("index", (0,) * len(self._survey.sizes))
        return _Place("rest", (0, 0, 0)) if self._order == "name" else _Place("first", (0,))

    def _views(self, facts: Sequence[Facts], shares: FairShares) -> list[TenantView]:
        views = [each.view(self._survey, shares) for each in facts]
        return sorted(views, key=_KEYS[self._order])

    def _page(self, views: Sequence[TenantView], following: _Place | None) -> TenantPage:
        after = None if following is None else following.pack(self._order)
        return TenantPage(tuple(views), after, self._survey.known, max(self._looked_at, len(views)))

    async def _of_index(self, place: _Place) -> tuple[list[Facts], _Place | None]:
        """Returns the next tenants in the index, and where the next page begins."""
        shards = self._survey.shards
        ranks = [*place.at, *(0 for _ in range(len(shards) - len(place.at)))]
        found: dict[bytes, Facts] = {}
        while len(found) < self._limit and self._looked_at < _LOOKED_AT:
            asked = _NAMES_AT_ONCE if self._text else self._limit - len(found)
            listed = [await shard.largest(rank, asked) for shard, rank in zip(shards, ranks, strict=True)]
            merged = sorted(
                (-live, number, place, name)
                for number, entries in enumerate(listed)
                for place, (name, live) in enumerate(entries)
            )[:asked]
            if not merged:
                return list(found.values()), _Place("rest", (0, 0, 0))
            taken: list[bytes] = []
            for _, number, _, name in merged:
                if len(found) + len(taken) == self._limit:
                    break
                ranks[number] += 1
                self._looked_at += 1
                if self._text in name:
                    taken.append(name)
            facts = await self._survey.describe(taken)
            found |= {each.name: each for each in facts if each.is_indexed}
        return list(found.values()), _Place("index", tuple(ranks))

    async def _of_first(self, place: _Place) -> tuple[list[Facts], _Place | None]:
        """Returns the next of those that come first, and where the next page begins."""
        start = place.at[0]
        end = start + self._limit
        names = await self._first_names()
        self._looked_at += len(names)
        names = [name for name in names if self._text in name]
        if self._order == "oldest":
            everybody = await self._survey.describe(names)
            facts = sorted(everybody, key=lambda each: (each.since, each.name))[start:end]
        else:
            facts = await self._survey.describe(names[start:end])
        return facts, _Place("first", (end,)) if end < len(names) else _Place("rest", (0, 0, 0))

    async def _first_names(self) -> list[bytes]:
        """Returns the tenants that may come first; but those that may have waited for longest are not in order."""
        running = await self._survey.running(_CLAIMS) if self._order != "oldest" else Counter[bytes]()
        names = dict.fromkeys(name for name, _ in sorted(running.items(), key=lambda item: (-item[1], item[0])))
        if self._order == "running":
            return list(names)
        for shard, sizes in zip(self._survey.shards, self._survey.sizes, strict=True):
            if self._order == "oldest":
                number = FEW if sizes.waiting <= FEW else _FIRST
                names |= dict.fromkeys(await shard.candidates("longest", number))
            else:
                names |= dict.fromkeys(await shard.candidates("served", _FIRST))
            names |= dict.fromkeys(name for name, _ in await shard.largest(0, _LARGEST))
        return list(names) if self._order == "oldest" else await self._survey.by_recent(list(names))

    async def _of_rest(self, place: _Place, want: int) -> tuple[list[Facts], _Place | None]:
        """Returns tenants that were on no page before, and where the next page begins."""
        before = {} if self._order in {"backlog", "name"} else dict.fromkeys(await self._first_names())
        found: list[Facts] = []
        number, cursor, skip = place.at
        looked_at, most = 0, _LOOKED_AT if self._text else max(_DESCRIBED, 2 * want)
        while number < len(self._survey.shards) and looked_at < most:
            shard = self._survey.shards[number]
            following, seen, names = await shard.some_names(b"%d" % cursor, _NAMES_AT_ONCE, self._text)
            looked_at += seen
            names.sort()  # a server that enlarges its table returns the same names in another order
            end = skip + want - len(found)
            some = [name for name in names[skip:end] if name not in before]
            for each in await self._survey.describe(some):
                is_before = self._order == "backlog" and each.is_indexed
                if each.first_shard == number and not is_before:
                    found.append(each)
            if end < len(names):
                skip = end
            else:
                cursor, skip = int(following), 0
                number += not cursor
            if len(found) >= want:
                break
        self._looked_at += looked_at
        return found, _Place("rest", (number, cursor, skip)) if number < len(self._survey.shards) else None
