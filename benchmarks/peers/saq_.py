"""SAQ. It gets no time to sweep, because with its defaults it can run ended tasks again."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import _peer
from _peer import Call, Send, SendMany
from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue

logging.disable(logging.WARNING)


async def call(_context: Any, *, number: int, seconds: float) -> None:
    """Does nothing, or sleeps."""
    await _peer.call(number, seconds)


@asynccontextmanager
async def sending() -> AsyncIterator[tuple[Send, SendMany | None]]:
    queue = RedisQueue(Redis.from_url(_peer.URL, max_connections=_peer.CONNECTIONS), max_concurrent_ops=32)

    async def send(each: Call) -> None:
        await queue.enqueue("call", number=each.number, seconds=each.seconds, ttl=-1, timeout=0)

    yield send, None
    await queue.disconnect()


async def work(workers: int) -> None:
    queue = RedisQueue(Redis.from_url(_peer.URL, max_connections=_peer.CONNECTIONS), max_concurrent_ops=workers)
    rarely = 3600
    worker = Worker(
        queue,
        functions=[("call", call)],
        concurrency=workers,
        dequeue_timeout=10,
        timers={"schedule": rarely, "worker_info": rarely, "sweep": rarely, "abort": rarely},
    )
    await worker.start()


if __name__ == "__main__":
    _peer.run_async(sending, work)
