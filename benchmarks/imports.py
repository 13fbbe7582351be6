"""What importing fairactor costs, next to importing asyncio: processor time of whole processes.

Each figure is the median processor time of Python processes that run one line, less that of processes that do nothing.
All load compiled modules. The goal is for ``import fairactor``: programs that only define actors, probes and command
lines pay it. Making a `Runtime` loads the installed plugins; entering one loads the rest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import anyio.to_thread

from .bench import Bench
from .figures import Figure, at_most

_NOTHING: Final = "pass"
_ASYNCIO: Final = "import asyncio"
_FAIRACTOR: Final = "import fairactor"
_OTHERS: Final = {
    "import fairactor and make a Runtime": "import fairactor; fairactor.Runtime()",
    "import redis.asyncio, for comparison": "import redis.asyncio",
}


async def run(bench: Bench, *, processes: int = 5) -> list[Figure]:
    programs = [_NOTHING, _ASYNCIO, _FAIRACTOR, *_OTHERS.values()]
    cost: dict[str, list[float]] = {program: [] for program in programs}
    with TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for program in programs:
            _seconds(program, environment)  # compiles what it imports
        for _ in bench.each_round():
            times = await anyio.to_thread.run_sync(_measure, programs, processes, environment)
            for program in programs:
                cost[program].append((times[program] - times[_NOTHING]) * 1000)
    figures = {_FAIRACTOR: _FAIRACTOR, **_OTHERS}
    return [
        Figure(name, "ms", cost[program], cost[_ASYNCIO], _ASYNCIO, at_most(2.5) if program == _FAIRACTOR else None)
        for name, program in figures.items()
    ]


def _measure(programs: list[str], processes: int, environment: dict[str, str]) -> dict[str, float]:
    """Runs the programs in turn, each in several processes; returns the median of each."""
    times: dict[str, list[float]] = {program: [] for program in programs}
    for _ in range(processes):
        for program in programs:
            times[program].append(_seconds(program, environment))
    return {program: median(found) for program, found in times.items()}


def _seconds(program: str, environment: dict[str, str]) -> float:
    """Runs a program in a process of its own; returns the processor time that it took."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
