"""For tests: an audit of everything that a namespace holds in Redis.

`check_invariants` reads the whole namespace, at a cost that grows with it, and holds the server up meanwhile. Use it
where that harms nobody: in tests, beside running workers if you like, since it reads each shard in one atomic step.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from .audit import audit, misplaced
from .look import look_at

if TYPE_CHECKING:
    from .runtime import Runtime


class InvariantViolation(AssertionError):
    """What a namespace holds does not fit together; ``violations`` says all that does not."""

    def __init__(self, violations: Iterable[str]) -> None:
        self.violations = tuple(violations)
        super().__init__("\n".join([f"{len(self.violations)} violations:", *self.violations]))


async def check_invariants(runtime: Runtime, *, overdue: float = math.inf, lowered: Collection[str] = ()) -> None:
    """Checks that all that the namespace of a runtime holds fits together, at this moment.

    It reads every key, so it is for tests only. Workers may go on meanwhile.

    Args:
        runtime: one that was entered, on the namespace to look at.
        overdue: report what should have been tended to more than this many seconds ago: claims of runtimes whose
            lease ran out, scheduled tasks that are due, totals past their time. Infinite: do not, since somebody has
            to be there to tend.
        lowered: tenants whose concurrency was set below what they had running: those may go on above it.

    Raises:
        InvariantViolation: it does not fit; lists everything that was found.
        RuntimeNotRunning: the runtime is not entered, or belongs to another event loop.
    """
    runtime.check()
    shards = runtime._shards  # noqa: SLF001 - the audit looks inside
    found: list[str] = []
    for number, shard in enumerate(shards):
        look = await look_at(shard)
        found += [f"{look.meta} {text}" for text in audit(look, overdue=overdue, lowered=lowered)]
        found += [f"{look.meta} {text}" for text in misplaced(look, number, len(shards))]
    if found:
        raise InvariantViolation(found)
