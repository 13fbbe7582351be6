"""The states of a task, the priorities, and which moves between states there are. No I/O here.

==========  ==================================  ==========================================
from        what happens                        to
==========  ==================================  ==========================================
(sent)      due now · later · after other tasks  queued · scheduled · deferred
scheduled   its time comes · it is canceled     queued · canceled
deferred    its turn comes · it is canceled     queued · canceled
queued      a runtime claims it · it is canceled  started · canceled
started     it ends · it is to be tried again   finished, failed or canceled · scheduled
started     its runtime dies or leaves          queued; failed after too many deliveries
==========  ==================================  ==========================================

While a task lives, its state is where its id stands in Redis; a settled one says so in its record.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final


class TaskState(StrEnum):
    """Where a task is in its life; exactly one of seven."""

    QUEUED = "queued"
    STARTED = "started"
    DEFERRED = "deferred"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELED = "canceled"
    SCHEDULED = "scheduled"

    @property
    def settled(self) -> bool:
        """Whether nothing will happen to the task any more."""
        return self in _SETTLED


_SETTLED: Final = frozenset({TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED})


class Priority(IntEnum):
    """How urgent a task is beside others of its tenant.

    From `VERY_LOW` to `VERY_HIGH` each step is worth ``aging`` seconds of waiting, so an old low one is never
    starved. `CRITICAL` tasks go before all others of the tenant, first in first out. No priority jumps another
    tenant.
    """

    VERY_LOW = 1
    LOW = 2
    NORMAL = 3
    HIGH = 4
    VERY_HIGH = 5
    CRITICAL = 6
