"""What a shard says of its tenants, lanes and runtimes to those who operate the namespace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from fairactor._model.wire import PackedPolicy, unpack_policy

_AT_ONCE: Final = 100
"""How many tenants one call describes."""
_RECENT_AT_ONCE: Final = 1500
_LANES_AT_ONCE: Final = 500


class Sizes(NamedTuple):
    """How many tenants a shard has."""

    now: float
    """The shard's time, unix seconds."""
    total: bytes
    """The counts of the shard, packed."""
    defaults: PackedPolicy
    known: int
    """The tenants with counts."""
    waiting: int
    """The tenants and groups that wait for the kind of runtimes for which the most wait."""
    has_index: bool
    """Whether the index of backlogs is complete."""
    more_weight: float
    """By how much the weights of those with a policy exceed the usual one in sum, as far as they wait."""


class TenantFacts(NamedTuple):
    """What a shard knows of a tenant."""

    counts: bytes
    """Packed; b"" if there are none."""
    policy: PackedPolicy
    queued: int
    since: float | None
    """Since when the first of the queued tasks has waited, by the shard's clock, unix seconds."""
    group: PackedPolicy
    """The policy of its group."""
    group_size: int
    """How many tenants of the group wait."""


class LaneSize(NamedTuple):
    """How many tasks wait in a lane."""

    tenants: int
    """How many tenants have some; -1: unknown, of the common lane."""
    looked_at: int
    tasks: int
    """The tasks of those that were looked at."""
    waited: float | None
    """The seconds that the first task of any of these has waited."""


class ClaimedTask(NamedTuple):
    """A task that a runtime has claimed."""

    id: bytes
    tenant: bytes
    claimed_at: float
    route: bytes
    """As JSON text."""
    attempt: int
    progress: bytes


class Overviews:
    """The methods of `Shard` for the scripts that only look, at tenants, lanes and claims."""

    _run: Any

    async def sizes(self) -> Sizes:
        """Returns how many tenants there are, and what describing them needs."""
        now, total, defaults, known, waiting, has_index, more = await self._run("find_tenants", "sizes")
        return Sizes(int(now) / 1e6, total, unpack_policy(defaults), known, waiting, bool(has_index), float(more))

    async def complete_index(self) -> None:
        """Completes the index of backlogs, after the release before has created the shard."""
        cursor = b"0"
        while (cursor := await self._run("index_backlog", cursor)) != b"0":
            pass
        await self._run("index_backlog", "end")

    async def largest(self, rank: int, number: int) -> list[tuple[bytes, int]]:
        """Returns the tenants with the most live tasks, from a rank on, as the index has them."""
        flat = iter(await self._run("find_tenants", "backlog", rank, number))
        return [(name, int(live)) for name, live in zip(flat, flat, strict=True)]

    async def some_names(self, cursor: bytes, number: int, text: bytes = b"") -> tuple[bytes, int, list[bytes]]:
        """Looks at about so many tenants with counts.

        Returns:
            The next cursor, b"0" at the end; how many it has looked at; and those whose names contain ``text``.
        """
        cursor, looked_at, *names = await self._run("find_tenants", "names", cursor, number, text)
        return cursor, looked_at, names

    async def candidates(self, how: Literal["longest", "served"], number: int) -> list[bytes]:
        """Returns tenants that may have waited for longest, or that were served last; see find_tenants.lua."""
        found: list[bytes] = await self._run("find_tenants", how, "", number)
        return found

    async def recent(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Returns what tenants have got of late, as bytes that compare as the numbers do."""
        found: list[bytes] = []
        for start in range(0, len(names), _RECENT_AT_ONCE):
            found += await self._run("find_tenants", "recent", *names[start : start + _RECENT_AT_ONCE])
        return dict(zip(names, found, strict=True))

    async def describe_tenants(self, names: Sequence[bytes]) -> dict[bytes, TenantFacts]:
        """Describes tenants."""
        found: dict[bytes, TenantFacts] = {}
        start = 0
        while start < len(names):
            some = names[start : start + _AT_ONCE]
            flat = await self._run("tenants", *some)
            for name, at in zip(some, range(0, len(flat), 6), strict=False):  # the reply may end early
                counts, policy, queued, since, group, size = flat[at : at + 6]
                facts = TenantFacts(counts, unpack_policy(policy), queued, _seconds(since), unpack_policy(group), size)
                found[name] = facts
            start += len(flat) // 6
        return found

    async def claims_by(self, runtime: bytes, what: Literal["tenants", "routes"]) -> Counter[bytes]:
        """Counts what a runtime has claimed, by tenant or by route, in JSON."""
        numbers: Counter[bytes] = Counter()
        cursor = b""
        while cursor != b"0":
            cursor, *flat = await self._run("claims", runtime, what, cursor or b"0")
            each = iter(flat)
            for name, number in zip(each, each, strict=True):
                numbers[name] += number
        return numbers

    async def claimed_tasks(self, runtime: bytes, most: int) -> tuple[int, list[ClaimedTask]]:
        """Returns how many tasks a runtime has claimed, and some of them, the first claims first."""
        number, *flat = await self._run("runs", runtime, most)
        tasks = [flat[at : at + 6] for at in range(0, len(flat), 6)]
        return number, [
            ClaimedTask(task, tenant, int(ms) / 1000, route, attempt, progress)
            for task, tenant, ms, route, attempt, progress in tasks
        ]

    async def lane_names(self) -> tuple[list[bytes], bool]:
        """Returns the lanes with queued tasks but the common one, and whether tasks may have such lanes at all."""
        names: dict[bytes, None] = {}
        cursor, has_lanes = b"", 0
        while cursor != b"0":
            cursor, flat, has_lanes = await self._run("lane_names", cursor or b"0")
            names |= dict.fromkeys(flat[::2])
        return list(names), bool(has_lanes)

    async def lane_sizes(self, lanes: Sequence[bytes]) -> list[LaneSize]:
        """Returns how many tasks wait in some lanes, the first ones: as many as one call looks at."""
        flat = await self._run("lane_sizes", *lanes[:_LANES_AT_ONCE])
        found = [flat[at : at + 4] for at in range(0, len(flat), 4)]
        return [LaneSize(tenants, looked_at, tasks, _seconds(ms)) for tenants, looked_at, tasks, ms in found]


def _seconds(ms: bytes) -> float | None:
    """Converts ms to seconds; -1 stands for nothing."""
    return None if int(ms) < 0 else int(ms) / 1000
