"""The states of a task, and the transitions between them. No I/O here.

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

from enum import StrEnum
from typing import Final

from fairactor.settings import Priority

__all__ = ["Priority", "TaskState"]


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
