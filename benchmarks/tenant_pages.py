"""Pages of tenants, queues and workers among 1,000,000 tasks of 100,000 tenants: what a page costs, and its scripts.

The shard is filled directly; 2,000 tenants then get more tasks, so the index of backlogs has something. A runtime holds
hundreds of claims. Each page is read several times, the first one and one in the middle; its time is the median. The
slow log of the server says how long the longest call of a script took.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Final

from fairactor import Runtime
from fairactor._model.keys import Keys
from fairactor._model.lane import kind_of_runtime
from fairactor._model.wire import USUAL_BATCH, Item
from fairactor._store.shard import Shard
from fairactor.views import TENANT_ORDERS

from .bench import Bench
from .crowd import ACTOR, fill
from .figures import Figure, at_most
from .longest import GOAL, Processor, machine_factor, slow_scripts

PAGE: Final = 50.0
"""Milliseconds that a page takes at most."""
_LEASE: Final = 3600.0
_LARGER: Final = 2000
_MORE: Final = 10


async def _prepare(bench: Bench, shard: Shard, tenants: int, each: int) -> None:
    await fill(bench.admin, Keys("fairactor"), tenants=tenants, each=each)
    body = b'["%b",[],{}]' % ACTOR.encode()
    larger = range(0, tenants, max(1, tenants // _LARGER))
    items = [Item(f"more-{n}-{t}", f"tenant:{t}", 3, "", "", body) for t in larger for n in range(_MORE)]
    for number, start in enumerate(range(0, len(items), USUAL_BATCH), 1):
        await shard.send(items[start : start + USUAL_BATCH], "sender", number)
    await shard.join("busy", lease=_LEASE, info={"workers": 500}, kind=kind_of_runtime({ACTOR: 1}, None))
    for number in (1, 2):
        await shard.turn("busy", number, lease=_LEASE, want=200)


async def run(bench: Bench, *, tenants: int = 100_000, each: int = 10, times: int = 9) -> list[Figure]:
    await bench.admin.config_set("slowlog-log-slower-than", 200)
    await bench.admin.config_set("slowlog-max-len", 10_000)
    factor = await machine_factor(bench.admin, await Processor.of(bench.admin))
    figures: list[Figure] = []
    async with Runtime(bench.url, workers=0, without_plugins=True) as runtime:
        await _prepare(bench, runtime._shards()[0], tenants, each)  # noqa: SLF001 - fills it
        await bench.admin.slowlog_reset()
        pages: dict[str, Callable[[], Awaitable[object]]] = {"queues": runtime.queues, "workers": runtime.workers}
        for order in TENANT_ORDERS:
            pages[f"tenants by {order}"] = lambda order=order: runtime.tenants(order_by=order)  # type: ignore[misc]
            after = None
            for _ in range(3):
                after = (await runtime.tenants(order_by=order, limit=1000, after=after)).after
            pages[f"a later page by {order}"] = lambda order=order, after=after: runtime.tenants(  # type: ignore[misc]
                order_by=order, after=after
            )
        pages["tenants with a part of a name"] = lambda: runtime.tenants(text=":777")
        for name, page in pages.items():
            took = []
            for _ in range(times):
                began = time.perf_counter()
                await page()
                took.append((time.perf_counter() - began) * 1000)
            figures.append(Figure(name, "ms", [median(took)], goal=at_most(PAGE * factor)))
    slow = await slow_scripts(bench.admin)
    figures += [
        Figure(f"longest call of {name}", "ms", [took], goal=at_most(GOAL * factor))
        for name, took in sorted(slow.items())
    ]
    await bench.clean()
    return figures
