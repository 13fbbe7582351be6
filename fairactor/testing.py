"""Tools for tests: `check_invariants` checks all data of a namespace for consistency.

It reads the whole namespace and blocks the server meanwhile, so use it only in tests. It reads each shard in one atomic
step, so workers may run meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runtime import Runtime


class InvariantViolation(AssertionError):
    """The data of a namespace is inconsistent.

    Attributes:
        violations: a message for each inconsistency.
    """

    def __init__(self, violations: Iterable[str]) -> None:
        self.violations = tuple(violations)
        super().__init__("\n".join([f"{len(self.violations)} violations:", *self.violations]))


async def check_invariants(runtime: Runtime, *, overdue: float = math.inf, lowered: Collection[str] = ()) -> None:
    """Checks that the data of a runtime's namespace is consistent. Workers may run meanwhile.

    Args:
        runtime: an entered runtime of the namespace.
        overdue: also report maintenance that has been due for more than this many seconds: leases that have expired,
            scheduled tasks that are due, and counts that have expired. By default it reports none. Give it only while a
            runtime with workers is running.
        lowered: tenants whose concurrency was lowered, so more tasks than it allows may still run.

    Raises:
        InvariantViolation: the data is inconsistent.
        RuntimeNotRunning: the runtime was not entered, or belongs to another event loop.
        ServerUnavailable: the server did not answer.
    """
    from ._audit.audit import audit, misplaced
    from ._audit.snapshot import take_snapshot

    shards = runtime._shards()  # noqa: SLF001 - the audit reads the internals
    found: list[str] = []
    for number, shard in enumerate(shards):
        snapshot = await take_snapshot(shard)
        found += [f"{snapshot.meta} {text}" for text in audit(snapshot, overdue=overdue, lowered=lowered)]
        found += [f"{snapshot.meta} {text}" for text in misplaced(snapshot, number, shards.layout)]
    if found:
        raise InvariantViolation(found)
