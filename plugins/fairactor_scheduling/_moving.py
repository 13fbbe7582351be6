"""Schedules of tenants that move to another shard, because shards were added."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

from fairactor.plugins import Host

from ._schedule import NAME, checked_key, key_of

_HIGHEST: Final = b"\xff"
"""No byte of UTF-8 is as high."""


def range_of(tenant: str) -> tuple[bytes, bytes]:
    """Returns the range of the names of a tenant's schedules, as ZRANGEBYLEX takes it."""
    prefix = key_of(tenant, "").encode()
    return b"[" + prefix, b"(" + prefix + _HIGHEST


async def move_schedules(host: Host, tenant: str, source: int, target: int, schedule_id: str | None = None) -> None:
    """Moves the schedules of a tenant to its shard, or one of them.

    Each is copied before it is deleted, and several may do this at the same time.

    Args:
        host: the runtime.
        tenant: the tenant.
        source: the number of a shard where it was before.
        target: the number of its shard, as far as it is known. If it turns out to be another one, nothing happens.
        schedule_id: the only schedule to move; None: all.
    """
    first, last = range_of(tenant)
    if schedule_id is not None:
        first = last = b"[" + key_of(tenant, schedule_id).encode()
    while True:
        plugins, *flat = await host.call(f"{NAME}/export", source, tenant, first, last)
        if not flat or target == source or host.shard_of(tenant) != target:
            return
        taken = await host.call(f"{NAME}/import", target, plugins, *flat[1::2])
        moved = [name for name, is_taken in zip(flat[::2], taken, strict=True) if is_taken]
        if not moved or not await host.call(f"{NAME}/exported", source, tenant, *moved):
            return  # the tenant has moved on


async def bring(host: Host, tenant: str, schedule_id: str | None = None) -> bool:
    """Moves schedules of a tenant, or one, to its shard, if they are still where it was before.

    Returns whether it was elsewhere before.
    """
    home, *others = host.shards_of(tenant)
    for number in others:
        await move_schedules(host, tenant, number, home, schedule_id)
    return bool(others)


async def call(host: Host, script: str, tenant: str, schedule_id: str, *arguments: str | bytes) -> Any:
    """Calls a script about a schedule, and again if the schedule was still on its way to the tenant's shard.

    Raises:
        ConfigurationError: the tenant or the id cannot be a name.
    """
    key = checked_key(tenant, schedule_id)
    reply = await host.call(f"{NAME}/{script}", tenant, key, *arguments)
    if _is_absent(reply) and await bring(host, tenant, schedule_id):
        reply = await host.call(f"{NAME}/{script}", tenant, key, *arguments)
    return reply


def _is_absent(reply: Any) -> bool:
    """Whether a script says that there is no such schedule; get.lua returns the time before the fields."""
    return not reply or (isinstance(reply, list) and all(value is None for value in reply[1:]))


async def tenants_on(host: Host, shard: int) -> AsyncIterator[str]:
    """Yields the tenants that have schedules on a shard."""
    cursor: bytes | None = b"-"
    while cursor is not None:
        cursor, *tenants = await host.call(f"{NAME}/tenants", shard, cursor)
        for tenant in tenants:
            with suppress(UnicodeDecodeError):  # somebody has damaged the name
                yield tenant.decode()
