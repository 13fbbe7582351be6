"""Fair shares: what the weights of tenants give them among those that wait or run now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Protocol

from fairactor._store.overviews import Sizes


class Sharer(Protocol):
    """A tenant."""

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs now."""
        ...

    @property
    def weight(self) -> float:
        """Its weight."""
        ...

    @property
    def home(self) -> int:
        """The number of its shard."""
        ...

    @property
    def group(self) -> str | None:
        """Its group."""
        ...

    @property
    def group_weight(self) -> float:
        """The weight of its group."""
        ...

    @property
    def group_size(self) -> int:
        """How many tenants of its group wait on its shard."""
        ...


class FairShares(Protocol):
    """Says which share of all work is fair for a tenant."""

    def of(self, tenant: Sharer) -> float:
        """Returns the share, from 0 to 1; 0 for a tenant that neither waits nor runs."""
        ...


class ExactShares:
    """The shares of tenants that are all known. A group shares as one, on each shard, and divides what it gets."""

    def __init__(self, tenants: Iterable[Sharer]) -> None:
        groups: dict[tuple[int, str], float] = {}
        self._in_group: dict[tuple[int, str], float] = defaultdict(float)
        self._sum = 0.0
        for each in tenants:
            if not each.is_active:
                continue
            if each.group is None:
                self._sum += each.weight
            else:
                place = each.home, each.group
                groups[place] = each.group_weight
                self._in_group[place] += each.weight
        self._sum += sum(groups.values())

    def of(self, tenant: Sharer) -> float:
        """Returns the share."""
        if not tenant.is_active:
            return 0.0
        if tenant.group is None:
            return tenant.weight / self._sum
        return tenant.group_weight / self._sum * tenant.weight / self._in_group[tenant.home, tenant.group]


class EstimatedShares:
    """The shares of tenants that are too many to know all: as if those whose policies were not looked at had none."""

    def __init__(self, sizes: Sequence[Sizes]) -> None:
        self._usual = float(sizes[0].defaults.get("weight") or 1)
        self._sum = sum(each.waiting * self._usual + each.more_weight for each in sizes)

    def of(self, tenant: Sharer) -> float:
        """Returns the share."""
        if not tenant.is_active:
            return 0.0
        if tenant.group is None:
            return min(1.0, tenant.weight / max(self._sum, tenant.weight))
        in_group = max(tenant.group_size * self._usual, tenant.weight)
        return tenant.group_weight / max(self._sum, tenant.group_weight) * tenant.weight / in_group
