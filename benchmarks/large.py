"""What large messages do to others: how long another client of the server waits, and what a link of 100 Mbit/s carries.

1,000 tasks of 500 kB are sent at once by one process, then run by another. A third one measures PINGs. Then 100 tasks
of 400 kB run in a process that reaches the server over a link that carries 12.5 MB/s.

- another client's PING: p99.9 and maximum, while the messages are sent, and while they run.
- over a link: from when the process starts to claim until the last task has run, against the time that the link takes
  for the messages alone.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from redis.asyncio import Redis

from fairactor import Runtime, actor

from .bench import Bench
from .figures import Figure, at_least, at_most
from .processes import Line, processes

_CHUNK: Final = 1 << 16
_PAUSE: Final = 0.001  # seconds between PINGs
_MANY: Final = 300.0  # seconds that nothing should take


@actor(result_ttl=0)
async def take(text: str) -> None:
    """A task with a large argument."""


async def run(
    bench: Bench,
    *,
    messages: int = 1000,
    kilobytes: int = 500,
    over_link: int = 100,
    link_kilobytes: int = 400,
    rate: float = 12.5e6,
) -> list[Figure]:
    sending, longest, running, ratio = [], [], [], []
    rates: list[float] = []
    for _ in bench.each_round():
        await bench.clean()
        sent, ran, seconds = await _beside(bench, messages, kilobytes)
        sending.append(_cut(sent))
        longest.append(sent[-1])
        running.append(_cut(ran))
        rates.append(messages * kilobytes / 1000 / seconds)
        await bench.clean()
        ratio.append(
            await _over_link(bench, over_link, link_kilobytes, rate) / (over_link * link_kilobytes * 1000 / rate)
        )
    return [
        Figure("PING while sending, p99.9", "ms", sending, goal=at_most(20)),
        Figure("PING while sending, max", "ms", longest),
        Figure("PING while running, p99.9", "ms", running, goal=at_most(20)),
        Figure("sent", "MB/s", rates, goal=at_least(1)),
        Figure("over a link, times its own time", "", ratio, goal=at_most(1.3)),
    ]


def _cut(waits: list[float]) -> float:
    """Returns the 99.9th percentile of sorted waits."""
    return waits[min(len(waits) - 1, int(0.999 * len(waits)))]


async def _beside(bench: Bench, messages: int, kilobytes: int) -> tuple[list[float], list[float], float]:
    """Returns the waits of another client in ms, while messages are sent and run, and the seconds of sending."""
    async with (
        Runtime(bench.url, workers=0) as runtime,
        processes(1, _send, bench.url, messages, kilobytes) as (sender,),
        processes(1, _ping, bench.url) as (other,),
    ):
        await sender.receive()
        other.send()
        began = monotonic()
        sender.send()
        await sender.receive()
        seconds = monotonic() - began
        other.send()
        sent = await other.receive()
        async with processes(1, _serve, bench.url) as (server,):
            await server.receive()
            other.send()
            server.send()
            await runtime.drain(_MANY)
            other.send()
            return sent, await other.receive(), seconds


async def _send(line: Line, url: str, messages: int, kilobytes: int) -> None:
    async with Runtime(url, workers=0) as runtime:
        await runtime.send("warm-up", take(""))
        text = "x" * 1000 * kilobytes
        line.send()
        await line.receive()
        await asyncio.gather(*(runtime.send(f"t{number % 10}", take(text)) for number in range(messages)))
        line.send()


async def _serve(line: Line, url: str) -> None:
    line.send()
    await line.receive()
    async with Runtime(url, actors=[take], workers=100):
        await line.receive()


async def _ping(line: Line, url: str) -> None:
    """Measures PINGs from one message until the next, and reports them, sorted, in ms."""
    client = Redis.from_url(url)
    await client.ping()
    while True:
        await line.receive()
        waits: list[float] = []
        measuring = asyncio.ensure_future(_measure(client, waits))
        await line.receive()
        measuring.cancel()
        line.send(sorted(waits))


async def _measure(client: Redis, waits: list[float]) -> None:
    while True:
        began = monotonic()
        await client.ping()
        waits.append(1000 * (monotonic() - began))
        await asyncio.sleep(_PAUSE)


async def _over_link(bench: Bench, tasks: int, kilobytes: int, rate: float) -> float:
    """Returns the seconds in which a process runs tasks whose messages reach it over a link."""
    async with Runtime(bench.url, workers=0) as sender:
        for number in range(tasks):
            await sender.send(f"t{number % 10}", take("x" * 1000 * kilobytes))
        async with _Link(bench.url, rate) as url, processes(1, _serve, url) as (server,):
            await server.receive()
            began = monotonic()
            server.send()
            await sender.drain(_MANY)
            return monotonic() - began


class _Link:
    """A link that carries so many bytes a second in each direction. Yields its URL.

    Args:
        url: the socket of the server.
        rate: bytes a second.
    """

    def __init__(self, url: str, rate: float) -> None:
        self._target = url.removeprefix("unix://")
        self._rate = rate
        self._free = {"up": 0.0, "down": 0.0}  # when each direction is free

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._target)
        await asyncio.gather(
            self._carry(reader, to_server, "up"), self._carry(from_server, writer, "down"), return_exceptions=True
        )

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        try:
            while data := await reader.read(_CHUNK):
                now = monotonic()
                self._free[direction] = max(self._free[direction], now) + len(data) / self._rate
                await asyncio.sleep(self._free[direction] - now)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()
