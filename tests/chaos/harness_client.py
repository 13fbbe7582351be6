"""The workload's connection to the harness, and the notes that it reads from the workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import attrs


@attrs.define(eq=False)
class Worker:
    """A worker process, seen from the workload."""

    pid: int
    role: int = 0
    """The number of its role in the plan."""
    ready: anyio.Event = attrs.field(factory=anyio.Event)
    ended: anyio.Event = attrs.field(factory=anyio.Event)
    status: int | None = None
    stopped: bool = False
    expected: int | None = None
    """The expected exit status, once it was killed or told to stop."""

    def signal(self, number: signal.Signals) -> None:
        """Sends the process a signal if it still runs."""
        if not self.ended.is_set():
            os.kill(self.pid, number)


class HarnessClient:
    """Sends commands to the harness over a socket, and reads the workers' notes from a pipe."""

    def __init__(self, journal: Callable[[str], None]) -> None:
        self.workers: dict[int, Worker] = {}
        self.runs: Counter[str] = Counter()
        """How often each task has started."""
        self.first: dict[str, int] = {}
        """When each task first started: its position among all starts."""
        self.ran: Counter[tuple[str, int]] = Counter()
        """How often each task has started in each process."""
        self.on_kill: Callable[[Worker], None] = lambda _: None
        """Called when a task is about to kill its worker."""
        self.on_first_start: Callable[[], None] = lambda: None
        """Called when a task starts that has not started before."""
        self.audits = 0
        """How often the shard was audited."""
        self.found: list[str] = []
        """What audits have found."""
        self._audited = anyio.Event()
        self._auditor: Worker
        self._journal = journal
        self._writer: asyncio.StreamWriter
        self._answer: asyncio.Future[dict[str, Any]] | None = None
        self._turn = anyio.Lock()
        self._orphans: list[bytes] = []  # notes of workers that the harness has not yet reported

    async def open(self, harness: socket.socket, notes: int) -> list[asyncio.Task[None]]:
        """Starts to listen; returns the tasks that do so."""
        reader, self._writer = await asyncio.open_unix_connection(sock=harness)
        pipe = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(pipe), os.fdopen(notes, "rb", 0)
        )
        return [asyncio.ensure_future(self._read_replies(reader)), asyncio.ensure_future(self._read(pipe))]

    async def start_worker(self, url: str, role: int) -> Worker:
        """Asks the harness to fork a worker."""
        pid = (await self._ask("start worker", url=url, role=role))["started"]
        worker = self.workers[pid]
        worker.role = role
        self._journal(f"worker {pid} of role {role} starts")
        return worker

    async def start_auditor(self) -> None:
        """Asks the harness to fork the auditor, and waits for its first audit."""
        await self._ask("start auditor")
        await self._audited.wait()

    async def stop_auditor(self) -> None:
        """Ends the auditor."""
        self._auditor.signal(signal.SIGKILL)
        await self._auditor.ended.wait()

    async def kill_server(self) -> None:
        """Kills the server."""
        await self._ask("kill server")

    async def start_server(self) -> None:
        """Starts the server again and waits until it is ready."""
        await self._ask("start server")

    async def member(self, number: int, what: str) -> None:
        """Kills, launches or halts a server of a group, or lets it go on."""
        await self._ask("member", number=number, call=what)

    async def end(self, verdict: dict[str, Any]) -> None:
        """Sends the verdict, which ends the seed."""
        self._writer.write(json.dumps({"do": "end", "verdict": verdict}).encode() + b"\n")
        await self._writer.drain()

    async def _ask(self, what: str, **more: Any) -> dict[str, Any]:
        async with self._turn:
            answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            self._answer = answer
            self._writer.write(json.dumps({"do": what} | more).encode() + b"\n")
            return await answer

    async def _read_replies(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            word = json.loads(line)
            if "ended" in word:
                self._ended(self.workers.get(word["ended"]) or self._auditor, word["status"])
                continue
            if "auditor" in word:
                self._auditor = Worker(word["auditor"])
            if "started" in word:
                self.workers[word["started"]] = Worker(word["started"])
                orphans, self._orphans = self._orphans, []
                for note in orphans:
                    self._note(note)
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(word)

    def _ended(self, worker: Worker, status: int) -> None:
        worker.status = status
        worker.ended.set()
        self._journal(f"worker {worker.pid} has ended with status {status}")

    async def _read(self, pipe: asyncio.StreamReader) -> None:
        while line := await pipe.readline():
            self._note(line)

    def _note(self, line: bytes) -> None:
        word, pid, rest = line.decode().rstrip("\n").split(" ", 2)
        if word == "run":
            if rest not in self.first:
                self.first[rest] = self.runs.total()
                self.on_first_start()
            self.runs[rest] += 1
            self.ran[rest, int(pid)] += 1
        elif word == "audited":
            self.audits += 1
            self._audited.set()
        elif word == "finds":
            self._journal(f"the audit finds: {rest}")
            self.found.append(rest)
        elif word == "kills" and int(pid) in self.workers:
            self.workers[int(pid)].expected = -signal.SIGKILL
            self._journal(f"a task kills worker {pid}")
            self.on_kill(self.workers[int(pid)])
        elif int(pid) in self.workers:
            self.workers[int(pid)].ready.set()
            self._journal(f"worker {pid} is ready")
        else:
            self._orphans.append(line)
