"""A primary with a replica, and sentinels that watch them."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from .cluster import ServerProcess, free_ports, is_followed, wait_until

PASSWORD: Final = "of servers"
SENTINEL_PASSWORD: Final = "of sentinels"


class Watched:
    """A primary named ``mymaster`` with a replica, and three sentinels. All need passwords."""

    def __init__(self, binary: str, folder: Path) -> None:
        *data, first, second, third = free_ports(5)
        self._binary, self._folder = binary, folder
        self.servers = [self._server(port, data[0]) for port in data]
        self.sentinels = [self._sentinel(port, data[0]) for port in (first, second, third)]

    def _server(self, port: int, primary: int) -> ServerProcess:
        folder = self._folder / str(port)
        folder.mkdir()
        command = [self._binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        command += ["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0"]
        if port != primary:
            command += ["--replicaof", "127.0.0.1", str(primary)]
        return ServerProcess(command, port, PASSWORD)

    def _sentinel(self, port: int, primary: int) -> ServerProcess:
        settings = self._folder / f"{port}.conf"
        settings.write_text(
            f'port {port}\nbind 127.0.0.1\nrequirepass "{SENTINEL_PASSWORD}"\n'
            f"sentinel monitor mymaster 127.0.0.1 {primary} 2\n"
            f'sentinel auth-pass mymaster "{PASSWORD}"\n'
            "sentinel down-after-milliseconds mymaster 400\nsentinel failover-timeout mymaster 2000\n"
        )
        return ServerProcess([self._binary, str(settings), "--sentinel"], port, SENTINEL_PASSWORD)

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        wait_until(lambda: is_followed(self.servers[0]))
        for sentinel in self.sentinels:
            sentinel.start()
        wait_until(lambda: all(self._is_complete(sentinel) for sentinel in self.sentinels))
        return self

    def _is_complete(self, sentinel: ServerProcess) -> bool:
        """Whether a sentinel knows the replica and the other sentinels."""
        found = sentinel.db.execute_command("SENTINEL MASTER", "mymaster")
        seen = dict(zip(found[::2], found[1::2], strict=True)) if isinstance(found, list) else found
        seen = {_text(name): _text(value) for name, value in seen.items()}
        return (seen["num-slaves"], seen["num-other-sentinels"]) == ("1", "2")

    def __exit__(self, *_: object) -> None:
        for process in (*self.sentinels, *self.servers):
            process.kill()
            process.db.close()

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        password, other = (each.replace(" ", "%20") for each in (PASSWORD, SENTINEL_PASSWORD))
        return f"sentinel://:{password}@{hosts}/mymaster?sentinel_password={other}"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
