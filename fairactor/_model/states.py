"""The states of a task, the transitions between them, and the priorities. No I/O here.

==========  ======================================  ===============================================
from        event                                   to
==========  ======================================  ===============================================
(new)       sent to start now                       queued
(new)       sent with a delay or a time             scheduled
(new)       sent, but held back by a plugin         deferred
scheduled   its time has come                       queued
deferred    the plugin releases it                  queued, or scheduled if not yet due
queued      a runtime claims it                     started
started     the handler ends                        finished or failed
started     the handler fails, and a retry is left  scheduled
started     its runtime stops                       queued
started     its runtime dies                        queued as a suspect, or failed after too many deaths
any above   canceled                                canceled
failed      redriven                                queued
==========  ======================================  ===============================================

The state of a live task is not stored: it follows from the place in Redis that holds the task's id. The record of a
settled task contains its state.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final


class TaskState(StrEnum):
    """The state of a task. Each task is in exactly one of them."""

    QUEUED = "queued"
    STARTED = "started"
    DEFERRED = "deferred"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELED = "canceled"
    SCHEDULED = "scheduled"

    @property
    def settled(self) -> bool:
        """Whether the state is final: finished, failed or canceled."""
        return self in _SETTLED


_SETTLED: Final = frozenset({TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED})


class Priority(IntEnum):
    """How urgent a task is compared with other tasks of its tenant. It has no effect on other tenants.

    From `VERY_LOW` to `VERY_HIGH`, each step counts like ``aging`` seconds of waiting, so tasks of low priority are
    not starved. `CRITICAL` tasks start before all others of the tenant, in the order in which they were sent.
    """

    VERY_LOW = 1
    LOW = 2
    NORMAL = 3
    HIGH = 4
    VERY_HIGH = 5
    CRITICAL = 6
