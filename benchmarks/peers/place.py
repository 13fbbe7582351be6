"""Where the peers run: one server over TCP, an environment for each, and processes that obey orders."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import attrs
from redis.asyncio import Redis
from redis.exceptions import RedisError

import fairactor
from benchmarks.bench import Bench

from .rivals import Peer, Way

_HERE: Final = Path(__file__).parent
_INSTALLING: Final = 600.0  # seconds that an environment may take
_STARTING: Final = 60.0
_OBEYING: Final = 180.0
_TOLD: Final = 150  # characters of the last line of a process's log

_HOLD: Final = """
import importlib.metadata, sys
print(sys.executable, importlib.metadata.version(sys.argv[1]), flush=True)
sys.stdin.read()
"""


class PeerFailed(Exception):
    """A peer could not be installed, or did not do what it should."""


@attrs.frozen
class Environment:
    """An interpreter with a peer installed."""

    python: str
    version: str


@attrs.frozen
class Noted:
    """The notes of the handlers: the first start and the end of each task, in ns of the monotonic clock."""

    starts: dict[int, int]
    ends: dict[int, int]
    runs: Counter[int]

    @property
    def doubled(self) -> int:
        """The number of tasks that were started more than once."""
        return sum(runs > 1 for runs in self.runs.values())


@attrs.frozen
class Place:
    """One measurement of one peer: starts with an empty server, and ends with all of its processes."""

    peer: Peer
    environment: Environment
    url: str
    admin: Any
    notes: Path
    log: Path
    stack: AsyncExitStack

    async def start(self, way: Way, *arguments: str, number: int = 0) -> asyncio.subprocess.Process:
        """Starts a process. It and its children are killed at the end."""
        cpus = sorted(os.sched_getaffinity(0)) if way.pinned and hasattr(os, "sched_getaffinity") else []
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                self.environment.python,
                str(_HERE / self.peer.file),
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE if arguments[0] == "send" else log,
                stderr=log,
                start_new_session=True,
                limit=2**26,
                env={
                    **_plain_environment(),
                    "PEER_URL": self.url,
                    "PEER_STARTS": str(self.notes),
                    "PEER_VARIANT": way.variant,
                    "PEER_CPU": str(cpus[number % len(cpus)]) if cpus else "",
                    "PYTHONPATH": str(Path(fairactor.__file__).parents[1]) if not self.peer.packages else "",
                },
            )
        self.stack.push_async_callback(kill, process)
        return process

    async def work(self, way: Way, processes: int = 1) -> None:
        """Starts worker processes."""
        for number in range(processes):
            await self.start(way, "work", str(way.workers), number=number)

    async def sender(self, way: Way) -> Sender:
        """Starts the sending process; returns when it is ready."""
        sender = Sender(self, await self.start(way, "send"), way)
        await sender.answer(_STARTING)
        return sender

    async def noted(self, tasks: int, patience: float, *, ends: bool = False, rest: float = 0.3) -> Noted:
        """Waits until that many tasks have started or ended, plus a short rest; returns the notes.

        Raises:
            PeerFailed: the tasks took too long.
        """
        sign, marks = ("-" if ends else "+"), 0
        with suppress(TimeoutError), self.notes.open("rb") as file:
            async with asyncio.timeout(patience):
                while True:
                    marks += file.read().count(f"{sign} ".encode())  # read all notes once that may be enough
                    if marks >= tasks and self._seen(ends) >= tasks:
                        await asyncio.sleep(rest)
                        return self.read()
                    await asyncio.sleep(0.1)
        raise PeerFailed(f"{self._seen(ends)} of {tasks} tasks were run within {patience:g} s{self.said()}")

    def _seen(self, ends: bool) -> int:  # noqa: FBT001 - as in `noted`
        noted = self.read()
        return len(noted.ends if ends else noted.starts)

    async def clear(self) -> None:
        """Ends all processes, empties the server and deletes the notes."""
        await self.stack.aclose()
        await self.admin.flushdb()
        self.notes.write_bytes(b"")

    def read(self) -> Noted:
        """Reads what the handlers have noted until now."""
        noted = Noted({}, {}, Counter())
        for line in self.notes.read_text().splitlines():
            sign, number, at = line.split()
            if sign == "+":
                noted.starts.setdefault(int(number), int(at))
                noted.runs[int(number)] += 1
            else:
                noted.ends[int(number)] = int(at)
        return noted

    def said(self) -> str:
        """Returns the last line that its processes logged, as part of an error message."""
        said = self.log.read_text(errors="replace").strip().rpartition("\n")[2][-_TOLD:]
        return f": {said}" if said else ""


@attrs.frozen
class Sender:
    """A process that sends tasks."""

    place: Place
    process: asyncio.subprocess.Process
    way: Way

    async def send(
        self,
        how: str,
        count: int,
        *,
        first: int = 0,
        seconds: float = 0,
        tenant: str = "tenant",
        tenants: int = 1,
        interval: float = 0,
        times: bool = False,
    ) -> dict[str, Any]:
        """Lets it send tasks: one by one, or many at once if the library can."""
        order = {
            "how": how,
            "count": count,
            "first": first,
            "seconds": seconds,
            "tenant": tenant,
            "tenants": tenants,
            "interval": interval,
            "times": times,
            "callers": 1 if interval else self.way.callers,
        }
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self.answer(_OBEYING)

    async def answer(self, patience: float) -> dict[str, Any]:
        """Waits for its next answer."""
        assert self.process.stdout
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), patience)
        except TimeoutError:
            line = b""
        if not line:
            raise PeerFailed(f"its sender did not answer{self.place.said()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def leave(self) -> None:
        """Kills the process."""
        await kill(self.process)


@asynccontextmanager
async def stay(peer: Peer, environment: Environment, url: str, admin: Any) -> AsyncIterator[Place]:
    """Makes the place of one measurement."""
    await admin.flushdb()
    with tempfile.TemporaryDirectory(prefix="fairactor-") as folder:
        notes, log = Path(folder, "notes"), Path(folder, "log")
        for file in (notes, log):
            file.touch()
        async with AsyncExitStack() as stack:
            yield Place(peer, environment, url, admin, notes, log, stack)
    await admin.flushdb()


async def kill(process: asyncio.subprocess.Process) -> None:
    """Kills a process and all others of its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


@asynccontextmanager
async def environment(peer: Peer) -> AsyncIterator[Environment]:
    """Makes a peer's environment, which lasts as long as this context.

    Raises:
        PeerFailed: the environment cannot be made.
    """
    if not peer.packages:
        yield Environment(sys.executable, version("fairactor"))
        return
    base = getattr(sys, "_base_executable", sys.executable)
    packages = [part for package in peer.packages for part in ("--with", package)]
    command = [*_uv(), "run", "--quiet", "--isolated", "--no-project", "--python", base, *packages]
    process = await asyncio.create_subprocess_exec(
        *command,
        *("python", "-c", _HOLD, peer.packages[0].partition("[")[0]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=_plain_environment(),
    )
    assert process.stdout
    assert process.stderr
    try:
        said = await asyncio.wait_for(process.stdout.readline(), _INSTALLING)
        if not said:
            problem = (await process.stderr.read()).decode(errors="replace").strip().rpartition("\n")[2]
            raise PeerFailed(f"cannot be installed: {problem[-_TOLD:].strip()}")
        python, found = said.decode().rsplit(maxsplit=1)
        yield Environment(python, found)
    except TimeoutError as error:
        raise PeerFailed(f"was not installed within {_INSTALLING:g} s") from error
    finally:
        if process.stdin:
            process.stdin.close()  # the process ends, and uv removes its environment
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 10)
        await kill(process)


def _uv() -> list[str]:
    if program := shutil.which("uv"):
        return [program]
    from importlib.util import find_spec

    if find_spec("uv"):
        return [sys.executable, "-m", "uv"]
    raise SystemExit("uv is missing, and the peers are installed with it: pip install uv")


def _plain_environment() -> dict[str, str]:
    """Returns the environment without the variables that would lead another interpreter to our packages."""
    ours = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    return {name: value for name, value in os.environ.items() if name not in ours}


@asynccontextmanager
async def server(bench: Bench) -> AsyncIterator[tuple[str, Any]]:
    """Yields the URL of a TCP server and a client: the benchmark's own, or a fresh server of the same program."""
    if bench.url.startswith("redis://"):
        yield bench.url, bench.admin
        return
    program = (await bench.admin.info("server"))["executable"]
    with tempfile.TemporaryDirectory(prefix="fairactor-") as folder:
        port = _free_port()
        command = [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", ""]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        try:
            url = f"redis://127.0.0.1:{port}/0"
            async with Redis.from_url(url) as admin:
                await _answers(admin)
                yield url, admin
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _answers(admin: Any) -> None:
    async with asyncio.timeout(_STARTING):
        while True:
            with suppress(OSError, RedisError):
                await admin.ping()
                return
            await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
