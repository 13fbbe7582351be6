"""The instruments of fairactor's metrics: their names, units and meanings. docs/metrics.md has a table of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import attrs

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The buckets that the semantic conventions for messaging advise."""
_WAITS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_SCRIPTS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


@attrs.frozen
class Instrument:
    """What is measured."""

    name: str
    kind: Literal["histogram", "counter", "gauge"]
    unit: str
    """In UCUM, as OpenTelemetry has it."""
    description: str
    bounds: Sequence[float] = ()
    """The buckets of a histogram, as advice: a view may have others."""


OPERATION: Final = Instrument(
    "messaging.client.operation.duration",
    "histogram",
    "s",
    "Duration of messaging operation initiated by a producer or consumer client.",
    _SECONDS,
)
PROCESS: Final = Instrument(
    "messaging.process.duration", "histogram", "s", "Duration of processing operation.", _SECONDS
)
SENT: Final = Instrument(
    "messaging.client.sent.messages",
    "counter",
    "{message}",
    "Number of messages producer attempted to send to the broker.",
)
CONSUMED: Final = Instrument(
    "messaging.client.consumed.messages",
    "counter",
    "{message}",
    "Number of messages that were delivered to the application.",
)
WAIT: Final = Instrument(
    "fairactor.task.wait", "histogram", "s", "How long tasks waited from when they were due until they started.", _WAITS
)
RETRIES: Final = Instrument("fairactor.task.retries", "counter", "{attempt}", "Failed attempts that were tried again.")
FAILURES: Final = Instrument("fairactor.task.failures", "counter", "{task}", "Tasks that have failed for good.")
LEASES: Final = Instrument("fairactor.lease.losses", "counter", "{lease}", "Leases that runtimes have lost.")
SCRIPT: Final = Instrument(
    "fairactor.script.duration", "histogram", "s", "Duration of the round trips of scripts.", _SCRIPTS
)
SLOTS: Final = Instrument("fairactor.runtime.slots", "gauge", "{task}", "How many tasks the runtime can run at once.")
RUNNING: Final = Instrument("fairactor.runtime.running", "gauge", "{task}", "How many tasks the runtime runs now.")

RUNTIMES: Final = Instrument("fairactor.runtimes", "gauge", "{runtime}", "Runtimes that run tasks and hold a lease.")
TASKS: Final = Instrument("fairactor.tasks", "gauge", "{task}", "Tasks that have not ended.")
DEAD_LETTERS: Final = Instrument("fairactor.dead_letters", "gauge", "{task}", "Failed tasks that are kept.")
PROBLEMS: Final = Instrument("fairactor.health.problems", "gauge", "{problem}", "Problems that health() reports.")
WAITING: Final = Instrument(
    "fairactor.tenants.waiting", "gauge", "{tenant}", "Tenants and groups with a task that could start now."
)
THROTTLED: Final = Instrument(
    "fairactor.tenants.throttled", "gauge", "{tenant}", "Tenants that only their rate holds back."
)
QUEUE_BACKLOG: Final = Instrument("fairactor.queue.backlog", "gauge", "{task}", "Queued tasks of the queue.")
QUEUE_AGE: Final = Instrument(
    "fairactor.queue.oldest_age", "gauge", "s", "How long the first queued task of the queue has waited."
)
QUEUE_RUNNING: Final = Instrument("fairactor.queue.running", "gauge", "{task}", "Tasks of the queue that run now.")
QUEUE_RUNTIMES: Final = Instrument("fairactor.queue.runtimes", "gauge", "{runtime}", "Runtimes that serve the queue.")
TENANT_BACKLOG: Final = Instrument("fairactor.tenant.backlog", "gauge", "{task}", "Queued tasks of the tenant.")
TENANT_AGE: Final = Instrument(
    "fairactor.tenant.oldest_age", "gauge", "s", "How long the first queued task of the tenant has waited."
)
TENANT_RUNNING: Final = Instrument("fairactor.tenant.running", "gauge", "{task}", "Tasks of the tenant that run now.")

OF_NAMESPACES: Final = (
    RUNTIMES, TASKS, DEAD_LETTERS, PROBLEMS, WAITING, THROTTLED, QUEUE_BACKLOG, QUEUE_AGE, QUEUE_RUNNING,
    QUEUE_RUNTIMES, TENANT_BACKLOG, TENANT_AGE, TENANT_RUNNING,
)  # fmt: skip
"""The gauges of which every runtime of a namespace reports the same values."""
INSTRUMENTS: Final = (
    OPERATION, PROCESS, SENT, CONSUMED, WAIT, RETRIES, FAILURES, LEASES, SCRIPT, SLOTS, RUNNING,
    *OF_NAMESPACES,
)  # fmt: skip
