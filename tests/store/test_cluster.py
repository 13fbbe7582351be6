"""On a real cluster of three nodes: shards spread over them, and everything works as on one server."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from fairactor import Runtime, TaskState, actor
from fairactor.testing import check_invariants

pytestmark = pytest.mark.anyio

SLOTS = 16384


@actor
async def double(n: int) -> int:
    return 2 * n


@pytest.fixture(scope="module")
def cluster(server_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ExitStack() as stack:
        ports = _free_ports(3)
        nodes = []
        for port in ports:
            process = _start(server_binary, port, tmp_path_factory.mktemp(f"node{port}"))
            stack.callback(process.wait)
            stack.callback(process.kill)
            nodes.append(stack.enter_context(redis.Redis(port=port)))
        _until(lambda: all(_answers(node) for node in nodes))
        for number, node in enumerate(nodes):
            first, last = (SLOTS * number // 3, SLOTS * (number + 1) // 3)
            node.execute_command("CLUSTER ADDSLOTS", *range(first, last))
            nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[number])
        _until(lambda: all(_knows_all(node) for node in nodes))
        yield f"redis://127.0.0.1:{ports[0]}"


async def test_tenants_spread_over_the_nodes_and_all_tasks_are_run(cluster: str) -> None:
    async with Runtime(cluster, actors=[double], lease=3.0) as runtime:
        handles = await runtime.send_many([(f"tenant {n % 50}", double(n)) for n in range(500)])
        assert [await handle.result(timeout=20) for handle in handles] == [2 * n for n in range(500)]
        await runtime.drain(timeout=20)
        stats = await runtime.stats()
        assert (stats.finished, stats.pending, len(stats.runtimes)) == (500, 0, 1)
        assert await runtime.handle(handles[7].id).state() is TaskState.FINISHED
        await check_invariants(runtime)


async def test_results_delays_and_wake_ups_cross_the_nodes(cluster: str) -> None:
    async with (
        Runtime(cluster, actors=[double], lease=3.0, namespace="other"),
        Runtime(cluster, workers=0, namespace="other") as sender,
    ):
        for n in range(20):
            assert await sender.ask(f"tenant {n}", double(n), timeout=2) == 2 * n
        handle = await sender.send("tenant 1", double(4), delay=0.1)
        assert await handle.result(timeout=10) == 8


def _start(binary: str, port: int, folder: Path) -> subprocess.Popen[bytes]:
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    return subprocess.Popen([*command, "--cluster-enabled", "yes"], stdout=subprocess.DEVNULL)


def _free_ports(count: int) -> list[int]:
    """Free ports whose cluster bus port, 10,000 above, exists as well."""
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


def _answers(node: redis.Redis) -> bool:
    try:
        return bool(node.ping())
    except redis.ConnectionError:
        return False


def _knows_all(node: redis.Redis) -> bool:
    info = node.cluster("info")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"


def _until(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "the cluster did not come up"
        time.sleep(0.02)
