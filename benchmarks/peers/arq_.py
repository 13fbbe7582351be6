"""arq. The variant is the number of seconds between two polls of the queue."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import _peer
from _peer import Call, Send, SendMany
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func

logging.disable(logging.WARNING)


async def call(_context: Any, number: int, seconds: float) -> None:
    """Does nothing, or sleeps."""
    await _peer.call(number, seconds)


@asynccontextmanager
async def sending() -> AsyncIterator[tuple[Send, SendMany | None]]:
    pool = await create_pool(RedisSettings.from_dsn(_peer.URL))

    async def send(each: Call) -> None:
        await pool.enqueue_job("call", each.number, each.seconds)

    yield send, None
    await pool.aclose()


async def work(workers: int) -> None:
    worker = Worker(
        functions=[func(call, name="call")],
        redis_settings=RedisSettings.from_dsn(_peer.URL),
        max_jobs=workers,
        poll_delay=float(_peer.VARIANT or 0.005),
        keep_result=0,
        handle_signals=False,
        log_results=False,
    )
    await worker.async_run()


if __name__ == "__main__":
    _peer.run_async(sending, work)
