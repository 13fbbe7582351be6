"""Reads the states of many tasks at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fairactor import TaskState
from fairactor.plugins import Host

from ._options import NAME
from ._places import find, next_place

_MANY: Final = 200
"""How many tasks one script looks at."""
SKIPPED: Final = b"S"
"""A task that was canceled because it had nothing to do."""
_STATES: Final = {
    b"F": TaskState.FINISHED, b"X": TaskState.FAILED, b"C": TaskState.CANCELED, SKIPPED: TaskState.CANCELED,
    b"queued": TaskState.QUEUED, b"started": TaskState.STARTED, b"scheduled": TaskState.SCHEDULED,
    b"deferred": TaskState.DEFERRED,
}  # fmt: skip


async def read_letters(host: Host, tasks: Iterable[tuple[str, str | None]]) -> dict[str, bytes]:
    """Returns by id how tasks, given as (id, tenant), stand; tasks that do not exist are left out."""
    by_tenant: dict[str, list[str]] = {}
    for task_id, tenant in tasks:
        by_tenant.setdefault(tenant or "", []).append(task_id)
    found: dict[str, bytes] = {}
    for tenant, ids in by_tenant.items():
        await find(host, [tenant])
        asked: list[int] = []
        left = ids
        while left and (shard := next_place(host, tenant, asked)) is not None:
            asked.append(shard)
            for at in range(0, len(left), _MANY):
                some = left[at : at + _MANY]
                letters = await host.call(f"{NAME}/states", shard, tenant, *some)
                found |= {task_id: letter for task_id, letter in zip(some, letters, strict=True) if letter}
            left = [task_id for task_id in left if task_id not in found]
    return found


def state_of(letter: bytes | None) -> TaskState | None:
    """Returns the state that a letter stands for; None if there is no task."""
    return _STATES[letter] if letter else None
