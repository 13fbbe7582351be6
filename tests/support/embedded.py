"""Helpers for tests of the embedded server: its processes, and programs that imitate a server."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from redis.asyncio import Redis

import fairactor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import Process


PATIENCE = 30.0  # seconds; far longer than any step takes, for loaded machines

USER = """
import sys
import anyio
from fairactor.embedded import embedded_server

async def main(path=None):
    async with embedded_server(path) as url:
        print(url, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)

anyio.run(main, *sys.argv[1:])
"""

# Answers a number of PINGs like a server that loads its data, and writes their count to a file.
LOADING_SERVER = """#!{python}
import socket, sys
from pathlib import Path
door = socket.socket(socket.AF_UNIX)
door.bind(sys.argv[sys.argv.index("--unixsocket") + 1])
door.listen()
for count in range(10**6):
    user, _ = door.accept()
    user.recv(64)
    Path({counter!r}).write_text(str(count + 1))
    user.send(b"-LOADING it takes a while\\r\\n" if count < {loading} else b"+PONG\\r\\n")
    user.close()
"""


def processes(folder: Path, program: str = "") -> dict[int, str]:
    """Returns the ids and command lines of keepers and servers that use the folder."""
    listing = subprocess.run(["ps", "-axww", "-o", "pid=,args="], check=True, capture_output=True, text=True)
    found = {}
    for line in listing.stdout.splitlines():
        pid, _, args = line.strip().partition(" ")
        if f"{folder}/" in args and program in args and ("/keeper.py" in args or "unixsocket" in args):
            found[int(pid)] = args
    return found


def keeper_of(folder: Path) -> int:
    (keeper,) = processes(folder, "/keeper.py")
    return keeper


def exists(pid: int) -> bool:
    """Returns whether the process exists. A zombie counts."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def names(folder: Path) -> set[str]:
    """Returns the names in a folder."""
    return {path.name for path in folder.iterdir()}


async def until(condition: Callable[[], object]) -> None:
    """Waits until a condition is true."""
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is no event
            await anyio.sleep(0.01)


async def ask(url: str, *command: Any) -> Any:
    async with Redis.from_url(url, decode_responses=True) as redis:
        return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def server_of(url: str) -> int:
    """Returns the process id of the server."""
    async with Redis.from_url(url) as redis:
        return int((await redis.info("server"))["process_id"])


def folder_of(url: str) -> Path:
    return Path(unquote(url.removeprefix("unix://"))).parent


@asynccontextmanager
async def other_process(path: Path | None = None) -> AsyncIterator[tuple[Process, str]]:
    """Runs another process that uses the server at ``path``, or a server of its own, until the block ends."""
    command = [sys.executable, "-c", USER, *([str(path)] if path else [])]
    environment = {**os.environ, "PYTHONPATH": str(Path(fairactor.__file__).parents[1])}
    async with await anyio.open_process(command, stderr=None, env=environment) as process:
        assert process.stdout
        with anyio.fail_after(PATIENCE):
            line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", 1000)
        yield process, line.decode()


def program(folder: Path, text: str) -> str:
    """Writes an executable script and returns its path."""
    path = folder / "program"
    path.write_text(text)
    path.chmod(0o700)
    return str(path)


def loading_server(folder: Path, loading: int) -> str:
    """Writes a program that imitates a server; its first ``loading`` PINGs fail because it loads its data."""
    text = LOADING_SERVER.format(python=sys.executable, counter=str(folder / "counter"), loading=loading)
    return program(folder, text)
