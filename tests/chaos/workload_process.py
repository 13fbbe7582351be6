"""The process of the workload: the proxy, the sender and the faults."""

from __future__ import annotations

import random
import socket
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs

from tests.support.proxy import proxy

from .auditor import direct_driver
from .harness_client import HarnessClient
from .plan import Plan
from .shards import Shards
from .workload import Serving, Workload


@attrs.frozen
class Sockets:
    """The socket and the pipe to the other processes."""

    harness: socket.socket
    notes: int


Open = Callable[[HarnessClient, Callable[[str], None]], AbstractAsyncContextManager[Workload]]
"""Opens the workload, with what it sends commands to, and what it notes things with."""


async def run_workload(open_workload: Open, sockets: Sockets, began: float) -> None:
    """Runs the workload of a seed and sends the verdict to the harness."""
    journal: list[str] = []

    def note(text: str) -> None:
        journal.append(f"{time.time() - began:6.3f} {text}")

    harness = HarnessClient(note)
    listening = await harness.open(sockets.harness, sockets.notes)
    async with open_workload(harness, note) as workload:
        try:
            await workload.run()
        except Exception:  # noqa: BLE001 - the report takes every error
            workload.facts.violations.append(traceback.format_exc())
        await harness.end(workload.verdict() | {"journal": journal})
    for task in listening:
        task.cancel()


@asynccontextmanager
async def on_one_server(
    plan: Plan, server: str, path: str, harness: HarnessClient, note: Callable[[str], None]
) -> AsyncIterator[Workload]:
    """Opens a workload on one server, whose socket is given, and that of the proxy."""
    async with proxy(server, random.Random(f"{plan.seed} proxy"), path=path) as before:
        driver = direct_driver(f"unix://{server}")
        yield Workload(
            plan,
            harness,
            before,
            Serving(before.url, Shards(lambda: [driver], has_all=True), lambda: [driver.db], server),
            note,
        )
