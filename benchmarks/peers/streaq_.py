"""streaQ. The variant is the number of tasks in a batch."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import _peer
from _peer import Call, Send, SendMany
from streaq import Worker

logging.disable(logging.WARNING)

SIZE = int(_peer.VARIANT or 1000)


def _worker(workers: int) -> Worker:
    worker: Worker = Worker(redis_url=_peer.URL, concurrency=workers, handle_signals=False)
    worker.task(name="call", ttl=0, silent=True)(_peer.call)
    return worker


@asynccontextmanager
async def sending() -> AsyncIterator[tuple[Send, SendMany | None]]:
    async with _worker(1) as worker:
        call = worker.registry["call"]

        async def send(each: Call) -> None:
            await call.enqueue(each.number, each.seconds)

        async def send_many(calls: list[Call]) -> None:
            for some in _peer.chunks(calls, SIZE):
                await worker.enqueue_many([call.enqueue(each.number, each.seconds) for each in some])

        yield send, send_many


async def work(workers: int) -> None:
    await _worker(workers).run_async()


if __name__ == "__main__":
    _peer.run_async(sending, work)
