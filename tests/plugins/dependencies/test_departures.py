"""Tests which tenants have to stay on their shard because of what others wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fairactor_dependencies import Dependencies
from fairactor_dependencies._options import NAME

from fairactor import Runtime, actor
from fairactor._plugin_chain import PluginChain
from fairactor.errors import ServerUnavailable
from tests.support import servers
from tests.support.shard.driver import ShardDriver, item

MANY = 600
MOST_COMMANDS = 700
"""Redis commands in one script."""


@pytest.fixture(scope="module")
def of_module(server_binary: str) -> Iterator[ShardDriver]:
    with servers.running(server_binary) as url:
        made = ShardDriver(url, plugins=PluginChain([Dependencies()]).lua)
        yield made
        made.close()


@pytest.fixture
def shard(of_module: ShardDriver) -> ShardDriver:
    return of_module.open()


def ask_for(shard: ShardDriver, tenant: str, *ids: str) -> list[int]:
    """Asks for tasks, as somebody does who is about to send others that wait for them."""
    known: list[int] = []
    for at in range(0, len(ids), 500):
        pairs = [part for task_id in ids[at : at + 500] for part in (task_id, tenant)]
        known += shard.run(shard.shard.call(f"{NAME}/known", 0, *pairs))
    return known


def goes(shard: ShardDriver, tenant: str) -> bool:
    """Returns whether a tenant can go now."""
    shard.run(shard.shard.depart(tenant, "hold"))
    shard.db.config_resetstat()
    went = shard.run(shard.shard.depart(tenant, "go")).state == "gone"
    assert sum(entry["calls"] for entry in shard.db.info("commandstats").values()) < MOST_COMMANDS
    if not went:
        shard.run(shard.shard.depart(tenant, "free"))
    return went


def send(shard: ShardDriver, tenant: str, many: int) -> list[str]:
    ids = [f"{tenant}{n}" for n in range(many)]
    shard.send(*(item(task_id, tenant) for task_id in ids))
    return ids


@pytest.mark.parametrize(("many", "others"), [(1, 1), (MANY, 10), (10, MANY)])
def test_a_tenant_goes_if_others_wait_for_tasks_of_others_only(shard: ShardDriver, many: int, others: int) -> None:
    send(shard, "t", many)
    assert set(ask_for(shard, "u", *send(shard, "u", others))) == {1}
    assert goes(shard, "t")
    assert not goes(shard, "u")


@pytest.mark.parametrize("many", [1, MANY])
def test_a_tenant_stays_as_long_as_others_may_wait_for_one_of_its_tasks(shard: ShardDriver, many: int) -> None:
    ids = send(shard, "t", many)
    assert ask_for(shard, "", ids[-1]) == [1]
    assert not goes(shard, "t")
    shard.db.hdel(f"{shard.keys.meta}:plugin:{NAME}:of:t", ids[-1])
    assert goes(shard, "t")


def test_a_delayed_task_and_results_that_are_kept_for_one_keep_a_tenant_too(shard: ShardDriver) -> None:
    shard.send(item("a", "t", due="+600000"), item("b", "u"))
    assert ask_for(shard, "t", "a") == [1]
    assert not goes(shard, "t")
    shard.db.hset(f"{shard.keys.meta}:plugin:{NAME}:late", "b", "token")
    assert not goes(shard, "u")


def test_a_tenant_stays_if_there_is_too_much_to_look_at(shard: ShardDriver) -> None:
    send(shard, "t", MANY)
    assert len(ask_for(shard, "u", *send(shard, "u", MANY))) == MANY
    assert not goes(shard, "t")


def test_a_task_on_its_way_is_neither_known_nor_unknown(shard: ShardDriver) -> None:
    send(shard, "t", 1)
    assert goes(shard, "t")
    assert ask_for(shard, "t", "t0", "none") == [2, 0]
    assert not shard.db.exists(f"{shard.keys.meta}:plugin:{NAME}:of:t")


@actor
async def work() -> None:
    pass


@pytest.mark.anyio
async def test_a_message_that_was_prepared_for_another_shard_is_refused(make_runtime: Callable[..., Runtime]) -> None:
    async with make_runtime(work, shards=2, plugins=[Dependencies()]) as runtime:
        for home in range(2):
            message = work().rewritten(script_options={NAME: {"dependencies": {"home": home}}})
            if runtime.host.shard_of("t") == home:
                await (await runtime.send("t", message)).result(30)
            else:
                with pytest.raises(ServerUnavailable, match="send this again"):
                    await runtime.send("t", message)
