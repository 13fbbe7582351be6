"""How each fault of a plan is brought about."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import anyio
import redis

from fairactor import scripts
from fairactor.discovery import installed
from fairactor.middleware import Plugins
from tests.proxy import Fault, Proxy

from .link import Link, Worker
from .plan import Blow, Kind

_PLUGINS: Final = Plugins(installed()).extensions
_SCRIPTS: Final = [
    scripts.load(name, flags=flags, plugins=_PLUGINS) for name in scripts.NAMES for flags in (False, True)
]
_SHOWN: Final = 300  # characters of a request


class Faults:
    """Brings them about."""

    def __init__(self, link: Link, before: Proxy, db: redis.Redis, url: str, note: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        """How often each has come."""
        self._link = link
        self._proxy = before
        self._db = db
        self._url = url
        self._note = note
        before.on_strike = self.struck
        self._crashing = anyio.Lock()
        self._ways: Final[dict[Kind, Callable[[Blow], Awaitable[None]]]] = {
            Kind.KILL: self._kill, Kind.STOP: self._stop, Kind.LEAVE: self._leave, Kind.CRASH: self._crash,
            Kind.FORGET: self._forget, Kind.CLOSE: self._close, Kind.CUT: self._cut, Kind.AWAY: self._away,
            Kind.FREEZE: self._freeze, Kind.LATE: self._late, Kind.STRIKE: self._strike, Kind.CHANCE: self._chance,
        }  # fmt: skip

    async def befall(self, blow: Blow, start: float) -> None:
        """Brings one about at its moment; returns when it is over."""
        await anyio.sleep_until(start + blow.at)
        self._note(f"fault: {blow}")
        self.counts[blow.kind] += 1
        await self._ways[blow.kind](blow)

    def _pick(self, blow: Blow, *, ready: bool = True) -> Worker | None:
        there = [
            worker
            for worker in self._link.workers.values()
            if worker.expected is None and not worker.stopped and (worker.ready.is_set() or not ready)
        ]
        if not there:
            self._note("(there is none)")
            return None
        picked = there[blow.pick % len(there)]
        self._note(f"it is worker {picked.pid}")
        return picked

    async def _kill(self, blow: Blow) -> None:
        worker = self._pick(blow, ready=False)
        if worker is not None:
            worker.expected = -signal.SIGKILL
            worker.signal(signal.SIGKILL)
            await anyio.sleep(blow.later)
            await self._link.start_worker(self._url)

    async def _stop(self, blow: Blow) -> None:
        worker = self._pick(blow)
        if worker is not None:
            worker.stopped = True
            worker.signal(signal.SIGSTOP)
            await anyio.sleep(blow.seconds)
            worker.stopped = False
            worker.signal(signal.SIGCONT)
            self._note(f"worker {worker.pid} goes on")

    async def _leave(self, blow: Blow) -> None:
        worker = self._pick(blow)
        if worker is not None:
            worker.expected = 0
            worker.signal(signal.SIGTERM)
            await anyio.sleep(blow.later)
            await self._link.start_worker(self._url)

    async def _crash(self, blow: Blow) -> None:
        async with self._crashing:
            await self._link.kill_server()
            await anyio.sleep(blow.later)
            await self._link.start_server()
        self._note("the server is back")

    async def _forget(self, blow: Blow) -> None:
        with suppress(redis.RedisError):  # it may be down at this moment
            self._db.script_flush()

    async def _close(self, blow: Blow) -> None:
        with suppress(redis.RedisError):
            self._db.client_kill_filter(_type=blow.clients, skipme=True)

    async def _cut(self, blow: Blow) -> None:
        self._proxy.cut()

    async def _away(self, blow: Blow) -> None:
        self._proxy.refuse()
        self._proxy.cut()
        await anyio.sleep(blow.seconds)
        await self._proxy.accept()
        self._note("back")

    async def _freeze(self, blow: Blow) -> None:
        self._proxy.freeze()
        await anyio.sleep(blow.seconds)
        self._proxy.thaw()
        self._note("thawed")

    async def _late(self, blow: Blow) -> None:
        self._proxy.delay = blow.size
        await anyio.sleep(blow.seconds)
        self._proxy.delay = 0.0
        self._note("in time again")

    async def _strike(self, blow: Blow) -> None:
        self._proxy.strike(blow.fault, int(blow.size))

    async def _chance(self, blow: Blow) -> None:
        self._proxy.chance(blow.fault, blow.size)
        await anyio.sleep(blow.seconds)
        self._proxy.chance(blow.fault, 0.0)
        self._note(f"no more chance: {blow.fault}")

    def struck(self, fault: Fault, request: bytes) -> None:
        """Takes down what the proxy has done."""
        self.counts[fault] += 1
        words = re.sub(rb"[^ -~]+", b" ", request).decode()
        for script in _SCRIPTS:
            words = words.replace(script.sha, script.name)
        self._note(f"{fault}: {words[:_SHOWN]}")
