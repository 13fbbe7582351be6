"""Tests sends with durability "replicated": they succeed only once replicas have the task, too."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
import redis

from fairactor import Message, Runtime, actor
from fairactor._model.keys import shard_of
from fairactor.errors import ConfigurationError, NotReplicated
from fairactor.testing import check_invariants
from tests.support import servers
from tests.support.cluster import SLOTS, answers, free_ports, knows_all_nodes, start_node, wait_until
from tests.support.polling import PATIENCE, until
from tests.support.servers import Instance

pytestmark = pytest.mark.anyio


@actor
async def double(n: int) -> int:
    return 2 * n


@actor(durability="replicated")
async def dear(n: int) -> int:
    return n


def replicates(db: redis.Redis) -> bool:
    """Returns whether writes reach a replica."""
    for _ in range(2):  # the replica may get the first write with its initial copy
        db.incr("replicated")  # its slot is one of the first node of the cluster below
        if not db.wait(1, 100):
            return False
    return True


@contextmanager
def pair(binary: str) -> Iterator[tuple[Instance, Instance]]:
    """Starts a server, and a replica that follows it."""
    port = str(free_ports(1)[0])
    with (
        servers.instance(binary, "--port", port, "--repl-diskless-sync-delay", "0") as server,
        servers.instance(binary, "--port", str(free_ports(1)[0]), "--replicaof", "127.0.0.1", port) as replica,
        servers.client(server.url) as db,
    ):
        deadline = time.monotonic() + PATIENCE
        while not replicates(db):
            assert time.monotonic() < deadline
        yield server, replica


Both = tuple[Instance, Instance]


@pytest.fixture(scope="module")
def shared(server_binary: str) -> Iterator[Both]:
    with pair(server_binary) as made:
        yield made


@pytest.fixture
def both(shared: Both) -> Both:
    """Provides the shared server, emptied, and its replica; tests must not stop or reconfigure them."""
    with servers.client(shared[0].url) as db:
        db.flushall()
        wait_until(lambda: replicates(db))
    return shared


@pytest.fixture
def fresh(server_binary: str) -> Iterator[Both]:
    with pair(server_binary) as made:
        yield made


def sender(server: Instance, **settings: Any) -> Runtime:
    return Runtime(server.url, **{"workers": 0, "connect_timeout": PATIENCE} | settings)


def stored(replica: Instance) -> set[str]:
    """Returns the ids of the tasks that a replica has."""
    with servers.client(replica.url) as db:
        return {key.decode().partition(":task:")[2] for key in db.scan_iter("*:task:*")}


SHORT: Final = {"connect_timeout": 1.0}
"""For waits that no replica confirms; they take a fraction of it. The server checks its clock ten times a second."""


@contextmanager
def frozen(replica: Instance) -> Iterator[None]:
    assert replica._process is not None
    replica._process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        replica._process.send_signal(signal.SIGCONT)


@contextmanager
def gone(replica: Instance) -> Iterator[None]:
    replica.kill()
    try:
        yield
    finally:
        replica.start()


@contextmanager
def detached(replica: Instance) -> Iterator[None]:
    """Stops the replica from following the server."""
    with servers.client(replica.url) as db:
        port = db.info("replication")["master_port"]
        db.execute_command("REPLICAOF", "NO", "ONE")
        try:
            yield
        finally:
            db.replicaof("127.0.0.1", port)


LACKING: Final[dict[str, Callable[[Instance], Any]]] = {"frozen": frozen, "gone": gone, "detached": detached}


async def has_caught_up(server: Instance) -> None:
    with servers.client(server.url) as db:
        await until(lambda: replicates(db))


@pytest.mark.parametrize("where", ["runtime", "option", "actor", "send"])
async def test_when_it_returns_a_replica_has_the_task(both: Both, where: str) -> None:
    server, replica = both
    settings = {"durability": "replicated", "replicas": 1} if where == "runtime" else {}
    message = {"option": double(1).options(durability="replicated"), "actor": dear(1)}.get(where, double(1))
    async with sender(server, **settings) as runtime:
        for number in range(20):
            options = {"durability": "replicated"} if where == "send" else {}
            handle = await runtime.send(f"user:{number}", message, **options)
            assert handle.id in stored(replica)
        await check_invariants(runtime)


async def test_many_are_sent_and_asked_for_as_well(both: Both) -> None:
    server, replica = both
    async with sender(server, durability="replicated") as runtime, Runtime(server.url, actors=[double]):
        handles = await runtime.send_many([(f"user:{n % 9}", double(n)) for n in range(1200)])
        assert {handle.id for handle in handles} <= stored(replica)
        assert await runtime.ask("user:1", double(4), timeout=PATIENCE) == 8
        await runtime.drain(timeout=PATIENCE)
        assert (await runtime.stats()).finished == 1201


@pytest.mark.parametrize("how", LACKING)
async def test_where_no_replica_confirms_it_says_so_and_it_may_be_sent_again(fresh: Both, how: str) -> None:
    server, replica = fresh
    batch = [("user:1", double(n).options(id=f"m{n}")) for n in range(3)]
    async with (
        sender(server, durability="replicated", **SHORT) as runtime,
        sender(server, durability="replicated") as patient,
    ):
        with LACKING[how](replica):
            began = time.monotonic()
            one, many = await asyncio.gather(
                runtime.send("user:1", double(1), id="a"), runtime.send_many(batch), return_exceptions=True
            )
            assert time.monotonic() - began < 5
        assert isinstance(one, NotReplicated)
        assert isinstance(many, NotReplicated)
        assert "0 of 1 replicas confirmed" in str(one)
        assert (one.maybe_accepted, one.ids) == (True, ("a",))
        assert (many.maybe_accepted, many.ids) == (True, ("m0", "m1", "m2"))
        assert (await runtime.stats()).pending == 4
        await has_caught_up(server)
        again = await patient.send("user:1", double(1), id="a")
        await patient.send_many(batch)
        assert (again.id, again.duplicate) == ("a", True)
        assert {"a", "m0", "m1", "m2"} <= stored(replica)
        assert (await runtime.stats()).pending == 4
        await check_invariants(runtime)


async def test_a_repeat_waits_for_the_replicas_though_there_is_nothing_new_to_write(
    both: Both,
) -> None:
    server, replica = both
    async with sender(server, **SHORT) as runtime, sender(server) as patient:
        with frozen(replica):
            await runtime.send("user:1", double(1), id="a")  # with durability "server"
            with pytest.raises(NotReplicated):
                await runtime.send("user:1", double(1), id="a", durability="replicated")
        await has_caught_up(server)
        await patient.send("user:1", double(1), id="a", durability="replicated")
        assert stored(replica) == {"a"}


async def test_in_one_batch_each_is_judged_by_its_own_durability(both: Both) -> None:
    server, replica = both
    async with sender(server, **SHORT) as runtime:
        results: dict[str, Any] = {}

        async def send(task_id: str, message: Message[int]) -> None:
            try:
                results[task_id] = (await runtime.send("user:1", message, id=task_id)).id
            except NotReplicated as error:
                results[task_id] = error

        with frozen(replica):
            async with anyio.create_task_group() as group:
                for n in range(10):
                    group.start_soon(send, f"d{n}", dear(n))
                    group.start_soon(send, f"s{n}", double(n))
        assert all(results[f"s{n}"] == f"s{n}" for n in range(10))
        assert all(
            isinstance(results[f"d{n}"], NotReplicated) and results[f"d{n}"].ids == (f"d{n}",) for n in range(10)
        )
        assert (await runtime.stats()).pending == 20


async def test_what_needs_no_replica_does_not_wait_for_one_that_is_frozen(both: Both) -> None:
    server, replica = both
    async with sender(server) as runtime:
        with frozen(replica), anyio.fail_after(5):
            await runtime.send("user:1", double(1))


async def test_more_replicas_than_there_are_are_not_waited_for_for_ever(both: Both) -> None:
    server, _ = both
    async with sender(server, durability="replicated", replicas=2, **SHORT) as runtime:
        with anyio.fail_after(5), pytest.raises(NotReplicated, match="1 of 2 replicas confirmed"):
            await runtime.send("user:1", double(1))


async def test_an_id_of_another_tenant_and_a_key_are_as_ever(both: Both) -> None:
    server, _ = both
    async with sender(server, durability="replicated") as runtime:
        first = await runtime.send("user:1", double(1), key="k")
        second = await runtime.send("user:1", double(2), key="k")
        assert (second.id, second.duplicate) == (first.id, True)


@pytest.mark.parametrize(
    "settings",
    [{"durability": "disk"}, {"durability": None}, {"durability": True}, {"replicas": 0}, {"replicas": 1.5},
     {"replicas": True}, {"replicas": "1"}, {"replicas": None}],
)  # fmt: skip
def test_a_setting_that_cannot_work_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        Runtime("redis://localhost", **settings)


@pytest.mark.parametrize("durability", ["disk", "", True, 1, ["server"]])
def test_an_option_that_cannot_work_is_refused(durability: Any) -> None:
    with pytest.raises(ConfigurationError, match="durability="):
        double(1).options(durability=durability)
    with pytest.raises(ConfigurationError, match="durability="):
        actor(durability=durability)(lambda: None)


# On a cluster


@pytest.fixture
def cluster(server_binary: str, tmp_path: Path) -> Iterator[list[redis.Redis]]:
    """Starts two nodes with half of the slots each, and a replica of the first."""
    with ExitStack() as stack:
        nodes = []
        for number, port in enumerate(free_ports(3)):
            folder = tmp_path / str(number)
            folder.mkdir()
            process = start_node(server_binary, port, folder)
            stack.callback(process.wait)
            stack.callback(process.kill)
            nodes.append(stack.enter_context(redis.Redis(port=port)))
        wait_until(lambda: all(answers(node) for node in nodes))
        nodes[0].config_set("repl-diskless-sync-delay", 0)
        for number, node in enumerate(nodes):
            if number < 2:
                node.execute_command("CLUSTER ADDSLOTS", *range(SLOTS * number // 2, SLOTS * (number + 1) // 2))
            port = node.connection_pool.connection_kwargs["port"]
            nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port)
        wait_until(lambda: all(knows_all_nodes(node) for node in nodes))
        wait_until(lambda: _replicate(nodes[2], nodes[0].execute_command("CLUSTER MYID").decode()))
        wait_until(lambda: nodes[2].info("replication")["master_link_status"] == "up")
        wait_until(lambda: replicates(nodes[0]))  # the node may not count the replica yet, although their link is up
        yield nodes


def _replicate(node: redis.Redis, of: str) -> bool:
    with suppress(redis.ResponseError):  # the node does not know the other one yet
        return bool(node.execute_command("CLUSTER REPLICATE", of))
    return False


async def test_on_a_cluster_the_replicas_of_the_node_that_has_the_task_confirm_it(cluster: list[redis.Redis]) -> None:
    url = f"redis://127.0.0.1:{cluster[0].connection_pool.connection_kwargs['port']}"
    confirmed: dict[int, bool] = {}
    async with Runtime(url, workers=0, durability="replicated", shards=4, **SHORT) as runtime:
        for number in range(8):
            shard = f"{{fairactor/{shard_of(f'user:{number}', 4)}}}"
            node = int(cluster[0].cluster("keyslot", shard)) * 2 // SLOTS
            if node not in confirmed:
                try:
                    confirmed[node] = bool(await runtime.send(f"user:{number}", double(1)))
                except NotReplicated:
                    confirmed[node] = False
    assert confirmed == {0: True, 1: False}
