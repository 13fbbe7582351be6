"""The gauges of a namespace.

They are read now and then, so collecting the metrics neither waits for the server nor burdens it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import Final, Protocol

import anyio

from fairactor._store.stats import Health, Stats
from fairactor._util import instruments
from fairactor._util.instruments import Instrument
from fairactor._util.meters import Meters, Readings, Values
from fairactor.errors import FairactorError
from fairactor.views import QueueView, TenantOrder, TenantPage

logger: Final = logging.getLogger(__name__)

EVERY: Final = 10.0
"""The seconds between two readings, in a small fleet."""
OF_A_RUNTIME: Final = 0.2
"""The seconds that each runtime adds to them: so all runtimes together read five times a second at most."""
KEPT: Final = 3
"""For how many times as long what was read counts, if the server cannot be read again."""


class Readable(Protocol):
    """What the gauges need of a runtime."""

    async def health(self) -> Health:
        """See `Runtime.health`."""
        ...

    async def queues(self) -> Sequence[QueueView]:
        """See `Runtime.queues`."""
        ...

    async def tenants(self, *, order_by: TenantOrder = "backlog", limit: int = 50) -> TenantPage:
        """See `Runtime.tenants`."""
        ...


def pause(runtimes: int) -> float:
    """Returns the seconds between two readings, given how many runtimes there are."""
    return max(EVERY, OF_A_RUNTIME * runtimes)


async def observe(runtime: Readable, tenants: int, meters: Meters) -> None:
    """Reads the namespace again and again; until canceled.

    Args:
        runtime: the runtime.
        tenants: of how many tenants there are gauges.
        meters: the metrics of the runtime.
    """
    seconds, failing = EVERY, False
    while True:
        try:
            values, runtimes = await _read(runtime, tenants)
        except FairactorError as error:  # the next reading may succeed
            logger.debug("the gauges cannot be read: %s", error)
        except Exception:  # what is stored may be damaged; tasks run nevertheless
            logger.log(logging.DEBUG if failing else logging.ERROR, "the gauges cannot be read", exc_info=True)
            failing = True
        else:
            failing = False
            seconds = pause(runtimes)
            if values is not None:
                meters.observe(values, KEPT * seconds)
        await anyio.sleep(seconds * random.uniform(0.9, 1.0))  # noqa: S311 - so that the runtimes of a fleet do not read at once


async def _read(runtime: Readable, tenants: int) -> tuple[Values | None, int]:
    """Returns the values of the gauges, None if the server does not answer, and how many runtimes there are."""
    health = await runtime.health()
    stats = health.stats
    if stats is None:
        return None, 0
    alive = sum(each.lease_left >= 0 for each in stats.runtimes)
    values: dict[Instrument, Readings] = {
        **_of_all(stats, alive, len(health.problems)),
        **_of_queues(await runtime.queues()),
    }
    if tenants:
        values |= await _of_tenants(runtime, tenants)
    return values, alive


def _of_all(stats: Stats, alive: int, problems: int) -> dict[Instrument, Readings]:
    states = {
        "queued": stats.queued,
        "started": stats.started,
        "scheduled": stats.scheduled,
        "deferred": stats.deferred,
    }
    return {
        instruments.RUNTIMES: {(): alive},
        instruments.TASKS: {(("fairactor.state", state),): number for state, number in states.items()},
        instruments.DEAD_LETTERS: {(): stats.dead_letters},
        instruments.PROBLEMS: {(): problems},
        instruments.WAITING: {(): stats.waiting_tenants},
        instruments.THROTTLED: {(): stats.throttled_tenants},
    }


def _of_queues(queues: Sequence[QueueView]) -> dict[Instrument, Readings]:
    by_queue = {(("fairactor.queue", each.queue),): each for each in queues}
    return {
        instruments.QUEUE_BACKLOG: {key: each.backlog for key, each in by_queue.items()},
        instruments.QUEUE_AGE: {key: each.oldest_wait or 0.0 for key, each in by_queue.items()},
        instruments.QUEUE_RUNNING: {key: each.running for key, each in by_queue.items()},
        instruments.QUEUE_RUNTIMES: {key: each.runtimes for key, each in by_queue.items()},
    }


async def _of_tenants(runtime: Readable, most: int) -> dict[Instrument, Readings]:
    page = await runtime.tenants(order_by="backlog", limit=most)
    by_tenant = {(("fairactor.tenant", each.tenant),): each for each in page.tenants}
    return {
        instruments.TENANT_BACKLOG: {key: each.backlog for key, each in by_tenant.items()},
        instruments.TENANT_AGE: {key: each.oldest_wait or 0.0 for key, each in by_tenant.items()},
        instruments.TENANT_RUNNING: {key: each.running for key, each in by_tenant.items()},
    }
