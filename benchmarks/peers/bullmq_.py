"""BullMQ's Python package. The variant is its default, a single connection, or a pool of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import _peer
from _peer import Call, Send, SendMany
from bullmq import Queue, Worker
from redis.asyncio import Redis

SIZE = 1000
OPTIONS = {"removeOnComplete": True}


def connection() -> Any:
    if _peer.VARIANT == "pool":
        return Redis.from_url(_peer.URL, decode_responses=True, max_connections=_peer.CONNECTIONS)
    return _peer.URL


async def process(job: Any, _token: str) -> None:
    """Does nothing, or sleeps."""
    await _peer.call(job.data["number"], job.data["seconds"])


@asynccontextmanager
async def sending() -> AsyncIterator[tuple[Send, SendMany | None]]:
    queue = Queue("peers", {"connection": connection()})

    async def send(each: Call) -> None:
        await queue.add("call", {"number": each.number, "seconds": each.seconds}, OPTIONS)

    async def send_many(calls: list[Call]) -> None:
        for some in _peer.chunks(calls, SIZE):
            await queue.addBulk(
                [
                    {"name": "call", "data": {"number": each.number, "seconds": each.seconds}, "opts": OPTIONS}
                    for each in some
                ]
            )

    yield send, send_many
    await queue.close()


async def work(workers: int) -> None:
    worker = Worker("peers", process, {"connection": connection(), "concurrency": workers, "removeOnComplete": True})
    await asyncio.Event().wait()
    await worker.close()


if __name__ == "__main__":
    _peer.run_async(sending, work)
