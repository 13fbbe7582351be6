"""The plugin. Each runtime runs an actor per shard that sends the due runs of its schedules."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from fairactor.errors import RuntimeNotRunning, ServerError
from fairactor.plugins import Host, read_lua

from ._configured import apply_schedules, check_schedules, schedule_routes
from ._declared import add_declared
from ._moving import move_schedules, tenants_on
from ._rule import DuePlan, calendar
from ._schedule import NAME, split_key

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter

logger: Final = logging.getLogger(NAME)

AT_ONCE: Final = 50
"""The most schedules in one call, and in one script."""
MOST_RUNS: Final = 250
"""The most runs in one call."""
MOST_TIME: Final = 0.02
"""Seconds of computing times after which the event loop gets its turn."""
LONGEST_SLEEP: Final = 60.0
ERROR_PAUSE: Final = 1.0
"""Seconds to wait after an error of the server."""
POSTPONED: Final = 60.0
"""Seconds until the next attempt at a schedule whose times cannot be computed here."""
RACE_PAUSE: Final = 0.05
"""Seconds to wait after another runtime was faster."""
LEAVE_TIMEOUT: Final = 1.0
"""Seconds in which a runtime that stops tries to hand over its shards. Otherwise its lead ends by itself."""
LATENESS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""The buckets for how late runs are, in seconds."""

_SCRIPTS: Final = (
    "put", "get", "list", "late", "remove", "pause", "resume", "run", "due", "tick", "leave", "declared",
    "export", "import", "exported", "tenants",
)  # fmt: skip


class Scheduling:
    """The plugin. It is installed with fairactor, so every runtime uses it unless ``without_plugins=`` names it."""

    name = NAME
    section = "schedules"

    def check_section(self, table: Mapping[str, Any]) -> Iterable[tuple[tuple[str | int, ...], str]]:
        """See `fairactor.plugins.Configurable`."""
        return check_schedules(table)

    def section_routes(self, table: Mapping[str, Any]) -> Iterable[tuple[tuple[str | int, ...], str, str | None]]:
        """See `fairactor.plugins.Configurable`."""
        return schedule_routes(table)

    async def apply_section(
        self, host: Host, table: Mapping[str, Any], *, dry_run: bool, prune: bool
    ) -> Sequence[tuple[tuple[str | int, ...], str]]:
        """See `fairactor.plugins.Configurable`."""
        return await apply_schedules(host, table, dry_run=dry_run, prune=prune)

    @property
    def lua(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaHooks`."""
        return {"ended": read_lua(NAME, "ended")}

    @property
    def scripts(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaScripts`."""
        return {script: read_lua(NAME, script) for script in _SCRIPTS}

    @property
    def lua_keys(self) -> Mapping[str, str]:
        """See `fairactor.plugins.LuaKeys`."""
        return {
            "schedule:*": "hash", "all": "zset", "due": "zset", "behind": "hash", "declared": "hash",
            "leader": "string", "removed:*": "string",
        }  # fmt: skip

    @asynccontextmanager
    async def lifespan(self, host: Host) -> AsyncIterator[None]:
        """Adds the schedules that actors declare, and starts an actor per shard that sends due runs."""
        pollers: list[_Poller] = []
        failed = False
        if host.settings.workers:
            try:
                await add_declared(host)
            except ServerError as error:  # if the server is full, for example, the workers still have to drain it
                logger.warning("the declared schedules cannot be added yet: %s", error)
                failed = True

        def start(shard: int) -> None:
            pollers.append(_Poller(host, shard, must_add_declared=failed and not pollers))
            host.supervise(f"schedules of shard {shard}", pollers[-1].run)

        host.for_each_shard(start)
        for poller in tuple(pollers):
            await poller.has_polled.wait()
        yield

    async def lateness(self, host: Host) -> Mapping[str, float]:
        """See `fairactor.plugins.PunctualPlugin`: of each shard the 20 schedules that are late for longest."""
        late: dict[str, float] = {}
        for shard in range(host.shard_count):
            now, *flat = await host.call(f"{NAME}/late", shard)
            for key, at in zip(flat[::2], flat[1::2], strict=True):
                with suppress(ValueError):  # somebody has damaged the name
                    late["/".join(split_key(key))] = max(0.0, (int(now) - float(at)) / 1000)
        return late

    def tenants_on(self, host: Host, shard: int) -> AsyncIterator[str]:
        """See `fairactor.plugins.TenantMover`."""
        return tenants_on(host, shard)

    async def move_tenant(self, host: Host, tenant: str, source: int, target: int) -> None:
        """See `fairactor.plugins.TenantMover`."""
        await host.find([tenant])
        await move_schedules(host, tenant, source, target)


def _lateness(meter: Meter) -> Histogram:
    return meter.create_histogram(
        "fairactor.schedule.lateness",
        "s",
        "How long after their planned times the runs of schedules were sent.",
        explicit_bucket_boundaries_advisory=LATENESS,
    )


class _Poller:
    """Polls a shard for due schedules. The server gives them to one runtime at a time, which leads the shard."""

    def __init__(self, host: Host, shard: int, *, must_add_declared: bool) -> None:
        self.shard = shard
        self._host = host
        self._lateness = None if host.meter is None else _lateness(host.meter)
        self._may_lead = False
        self._failing = False
        self.must_add_declared = must_add_declared
        """Whether the schedules that actors declare could not be added yet."""
        self.has_polled = anyio.Event()
        """Set after the first poll."""

    async def run(self) -> None:
        """Sends due runs and sleeps until the next time, again and again; until canceled."""
        with self._host.subscribe(NAME) as wakeup:
            try:
                while True:
                    await wakeup.wait(await self._poll())
            finally:
                await self._leave()

    async def _poll(self) -> float:
        """Does the work that is due, if the server can; returns the seconds to sleep."""
        try:
            if self.must_add_declared:
                await add_declared(self._host)
                self.must_add_declared = False
            wait = await self._send_due()
            self._failing = False
        except ServerError as error:
            logger.log(logging.DEBUG if self._failing else logging.WARNING, "shard %d: %s", self.shard, error)
            self._failing, wait = True, ERROR_PAUSE
        self.has_polled.set()
        return wait

    async def _leave(self) -> None:
        """Ends this runtime's lead, so that another one takes over at once."""
        with anyio.move_on_after(LEAVE_TIMEOUT, shield=True), suppress(ServerError, RuntimeNotRunning):
            if self._may_lead:
                await self._host.call(f"{NAME}/leave", self.shard, self._host.name)

    async def _send_due(self) -> float:
        """Sends some of the due runs; returns the seconds to sleep."""
        longest = round(LONGEST_SLEEP * 1000)
        self._may_lead = True
        wait, now, *due = await self._host.call(f"{NAME}/due", self.shard, self._host.name, AT_ONCE, longest)
        if not due:
            return int(wait) / 1000
        away = [key for key, *fields in due if not fields or self._is_away(key)]
        here = [each for each in due if each[0] not in away] if away else due
        began, planned = time.monotonic(), ticks(here, int(now))
        sent = await self._host.call(f"{NAME}/tick", self.shard, *planned) if here else []
        self._note(planned, sent, int(now) / 1000 + time.monotonic() - began)
        for tenant, schedule_id in map(split_key, away):  # so that their new shards send the runs in time
            await self._host.find([tenant])
            await move_schedules(self._host, tenant, self.shard, self._host.shard_of(tenant), schedule_id)
        return 0.0 if away or 1 in sent else RACE_PAUSE

    def _note(self, planned: Sequence[bytes], sent: Sequence[int], now: float) -> None:
        """Records how late runs were sent, if there is an OpenTelemetry SDK.

        Args:
            planned: the arguments of tick.lua.
            sent: its reply: 1 for each schedule that it has moved on.
            now: the server's time, in unix seconds.
        """
        if self._lateness is None:
            return
        attributes = {"fairactor.namespace": self._host.settings.namespace}
        for packed, moved in zip(planned, sent, strict=False):
            for at in msgspec.msgpack.decode(packed)[-1] if moved == 1 else ():
                self._lateness.record(max(0.0, now - at / 1000), attributes)

    def _is_away(self, key: bytes) -> bool:
        """Whether the tenant of a due schedule belongs on another shard, as far as it is known."""
        with suppress(ValueError):  # somebody has damaged the name
            return self._host.shard_of(split_key(key)[0]) != self.shard
        return False


def ticks(due: Sequence[Sequence[bytes]], now: int) -> list[bytes]:
    """Returns the arguments of tick.lua: what to do about the due schedules, or the first of them.

    Args:
        due: the schedules, as due.lua returns them.
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


def _plan(key: bytes, definition: bytes, at: int, now: int, checked: int, most: int) -> DuePlan:
    if at < 0:  # it only has runs that wait
        return DuePlan([], None, None, None, checked)
    try:
        return calendar(definition, key.decode()).plan(at, now, checked, most)
    except Exception:  # one bad schedule must not hold up the others
        logger.exception(
            "the times of schedule %r cannot be computed here; trying again in %g s", split_key(key), POSTPONED
        )
        return DuePlan([], None, at, now + round(POSTPONED * 1000), checked)
