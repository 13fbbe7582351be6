"""The plugin: in each runtime an actor for each shard looks after what is due there."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import anyio
import msgspec

from fairactor.errors import RuntimeNotRunning, ServerError
from fairactor.plugins import Host, read_lua

from ._declared import add_declared
from ._rule import Plan, calendar
from ._schedule import NAME, split_key

logger: Final = logging.getLogger(NAME)

AT_ONCE: Final = 100
"""The most schedules in one call, and in one step of the server."""
MOST_RUNS: Final = 500
"""The most runs in one call."""
MOST_TIME: Final = 0.02
"""Seconds after which the event loop has its turn, where the times of some schedules take long to work out."""
LONGEST_SLEEP: Final = 60.0
PAUSE: Final = 1.0
"""Seconds until the server is asked again that has refused."""
LATER: Final = 60.0
"""Seconds until a schedule is looked at again whose times cannot be told here."""
SHORT: Final = 0.05
"""Seconds until it looks again where others were faster."""
GIVE_UP: Final = 1.0
"""Seconds in which a runtime that leaves says so; without, others find out."""

_SCRIPTS: Final = ("put", "get", "list", "remove", "pause", "resume", "run", "due", "tick", "leave", "declared")


class Scheduling:
    """The plugin. It is installed with fairactor, so every runtime has it that is not told otherwise."""

    name = NAME

    @property
    def lua(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaHooks`."""
        return {"ended": read_lua(NAME, "ended")}

    @property
    def scripts(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaScripts`."""
        return {script: read_lua(NAME, script) for script in _SCRIPTS}

    @asynccontextmanager
    async def lifespan(self, host: Host) -> AsyncIterator[None]:
        """Adds the schedules that actors declare, and looks after what is due."""
        keepers = [_Keeper(host, shard) for shard in range(host.shard_count)]
        if host.settings.workers:
            try:
                await add_declared(host)
            except ServerError as error:  # it is full, for example: that must not keep workers from draining it
                logger.warning("what actors declare cannot be added yet: %s", error)
                keepers[0].to_add = True
        for keeper in keepers:
            host.supervise(f"schedules of shard {keeper.shard}", keeper.run)
        for keeper in keepers:
            await keeper.has_looked.wait()
        yield


class _Keeper:
    """Looks after the due schedules of a shard."""

    def __init__(self, host: Host, shard: int) -> None:
        self.shard = shard
        self._host = host
        self._led = False
        self._failing = False
        self.to_add = False
        """Whether what actors declare is still to be added."""
        self.has_looked = anyio.Event()
        """Whether it has asked once what is due."""

    async def run(self) -> None:
        """Sends what is due, sleeps until the next time, and so on; until canceled."""
        with self._host.subscribe(NAME) as wakeup:
            try:
                while True:
                    await wakeup.wait(await self._look())
            finally:
                await self._leave()

    async def _look(self) -> float:
        """Does what there is to do, if the server can; returns for how many seconds to sleep."""
        try:
            if self.to_add:
                await add_declared(self._host)
                self.to_add = False
            wait = await self._send_due()
            self._failing = False
        except ServerError as error:
            logger.log(logging.DEBUG if self._failing else logging.WARNING, "shard %d: %s", self.shard, error)
            self._failing, wait = True, PAUSE
        self.has_looked.set()
        return wait

    async def _leave(self) -> None:
        """Lets others look after what is due, at once."""
        with anyio.move_on_after(GIVE_UP, shield=True), suppress(ServerError, RuntimeNotRunning):
            if self._led:
                await self._host.call(f"{NAME}/leave", self.shard, self._host.name)

    async def _send_due(self) -> float:
        """Sends some of what is due; returns for how many seconds to sleep."""
        longest = round(LONGEST_SLEEP * 1000)
        self._led = True
        wait, now, *due = await self._host.call(f"{NAME}/due", self.shard, self._host.name, AT_ONCE, longest)
        if not due:
            return int(wait) / 1000
        moved = await self._host.call(f"{NAME}/tick", self.shard, *ticks(due, int(now)))
        return 0.0 if 1 in moved else SHORT


def ticks(due: Sequence[Sequence[bytes]], now: int) -> list[bytes]:
    """What tick.lua is to do about the schedules that due.lua has found, or about the first of them.

    Args:
        due: those schedules, as due.lua has them.
        now: the server's time.
    """
    packed, left = [], MOST_RUNS
    until = time.perf_counter() + MOST_TIME
    for key, version, planned, checked, definition in due:
        at = int(planned)
        plan = _plan(key, definition, at, now, int(checked), left)
        left -= len(plan.send)
        missed, following, next_due = (-1 if ms is None else ms for ms in (plan.missed, plan.following, plan.due))
        fields: list[Any] = [key.decode(), int(version), at, following, next_due, plan.checked, missed, plan.send]
        packed.append(msgspec.msgpack.encode(fields))
        if left <= 0 or time.perf_counter() > until:
            break
    return packed


def _plan(key: bytes, definition: bytes, at: int, now: int, checked: int, most: int) -> Plan:
    if at < 0:  # it only has runs that wait
        return Plan([], None, None, None, checked)
    try:
        return calendar(definition, key.decode()).plan(at, now, checked, most)
    except Exception:  # it must not keep others waiting
        logger.exception("the times of schedule %r cannot be told here; trying again in %g s", split_key(key), LATER)
        return Plan([], None, at, now + round(LATER * 1000), checked)
