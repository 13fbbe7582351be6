"""The mover: moves tenants to the shards that were added to a namespace.

While the namespace grows, each of its runtimes has one, and one of them leads. It goes through the tenants again and
again, until all have moved that should. Each step can be repeated, so another one goes on if the leader dies.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import anyio
import attrs

from fairactor._model.arrival import Arrival
from fairactor._store.script_runner import Elsewhere
from fairactor._store.shard import Shard
from fairactor._store.shards import Shards
from fairactor._util.wakeup import Wakeup
from fairactor.errors import ServerError

from .dead_letters import carry_letters

logger: Final = logging.getLogger(__name__)

LEADS: Final = 10.0
"""Seconds for which a runtime leads after each call."""
AT_ONCE: Final = 16
"""How many tenants move at the same time."""
HOLD: Final = 5.0
"""Seconds for which a tenant's waiting tasks are held up until those that run have ended."""
REST: Final = 10
"""If they do not end in time, the tenant is tried again after so many times the time for which it was held up."""
_LOOK: Final = 0.02
_BETWEEN: Final = 0.5  # seconds between two passes

MoveForPlugins = Callable[[str, int, int], Awaitable[None]]
"""Moves what plugins keep for a tenant, from the one shard to the other."""
TenantsOfPlugins = Callable[[int], AsyncIterator[str]]
"""Yields the tenants for which plugins keep something on a shard."""


@attrs.define(eq=False)
class Mover:
    """Moves tenants as long as the namespace grows, if this is the runtime that leads.

    Args:
        shards: the shards of the namespace.
        runtime: the name of the runtime.
        for_plugins: moves what plugins keep for a tenant.
        of_plugins: yields the tenants for which plugins keep something on a shard.
        replicas: how many replicas must have a step before the next one, so that a primary that dies loses no task.
    """

    _shards: Shards
    _runtime: str
    _for_plugins: MoveForPlugins
    _of_plugins: TenantsOfPlugins
    _replicas: int
    _rests: dict[str, float] = attrs.field(factory=dict, init=False)  # until when a tenant is left alone
    _limits: list[bytes] = attrs.field(factory=list, init=False)  # the names of all
    _left: int = attrs.field(default=0, init=False)  # tenants that could not move in the last pass
    _changed: Wakeup = attrs.field(factory=Wakeup, init=False)

    def __attrs_post_init__(self) -> None:
        self._shards.on_layout(self._changed.set)
        self._changed.set()

    async def run(self) -> None:
        """Moves tenants until canceled."""
        while True:
            await self._changed.wait()
            while self._shards.layout.growing or any(shard.untidy for shard in self._shards):
                done = False
                try:
                    done = await self._lead()
                    await self._shards.renew()
                except* (ServerError, Elsewhere) as errors:
                    logger.warning("tenants do not move now: %s", _first(errors))
                if not done:
                    await anyio.sleep(_BETWEEN)
            self._rests.clear()

    async def _lead(self) -> bool:
        """Goes through all tenants once, if this runtime leads; returns whether the growth is complete."""
        if not await self._shards[0].lead(self._runtime, LEADS):
            return False
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_leading, group.cancel_scope)
            done = await self._pass()
            group.cancel_scope.cancel()
            return done
        return False  # another runtime leads now

    async def _keep_leading(self, scope: anyio.CancelScope) -> None:
        leads_until = anyio.current_time() + LEADS
        while True:
            await anyio.sleep(LEADS / 4)
            begun = anyio.current_time()
            try:
                if not await self._shards[0].lead(self._runtime, LEADS):
                    break
                leads_until = begun + LEADS
            except ServerError:
                if anyio.current_time() + LEADS / 4 > leads_until:
                    break
        scope.cancel()

    async def _pass(self) -> bool:
        shards, layout = self._shards, self._shards.layout
        if not layout.growing:
            await self._tidy_all()
            return True
        sources = range(layout.counts[-2])
        for number in range(layout.shards):
            await shards[number].grow(layout)
        _, limits = await shards[0].limits()
        self._limits = [name for name in limits if b"\x1f" not in name]
        await self._go_on()
        left = 0
        for number in sources:
            left += await self._clear(number)
        if left:
            log = logger.info if left != self._left else logger.debug
            log("%d tenants have still to move to other shards", left)
            self._left = left
            return False
        for number in sources:
            await carry_letters(shards, shards[number])
        settled = layout.settled()
        for shard in shards:
            await shard.grow(settled)
            shard.untidy = True
        await shards.renew()
        await self._tidy_all()
        logger.info("the namespace has %d shards now, and all tenants have moved", layout.shards)
        return True

    async def _go_on(self) -> None:
        """Completes the moves that another runtime has begun."""
        layout = self._shards.layout
        begun = [
            (tenant, layout.source(tenant))
            for number in range(layout.counts[-2], layout.shards)
            for tenant, state in (await self._shards[number].moving()).items()
            if state == "arriving"
        ]
        await self._move_all(begun)

    async def _clear(self, number: int) -> int:
        """Moves the tenants of a shard that belong on others; returns how many could not move yet.

        Those that have moved in an earlier growth may have ended tasks there. They stay.
        """
        layout = self._shards.layout
        found = {
            tenant
            async for tenant, lives in self._shards[number].residents()
            if layout.place(tenant) != number and (lives or layout.source(tenant) == number)
        }
        found |= {tenant async for tenant in self._of_plugins(number) if layout.place(tenant) != number}
        now = anyio.current_time()
        resting = {tenant for tenant in found if self._rests.get(tenant, now) > now}
        return len(resting) + await self._move_all([(tenant, number) for tenant in found - resting])

    async def _move_all(self, tenants: list[tuple[str, int]]) -> int:
        """Moves tenants from the shards with these numbers, some at once; returns how many could not move yet."""
        left = 0

        async def move(tenant: str, number: int) -> None:
            nonlocal left
            left += not await self._move(tenant, number)

        await _for_all(tenants, move)
        return left

    async def _move(self, tenant: str, number: int) -> bool:
        """Moves a tenant from the shard with this number; returns whether it has moved.

        Its new shard accepts tasks for it, and starts none until all those that wait have arrived.
        """
        numbers = number, self._shards.layout.place(tenant)
        if numbers[0] == numbers[1]:
            return True
        source, target = (self._shards[each] for each in numbers)
        departure = await source.depart(tenant, "hold")
        if departure.state != "gone":
            if not await self._stops(source, tenant):
                return False
            await target.welcome(tenant, "arriving", departure)
        departure = await source.depart(tenant, "go", replicas=self._replicas)
        if departure.state != "gone":  # a deferred task has come
            await source.depart(tenant, "free")
            return False
        departure = await source.debts(tenant, departure, self._limits)
        state = await target.welcome(tenant, "arriving", departure)  # with all that has changed since it was held
        while tasks := await source.export(tenant):
            if state == "served":  # they were accepted at the last moment before
                state = await target.welcome(tenant, "late", departure)
            await _hand_over(source, target, tenant, tasks, self._replicas)
        await self._for_plugins(tenant, *numbers)
        await target.welcome(tenant, "served", departure)
        return True

    async def _stops(self, source: Shard, tenant: str) -> bool:
        """Waits until no task of a held tenant runs; returns whether it can go. If not, it is served as before."""
        began = anyio.current_time()
        while True:
            counts = await source.tenant_stats(tenant)
            if not counts.started and not counts.deferred:
                return True
            held = anyio.current_time() - began
            if counts.deferred or held > HOLD:
                await source.depart(tenant, "free")
                self._rests[tenant] = anyio.current_time() + REST * held
                return False
            await anyio.sleep(_LOOK)

    async def _tidy_all(self) -> None:
        for number, shard in enumerate(self._shards):
            if shard.untidy:
                await self._tidy(number)
                await shard.grow(self._shards.layout, is_tidy=True)
                shard.untidy = False

    async def _tidy(self, number: int) -> None:
        """Deletes what a shard knows of tenants that have gone, and moves those that came back at the last moment."""
        shard, layout = self._shards[number], self._shards.layout
        late = {tenant async for tenant, lives in shard.residents() if lives and layout.place(tenant) != number}
        late |= {tenant async for tenant in self._of_plugins(number) if layout.place(tenant) != number}
        await self._move_all([(tenant, number) for tenant in late])
        # A runtime that led before may have held or welcomed a tenant again after it had moved. That ends here.
        moving = list((await shard.moving()).items())

        async def end(tenant: str, state: str) -> None:
            if state == "arriving":
                await shard.serve(tenant)
            else:
                await shard.depart(tenant, "forget" if state == "gone" else "free")

        await _for_all(moving, end)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _for_all(each: Sequence[tuple[Any, ...]], call: Callable[..., Awaitable[None]]) -> None:
    """Calls a function with each of some arguments, some at the same time."""
    waiting = iter(each)

    async def call_for_some() -> None:
        for arguments in waiting:
            await call(*arguments)

    async with anyio.create_task_group() as group:
        for _ in range(min(AT_ONCE, len(each))):
            group.start_soon(call_for_some)


async def _hand_over(source: Shard, target: Shard, tenant: str, tasks: list[Arrival], replicas: int) -> None:
    """Moves some tasks. One whose id a task of another tenant has there gets another id."""
    ids = [task.id for task in tasks]
    if lost := [task.id for task in tasks if not task.record]:
        logger.error("the records of tasks %r of %r are lost", lost, tenant)
        tasks = [task for task in tasks if task.record]
    while taken := set(await target.import_tasks(tenant, tasks, replicas=replicas)):
        for task_id in taken:
            logger.error(
                "task %r of %r is task %r~ now: another tenant has a task with its id", task_id, tenant, task_id
            )
        tasks = [task._replace(id=task.id + b"~") if task.id in taken else task for task in tasks]
    await source.exported(tenant, ids)
