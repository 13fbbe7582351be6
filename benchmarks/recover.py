"""How soon work continues after a kill -9: of a process that runs tasks, and of the server.

Reclaim: three processes share a namespace in which 8 tasks run and do not end. One process that runs some of them is
killed, at a random moment of its heartbeat. The clock starts right before the kill. For each of its tasks it stops in
the first line of the handler in another process, which was there before and is idle. A new process then takes the place
of the dead one, so that no start-up is measured. Four namespaces do this side by side.

- reclaim: all tasks of all kills. The lease is one second (`--lease`).
- over the lease: the same minus the lease. A process dies within a third of a lease after its last heartbeat, so fast
  reclaims are up to a third of a lease below zero.

Resume: two processes that run tasks and one that sends share a server of their own. The server is killed, stays away
for up to two seconds (`--away`), and is started again in the same folder. The clock starts when it first answers a
PING, and stops when the sender has the result of a task. Half of the restarts have a ``send`` that begins while the
server is away, half a ``send`` that begins at that PING. Half of the fleets have the lease of reclaim, half the default
lease. Some servers have an append-only file. The others keep nothing, so they have forgotten the namespace, all leases
and all waiting senders. A task without a result after 30 s counts as 30 s.

`--times` is the number of kills, and of restarts of each kind of server. Together they make one value per figure,
whatever the number of rounds: a p99 needs a hundred of them.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from time import perf_counter_ns
from typing import Any, Final

import anyio
import attrs
from redis.asyncio import Redis

from fairactor import Runtime, actor, current_task

from .bench import Bench
from .figures import Figure, Goal, at_least, at_most
from .processes import CONTEXT

_PATIENCE: Final = 30.0  # seconds that every wait may take
_WAITING: Final = 2.0  # seconds that a send waits for the restart at most; it would give up after five
_DEFAULT_LEASE: Final = 15.0
_KEPT: Final = ("--appendonly", "yes")
_FORGOTTEN: Final = ("--appendonly", "no")

Measure = Callable[[int, int], Coroutine[Any, Any, list[float]]]

_store: Any = None  # a plain client of the server, in worker processes


@actor
async def hold(begun: str) -> None:
    """Notes in a list which process has begun the task and when, then keeps running."""
    at = perf_counter_ns()
    await _store.rpush(begun, f"{current_task().id} {os.getpid()} {at}")
    await anyio.sleep_forever()


@actor
async def end() -> None:
    """Ends at once."""


async def run(
    bench: Bench, *, times: int = 100, tasks: int = 8, lease: float = 1.0, away: float = 2.0, side_by_side: int = 4
) -> list[Figure]:
    own = asyncio.current_task()
    assert own is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, own.cancel)  # clean up as on Ctrl-C
    program = (await bench.admin.info("server"))["executable"]
    with _quiet():
        reclaimed = await _all(partial(_reclaim, bench.url, tasks, lease), times, side_by_side)
        kept, forgotten = [
            await _all(partial(_resume, program, options, (lease, _DEFAULT_LEASE), away), times, side_by_side)
            for options in (_KEPT, _FORGOTTEN)
        ]
    over = [(seconds - lease) * 1000 for seconds in reclaimed]
    figures = [
        *_cuts("reclaim", "s", reclaimed, at_most(lease + 1)),
        *_cuts("reclaim, over the lease", "ms", over, at_most(1000)),
    ]
    for name, seconds in (("append-only file", kept), ("nothing kept", forgotten)):
        within = float(sum(each <= 2 for each in seconds))
        figures.append(Figure(f"resume within 2 s, {name}", "restarts", [within], goal=at_least(times)))
        figures += _cuts(f"resume, {name}", "s", seconds)
    return figures


def _cuts(name: str, unit: str, values: list[float], p99: Goal | None = None) -> list[Figure]:
    ordered = sorted(values)
    middle, high = [ordered[math.ceil(part * len(ordered)) - 1] for part in (0.5, 0.99)]
    return [
        Figure(f"{name}, p50", unit, [middle]),
        Figure(f"{name}, p99", unit, [high], goal=p99),
        Figure(f"{name}, max", unit, [ordered[-1]]),
    ]


async def _all(measure: Measure, times: int, side_by_side: int) -> list[float]:
    """Measures ``times`` times in all, shared among ``side_by_side`` concurrent measurements."""
    async with asyncio.TaskGroup() as group:
        measuring = [
            group.create_task(measure(number, len(range(number, times, side_by_side))))
            for number in range(min(times, side_by_side))
        ]
    return [seconds for each in measuring for seconds in each.result()]


# Killing a worker process


async def _reclaim(url: str, tasks: int, lease: float, number: int, kills: int) -> list[float]:
    """Returns, for each task of each killed process, the seconds from the kill until it has begun in another one."""
    chance = random.Random(number)
    namespace, begun = f"reclaim-{number}", f"begun {number}"
    seconds: list[float] = []
    async with (
        Redis.from_url(url, socket_timeout=None) as line,
        Runtime(url, namespace=namespace, workers=0) as sender,
        _fleet(url, namespace, lease, processes=3) as fleet,
    ):
        await sender.send_many((f"tenant:{n}", hold(begun)) for n in range(tasks))
        running = {task: pid for task, pid, _ in [await _hear(line, begun) for _ in range(tasks)]}
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0, lease / 3))
            victim = chance.choice(list(running.values()))
            lost = {task for task, pid in running.items() if pid == victim}
            killed = perf_counter_ns()
            fleet.kill(victim)
            while lost:
                task, pid, at = await _hear(line, begun)
                running[task] = pid
                if task in lost and pid != victim:
                    lost.remove(task)
                    seconds.append((at - killed) / 1e9)
            await fleet.add()
    return seconds


async def _hear(line: Any, begun: str) -> tuple[str, int, int]:
    """Waits for the next task that has begun; returns its id, its process, and when it began."""
    heard = await line.blpop([begun], timeout=_PATIENCE)
    if heard is None:
        raise RuntimeError(f"a task of a killed process did not begin again within {_PATIENCE:g} s")
    task, pid, at = heard[1].split()
    return task.decode(), int(pid), int(at)


# Killing the server


async def _resume(
    program: str, options: Sequence[str], leases: Sequence[float], away: float, number: int, restarts: int
) -> list[float]:
    """Returns, for each restart, the seconds from the server's first answer to the result of a task."""
    chance, lease = random.Random(number), leases[number % len(leases)]
    seconds: list[float] = []
    async with (
        _own_server(program, options) as server,
        _fleet(server.url, "fairactor", lease, processes=2),
        Runtime(server.url, workers=0, lease=lease) as sender,
    ):
        for waits in itertools.islice(itertools.cycle((True, False)), restarts):
            await _result(sender)  # everything works
            await asyncio.sleep(chance.uniform(0, 0.5))
            gone = chance.uniform(0, away)
            waiting = min(gone / 2, _WAITING)
            await server.kill()
            async with asyncio.TaskGroup() as group:
                await asyncio.sleep(gone - waiting)
                ended = group.create_task(_result(sender)) if waits else None
                await asyncio.sleep(waiting)
                answered = await server.start()
                ended = ended or group.create_task(_result(sender))
            seconds.append((ended.result() - answered) / 1e9)
    return seconds


async def _result(sender: Runtime) -> int:
    """Sends a task; returns the time at which its result came, or waiting was given up."""
    with suppress(TimeoutError):
        await sender.ask("tenant", end(), timeout=_PATIENCE)
    return perf_counter_ns()


class _Server:
    """A server in a folder of its own, which can be killed and started again."""

    def __init__(self, program: str, folder: str, options: Sequence[str]) -> None:
        self._socket = f"{folder}/server.sock"
        self._command = [program, "--port", "0", "--unixsocket", self._socket, "--dir", folder, "--save", "", *options]
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"unix://{self._socket}"

    async def start(self) -> int:
        """Starts the server; returns the time at which it answered."""
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=asyncio.subprocess.DEVNULL)
        async with asyncio.timeout(_PATIENCE):
            while not await self._answers():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.001)
        return perf_counter_ns()

    async def _answers(self) -> bool:
        with suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(self._socket)
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith(b"+PONG")  # not -LOADING
            finally:
                writer.close()
        return False

    async def kill(self) -> None:
        """Kills the server if it runs."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@asynccontextmanager
async def _own_server(program: str, options: Sequence[str]) -> AsyncIterator[_Server]:
    with tempfile.TemporaryDirectory(prefix="fairactor-") as folder:
        server = _Server(program, folder, options)
        try:
            await server.start()
            yield server
        finally:
            await server.kill()


# Worker processes


@attrs.define
class _Fleet:
    """Worker processes on one namespace."""

    arguments: tuple[Any, ...]
    """The arguments of `_work`, without the connection."""
    processes: dict[int, tuple[BaseProcess, Connection[Any, Any]]] = attrs.field(factory=dict)

    async def add(self) -> None:
        """Starts a process; returns when it is ready to run tasks."""
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_work, args=(there, *self.arguments))
        await asyncio.to_thread(process.start)  # the first start is slow
        there.close()
        self.processes[process.pid or 0] = process, here
        await anyio.wait_readable(here)
        here.recv()

    def kill(self, pid: int) -> None:
        """Kills a process."""
        process, here = self.processes.pop(pid)
        process.kill()
        here.close()


@asynccontextmanager
async def _fleet(url: str, namespace: str, lease: float, *, processes: int) -> AsyncIterator[_Fleet]:
    new_loop = getattr(sys.modules.get("uvloop"), "new_event_loop", None)  # the same loop as this process
    fleet = _Fleet((url, namespace, lease, new_loop))
    try:
        for _ in range(processes):
            await fleet.add()
        yield fleet
    finally:
        for pid in tuple(fleet.processes):
            fleet.kill(pid)


def _work(
    line: Connection[Any, Any],
    url: str,
    namespace: str,
    lease: float,
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None,
) -> None:
    """Runs in a worker process: runs tasks until it is killed or its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def work() -> None:
        global _store
        asyncio.get_running_loop().add_reader(line.fileno(), os._exit, 0)
        settings: dict[str, Any] = {"namespace": namespace, "lease": lease, "max_deliveries": 255}
        async with Redis.from_url(url) as _store, Runtime(url, actors=[hold, end], **settings):
            line.send("ready")
            await anyio.sleep_forever()

    with _quiet(), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(work())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences warnings: the faults here are intended."""
    logger, handler = logging.getLogger("fairactor"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
