"""Starts the nodes of a cluster and waits until they have found each other."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

SLOTS = 16384


def start_node(binary: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    return subprocess.Popen([*command, "--cluster-enabled", "yes"], stdout=subprocess.DEVNULL)


def free_ports(count: int) -> list[int]:
    """Returns free ports whose cluster bus port, 10,000 above, is free as well.

    No other process of the tests gets them while this one lives, so a server can be started again at its port.
    """
    found: list[int] = []
    for port in random.sample(range(11_000, 21_000), 10_000):
        if _take(port):
            found.append(port)
        if len(found) == count:
            break
    return found


def _take(port: int) -> bool:
    """Locks a port and its bus port for this process. Returns whether both are free."""
    lock = os.open(Path(tempfile.gettempdir(), f"fairactor-tests-port-{port}"), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for number in (port, port + 10_000):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", number))
    except OSError:
        os.close(lock)
        return False
    return True  # the file stays open, and the port locked, until this process ends


def answers(node: redis.Redis) -> bool:
    try:
        return bool(node.ping())
    except redis.ConnectionError:
        return False


def knows_all_nodes(node: redis.Redis) -> bool:
    info = node.cluster("info")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"


def wait_until(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "the cluster did not come up"
        time.sleep(0.02)


class ServerProcess:
    """A process of a server or a sentinel. Tests can kill it."""

    def __init__(self, command: Sequence[str], port: int, password: str | None = None) -> None:
        self.port = port
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self.db = redis.Redis(port=port, password=password, retry=Retry(NoBackoff(), 0), protocol=2)

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        wait_until(lambda: answers(self.db))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self, *, on: bool) -> None:
        """Stops the process, or lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)


class Node(ServerProcess):
    """A node of a cluster."""

    def __init__(self, binary: str, port: int, folder: Path) -> None:
        options = ["--cluster-node-timeout", "600", "--cluster-replica-validity-factor", "0"]
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        command += ["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", *options]
        super().__init__([*command, "--repl-diskless-sync-delay", "0"], port)

    @property
    def id(self) -> str:
        return self.db.execute_command("CLUSTER MYID").decode()


class Cluster:
    """A cluster of primaries, each with a replica if ``replicas`` are wanted."""

    def __init__(self, binary: str, folder: Path, primaries: int = 3, *, replicas: bool = False) -> None:
        ports = free_ports(primaries * (2 if replicas else 1))
        self.nodes = []
        for port in ports:
            (folder / str(port)).mkdir()
            self.nodes.append(Node(binary, port, folder / str(port)))
        self.primaries, self.replicas = self.nodes[:primaries], self.nodes[primaries:]

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.start()
        many = len(self.primaries)
        for number, node in enumerate(self.primaries):
            node.db.execute_command("CLUSTER ADDSLOTS", *range(SLOTS * number // many, SLOTS * (number + 1) // many))
        for node in self.nodes:
            node.db.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)
        known = str(len(self.nodes))
        wait_until(lambda: all(node.db.cluster("info")["cluster_known_nodes"] == known for node in self.nodes))
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            wait_until(lambda replica=replica, primary=primary.id: follows(replica, primary))
        wait_until(lambda: all(node.db.cluster("info")["cluster_state"] == "ok" for node in self.nodes))
        for primary in self.primaries[: len(self.replicas)]:
            wait_until(lambda primary=primary: is_followed(primary))
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()
            node.db.close()

    @property
    def url(self) -> str:
        return "redis://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def slot_of(self, meta: str) -> int:
        return int(self.nodes[-1].db.cluster("keyslot", meta))

    def home_of(self, meta: str) -> Node:
        """Returns the node that has a shard."""
        slot = self.slot_of(meta)
        for first, last, primary, *_ in self._live().db.execute_command("CLUSTER SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        raise AssertionError(f"nobody serves {slot}")

    def slots_of(self, node: Node) -> set[int]:
        """Returns the slots of a primary."""
        ranges = node.db.execute_command("CLUSTER SLOTS")
        return {
            slot for first, last, (_, port, *_), *_ in ranges if port == node.port for slot in range(first, last + 1)
        }

    def _live(self) -> Node:
        return next(node for node in self.nodes if answers(node.db))

    def move(self, meta: str, target: Node) -> Iterator[None]:
        """Moves the slot of a shard key by key, as ``redis-cli --cluster reshard`` does; yields after each few keys."""
        slot, source = self.slot_of(meta), self.home_of(meta)
        target.db.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
        source.db.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target.id)
        yield
        while keys := source.db.execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
            source.db.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            yield
        for node in (target, source, *self.primaries):
            node.db.execute_command("CLUSTER SETSLOT", slot, "NODE", target.id)


def follows(replica: Node, primary: str) -> bool:
    """Makes a node a replica, once it knows the primary."""
    try:
        replica.db.execute_command("CLUSTER REPLICATE", primary)
    except redis.ResponseError:
        return False
    return True


def is_followed(primary: Node) -> bool:
    info = primary.db.info("replication")
    return bool(info["connected_slaves"] and info["slave0"]["state"] == "online")
