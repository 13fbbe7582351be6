"""What a benchmark gets: a server of its own, the number of rounds, and the server's own counters."""

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
    """What the server did inside a `Bench.watched` block, according to ``INFO``. Times are in µs."""

    scripts: float = 0.0
    """Time spent in script calls."""
    calls: int = 0
    """Script calls, one round trip each."""
    commands: int = 0
    """Commands run, including those inside scripts."""
    cpu: float = 0.0
    """Processor time of the server's process, including reading and writing sockets."""


@attrs.frozen
class Bench:
    """One run of a benchmark."""

    url: str
    rounds: int
    admin: Any  # a plain Redis client, separate from the measured ones
    machine: str
    pictures: list[Picture] = attrs.field(factory=list)
    """Pictures that the benchmark adds. They are drawn at the end if the command line asks for it."""
    notes: list[str] = attrs.field(factory=list)
    """Lines that the benchmark adds, to be shown below its figures."""

    def each_round(self) -> Iterator[int]:
        """Yields the rounds, and shows the progress on a terminal."""
        for number in range(self.rounds):
            if sys.stderr.isatty():
                print(f"\rround {number + 1} of {self.rounds} ", end="", file=sys.stderr, flush=True)
            yield number
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    async def clean(self) -> None:
        """Empties the server and collects garbage here, so that one round does not slow the next."""
        await self.admin.flushdb()
        gc.collect()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Usage]:
        """Yields a `Usage` that is filled in at the end of the block."""
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
    """Makes a bench on the server at ``url``, or on a fresh embedded one.

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
                f"the server at --url holds {keys} keys, and a benchmark would delete them: use an empty server"
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
