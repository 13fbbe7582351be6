"""What the rules look at, read once for all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol, cast

import attrs

from fairactor.plugins import Host, PunctualPlugin
from fairactor.views import Health, QueueView, TenantOrder, TenantPage, TenantView

NAME: Final = "fairactor_alerts"
_TENANTS: Final = 100
"""How many tenants are compared with their fair shares: those that have waited for longest."""
_WAITED: Final = 5.0
"""The seconds that a tenant must have waited for its share to count."""


@attrs.frozen
class Facts:
    """What the rules look at."""

    health: Health
    queues: Sequence[QueueView] = ()
    tenants: Sequence[TenantView] = ()
    late: Mapping[str, float] = attrs.field(factory=dict)
    """The schedules that are late, and by how many seconds."""
    memory: Mapping[str, float] = attrs.field(factory=dict)
    """For each shard whose server has a limit of memory, the share of it that is used."""


class _Reader(Protocol):
    async def health(self) -> Health: ...

    async def queues(self) -> Sequence[QueueView]: ...

    async def tenants(self, *, order_by: TenantOrder = "backlog", limit: int = 50) -> TenantPage: ...


async def read_facts(host: Host, kinds: Collection[str]) -> Facts:
    """Reads what rules of some kinds look at.

    Raises:
        ServerUnavailable: the server did not answer.
        ServerError: it refused.
    """
    runtime = cast("_Reader", host.runtime)
    health = await runtime.health()
    facts = Facts(health)
    if health.stats is None:
        return facts
    found: dict[str, Any] = {}
    if "oldest_wait" in kinds:
        found["queues"] = await runtime.queues()
    if "unfair" in kinds:
        page = await runtime.tenants(order_by="oldest", limit=_TENANTS)
        found["tenants"] = [each for each in page.tenants if (each.oldest_wait or 0.0) >= _WAITED]
    if "schedule_late" in kinds:
        punctual = [plugin for plugin in host.plugins.values() if hasattr(plugin, "lateness")]
        late = [await cast("PunctualPlugin", plugin).lateness(host) for plugin in punctual]
        found["late"] = {name: seconds for each in late for name, seconds in each.items()}
    if "server_memory" in kinds:
        found["memory"] = await _memory(host)
    return attrs.evolve(facts, **found)


async def _memory(host: Host) -> dict[str, float]:
    found = {}
    for shard in range(host.shard_count):
        used, most = await host.call(f"{NAME}/memory", shard)
        if most:
            found[f"shard {shard}"] = used / most
    return found
