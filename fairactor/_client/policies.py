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
    """The policies of a namespace, which say how tenants are served. A change applies to the whole fleet at once."""

    _shards: Callable[[], Shards]

    async def defaults(self) -> Policy:
        """Returns the policy of tenants that have no settings of their own."""
        _, defaults = await self._shards()[0].policy("")
        return Policy.read({}, defaults)

    async def configure_defaults(self, **settings: Unpack[DefaultPolicy]) -> Policy:
        """Changes the policy of tenants that have no settings of their own; returns the new one.

        The change applies at once. It also checks all tenants that a lifted limit may have held back, which takes about
        a second per 100,000 tenants.

        Args:
            settings: ``weight=``, ``concurrency=``, ``rate=``, ``burst=`` and ``backlog=``, see `Tenant.configure`.

        Raises:
            ConfigurationError: a setting is invalid. Nothing has changed.
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
        """Changes the weight of a group relative to other groups and to tenants without a group; None resets it to 1.

        Raises:
            ConfigurationError: the weight or the name is invalid.
        """
        shards = self._shards()
        name = _GROUP + check_name("group", group).encode()
        for shard in shards:
            await shard.configure(name, changes_of({"weight": weight}, "weight"))

    async def groups(self) -> dict[str, float]:
        """Returns the weights of the groups that have been configured."""
        found = await self._all()
        return {name[1:].decode(): own.get("weight", 1.0) for name, own in found.items() if name[:1] == _GROUP}

    async def tenants(self) -> dict[str, Policy]:
        """Returns the policies of all tenants that have settings of their own, which may be many."""
        found = await self._all()
        defaults = found.pop(_DEFAULTS, {})
        return {name.decode(): Policy.read(own, defaults) for name, own in found.items() if name[:1] != _GROUP}

    async def own(self) -> dict[str, PackedPolicy]:
        """Returns what tenants have set themselves, without the defaults, as it is stored."""
        found = await self._all()
        return {name.decode(): own for name, own in found.items() if name != _DEFAULTS and name[:1] != _GROUP}

    async def remove(self, tenant: str) -> None:
        """Resets all settings of a tenant to the defaults, and ends a pause."""
        name = check_name("tenant", tenant).encode()
        await self._shards().at_home(tenant, lambda shard: shard.configure(name, dict.fromkeys(("paused", *SETTINGS))))

    async def _all(self) -> dict[bytes, PackedPolicy]:
        found: dict[bytes, PackedPolicy] = {}
        for shard in self._shards():
            for name, policy in (await shard.policies()).items():
                moving = policy.pop("moving", None)  # a tenant that moves has settings on two shards
                if policy and moving != "gone" and (moving is None or name not in found):
                    found[name] = policy
        return found
