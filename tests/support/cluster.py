"""Starts the nodes of a cluster and waits until they have found each other."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import redis

SLOTS = 16384


def start_node(binary: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    return subprocess.Popen([*command, "--cluster-enabled", "yes"], stdout=subprocess.DEVNULL)


def free_ports(count: int) -> list[int]:
    """Returns free ports whose cluster bus port, 10,000 above, is also valid."""
    found: list[int] = []
    for port in range(21000, 32000):
        with socket.socket() as one, socket.socket() as bus:
            try:
                one.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return found


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
