"""How long 50 tasks of tenant B wait beside tenant A, which has 10,000 tasks of 5 ms.

One process runs ten tasks at a time, and another one sends; both are warmed up. Tenant A's tasks are queued, and a
second later all of B's are sent at once. The same is measured without B and without A.

- wait: from the call of `send_many` for B's tasks until a task of B starts. p50, p95 and max are those of one round;
  the first start is the shortest wait. Beside A, half of the workers serve B, so B's waits should be twice as long.
- p95 above 2.1 times: by how much the p95 beside A exceeds 2.1 times the p95 without A.
- rate while both run: tasks of A and B per second, from B's first start to its last end, against A's tasks without B,
  from a second after its first start on. A task that runs only partly within that time counts for that part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from statistics import quantiles
from time import monotonic
from typing import Final

import attrs

from fairactor import Runtime

from . import plots
from .bench import Bench
from .figures import Figure, at_least, at_most
from .handlers import Service, services, work
from .processes import Line, processes

_QUIET: Final = 0.3  # seconds until processes that have just started are idle
_LATER: Final = 1.0  # seconds from A's first start until B sends
_WARM_UP: Final = 100  # tasks that run before the measurement


@attrs.frozen
class _Round:
    sent: float
    """When B's tasks were sent."""
    services: list[Service]

    def of(self, tenant: str) -> list[Service]:
        return [service for service in self.services if service.tenant == tenant]

    @property
    def waits(self) -> list[float]:
        """The waits of B's tasks in ms, sorted."""
        return sorted(1000 * (service.began - self.sent) for service in self.of("B"))

    def cut(self, percent: int) -> float:
        """Returns a percentile of the waits."""
        return quantiles(self.waits, n=100, method="inclusive")[percent - 1]

    def rate(self) -> float:
        """Tasks per second while B runs. Without B: from when B would have been sent until A's last start."""
        mine = self.of("B")
        begin = min(service.began for service in mine) if mine else self.of("A")[0].began + _LATER
        end = max(service.ended for service in mine) if mine else self.of("A")[-1].began
        return sum(_within(service, begin, end) for service in self.services) / (end - begin)


def _within(service: Service, begin: float, end: float) -> float:
    """Returns which part of a task runs within an interval; 1 is all of it."""
    inside = min(service.ended, end) - max(service.began, begin)
    return max(0.0, inside) / (service.ended - service.began)


async def run(
    bench: Bench, *, backlog: int = 10_000, added: int = 50, seconds: float = 0.005, workers: int = 10
) -> list[Figure]:
    without_b, without_a, both = [], [], []
    for _ in bench.each_round():
        without_b.append(await _measure(bench, backlog, 0, seconds, workers))
        without_a.append(await _measure(bench, 0, added, seconds, workers))
        both.append(await _measure(bench, backlog, added, seconds, workers))
    alone = [wait for each in without_a for wait in each.waits]
    beside = [wait for each in both for wait in each.waits]
    bench.pictures.append(plots.neighbour(alone, beside, backlog))

    def figure(name: str, value: Callable[[_Round], float]) -> Figure:
        return Figure(name, "ms", [*map(value, both)], [*map(value, without_a)], "without A")

    p95 = figure("wait, p95", lambda each: each.cut(95))
    beyond = [ours - 2.1 * other for ours, other in zip(p95.ours, p95.baseline, strict=True)]
    return [
        figure("wait, p50", lambda each: each.cut(50)),
        p95,
        figure("wait, max", lambda each: each.waits[-1]),
        Figure("wait, p95 above 2.1 times", "ms", beyond, goal=at_most(5)),
        Figure("first start", "ms", [each.waits[0] for each in both], goal=at_most(8)),
        Figure(
            "rate while both run",
            "tasks/s",
            [each.rate() for each in both],
            [each.rate() for each in without_b],
            "without B",
            at_least(0.97),
        ),
    ]


async def _measure(bench: Bench, backlog: int, added: int, seconds: float, workers: int) -> _Round:
    await bench.clean()
    async with (
        Runtime(bench.url, workers=0) as runtime,
        processes(1, _send, bench.url, added, seconds) as (sender,),
        processes(1, _serve, bench.url, workers) as (server,),
    ):
        await sender.receive()
        await runtime.drain(timeout=10)
        await asyncio.sleep(_QUIET)
        later = monotonic() + _LATER
        await runtime.send_many(("A", work("A", seconds)) for _ in range(backlog))
        await asyncio.sleep(later - monotonic() if backlog else _QUIET)
        sender.send()
        sent = await sender.receive()
        await runtime.drain(timeout=60 + 2 * backlog * seconds / workers)
        server.send()
        return _Round(sent, await server.receive())


async def _send(line: Line, url: str, tasks: int, seconds: float) -> None:
    """Runs in the sending process: warms up, sends B's tasks when told to, and reports when it began."""
    async with Runtime(url, workers=0) as runtime:
        messages = [("B", work("B", seconds)) for _ in range(tasks)]
        await runtime.send_many(("warm-up", work("warm-up", seconds)) for _ in range(_WARM_UP))
        line.send()
        await line.receive()
        began = monotonic()
        await runtime.send_many(messages)
        line.send(began)


async def _serve(line: Line, url: str, workers: int) -> None:
    """Runs in the worker process: runs tasks until told to stop, then reports them."""
    async with Runtime(url, actors=[work], workers=workers, result_ttl=0):
        await line.receive()
        line.send(services)
