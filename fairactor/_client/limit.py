"""A limit that tenants share, or that of an actor: configuring and pausing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

import attrs

from fairactor._model.limit import (
    LimitPolicy,
    LimitSettings,
    LimitUsage,
    PackedLimit,
    limit_changes,
    parts_of,
    read_usage,
)
from fairactor._util.checks import check_name, check_seconds

if TYPE_CHECKING:
    from fairactor._store.limits import Description
    from fairactor._store.shards import Shards


@attrs.frozen
class Limit:
    """A limit of a runtime's namespace: of something that tenants share, or of an actor.

    It holds for the whole fleet, and a change applies at once. The limit with the name of an actor counts all tasks of
    the actor; others count the tasks that name them with ``limits=``.
    """

    name: str
    """The name of the limit, or of the actor."""
    _shards: Callable[[], Shards]

    @property
    def _text(self) -> str:
        from fairactor._model.lane import text_in_json  # loads msgspec, which a program that only sends needs late

        return text_in_json(self.name)

    async def configure(self, **settings: Unpack[LimitSettings]) -> LimitPolicy:
        """Changes the limit; returns its new settings.

        Settings that are not given stay as they are. None resets a setting to what the actor's code says, or else to no
        limit. ``math.inf`` means no limit, whatever the code says.

        Args:
            settings: any of these. ``concurrency=``: the most tasks that run at once. ``rate=``: the most that starts
                take per unit of time, such as ``"90000/min"``: they never take more in any minute. ``burst=``: with
                it, starts take at most ``burst + rate * t`` in any t seconds instead. ``per="tenant"``: each tenant
                has the limit for itself.

        Raises:
            ConfigurationError: a setting is invalid. Nothing has changed.
            ServerUnavailable: as `Runtime.send`.
            ServerError: as `Runtime.send`.
        """
        changes = limit_changes(settings)
        if not changes:
            return await self.policy()
        shards = self._shards()
        before = await self._read() if len(shards) > 1 else {}
        per = settings.get("per", LimitPolicy.read(before).per)
        # A change of `per` divides all of it anew.
        whole = _whole(before) | changes if "per" in settings and len(shards) > 1 else changes
        packed: dict[str, Any] = {}
        for shard, part in zip(shards, parts_of(whole, len(shards), per=per), strict=True):
            packed = await shard.change_limit(self._text, part)
        return LimitPolicy.read(packed)

    async def policy(self) -> LimitPolicy:
        """Returns the settings of the limit."""
        now, found = await self._shards()[0].limits(self._text)
        return LimitPolicy.read(next(iter(found.values()))[0], now)

    async def _read(self) -> PackedLimit:
        _, found = await self._shards()[0].limits(self._text)
        return next(iter(found.values()))[0]

    async def usage(self, tenant: str | None = None) -> LimitUsage:
        """Returns how the limit is used now, over all shards and tenants.

        Args:
            tenant: a tenant, for what counts for it alone: the tasks and the debt of a limit with ``per="tenant"``, and
                a pause of this tenant.
        """
        shards = list(self._shards()) if tenant is None else await self._shards().places(check_name("tenant", tenant))
        now = 0.0
        replies: list[Description] = []
        for shard in shards:
            now, found = await shard.limits(self._text, tenant or "")
            replies += found.values()
        return read_usage(now, replies)

    async def pause(self, seconds: float | None = None, *, tenant: str | None = None) -> None:
        """Starts no more tasks that count for the limit. Running tasks go on, and others of the same tenants start.

        Args:
            seconds: for how long, for example from ``Retry-After``; None until `resume`. It replaces an earlier pause.
            tenant: the tenant whose tasks to pause; None for those of all.

        Raises:
            ConfigurationError: an argument is invalid.
        """
        ms = "-1" if seconds is None else str(round(check_seconds("seconds", seconds) * 1000))
        await self._change({}, tenant, pause=ms)

    async def resume(self, *, tenant: str | None = None) -> None:
        """Ends a pause: that of all tenants, or that of one."""
        await self._change({"paused": None}, tenant)

    async def remove(self) -> None:
        """Removes all settings and ends all pauses. What the code of an actor says holds again."""
        for shard in self._shards():
            await shard.reset_limit(self._text)

    async def _change(self, changes: dict[str, Any], tenant: str | None, pause: str = "") -> None:
        if tenant is not None:
            await self._shards().at_home(
                check_name("tenant", tenant),
                lambda shard: shard.change_limit(self._text, changes, tenant=tenant, pause=pause),
            )
            return
        for shard in self._shards():
            await shard.change_limit(self._text, changes, pause=pause)


async def all_limits(shards: Shards) -> dict[str, LimitPolicy]:
    """Returns the settings of all limits that have any, or that are paused, by name."""
    from fairactor._model.lane import name_in_json  # as above

    now, found = await shards[0].limits()
    read = {name_in_json(name): LimitPolicy.read(settings, now) for name, (settings, *_) in found.items()}
    return {name: policy for name, policy in read.items() if policy != LimitPolicy()}


def _whole(packed: PackedLimit) -> PackedLimit:
    """Returns the settings of a limit of which this is the part of a shard."""
    own = LimitPolicy.read(packed | {"declared": {}})
    given = {"concurrency": own.concurrency, "rate": own.rate, "burst": own.burst}
    return limit_changes({setting: value for setting, value in given.items() if value is not None})
