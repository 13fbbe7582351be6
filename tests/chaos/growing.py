"""The workload of a seed in which the namespace gets more shards."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
from fairactor_dependencies import _send

from tests.support.proxy import proxy

from .auditor import direct_driver
from .checks import Observations
from .harness_client import HarnessClient
from .pipelines import Ends, Pipeline
from .plan import Plan
from .shards import Shards
from .workload import Serving, Workload

_LONG: Final = 60.0
"""Seconds after which a growth takes so long that what waits is said."""
GATE: Final = 10.0
"""Seconds after which what a sender could not withdraw is canceled."""


def is_withdrawn(facts: Observations, pipeline: Pipeline, ends: Ends) -> bool:
    """Whether the sender of a graph over several shards has withdrawn it, because a call failed midway.

    Steps that the server had by then are canceled, those of the call that failed are accepted when they are sent again.
    """
    return any(
        facts.resent[step.id] and step.id not in facts.canceled_as
        and step.id in ends.snapshot.records and ends.letter(step.id) == "C"
        for step in pipeline.steps
    )  # fmt: skip


class GrowingWorkload(Workload):
    """Adds shards as planned, while everything else happens."""

    async def _disturb(self) -> None:
        start = anyio.current_time()
        for at, shards in self._plan.grows:
            await anyio.sleep_until(start + at)
            self._note(f"the namespace gets {shards} shards")

            async def grow(_: Sequence[Any], shards: int = shards) -> None:
                with anyio.move_on_after(_LONG) as long:
                    await self._runtime.grow(shards)
                if long.cancelled_caught:
                    for line in self._shards.waiting():
                        self._note(line)
                    await self._runtime.grow(shards)

            await self._again([], grow)
            self._note(f"it has {shards} shards")
            self._get_further()

    def _carried_out(self, ends: Ends) -> list[Pipeline]:
        return [each for each in self._plan.pipelines if not is_withdrawn(self.facts, each, ends)]


@asynccontextmanager
async def on_growing_server(
    plan: Plan, server: str, path: str, harness: HarnessClient, note: Callable[[str], None]
) -> AsyncIterator[Workload]:
    """Opens a workload on one server with several shards, whose socket is given, and that of the proxy."""
    async with proxy(server, random.Random(f"{plan.seed} proxy"), path=path) as before:
        drivers = [direct_driver(f"unix://{server}", shard) for shard in range(plan.grows[-1][1])]
        serving = Serving(before.url, Shards(lambda: drivers, has_all=False), lambda: [drivers[0].db], server)
        _send._GATE_TIMEOUT = GATE
        yield GrowingWorkload(plan, harness, before, serving, note)
