"""Tests a cluster whose nodes die and whose slots move: everything goes on, and no task is lost or run twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from fairactor import Handle, Runtime
from fairactor._model.keys import Keys, shard_of
from fairactor.errors import ServerUnavailable
from fairactor.testing import check_invariants
from tests.support.cluster import Cluster, Node
from tests.support.polling import PATIENCE, until

from .test_server_faults import Work, sender

pytestmark = pytest.mark.anyio

META = Keys("fairactor").meta


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture(scope="module")
def two(server_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(server_binary, tmp_path_factory.mktemp("cluster"), 2) as made:
        yield made


@pytest.fixture
def pair(two: Cluster) -> Cluster:
    """Provides an empty cluster of two primaries."""
    for node in two.nodes:
        node.db.flushall()
    return two


def other(cluster: Cluster) -> Node:
    """Returns the node that does not have the shard."""
    home = cluster.home_of(META)
    return next(node for node in cluster.nodes if node is not home)


# Nodes that die


async def test_when_a_primary_dies_all_follow_its_replica(server_binary: str, tmp_path: Path, work: Work) -> None:
    with Cluster(server_binary, tmp_path, 3, replicas=True) as cluster:
        first = cluster.primaries[0]
        url = f"redis://127.0.0.1:{first.port}"  # only this node is named
        async with work.runtime(url, lease=1.0) as runtime, sender(url) as outside:
            tenants = [next(str(n) for n in range(1000) if shard_of(str(n), 16) == shard) for shard in range(16)]
            for tenant in tenants:
                assert await outside.ask(tenant, work.quick(1), timeout=PATIENCE) == 1
            await until(lambda: all(node.db.wait(1, 100) for node in cluster.primaries))
            slots = cluster.slots_of(first)
            lost = [n for n in range(16) if cluster.slot_of(Keys("fairactor", n).meta) in slots]
            first.kill()
            problems = (await outside.health()).problems
            assert [problem.split(" has not answered")[0] for problem in problems] == [f"shard {n}" for n in lost]
            for tenant in tenants:
                assert await outside.ask(tenant, work.quick(2), timeout=PATIENCE) == 2
            await until(lambda: _is_well(outside))
            await until(lambda: _is_well(runtime))
            async with work.runtime(f"redis://127.0.0.1:{first.port},127.0.0.1:{cluster.primaries[1].port}") as later:
                assert await later.ask(tenants[0], work.quick(3), timeout=PATIENCE) == 3


async def _is_well(runtime: Runtime) -> bool:
    return (await runtime.health()).ok


# Slots that move


async def test_a_shard_that_moves_key_by_key_waits_and_loses_nothing(pair: Cluster, work: Work) -> None:
    async with work.runtime(pair.url, shards=1) as runtime, sender(pair.url) as outside:
        held = await outside.send("user:1", work.hold(1))
        await until(lambda: work.begun[held.id])
        later = await outside.send_many([(f"user:{n}", work.quick(n).options(delay=600)) for n in range(30)])
        target = other(pair)
        sent: list[Handle[int]] = []
        async with anyio.create_task_group() as group:

            async def send() -> None:
                sent.extend([await outside.send("user:1", work.quick(n)) for n in range(5)])

            for step, _ in enumerate(pair.move(META, target)):
                if step == 1:
                    work.gate.set()  # its outcome comes while the slot moves
                    group.start_soon(send)
                await anyio.sleep(0.01)
                assert not sent, "nothing is carried out at either node"
        assert [await handle.result(PATIENCE) for handle in (held, *sent)] == [1, 0, 1, 2, 3, 4]
        assert set(work.begun.values()) == {1}
        assert (await outside.stats()).scheduled == len(later)
        await check_invariants(runtime)
        inbox = Keys("fairactor").inbox(outside.name)
        await until(lambda: target.db.pubsub_numsub(inbox)[0][1] == 1)


async def test_a_send_to_a_shard_that_moves_for_too_long_was_not_carried_out(pair: Cluster, work: Work) -> None:
    async with sender(pair.url, shards=1, connect_timeout=1) as outside:
        await outside.send("user:1", work.quick(1))
        for step, _ in enumerate(pair.move(META, other(pair))):
            if step == 1:
                with pytest.raises(ServerUnavailable, match=r"cannot serve now.*it was not carried out"):
                    await outside.send("user:1", work.quick(2))
        await outside.send("user:1", work.quick(2))
        assert (await outside.stats()).queued == 2


async def test_a_shard_that_moves_at_once_is_followed(pair: Cluster, work: Work) -> None:
    home, target = pair.home_of(META), other(pair)
    if not int(home.db.info("server").get("valkey_version", "0").split(".")[0]) >= 9:
        pytest.skip("only Valkey 9 moves slots at once")
    async with work.runtime(pair.url, shards=1), sender(pair.url) as outside:
        slot = pair.slot_of(META)
        home.db.execute_command("CLUSTER MIGRATESLOTS SLOTSRANGE", slot, slot, "NODE", target.id)
        while pair.home_of(META) is home:
            assert await outside.ask("user:1", work.quick(1), timeout=PATIENCE) == 1
        assert await outside.ask("user:1", work.quick(2), timeout=PATIENCE) == 2
        assert set(work.begun.values()) == {1}
