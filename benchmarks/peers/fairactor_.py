"""fairactor as a program that speaks the peers' protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import _peer
from _peer import Call, Send, SendMany

from fairactor import Runtime, actor


@actor
async def call(number: int, seconds: float) -> None:
    """Does nothing, or sleeps."""
    await _peer.call(number, seconds)


@asynccontextmanager
async def sending() -> AsyncIterator[tuple[Send, SendMany | None]]:
    async with Runtime(_peer.URL, workers=0) as runtime:

        async def send(each: Call) -> None:
            await runtime.send(each.tenant, call(each.number, each.seconds))

        async def send_many(calls: list[Call]) -> None:
            await runtime.send_many((each.tenant, call(each.number, each.seconds)) for each in calls)

        yield send, send_many


async def work(workers: int) -> None:
    async with Runtime(_peer.URL, actors=[call], workers=workers, result_ttl=0):
        await asyncio.Event().wait()


if __name__ == "__main__":
    _peer.run_async(sending, work)
