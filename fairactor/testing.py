"""For tests: an audit of everything that a namespace holds in Redis.

`check_invariants` reads the whole namespace. The cost grows with it, and the server is blocked meanwhile, so use it in
tests. It reads each shard in one atomic step, so workers may run meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runtime import Runtime


class InvariantViolation(AssertionError):
    """A namespace is inconsistent. ``violations`` lists everything that was found."""

    def __init__(self, violations: Iterable[str]) -> None:
        self.violations = tuple(violations)
        super().__init__("\n".join([f"{len(self.violations)} violations:", *self.violations]))


async def check_invariants(runtime: Runtime, *, overdue: float = math.inf, lowered: Collection[str] = ()) -> None:
    """Checks that everything in the namespace of a runtime is consistent at this moment. Workers may run meanwhile.

    Args:
        runtime: an entered runtime of the namespace.
        overdue: also report what has been due for more than this many seconds: claims of runtimes whose lease has run
            out, scheduled tasks, expired counts. Give it only if runtimes are there to do this. By default it is
            infinite.
        lowered: tenants whose concurrency was lowered while more tasks ran; these may still run.

    Raises:
        InvariantViolation: the namespace is inconsistent.
        RuntimeNotRunning: the runtime is not entered, or belongs to another event loop.
    """
    from ._audit.audit import audit, misplaced
    from ._audit.snapshot import take_snapshot

    shards = runtime._shards()  # noqa: SLF001 - the audit reads the internals
    found: list[str] = []
    for number, shard in enumerate(shards):
        snapshot = await take_snapshot(shard)
        found += [f"{snapshot.meta} {text}" for text in audit(snapshot, overdue=overdue, lowered=lowered)]
        found += [f"{snapshot.meta} {text}" for text in misplaced(snapshot, number, len(shards))]
    if found:
        raise InvariantViolation(found)
