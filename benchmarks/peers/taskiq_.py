"""taskiq with taskiq-redis. The variant is its broker: stream or list."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import _peer
from _peer import Call, Send, SendMany
from taskiq import AsyncBroker
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker, RedisStreamBroker

logging.disable(logging.WARNING)


def _broker() -> AsyncBroker:
    if _peer.VARIANT == "list":
        return ListQueueBroker(_peer.URL)
    return RedisStreamBroker(_peer.URL, consumer_id="0", xread_count=1000)


broker = _broker()
call = broker.task(task_name="call")(_peer.call)


@asynccontextmanager
async def sending() -> AsyncIterator[tuple[Send, SendMany | None]]:
    await broker.startup()

    async def send(each: Call) -> None:
        await call.kiq(each.number, each.seconds)

    yield send, None
    await broker.shutdown()


async def work(workers: int) -> None:
    await asyncio.create_task(
        run_receiver_task(
            broker, max_async_tasks=workers, max_prefetch=workers, validate_params=False, run_startup=True
        )
    )


if __name__ == "__main__":
    _peer.run_async(sending, work)
