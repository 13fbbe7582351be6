"""The policies of a namespace: the defaults, those of groups, and who has settings of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from .keys import shard_of
from .policy import Policy, changes_of
from .settings import name
from .shard import Shard
from .wire import GROUP_MARK, PackedPolicy

SETTINGS: Final = ("weight", "concurrency", "rate", "burst", "backlog", "group")
_DEFAULTS: Final = b""
_GROUP: Final = GROUP_MARK.encode(errors="surrogateescape")


@attrs.frozen
class Policies:
    """How tenants are served, for the whole fleet. A change holds at once."""

    _shards: Sequence[Shard]
    _check: Callable[[], None]

    async def defaults(self) -> Policy:
        """What holds for tenants that have no settings of their own."""
        self._check()
        _, defaults = await self._shards[0].policy("")
        return Policy.read({}, defaults)

    async def configure_defaults(self, **settings: Any) -> Policy:
        """Changes what holds for tenants that have no settings of their own; returns it as it is now.

        It holds at once for whoever is served from now on. Tenants that wait because of a limit which is no more are
        looked through, which takes about a second for each 100,000.

        Args:
            settings: ``weight=``, ``concurrency=``, ``rate=``, ``burst=``, ``backlog=`` as `Tenant.configure` has them.

        Raises:
            ConfigurationError: a setting cannot work; nothing is changed.
        """
        self._check()
        changes = changes_of(settings, *SETTINGS[:-1])
        now: PackedPolicy = {}
        for shard in self._shards:
            now = await shard.configure(_DEFAULTS, changes)
        for shard in self._shards:
            await shard.review()
        return Policy.read({}, now)

    async def configure_group(self, group: str, *, weight: float | None) -> None:
        """Changes the weight of a group beside other groups, and tenants without one; None: 1.

        Raises:
            ConfigurationError: it cannot be.
        """
        self._check()
        whose = _GROUP + name("group", group).encode()
        for shard in self._shards:
            await shard.configure(whose, changes_of({"weight": weight}, "weight"))

    async def groups(self) -> dict[str, float]:
        """The weights of groups, where one was set."""
        found = await self._all()
        return {whose[1:].decode(): own.get("weight", 1.0) for whose, own in found.items() if whose[:1] == _GROUP}

    async def tenants(self) -> dict[str, Policy]:
        """The policies of tenants that have settings of their own, as they hold. There may be many."""
        found = await self._all()
        defaults = found.pop(_DEFAULTS, {})
        return {whose.decode(): Policy.read(own, defaults) for whose, own in found.items() if whose[:1] != _GROUP}

    async def remove(self, tenant: str) -> None:
        """Takes the settings of a tenant back, also a pause: the defaults hold."""
        self._check()
        shard = self._shards[shard_of(name("tenant", tenant), len(self._shards))]
        await shard.configure(tenant.encode(), dict.fromkeys(("paused", *SETTINGS)))

    async def _all(self) -> dict[bytes, PackedPolicy]:
        self._check()
        found: dict[bytes, PackedPolicy] = {}
        for shard in self._shards:
            found |= await shard.policies()
        return found
