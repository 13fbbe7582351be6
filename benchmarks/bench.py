"""What a benchmark is given: a server of its own, the number of rounds, and what the server says of its work."""

from __future__ import annotations

import gc
import os
import platform
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
from redis.asyncio import Redis

from fairactor._server.embedded import embedded_server

from .plots import Picture

_SCRIPT_CALLS: Final = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")
_OF_THE_BENCHMARK: Final = ("cmdstat_info", "cmdstat_config|resetstat", "cmdstat_dbsize", "cmdstat_flushdb")


@attrs.define
class Usage:
    """What a server has done between the two ends of `Bench.watched`, by ``INFO``; times in µs."""

    scripts: float = 0.0
    """Time inside script calls."""
    calls: int = 0
    """Script calls, which are the round trips."""
    commands: int = 0
    """Commands run, those inside scripts too."""
    cpu: float = 0.0
    """Processor time of the server's process, that for reading and writing sockets too."""


@attrs.frozen
class Bench:
    """A run of one benchmark."""

    url: str
    rounds: int
    admin: Any  # a plain Redis client, beside those that are measured
    machine: str
    pictures: list[Picture] = attrs.field(factory=list)
    """What a benchmark leaves here is drawn when it has ended, if that is asked for."""

    def each_round(self) -> Iterator[int]:
        """The rounds; who watches a terminal sees them go by."""
        for number in range(self.rounds):
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {self.rounds} ", end="", file=sys.stderr, flush=True)
            yield number
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    async def clean(self) -> None:
        """Empties the server, and this process of garbage: what one round leaves must not slow the next."""
        await self.admin.flushdb()
        gc.collect()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Usage]:
        """Yields what is filled in at the end: what the server did meanwhile."""
        usage = Usage()
        await self.admin.config_resetstat()
        before = _cpu(await self.admin.info("cpu"))
        yield usage
        usage.cpu = (_cpu(await self.admin.info("cpu")) - before) * 1e6
        for name, command in (await self.admin.info("commandstats")).items():
            if name not in _OF_THE_BENCHMARK:
                usage.commands += command["calls"]
            if name in _SCRIPT_CALLS:
                usage.calls += command["calls"]
                usage.scripts += command["usec"]


@asynccontextmanager
async def new_bench(url: str | None, rounds: int) -> AsyncIterator[Bench]:
    """A bench on the server at ``url``, or on a fresh embedded one.

    Raises:
        SystemExit: the server at ``url`` holds data, which the benchmark would destroy.
    """
    if url is None:
        async with embedded_server() as fresh, new_bench(fresh, rounds) as bench:
            yield bench
        return
    async with Redis.from_url(url) as admin:
        if keys := await admin.dbsize():
            raise SystemExit(
                f"the server at --url holds {keys} keys: benchmarks empty theirs, so give them an empty one"
            )
        info: dict[str, Any] = await admin.info("server")
        try:
            yield Bench(url, rounds, admin, _machine(info))
        finally:
            await admin.flushdb()


def _cpu(info: dict[str, Any]) -> float:
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def _machine(server: dict[str, Any]) -> str:
    name = "Valkey" if "valkey_version" in server else "Redis"
    version = server.get("valkey_version") or server["redis_version"]
    loop = "uvloop" if "uvloop" in sys.modules else "asyncio's loop"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} cores, {platform.system()}, {name} {version}, {python}, {loop}"
