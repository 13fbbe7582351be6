"""Injects the faults of a plan."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import anyio
import redis

from fairactor._plugin_chain import PluginChain
from fairactor._store import loader as scripts
from fairactor.plugins import installed_plugins
from tests.support.proxy import Fault, Proxy

from .harness_client import HarnessClient, Worker
from .plan import FaultKind, PlannedFault

_PLUGINS: Final = PluginChain(installed_plugins()).lua
_SCRIPTS: Final = [
    scripts.load(name, flags=flags, plugins=_PLUGINS) for name in scripts.NAMES for flags in (False, True)
]
_SHOWN: Final = 300  # characters of a request


class FaultInjector:
    """Injects the faults of a plan into the server, the proxy and the workers."""

    def __init__(
        self,
        harness: HarnessClient,
        before: Proxy,
        clients: Callable[[], Sequence[redis.Redis]],
        url: str,
        note: Callable[[str], None],
    ) -> None:
        self.counts: Counter[str] = Counter()
        """How often each fault has struck."""
        self.last = 0.0
        """When a fault last began or ended."""
        self._harness = harness
        self._proxy = before
        self._clients = clients
        self._url = url
        self._note = note
        before.on_strike = self.struck
        self._crashing = anyio.Lock()
        self._ways: Final[dict[FaultKind, Callable[[PlannedFault], Awaitable[None]]]] = {
            FaultKind.KILL: self._kill, FaultKind.STOP: self._stop, FaultKind.LEAVE: self._leave,
            FaultKind.CRASH: self._crash, FaultKind.FORGET: self._forget, FaultKind.CLOSE: self._close,
            FaultKind.CUT: self._cut, FaultKind.AWAY: self._away, FaultKind.FREEZE: self._freeze,
            FaultKind.LATE: self._late, FaultKind.STRIKE: self._strike, FaultKind.CHANCE: self._chance,
        }  # fmt: skip

    async def inject(self, planned: PlannedFault, start: float) -> None:
        """Injects a fault at its moment; returns when it is over."""
        await anyio.sleep_until(start + planned.at)
        self._note(f"fault: {planned}")
        self.counts[planned.kind] += 1
        self.last = anyio.current_time()
        await self._ways[planned.kind](planned)
        self.last = anyio.current_time()

    def _pick(self, planned: PlannedFault, *, ready: bool = True) -> Worker | None:
        there = [
            worker
            for worker in self._harness.workers.values()
            if worker.expected is None and not worker.stopped and (worker.ready.is_set() or not ready)
        ]
        if not there:
            self._note("(there is none)")
            return None
        picked = there[planned.pick % len(there)]
        self._note(f"it is worker {picked.pid}")
        return picked

    async def _kill(self, planned: PlannedFault) -> None:
        worker = self._pick(planned, ready=False)
        if worker is not None:
            worker.expected = -signal.SIGKILL
            worker.signal(signal.SIGKILL)
            await anyio.sleep(planned.later)
            await self._harness.start_worker(self._url, worker.role)

    async def _stop(self, planned: PlannedFault) -> None:
        worker = self._pick(planned)
        if worker is not None:
            worker.stopped = True
            worker.signal(signal.SIGSTOP)
            await anyio.sleep(planned.seconds)
            worker.stopped = False
            worker.signal(signal.SIGCONT)
            self._note(f"worker {worker.pid} goes on")

    async def _leave(self, planned: PlannedFault) -> None:
        worker = self._pick(planned)
        if worker is not None:
            worker.expected = 0
            worker.signal(signal.SIGTERM)
            await anyio.sleep(planned.later)
            await self._harness.start_worker(self._url, worker.role)

    async def _crash(self, planned: PlannedFault) -> None:
        async with self._crashing:
            await self._harness.kill_server()
            await anyio.sleep(planned.later)
            await self._harness.start_server()
        self._note("the server is back")

    async def _forget(self, planned: PlannedFault) -> None:
        with suppress(redis.RedisError, IndexError):  # the server may be down at this moment, or have no functions
            db = self._picked(planned)
            db.script_flush()
            db.execute_command("FUNCTION FLUSH")

    async def _close(self, planned: PlannedFault) -> None:
        with suppress(redis.RedisError, IndexError):
            self._picked(planned).client_kill_filter(_type=planned.clients, skipme=True)

    def _picked(self, planned: PlannedFault) -> redis.Redis:
        clients = self._clients()
        return clients[planned.pick % len(clients)]

    async def _cut(self, planned: PlannedFault) -> None:
        self._proxy.cut()

    async def _away(self, planned: PlannedFault) -> None:
        self._proxy.refuse()
        self._proxy.cut()
        await anyio.sleep(planned.seconds)
        await self._proxy.accept()
        self._note("back")

    async def _freeze(self, planned: PlannedFault) -> None:
        self._proxy.freeze()
        await anyio.sleep(planned.seconds)
        self._proxy.thaw()
        self._note("thawed")

    async def _late(self, planned: PlannedFault) -> None:
        self._proxy.delay = planned.size
        await anyio.sleep(planned.seconds)
        self._proxy.delay = 0.0
        self._note("in time again")

    async def _strike(self, planned: PlannedFault) -> None:
        self._proxy.strike(planned.fault, int(planned.size))

    async def _chance(self, planned: PlannedFault) -> None:
        self._proxy.chance(planned.fault, planned.size)
        await anyio.sleep(planned.seconds)
        self._proxy.chance(planned.fault, 0.0)
        self._note(f"no more chance: {planned.fault}")

    def struck(self, fault: Fault, request: bytes) -> None:
        """Records a fault that the proxy has caused."""
        self.counts[fault] += 1
        words = re.sub(rb"[^ -~]+", b" ", request).decode()
        for script in _SCRIPTS:
            words = words.replace(script.sha, script.name)
        self._note(f"{fault}: {words[:_SHOWN]}")
