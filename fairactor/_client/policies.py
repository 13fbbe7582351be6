"""The policies of a namespace: those of tenants and groups, and the defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Unpack

import attrs

from fairactor._model.policy import SETTINGS, DefaultPolicy, Policy, changes_of
from fairactor._model.wire import GROUP_MARK, PackedPolicy
from fairactor._util.checks import check_name

if TYPE_CHECKING:
    from fairactor._store.shards import Shards

_DEFAULTS: Final = b""
_GROUP: Final = GROUP_MARK.encode(errors="surrogateescape")


@attrs.frozen
class Policies:
    """How tenants are served. A change applies to the whole fleet at once."""

    _shards: Callable[[], Shards]

    async def defaults(self) -> Policy:
        """Returns the policy of tenants that have no settings of their own."""
        _, defaults = await self._shards()[0].policy("")
        return Policy.read({}, defaults)

    async def configure_defaults(self, **settings: Unpack[DefaultPolicy]) -> Policy:
        """Changes the policy of tenants that have no settings of their own; returns the new one.

        It applies at once to all tenants served from now on. It also checks all tenants that a lifted limit may have
        held back, which takes about a second for each 100,000.

        Args:
            settings: ``weight=``, ``concurrency=``, ``rate=``, ``burst=``, ``backlog=``, see `Tenant.configure`.

        Raises:
            ConfigurationError: a setting cannot work; nothing is changed.
        """
        shards = self._shards()
        changes = changes_of(settings, *SETTINGS[:-1])
        new: PackedPolicy = {}
        for shard in shards:
            new = await shard.configure(_DEFAULTS, changes)
        for shard in shards:
            await shard.review()
        return Policy.read({}, new)

    async def configure_group(self, group: str, *, weight: float | None) -> None:
        """Changes the weight of a group relative to other groups and to tenants without one; None: 1.

        Raises:
            ConfigurationError: the weight or the name cannot work.
        """
        shards = self._shards()
        whose = _GROUP + check_name("group", group).encode()
        for shard in shards:
            await shard.configure(whose, changes_of({"weight": weight}, "weight"))

    async def groups(self) -> dict[str, float]:
        """Returns the weights of the groups that have one."""
        found = await self._all()
        return {whose[1:].decode(): own.get("weight", 1.0) for whose, own in found.items() if whose[:1] == _GROUP}

    async def tenants(self) -> dict[str, Policy]:
        """Returns the policies of all tenants that have settings of their own. There may be many."""
        found = await self._all()
        defaults = found.pop(_DEFAULTS, {})
        return {whose.decode(): Policy.read(own, defaults) for whose, own in found.items() if whose[:1] != _GROUP}

    async def remove(self, tenant: str) -> None:
        """Resets all settings of a tenant to the defaults, and ends a pause."""
        shard = self._shards().of(check_name("tenant", tenant))
        await shard.configure(tenant.encode(), dict.fromkeys(("paused", *SETTINGS)))

    async def _all(self) -> dict[bytes, PackedPolicy]:
        found: dict[bytes, PackedPolicy] = {}
        for shard in self._shards():
            found |= await shard.policies()
        return found
