"""A real cluster of three nodes: shards spread over the nodes, and everything works as on one server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis

from fairactor import Runtime, TaskState, actor
from fairactor.testing import check_invariants
from tests.support.cluster import SLOTS, answers, free_ports, knows_all_nodes, start_node, wait_until

pytestmark = pytest.mark.anyio


@actor
async def double(n: int) -> int:
    return 2 * n


@pytest.fixture(scope="module")
def cluster(server_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ExitStack() as stack:
        ports = free_ports(3)
        nodes = []
        for port in ports:
            process = start_node(server_binary, port, tmp_path_factory.mktemp(f"node{port}"))
            stack.callback(process.wait)
            stack.callback(process.kill)
            nodes.append(stack.enter_context(redis.Redis(port=port)))
        wait_until(lambda: all(answers(node) for node in nodes))
        for number, node in enumerate(nodes):
            first, last = (SLOTS * number // 3, SLOTS * (number + 1) // 3)
            node.execute_command("CLUSTER ADDSLOTS", *range(first, last))
            nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", ports[number])
        wait_until(lambda: all(knows_all_nodes(node) for node in nodes))
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


async def test_any_seed_serves_and_connections_are_bounded(cluster: str) -> None:
    url = f"redis://127.0.0.1:1,{cluster.removeprefix('redis://')}?max_connections=5"
    with redis.Redis.from_url(cluster) as db:
        before = len(db.client_list())
        async with Runtime(url, actors=[double], lease=3.0, namespace="seeds") as runtime:
            assert runtime._shards().server.where == url.partition("?")[0]
            asked = (runtime.ask(f"tenant {n}", double(n), timeout=20) for n in range(300))
            assert await asyncio.gather(*asked) == [2 * n for n in range(300)]
            assert len(db.client_list()) <= before + 5


@actor
async def block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251 - the fault under test


async def test_a_blocked_loop_keeps_its_leases_on_all_nodes(cluster: str) -> None:
    async with Runtime(cluster, actors=[block], lease=0.6, shards=4, namespace="blocked") as runtime:
        renewed = []
        assert runtime._engine is not None
        for shard in runtime._engine.shards:
            renew = shard.renew
            shard.renew = lambda *args, renew=renew, **how: renewed.append(renew(*args, **how))  # type: ignore[method-assign]
        await runtime.ask("tenant 1", block(1.0), timeout=20)
        assert len(renewed) >= 4
        assert all(renewed)
