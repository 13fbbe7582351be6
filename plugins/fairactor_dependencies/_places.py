"""Where tasks of a tenant are: on its shard, or on those where it was before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fairactor.plugins import Host


async def find(host: Host, tenants: Iterable[str]) -> None:
    """Finds out where tenants are; names of none, and what cannot be one, are left out."""
    await host.find(dict.fromkeys(tenant for tenant in tenants if tenant and isinstance(tenant, str)))


def next_place(host: Host, tenant: str, asked: Sequence[int]) -> int | None:
    """Returns the shard to ask next for tasks of a tenant, or of any if it is ''.

    Args:
        host: the runtime.
        tenant: the tenant.
        asked: the shards that were asked before. Those may have told of more shards.

    Returns:
        The number of the shard. Of several, the latest one comes first, and once more at the end: the tasks may have
        moved there meanwhile. None: all were asked.
    """
    places = host.shards_of(tenant) if tenant else range(host.shard_count)
    for number in places:
        if number not in asked:
            return number
    return places[0] if tenant and len(places) > 1 and asked[-1] != places[0] else None
