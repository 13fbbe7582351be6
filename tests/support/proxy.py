"""A proxy in front of a server that cuts, freezes and delays connections and loses replies on demand."""

from __future__ import annotations

import asyncio
import math
import random
import re
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import anyio

_CHUNK: Final = 1 << 16  # bytes
_INTERNAL: Final = re.compile(rb"REPLCONF|PSYNC|SYNCSLOTS|sentinel-")
"""What replicas, sentinels and servers that receive slots say first."""


class Fault(StrEnum):
    """A fault of one request or one reply."""

    CUT_REQUEST = "cut a request"
    """The server gets part of the request, up to a random byte; then the connection ends. The command is never run."""
    CUT_REPLY = "cut a reply"
    """The server runs the command; the client gets part of the reply, up to a random byte, then the connection ends."""
    LOSE_AND_CUT = "lose a reply and cut"
    """The server runs the command; the client gets no byte of the reply, and the connection ends."""
    LOSE_AND_HANG = "lose a reply and hang"
    """Likewise, but the connection stays open and silent, and drops all that is sent over it."""


class _Line:
    """A client's connection through the proxy."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str | None = None
    ) -> None:
        self._proxy = proxy
        self._target = target
        self._reader = reader
        self._writers = [writer]
        self._request = b""  # the last chunk of it
        self.hangs = False
        self.internal = False
        """Whether another server has made it: then faults spare it."""

    async def run(self) -> None:
        """Copies bytes both ways until either side closes or the connection is cut."""
        client = self._writers[0]
        try:
            reader, server = await asyncio.open_unix_connection(self._target or self._proxy.target)
            self._writers.append(server)
            pumps = [
                asyncio.ensure_future(self._requests(self._reader, server)),
                asyncio.ensure_future(self._replies(reader, client)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:  # the server is down, or a connection was cut: both are expected
            pass
        finally:
            self.cut()

    def cut(self) -> None:
        """Aborts the connection on both sides."""
        for writer in self._writers:
            writer.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            self.internal = self.internal or _INTERNAL.search(data) is not None
            if self.internal:
                server.write(data)
                await server.drain()
                continue
            await self._proxy.flowing.wait()
            if self.hangs:
                continue
            self._request = data
            if self._proxy.strikes(Fault.CUT_REQUEST, data):
                await _part(server, data, self._proxy.rng)
                return
            await self._proxy.carry(len(data), "up")
            server.write(data)
            await server.drain()

    async def _replies(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self.internal:
                client.write(data)
                await client.drain()
                continue
            await self._proxy.flowing.wait()
            if self._proxy.delay:
                await asyncio.sleep(self._proxy.delay)
            if self.hangs:
                continue
            if self._proxy.strikes(Fault.LOSE_AND_CUT, self._request):
                return
            if self._proxy.strikes(Fault.LOSE_AND_HANG, self._request):
                self.hangs = True
                continue
            if self._proxy.strikes(Fault.CUT_REPLY, self._request):
                await _part(client, data, self._proxy.rng)
                return
            await self._proxy.carry(len(data), "down")
            client.write(data)
            await client.drain()


async def _part(writer: asyncio.StreamWriter, data: bytes, rng: random.Random) -> None:
    """Writes only the start of ``data``, and waits until the kernel has it, so that a cut cannot take it back."""
    writer.write(data[: rng.randrange(len(data))])
    writer.transport.set_write_buffer_limits(0)
    await writer.drain()


class Proxy:
    """A proxy in front of a server, made by `proxy`. Each chunk from the server counts as a reply, even a message."""

    def __init__(self, target: str, path: str, rng: random.Random) -> None:
        self.target = target
        """The path of the server's socket."""
        self.url = f"unix://{path}"
        self.rng = rng
        self.delay = 0.0
        """Seconds by which each reply is late."""
        self.rate = math.inf
        """Bytes a second that the link carries in each direction, for all connections together."""
        self._carried = {"up": 0.0, "down": 0.0}  # when each direction is free
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.struck: Counter[Fault] = Counter()
        """How often each fault has struck."""
        self.on_strike: Callable[[Fault, bytes], None] = lambda *_: None
        """Called with each fault that strikes, and with the request that it, or its reply, belongs to."""
        self._path = path
        self._server: asyncio.Server | None = None
        self._lines: dict[asyncio.Task[None], _Line] = {}
        self._next: Counter[Fault] = Counter()
        self._chances: dict[Fault, float] = {}

    # Commands for tests

    async def accept(self) -> None:
        """Accepts new connections, as at the start."""
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._connected, self._path)

    def refuse(self) -> None:
        """Refuses new connections until `accept`. Open ones stay."""
        if self._server is not None:
            self._server.close()
            self._server = None
            Path(self._path).unlink(missing_ok=True)

    def cut(self, *, hanging: bool = False) -> None:
        """Cuts all connections; with ``hanging`` only those that hang after a lost reply."""
        for line in self._lines.values():
            if not line.internal and (line.hangs or not hanging):
                line.cut()

    def freeze(self) -> None:
        """Stops all bytes in both directions until `thaw`. New connections are accepted and stay silent."""
        self.flowing.clear()

    def thaw(self) -> None:
        """Resumes after `freeze`; bytes sent meanwhile arrive now."""
        self.flowing.set()

    def strike(self, fault: Fault, times: int = 1) -> None:
        """Applies a fault to the next requests or replies of any connection."""
        self._next[fault] += times

    def chance(self, fault: Fault, probability: float) -> None:
        """Applies a fault to each request or reply with a probability, until that is set to 0."""
        self._chances[fault] = probability

    def retarget(self, target: str) -> None:
        """Switches to another server, and cuts open connections."""
        self.target = target
        self.cut()

    async def calm(self) -> None:
        """Ends all faults. Hanging connections keep hanging until they are cut or their clients close them."""
        self.delay, self.rate = 0.0, math.inf
        self._next.clear()
        self._chances.clear()
        self.thaw()
        await self.accept()

    # For the connections

    async def carry(self, size: int, direction: str) -> None:
        """Waits for as long as the link takes to carry so many bytes."""
        if self.rate < math.inf:
            now = asyncio.get_running_loop().time()
            self._carried[direction] = max(self._carried[direction], now) + size / self.rate
            await asyncio.sleep(self._carried[direction] - now)

    def strikes(self, fault: Fault, request: bytes) -> bool:
        """Returns whether a fault strikes this request or its reply."""
        probability = self._chances.get(fault, 0.0)
        if self._next[fault] > 0:
            self._next[fault] -= 1
        elif not probability or self.rng.random() >= probability:
            return False
        self.struck[fault] += 1
        self.on_strike(fault, request)
        return True

    async def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str | None = None
    ) -> None:
        line = _Line(self, reader, writer, target)
        task = asyncio.ensure_future(line.run())
        self._lines[task] = line
        task.add_done_callback(self._lines.pop)

    async def close(self) -> None:
        """Refuses new connections and cuts all others."""
        self.refuse()
        for task in tuple(self._lines):
            task.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)


class GroupProxy(Proxy):
    """A proxy in front of several servers, each with a port of its own.

    Args:
        targets: the ports on which it listens, and the socket of the server behind each.
        rng: the source of its random numbers.
    """

    def __init__(self, targets: Mapping[int, str], rng: random.Random) -> None:
        super().__init__("", "", rng)
        self._targets = targets
        self._servers: list[asyncio.Server] = []

    async def accept(self) -> None:
        for port, target in () if self._servers else self._targets.items():
            connected = partial(self._connected, target=target)
            self._servers.append(await asyncio.start_server(connected, "127.0.0.1", port))

    def refuse(self) -> None:
        """Cuts new connections at once, until `accept`. Open ones stay."""
        while self._servers:
            self._servers.pop().close()


@asynccontextmanager
async def group_proxy(targets: Mapping[int, str], rng: random.Random) -> AsyncIterator[GroupProxy]:
    """Runs a proxy in front of several servers."""
    made = GroupProxy(targets, rng)
    await made.accept()
    try:
        yield made
    finally:
        with anyio.CancelScope(shield=True):
            await made.close()


@asynccontextmanager
async def proxy(target: str, rng: random.Random | None = None, *, path: str | None = None) -> AsyncIterator[Proxy]:
    """Runs a proxy in front of a server.

    Args:
        target: the Unix socket of the server, as a path or URL.
        rng: the source of its random numbers.
        path: the socket on which it listens; None: one in a new folder.
    """
    with tempfile.TemporaryDirectory(prefix="fairactor-test-") if path is None else nullcontext() as folder:
        made = Proxy(target.removeprefix("unix://"), path or f"{folder}/proxy.sock", rng or random.Random(0))
        await made.accept()
        try:
            yield made
        finally:
            with anyio.CancelScope(shield=True):
                await made.close()
