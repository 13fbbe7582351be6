"""Groups of servers whose clients go through a proxy: a cluster, or a primary with replicas and sentinels.

Each server listens on a port, which it uses for the bus of the cluster and for moved slots, and on a socket, to which
the proxy and the tests connect. It announces a third address, that of the proxy, so clients are led there.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from .cluster import free_ports

SLOTS: Final = 16384
HOST: Final = "127.0.0.1"
NAME: Final = "mymaster"
"""How sentinels name the primary."""
TIMEOUT: Final = 1000
"""Milliseconds after which a server that does not answer counts as failed."""
_PATIENCE: Final = 30.0
_AGAIN: Final = 3.0  # seconds
_ABSENT: Final = (redis.RedisError, OSError, LookupError)  # what a server raises that is dead, stopped, or starts


def wait_until(condition: Callable[[], object], what: str, seconds: float = _PATIENCE) -> None:
    """Waits until a condition is true of servers that may not answer yet.

    Raises:
        RuntimeError: it took too long.
    """
    deadline = time.monotonic() + seconds
    while True:
        with suppress(*_ABSENT):
            if condition():
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"it took more than {seconds:g} s: {what}")
        time.sleep(0.02)


class Member:
    """A server of a group, or a sentinel. Tests can kill, stop and start it."""

    def __init__(self, command: Sequence[str], folder: Path, port: int, proxy_port: int) -> None:
        folder.mkdir()
        self.port = port
        self.proxy_port = proxy_port
        self.socket = str(folder / "server.sock")
        self.db = redis.Redis(unix_socket_path=self.socket, retry=Retry(NoBackoff(), 0), protocol=2, socket_timeout=2.0)
        self.up = False
        """Whether it should answer: it was neither killed nor stopped."""
        self._command = [*command, "--port", str(port), "--unixsocket", self.socket, "--dir", str(folder)]
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Starts it, and does not wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self.launch()
        self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        """Waits until it answers.

        Raises:
            RuntimeError: it has ended instead; with the end of its log.
        """
        wait_until(lambda: self._has_ended() or self.db.ping(), "a server starts")
        if self._has_ended():
            raise RuntimeError(f"a server has ended while it started:\n{self._log.read_text()[-1000:]}")

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def kill(self) -> None:
        """Kills it if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self, *, on: bool) -> None:
        """Stops the process, or lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    @property
    def id(self) -> str:
        return str(self.db.execute_command("CLUSTER MYID").decode())

    def role(self) -> str:
        return str(self.db.execute_command("ROLE")[0].decode())

    def follows(self) -> bool:
        """Whether it is a replica that has all that its primary had."""
        info = self.db.info("replication")
        return info["role"] == "slave" and info["master_link_status"] == "up"


class Group:
    """Servers that serve together. It is a context manager: they run inside."""

    servers: Sequence[Member]
    """The servers with data."""
    count: int
    """How many of them are primaries."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._binary = binary
        self._folder = folder

    def __enter__(self) -> Self:
        try:
            for server in self.members:
                server.launch()
            for server in self.members:
                server.wait_until_it_answers()
                server.up = True
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.kill()
            member.db.close()

    def form(self) -> None:
        """Makes the servers a group. The proxy must run, since they connect to each other through it."""
        raise NotImplementedError

    @property
    def members(self) -> Sequence[Member]:
        """Everything that runs."""
        return self.servers

    @property
    def url(self) -> str:
        """The URL for clients, through the proxy."""
        raise NotImplementedError

    def home(self, key: str) -> Member:
        """Returns the server that has a key; see `homes`."""
        return self.homes([key])[0]

    def homes(self, keys: Sequence[str]) -> list[Member]:
        """Returns the server of each key, if all servers that should answer agree that it can serve.

        Raises:
            redis.exceptions.RedisError, OSError, LookupError: not now.
        """
        raise NotImplementedError

    def primaries(self) -> list[Member]:
        """Returns the servers that are primaries."""
        return [server for server in self._up() if server.role() == "master"]

    def replica_of(self, server: Member) -> Member:
        """Returns a replica of a primary.

        Raises:
            LookupError: it has none that follows it.
        """
        for each in self._up():
            if each.follows() and int(each.db.info("replication")["master_port"]) == server.proxy_port:
                return each
        raise LookupError("it has no replica")

    def is_whole(self) -> bool:
        """Whether all servers are up, and all but the primaries have what these have."""
        primaries = [server for server in self.servers if server.role() == "master"]
        offsets = {server.proxy_port: server.db.info("replication")["master_repl_offset"] for server in primaries}
        if len(primaries) != self.count or not all(server.up for server in self.servers):
            return False
        for server in self.servers:
            info = server.db.info("replication")
            if server not in primaries and not (
                info["master_link_status"] == "up"
                and info["slave_repl_offset"] >= offsets.get(int(info["master_port"]), float("inf"))
            ):
                return False
        return True

    def fail_over(self, server: Member) -> None:
        """Makes a replica take over from a primary that serves."""
        raise NotImplementedError

    def epoch(self) -> int:
        """Returns a number that grows with each fail-over."""
        raise NotImplementedError

    def rejoin(self, server: Member) -> None:
        """Makes a server a replica that was killed and started again, if another one is the primary now."""

    def proxied(self) -> Mapping[int, str]:
        """Returns the ports of the proxy, and the socket of the server behind each."""
        return {server.proxy_port: server.socket for server in self.servers}

    def _server(self, port: int, proxy_port: int, *options: str) -> Member:
        command = [self._binary, "--bind", HOST, "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        command += ["--repl-diskless-sync-delay", "0", "--repl-timeout", "5", "--repl-ping-replica-period", "1"]
        return Member([*command, *options], self._folder / str(port), port, proxy_port)

    def control(self, number: int, what: str) -> None:
        """Does something to a server: ``kill``, ``launch``, ``halt``, or ``go on``."""
        server = self.servers[number]
        match what:
            case "kill":
                server.kill()
            case "launch":
                server.launch()
            case "halt":
                server.pause(on=True)
            case "go on":
                server.pause(on=False)
            case _:
                raise ValueError(what)

    def _at(self, proxy_port: int) -> Member:
        return next(server for server in self.servers if server.proxy_port == proxy_port)

    def _up(self) -> Iterator[Member]:
        return (server for server in self.servers if server.up)


class Cluster(Group):
    """A cluster of three primaries with a replica each. Without ``proxied`` clients connect to the nodes themselves."""

    count = 3

    def __init__(self, binary: str, folder: Path, *, proxied: bool = True) -> None:
        super().__init__(binary, folder)
        ports = free_ports(12)
        led = ports[6:] if proxied else ports[:6]
        self.servers = [self._node(port, proxy) for port, proxy in zip(ports[:6], led, strict=True)]

    def _node(self, port: int, proxy_port: int) -> Member:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(TIMEOUT)]
        options += ["--cluster-replica-validity-factor", "0", "--cluster-announce-ip", HOST]
        options += ["--cluster-announce-port", str(proxy_port), "--cluster-announce-bus-port", str(port + 10_000)]
        return self._server(port, proxy_port, *options)

    def form(self) -> None:
        primaries, first = self.servers[:3], self.servers[0]
        for number, node in enumerate(primaries):
            node.db.execute_command("CLUSTER ADDSLOTS", *range(SLOTS * number // 3, SLOTS * (number + 1) // 3))
        for node in self.servers[1:]:
            node.db.execute_command("CLUSTER MEET", HOST, first.proxy_port, first.port + 10_000)
        wait_until(lambda: all(_known(node) == len(self.servers) for node in self.servers), "the nodes meet")
        for number, node in enumerate(self.servers[3:]):
            primary = primaries[number].id
            wait_until(lambda node=node, primary=primary: _replicates(node, primary), "a replica follows")  # type: ignore[misc]
        for node in self.servers[3:]:
            wait_until(node.follows, "a replica has the data")
        wait_until(lambda: all(_is_ok(node) for node in self.servers), "the cluster is ok")

    @property
    def url(self) -> str:
        return "redis://" + ",".join(f"{HOST}:{node.proxy_port}" for node in self.servers)

    def homes(self, keys: Sequence[str]) -> list[Member]:
        slots = [key_slot(key.encode()) for key in keys]
        found: set[tuple[int, ...]] = set()
        for node in self._up():
            if not _is_ok(node):
                raise LookupError("a node says that the cluster is not ok")
            ranges = node.db.execute_command("CLUSTER SLOTS")
            found.add(
                tuple(primary[1] for slot in slots for first, last, primary, *_ in ranges if first <= slot <= last)
            )
        if len(found) != 1:
            raise LookupError("the nodes do not agree")
        homes = [self._at(port) for port in found.pop()]
        if len(homes) < len(keys) or not all(home.up and home.role() == "master" for home in homes):
            raise LookupError("a primary is away")
        return homes

    def fail_over(self, server: Member) -> None:
        self.replica_of(server).db.execute_command("CLUSTER FAILOVER")

    def epoch(self) -> int:
        return max(int(node.db.cluster("info")["cluster_current_epoch"]) for node in self._up())

    def moves_at_once(self) -> bool:
        """Whether the servers move slots atomically."""
        version = next(self._up()).db.info("server").get("valkey_version", "0")
        return int(version.split(".")[0]) >= 9

    def move_by_key(self, key: str, target: Member) -> None:
        """Moves the slot of a key, key by key, as ``redis-cli --cluster reshard`` does."""
        slot, source = key_slot(key.encode()), self.home(key)
        target.db.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
        source.db.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target.id)
        while keys := source.db.execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
            source.db.execute_command("MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
        others = [node for node in self._up() if node not in (target, source) and node.role() == "master"]
        for node in (target, source, *others):
            node.db.execute_command("CLUSTER SETSLOT", slot, "NODE", target.id)

    def move_at_once(self, key: str, target: Member) -> None:
        """Moves the slot of a key atomically. The nodes give up if a fault cuts their connection, so it tries again."""
        slot, tried = key_slot(key.encode()), 0.0

        def has_moved() -> bool:
            nonlocal tried
            source = self.home(key)
            if source is not target and time.monotonic() - tried > _AGAIN:
                tried = time.monotonic()
                source.db.execute_command("CLUSTER MIGRATESLOTS SLOTSRANGE", slot, slot, "NODE", target.id)
            return source is target

        wait_until(has_moved, "a slot moves at once")


def _known(node: Member) -> int:
    return int(node.db.cluster("info")["cluster_known_nodes"])


def _is_ok(node: Member) -> bool:
    return bool(node.db.cluster("info")["cluster_state"] == "ok")


def _replicates(node: Member, primary: str) -> bool:
    node.db.execute_command("CLUSTER REPLICATE", primary)  # refused until it knows the primary
    return True


class Watched(Group):
    """A primary with two replicas, and three sentinels that watch them."""

    count = 1

    def __init__(self, binary: str, folder: Path) -> None:
        super().__init__(binary, folder)
        ports = free_ports(9)
        self.servers = [self._replica(port, proxy) for port, proxy in zip(ports[:3], ports[3:6], strict=True)]
        self.sentinels = [self._sentinel(port) for port in ports[6:]]

    def _replica(self, port: int, proxy_port: int) -> Member:
        announced = ["--replica-announce-ip", HOST, "--replica-announce-port", str(proxy_port)]
        return self._server(port, proxy_port, *announced)

    def _sentinel(self, port: int) -> Member:
        primary = self.servers[0].proxy_port
        settings = self._folder / f"{port}.conf"
        settings.write_text(
            f"sentinel monitor {NAME} {HOST} {primary} 2\n"
            f"sentinel down-after-milliseconds {NAME} {TIMEOUT}\nsentinel failover-timeout {NAME} 2000\n"
        )
        return Member([self._binary, str(settings), "--sentinel", "--bind", HOST], self._folder / str(port), port, port)

    @property
    def members(self) -> Sequence[Member]:
        return [*self.sentinels, *self.servers]

    def form(self) -> None:
        for server in self.servers[1:]:
            server.db.execute_command("REPLICAOF", HOST, self.servers[0].proxy_port)
        wait_until(self.is_whole, "the replicas follow")
        wait_until(lambda: all(self._is_complete(each) for each in self.sentinels), "the sentinels know each other")

    @staticmethod
    def _is_complete(sentinel: Member) -> bool:
        seen = _pairs(sentinel.db.execute_command("SENTINEL MASTER", NAME))
        return (seen["num-slaves"], seen["num-other-sentinels"]) == ("2", "2")

    @property
    def url(self) -> str:
        return "sentinel://" + ",".join(f"{HOST}:{each.port}" for each in self.sentinels) + f"/{NAME}"

    def homes(self, keys: Sequence[str]) -> list[Member]:
        found = {
            int(sentinel.db.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", NAME)[1]) for sentinel in self.sentinels
        }
        if len(found) != 1:
            raise LookupError("the sentinels do not agree")
        home = self._at(found.pop())
        if not home.up or home.role() != "master":
            raise LookupError("the primary is away")
        return [home] * len(keys)

    def epoch(self) -> int:
        found = [_pairs(each.db.execute_command("SENTINEL MASTER", NAME)) for each in self.sentinels]
        return max(int(seen["config-epoch"]) for seen in found)

    def rejoin(self, server: Member) -> None:
        address = self.sentinels[0].db.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", NAME)
        if int(address[1]) != server.proxy_port:  # sentinels would do so after ten seconds
            server.db.execute_command("REPLICAOF", HOST, int(address[1]))

    def fail_over(self, server: Member) -> None:
        self.sentinels[0].db.execute_command("SENTINEL FAILOVER", NAME)


def _pairs(reply: object) -> dict[str, str]:
    found = reply if isinstance(reply, dict) else dict(zip(*[iter(reply)] * 2, strict=True))  # type: ignore[call-overload]
    return {_text(name): _text(value) for name, value in found.items()}


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
