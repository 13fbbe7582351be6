"""In which order 1,000 equal tenants with 10 tasks each are served.

The tasks are sent tenant by tenant: all ten of the first, then all ten of the second, and so on. A round of service is
as many claims as there are tenants. There are three variants: turns of 100 tasks and turns of 1 task, both without
workers, and a runtime with 100 workers, where a service is the start of a handler.

- tenants in the first round: how many different tenants the first 1,000 claims serve.
- Jain's index: (sum of x)² / (n * sum of x²), where x is the number of tasks that a tenant has got and n the number of
  tenants; 1 is perfectly even. It is taken after each round of service, and the lowest value counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from fairactor import Runtime

from .bench import Bench
from .claiming import claimer
from .figures import Figure, at_least
from .handlers import serve, served

Serve = Callable[[Bench, int], Awaitable[list[str]]]


async def run(bench: Bench, *, tenants: int = 1_000, each: int = 10) -> list[Figure]:
    figures = []
    first: dict[str, list[float]] = {}
    jain: dict[str, list[float]] = {}
    for _ in bench.each_round():
        for name, in_order in _SERVERS.items():
            await bench.clean()
            async with Runtime(bench.url, workers=0) as runtime:
                names = [f"tenant:{n}" for n in range(tenants) for _ in range(each)]
                await runtime.send_many(
                    (tenant, serve(tenant).options(id=f"{tenant}/{n}")) for n, tenant in enumerate(names)
                )
            order = await in_order(bench, len(names))
            if Counter(order) != Counter(names):
                raise RuntimeError("the tasks that were served are not those that were sent")
            rounds = [Counter(order[:end]) for end in range(tenants, len(order) + 1, tenants)]
            first.setdefault(name, []).append(len(rounds[0]))
            jain.setdefault(name, []).append(min(_jain(counts, tenants) for counts in rounds))
    for name in _SERVERS:
        figures.append(Figure(f"tenants in the first round, {name}", "tenants", first[name], goal=at_least(tenants)))
        figures.append(Figure(f"lowest Jain's index, {name}", "index", jain[name], goal=at_least(1)))
    return figures


def _jain(counts: Counter[str], tenants: int) -> float:
    total: int = counts.total()
    return total * total / (tenants * sum(count * count for count in counts.values()))


def _by_turns(want: int) -> Serve:
    async def in_order(bench: Bench, tasks: int) -> list[str]:
        order: list[str] = []
        async with claimer(bench.url) as claiming:
            while len(order) < tasks:
                ids = await claiming.claim(want)
                if not ids:
                    raise RuntimeError("a turn claimed nothing while tasks waited")
                order += [task.rpartition("/")[0] for task in ids]
        return order

    return in_order


async def _by_runtime(bench: Bench, tasks: int) -> list[str]:
    served.clear()
    async with Runtime(bench.url, actors=[serve], result_ttl=0) as runtime:
        await runtime.drain(timeout=60)
    if len(served) != tasks:
        raise RuntimeError(f"{tasks} tasks were sent, but {len(served)} were run")
    return served.copy()


_SERVERS: Final[dict[str, Serve]] = {
    "turns of 100": _by_turns(100),
    "turns of 1": _by_turns(1),
    "a runtime": _by_runtime,
}
