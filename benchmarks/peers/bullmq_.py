"""BullMQ, its package for Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import _peer
from _peer import Call, Send, SendMany
from bullmq import Queue, Worker

SIZE = 1000
OPTIONS = {"removeOnComplete": True}


async def process(job: Any, _token: str) -> None:
    """Does nothing, or sleeps."""
    await _peer.call(job.data["number"], job.data["seconds"])


@asynccontextmanager
async def sending() -> AsyncIterator[tuple[Send, SendMany | None]]:
    queue = Queue("peers", {"connection": _peer.URL})

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
    worker = Worker("peers", process, {"connection": _peer.URL, "concurrency": workers, "removeOnComplete": True})
    await asyncio.Event().wait()
    await worker.close()


if __name__ == "__main__":
    _peer.run_async(sending, work)
