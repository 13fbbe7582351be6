"""Tells what a task waits for, and which tasks wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fairactor.plugins import Host, Related, Relatives

from ._options import HERE, NAME
from ._states import state_of

_MOST: Final = 100
"""How many tasks it tells of, each way."""
_UNKNOWN: Final = "unknown"


async def relatives(host: Host, task_id: str, tenant: str, options: Mapping[str, Any]) -> Relatives:
    """Returns the tasks for which a task waits, and those that wait for it.

    Args:
        host: the runtime.
        task_id: the task.
        tenant: its tenant.
        options: the options of plugins that it was sent with.
    """
    await host.find([tenant])
    parents = options.get("depends_on", ())
    ids = [parent for parent in parents if isinstance(parent, str)] if isinstance(parents, list) else []
    waits_for = await _describe(host, dict.fromkeys(ids[:_MOST]), tenant)
    children: dict[str, int | None] = {}
    for shard in host.shards_of(tenant):
        flat = iter(await host.call(f"{NAME}/children", shard, task_id, _MOST))
        children |= {child.decode(): shard if at == HERE else at for at, child in zip(flat, flat, strict=True)}
    return Relatives(waits_for, await _describe(host, dict(list(children.items())[:_MOST]), tenant))


async def _describe(host: Host, tasks: Mapping[str, int | None], tenant: str) -> list[Related]:
    """Returns how tasks stand, given as id -> its shard, None if that is not known."""
    found: dict[str, Related] = {}
    near = host.shards_of(tenant)
    for number in [*near, *(shard for shard in range(host.shard_count) if shard not in near)]:
        left = [task_id for task_id, shard in tasks.items() if task_id not in found and shard in (None, number)]
        if left:
            reply = iter(await host.call(f"{NAME}/relatives", number, *left))
            for task_id, owner, letter in zip(left, reply, reply, strict=True):
                state = state_of(letter)
                if state is not None:
                    found[task_id] = Related(task_id, owner.decode(), state.value)
    return [found.get(task_id, Related(task_id, "", _UNKNOWN)) for task_id in tasks]
