"""What is known of tenants, on all shards together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from fairactor._model.counts import FADES, INDEXED_FROM, Counts, recent_tasks
from fairactor._model.wire import PackedPolicy, as_text
from fairactor._store.overviews import Sizes, TenantFacts
from fairactor._store.shard import Shard
from fairactor._store.shards import Shards
from fairactor.views import TenantView

from .shares import FairShares

_LOOK: Final = 500


@attrs.frozen
class Facts:
    """What the shards know of a tenant. While it moves to another shard, there are two of them."""

    name: bytes
    shards: tuple[tuple[int, TenantFacts], ...]
    """The shards that have counts of it, by number."""
    counts: Counts
    defaults: PackedPolicy

    @staticmethod
    def join(name: bytes, shards: Iterable[tuple[int, TenantFacts]], defaults: PackedPolicy) -> Facts | None:
        """Adds up what shards know of a tenant; returns None if none has counts of it."""
        known = tuple(sorted((number, facts) for number, facts in shards if facts.counts))
        if not known:
            return None
        first, *others = (Counts.unpack(facts.counts, queued=facts.queued) for _, facts in known)
        return Facts(name, known, sum(others, first), defaults)

    @property
    def first_shard(self) -> int:
        """The number of the first shard that has counts of it."""
        return self.shards[0][0]

    @property
    def home(self) -> int:
        """The number of the shard that has its live tasks, or most of them."""
        return max(self.shards, key=lambda each: (each[1].queued, -each[0]))[0]

    @property
    def policy(self) -> PackedPolicy:
        """Its settings, with the defaults for those that were not made."""
        own = max((facts.policy for _, facts in self.shards), key=len)
        return self.defaults | own

    @property
    def weight(self) -> float:
        """Its weight."""
        return float(self.policy.get("weight") or 1)

    @property
    def group(self) -> str | None:
        """Its group."""
        return self.policy.get("group")

    @property
    def group_weight(self) -> float:
        """The weight of its group."""
        return max(float(facts.group.get("weight") or 1) for _, facts in self.shards)

    @property
    def group_size(self) -> int:
        """How many tenants of its group wait on its shard."""
        return max(facts.group_size for _, facts in self.shards)

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs now."""
        return self.counts.started > 0 or (self.counts.queued > 0 and not self.policy.get("paused"))

    @property
    def is_indexed(self) -> bool:
        """Whether the index of backlogs of a shard should have it."""
        return any(_live(facts.counts) >= INDEXED_FROM for _, facts in self.shards)

    @property
    def since(self) -> float:
        """Since when the first of its queued tasks has waited, unix seconds; infinity if none waits."""
        return min((facts.since for _, facts in self.shards if facts.since is not None), default=math.inf)

    def view(self, survey: Survey, shares: FairShares) -> TenantView:
        """Returns what users see of it."""
        counts = self.counts
        recent = sum(recent_tasks(facts.counts, survey.sizes[number].now) for number, facts in self.shards)
        return TenantView(
            tenant=as_text(self.name),
            backlog=counts.queued,
            oldest_wait=None if self.since == math.inf else max(0.0, survey.sizes[self.home].now - self.since),
            running=counts.started,
            scheduled=counts.scheduled,
            deferred=counts.deferred,
            finished=counts.finished,
            failed=counts.failed,
            canceled=counts.canceled,
            rate=recent / FADES,
            share=min(1.0, recent / survey.recent) if survey.recent else 0.0,
            fair_share=shares.of(self),
            weight=self.weight,
            group=self.group,
            paused=bool(self.policy.get("paused")),
        )


def _live(counts: bytes) -> int:
    return sum(Counts.unpack(counts).by_priority.values())


class Survey:
    """What the shards say of tenants."""

    def __init__(self, shards: Shards, numbered: Sequence[Shard], sizes: Sequence[Sizes]) -> None:
        self._shards = shards
        self.shards = numbered
        """The shards, by number."""
        self.sizes = sizes
        """How many tenants each has."""
        self.recent = sum(recent_tasks(each.total, each.now) for each in sizes)
        """How many tasks have finished or failed of late; see `recent_tasks`."""
        self.known = sum(each.known for each in sizes)
        """How many tenants have counts."""

    @staticmethod
    async def begin(shards: Shards) -> Survey:
        """Asks all shards how many tenants they have."""
        numbered, sizes = list[Shard](), list[Sizes]()
        for shard in shards:
            found = await shard.sizes()
            if not found.has_index:
                await shard.complete_index()
            numbered.append(shard)
            sizes.append(found)
        return Survey(shards, numbered, sizes)

    async def all_names(self) -> list[bytes]:
        """Returns all tenants with counts."""
        names: dict[bytes, None] = {}
        for shard in self.shards:
            cursor = b""
            while cursor != b"0":
                cursor, _, some = await shard.some_names(cursor or b"0", _LOOK)
                names |= dict.fromkeys(some)
        return list(names)

    async def describe(self, names: Iterable[bytes]) -> list[Facts]:
        """Describes tenants, in their order; leaves out those of which no shard has counts."""
        wanted = list(names)
        places: dict[int, list[bytes]] = {}
        for name in wanted:
            for number in self._places(name):
                places.setdefault(number, []).append(name)
        found: dict[bytes, list[tuple[int, TenantFacts]]] = {}
        for number, some in places.items():
            for name, facts in (await self.shards[number].describe_tenants(some)).items():
                found.setdefault(name, []).append((number, facts))
        defaults = self.sizes[0].defaults
        joined = (Facts.join(name, found.get(name, ()), defaults) for name in wanted)
        return [each for each in joined if each is not None]

    def _places(self, name: bytes) -> list[int]:
        if len(self.shards) == 1:
            return [0]
        likely = self._shards.likely(as_text(name))
        return [number for number, shard in enumerate(self.shards) if shard in likely]

    async def by_recent(self, names: Sequence[bytes]) -> list[bytes]:
        """Returns tenants in the order of what they have got of late, those that have got most first."""
        recent = dict.fromkeys(names, b"")
        for shard in self.shards:
            for name, stored in (await shard.recent(names)).items():
                recent[name] = max(recent[name], stored)
        return sorted(names, key=lambda name: (recent[name], name), reverse=True)

    async def running(self, most: int) -> Counter[bytes]:
        """Counts the claims of all runtimes by tenant; stops after `most` claims."""
        numbers: Counter[bytes] = Counter()
        for shard in self.shards:
            claimed = (await shard.stats()).claimed
            for runtime in sorted(claimed, key=claimed.__getitem__, reverse=True):
                if not claimed[runtime] or numbers.total() >= most:
                    break
                numbers.update(await shard.claims_by(runtime, "tenants"))
        return numbers
