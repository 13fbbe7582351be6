"""From ``send`` to the start of the handler, with idle workers, against a bare LPUSH → BLPOP hand-over.

One task is sent every 20 ms, so each one meets a sleeping runtime. The clock starts right before ``send`` is called and
stops in the first line of the handler. In every round, each of these variants sends its samples, one variant after the
other:

- two runtimes: one sends and another one runs, both in this process, like the hand-over. The goals apply to this.
- one runtime: it sends and runs.
- two processes: one sends and another one runs. Both read the same monotonic clock.
- bare hand-over: one connection pushes to a list, and a loop in the same process waits with BLPOP on another.

p50 and p99 are those of one round; the ratios compare them round by round.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from multiprocessing.connection import Connection
from statistics import quantiles
from time import perf_counter_ns
from typing import Any, Final

import anyio
from redis.asyncio import Redis

from fairactor import Runtime

from .bench import Bench
from .figures import Figure, at_most
from .handlers import arrive, delays

_QUIET: Final = 0.3  # seconds until processes that have just started are idle
_PATIENCE: Final = 10.0  # seconds after the last send until the last arrival

Send = Callable[[int], Awaitable[Any]]


async def run(bench: Bench, *, samples: int = 120, interval: float = 0.02) -> list[Figure]:
    p50: dict[str, list[float]] = {}
    p99: dict[str, list[float]] = {}
    for _ in bench.each_round():
        for name, measure in _VARIANTS.items():
            await bench.clean()
            cuts = quantiles(await measure(bench.url, samples, interval), n=100, method="inclusive")
            p50.setdefault(name, []).append(cuts[49])
            p99.setdefault(name, []).append(cuts[98])
    figures = []
    for name in ("two runtimes", "one runtime", "two processes"):
        goals = (at_most(2.5), at_most(5)) if name == "two runtimes" else (None, None)
        figures.append(Figure(f"p50, {name}", "µs", p50[name], p50[_BARE], _BARE, goals[0]))
        figures.append(Figure(f"p99, {name}", "µs", p99[name], p99[_BARE], _BARE, goals[1]))
    return figures


async def _two_runtimes(url: str, samples: int, interval: float) -> list[float]:
    async with Runtime(url, actors=[arrive]), Runtime(url, workers=0) as sender:
        return await _here(_sending(sender), samples, interval)


async def _one_runtime(url: str, samples: int, interval: float) -> list[float]:
    async with Runtime(url, actors=[arrive]) as runtime:
        return await _here(_sending(runtime), samples, interval)


async def _two_processes(url: str, samples: int, interval: float) -> list[float]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    worker = context.Process(target=_work, args=(url, samples, there))
    worker.start()
    try:
        await asyncio.to_thread(here.recv)  # the worker is ready
        async with Runtime(url, workers=0) as sender:
            await _send_each(_sending(sender), samples, interval)
            arrived: list[float] = await asyncio.to_thread(here.recv)
    finally:
        worker.join(_PATIENCE)
        worker.kill()
    return arrived


def _work(url: str, samples: int, connection: Connection[Any, Any]) -> None:
    """Runs in the other process: runs the tasks, and sends the delays back."""

    async def work() -> None:
        async with Runtime(url, actors=[arrive]):
            connection.send("ready")
            while len(delays) < samples:  # noqa: ASYNC110 - the handler must do nothing but note the time
                await asyncio.sleep(0.1)
            connection.send(delays)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    with suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None


async def _bare_hand_over(url: str, samples: int, interval: float) -> list[float]:
    async with Redis.from_url(url) as sender, _receiving(url):

        async def send(sent: int) -> None:
            await sender.lpush("hand over", str(sent))

        return await _here(send, samples, interval)


@asynccontextmanager
async def _receiving(url: str) -> AsyncIterator[None]:
    async def receive(client: Any) -> None:
        while True:
            _, sent = await client.blpop(["hand over"])
            delays.append((perf_counter_ns() - int(sent)) / 1000)

    async with Redis.from_url(url) as client, anyio.create_task_group() as group:
        group.start_soon(receive, client)
        yield
        group.cancel_scope.cancel()


def _sending(runtime: Runtime) -> Send:
    return lambda sent: runtime.send("tenant", arrive(sent))


async def _here(send: Send, samples: int, interval: float) -> list[float]:
    """Sends to this process, and returns how long each sample took."""
    delays.clear()
    await _send_each(send, samples, interval)
    async with asyncio.timeout(_PATIENCE):
        while len(delays) < samples:  # noqa: ASYNC110 - as above
            await asyncio.sleep(interval)
    return delays.copy()


async def _send_each(send: Send, samples: int, interval: float) -> None:
    await asyncio.sleep(_QUIET)
    for _ in range(samples):
        await asyncio.sleep(interval)
        await send(perf_counter_ns())


_BARE: Final = "bare hand-over"
_VARIANTS: Final = {
    "two runtimes": _two_runtimes,
    _BARE: _bare_hand_over,
    "one runtime": _one_runtime,
    "two processes": _two_processes,
}
