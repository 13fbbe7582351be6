"""Disturbs a group of servers as planned, one thing at a time, and measures how soon it serves again."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import redis

from tests.support.polling import until
from tests.support.server_groups import TIMEOUT, Cluster, Group, Member, wait_until

from .disturbances import LOSSY, SENTINELS_LOSE, Disturbance, DisturbanceKind

GOAL: Final = 5.0
"""Seconds in which every shard serves again, once the servers say that they can."""
_GAP: Final = 1.0
"""Seconds: what a primary accepted so long before its death, its replicas may lack."""
_AFTERWARDS: Final = 0.2
"""Seconds in which a reply of a killed primary may still be on its way."""
_EACH: Final = 0.2
"""Seconds between two looks for fail-overs."""
_NOTICED: Final = 4.0
"""Seconds within which one is noticed."""
_MAY_FAIL_OVER: Final = LOSSY | {DisturbanceKind.PAUSE, DisturbanceKind.LOSE_REPLICA}
_PATIENCE: Final = 30.0
Control = Callable[[int, str], Awaitable[None]]
T = TypeVar("T")


def slowness() -> float:
    """Returns how many processes share a core now, at least 1: on a busy machine everything takes so much longer."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Disturber:
    """Disturbs a group of servers.

    Args:
        group: the servers.
        keys: a key of each shard.
        control: does something to a server, given its number: ``kill``, ``launch``, ``halt`` or ``go on``.
        note: called with what happens.
    """

    def __init__(self, group: Group, keys: Sequence[str], control: Control, note: Callable[[str], None]) -> None:
        self.served: dict[int, float] = {}
        """Shard -> when a task that was sent there last came back."""
        self.peace = True
        """Whether nothing happens to the servers now."""
        self.resumed: list[float] = []
        """For each disturbance the seconds until all shards served, once they could and nothing else struck."""
        self.last_fault: Callable[[], float] = lambda: 0.0
        """Returns when another fault last began or ended: clients and workers need a moment then, too."""
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self._group = group
        self._keys = keys
        self._control = control
        self._note = note
        self._lossy: list[tuple[float, float]] = []
        self._surprises: list[tuple[float, float]] = []
        self._kind = DisturbanceKind.PAUSE
        self._ways: Final[dict[DisturbanceKind, Callable[[Member, Disturbance], Awaitable[None]]]] = {
            DisturbanceKind.DIE: self._die, DisturbanceKind.RESTART: self._restart, DisturbanceKind.STALL: self._stall,
            DisturbanceKind.PAUSE: self._pause, DisturbanceKind.LOSE_REPLICA: self._lose_replica,
            DisturbanceKind.FAIL_OVER: self._fail_over, DisturbanceKind.MOVE_BY_KEY: self._move,
            DisturbanceKind.MOVE_AT_ONCE: self._move,
        }  # fmt: skip

    def may_be_gone(self, at: float) -> bool:
        """Whether a primary may have taken with it what was acknowledged at this time."""
        return any(begin <= at <= end for begin, end in (*self._lossy, *self._surprises))

    async def watch(self) -> None:
        """Notes fail-overs that nobody planned: on a busy machine a server may not answer in time."""
        before = 0
        while True:
            with suppress(redis.RedisError, OSError):
                found = await self._in_thread(self._group.epoch)
                if before and found > before and (self.peace or self._kind in _MAY_FAIL_OVER):
                    now = anyio.current_time()
                    self._surprises.append((now - _NOTICED, now + _NOTICED))
                before = found
            await anyio.sleep(_EACH)

    async def disturb(self, planned: Disturbance) -> None:
        """Does what is planned; returns when all servers serve again, as primaries or as replicas."""
        await anyio.sleep(planned.after)
        home = await self._home(planned.shard % len(self._keys))
        self._note(f"disturbance: {planned} (the server at {home.port})")
        self.counts[planned.kind] += 1
        began = anyio.current_time()
        self.peace, self._kind = False, planned.kind
        loses = planned.kind in LOSSY or (planned.kind in SENTINELS_LOSE and not isinstance(self._group, Cluster))
        if loses:
            self._lossy.append((began - _GAP, began + _AFTERWARDS if planned.kind is DisturbanceKind.DIE else math.inf))
        await self._ways[planned.kind](home, planned)
        await self._in_thread(self._settle)
        if loses and planned.kind is not DisturbanceKind.DIE:  # it may have accepted something until it learned better
            self._lossy[-1] = (began - _GAP, anyio.current_time())
        self._note("all servers are well")
        self.peace = True

    async def serves(self) -> None:
        """Waits until the servers say that they can serve and then until all shards do; notes how long that took."""
        await self._in_thread(self._wait_for_homes)
        can = anyio.current_time()
        self._note("the servers say that they can serve")
        with anyio.move_on_after(_PATIENCE):
            await until(lambda: all(self.served.get(n, 0) >= can for n in range(len(self._keys))), _PATIENCE)
        served = max((self.served.get(n, 0) for n in range(len(self._keys))), default=0)
        took = max(0.0, served - max(can, self.last_fault()))
        late = [n for n in range(len(self._keys)) if self.served.get(n, 0) < can]
        self.resumed.append(_PATIENCE if late else took)
        self._note(f"all shards serve {took:.3f} s later" if not late else f"shards {late} do not serve")
        if self.resumed[-1] > GOAL * slowness():
            self.violations.append(f"service resumed {self.resumed[-1]:.1f} s after the servers said that they could")

    # What happens

    async def _die(self, home: Member, _: Disturbance) -> None:
        await self._kill(home)
        await self.serves()
        await self._start(home)

    async def _restart(self, home: Member, _: Disturbance) -> None:
        await self._kill(home)
        await self._start(home)
        await self.serves()

    async def _stall(self, home: Member, _: Disturbance) -> None:
        home.up = False
        await self._control(self._number(home), "halt")
        await self.serves()
        await self._go_on(home)

    async def _pause(self, home: Member, planned: Disturbance) -> None:
        home.up = False
        await self._control(self._number(home), "halt")
        await anyio.sleep(min(planned.seconds, 0.6 * TIMEOUT / 1000))
        await self._go_on(home)
        await self.serves()

    async def _lose_replica(self, home: Member, _: Disturbance) -> None:
        replica = await self._in_thread(partial(self._group.replica_of, home))
        await self._kill(replica)
        await self.serves()
        await self._start(replica)

    async def _fail_over(self, home: Member, _: Disturbance) -> None:
        with suppress(redis.ResponseError):  # it has just begun to do so by itself
            await self._in_thread(partial(self._group.fail_over, home))
        await anyio.sleep(0.1)
        await self.serves()

    async def _move(self, home: Member, planned: Disturbance) -> None:
        assert isinstance(self._group, Cluster)
        key = self._keys[planned.shard % len(self._keys)]
        others = await self._in_thread(lambda: [each for each in self._group.primaries() if each is not home])
        other = others[planned.pick % len(others)]
        for target in (other, home) if planned.back else (other,):
            at_once = planned.kind is DisturbanceKind.MOVE_AT_ONCE and self._group.moves_at_once()
            move = self._group.move_at_once if at_once else self._group.move_by_key
            await self._in_thread(partial(move, key, target))
            self._note(f"the slot is at {target.port}")
            await self.serves()

    # Servers

    async def _kill(self, member: Member) -> None:
        member.up = False
        await self._control(self._number(member), "kill")

    async def _start(self, member: Member) -> None:
        await self._control(self._number(member), "launch")
        await self._in_thread(partial(wait_until, member.db.ping, "a server starts"))
        await self._in_thread(partial(self._group.rejoin, member))
        member.up = True

    async def _go_on(self, member: Member) -> None:
        await self._control(self._number(member), "go on")
        member.up = True

    def _number(self, member: Member) -> int:
        return self._group.servers.index(member)

    async def _home(self, shard: int) -> Member:
        found: list[Member] = []

        def look() -> bool:
            found[:] = self._group.homes([self._keys[shard]])
            return True

        await self._in_thread(partial(wait_until, look, "a shard has a primary"))
        return found[0]

    def _wait_for_homes(self) -> None:
        wait_until(lambda: self._group.homes(self._keys), "the servers can serve")

    def _settle(self) -> None:
        """Waits until all servers are up, and the replicas have what the primaries have."""
        wait_until(self._group.is_whole, "all servers serve, as primaries or as replicas")

    async def settle(self) -> None:
        await self._in_thread(self._settle)

    @staticmethod
    async def _in_thread(call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(call)
