"""Scripts that run often are loaded as functions: they do the same, and are loaded when they are missing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from fairactor_dependencies import Dependencies
from fairactor_scheduling import Scheduling
from fairactor_xcom import XCom

from fairactor import Runtime, actor
from fairactor._plugin_chain import PluginChain
from fairactor._server.rights import ALONE, IN_SCRIPTS
from fairactor._store import library, loader
from tests.support import servers
from tests.support.polling import PATIENCE
from tests.support.shard.driver import open_shard

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def own_server(server_binary: str) -> Iterator[str]:
    with servers.running(server_binary) as url:
        if int(servers.client(url).info()["redis_version"][0]) < 7:
            pytest.skip("Redis 6.2 has no functions")
        yield url


@pytest.fixture
def db(own_server: str) -> Iterator[redis.Redis]:
    with servers.client(own_server) as client:
        client.flushall()
        client.execute_command("FUNCTION FLUSH")
        client.config_resetstat()
        yield client


@actor
async def double(n: int) -> int:
    return 2 * n


async def run_some(url: str) -> None:
    async with Runtime(url, actors=[double]) as runtime:
        assert [await runtime.ask("t", double(n), timeout=PATIENCE) for n in range(5)] == [0, 2, 4, 6, 8]


def calls(db: redis.Redis, command: str) -> int:
    return int(db.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def libraries(db: redis.Redis) -> list[str]:
    return sorted(found[1].decode() for found in db.execute_command("FUNCTION LIST"))


async def test_they_are_loaded_once(own_server: str, db: redis.Redis) -> None:
    await run_some(own_server)
    await run_some(own_server)
    send, turn = libraries(db)
    assert send.startswith("fairactor_send_")
    assert turn.startswith("fairactor_turn_")
    assert calls(db, "function|load") == 2
    assert calls(db, "fcall") > 20


async def test_they_are_loaded_again(own_server: str, db: redis.Redis) -> None:
    async with Runtime(own_server, actors=[double]) as runtime:
        assert await runtime.ask("t", double(1), timeout=PATIENCE) == 2
        db.execute_command("FUNCTION FLUSH")
        assert await runtime.ask("t", double(2), timeout=PATIENCE) == 4
    assert len(libraries(db)) == 2


@pytest.mark.parametrize("rights", [[], ["+fcall"], ["+function|load"]])
async def test_without_the_right_the_scripts_serve(own_server: str, db: redis.Redis, rights: list[str]) -> None:
    rules = [f"+{command}" for command in (*ALONE, *IN_SCRIPTS)]
    db.execute_command("ACL", "SETUSER", "some", "reset", "on", ">pw", "~*", "&*", *rules, *rights)
    await run_some(own_server + "?username=some&password=pw")
    assert libraries(db) == []
    assert calls(db, "evalsha") > 20
    assert calls(db, "fcall") <= 2, "it does not try for ever"


def test_the_scripts_of_plugins_fit_into_functions(db: redis.Redis) -> None:
    plugins = PluginChain([Dependencies(), Scheduling(), XCom()]).lua
    for name in ("send", "turn"):
        script = loader.load(name, flags=True, plugins=plugins)
        db.execute_command("FUNCTION LOAD", script.library())
        assert script.function


def test_every_script_can_be_a_function(own_server: str, db: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_AS_FUNCTIONS", set(loader.NAMES))
    loader.load.cache_clear()
    try:
        with open_shard(own_server) as shard:
            shard.join("r")
            shard.check()
        for name in loader.NAMES:
            db.execute_command("FUNCTION LOAD", "REPLACE", loader.load(name, flags=True).library())
    finally:
        loader.load.cache_clear()


# How a script is divided


def run(db: redis.Redis, text: str, *arguments: str) -> object:
    db.execute_command("FUNCTION LOAD", "REPLACE", library.to_library("test", text, []))
    return db.execute_command("FCALL", "test", 1, "key", *arguments)


SCRIPT = """-- A header.
local sum, first = 0, nil
local count, helper
do
  local seen = {}
  local function note(n) seen[#seen + 1] = n end
  function count(n)
    note(n)
    return #seen
  end
end
if ARGV[1] == 'early' then return 'early' end
function helper(n)
  sum = sum + n
  first = first or n
end
-- @scope
for _, n in ipairs(ARGV) do
  helper(tonumber(n))
  count(n)
end
local sum_before =
  sum
-- @scope
return { sum_before, first, count(0), KEYS[1] }
"""


def test_each_call_begins_anew(own_server: str, db: redis.Redis) -> None:
    assert run(db, SCRIPT, "1", "2", "3") == [6, 1, 4, b"key"]
    assert run(db, SCRIPT, "5") == [5, 5, 2, b"key"]
    assert run(db, SCRIPT, "early") == b"early"
    assert run(db, SCRIPT, "7") == [7, 7, 2, b"key"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("local x = 1\nlocal x = x + 1\n", "its value uses the {'x'} that it hides"),
        ("local f = nil\nfunction f() end\n", "one is a function later"),
    ],
)
def test_what_cannot_be_divided_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        library.to_library("test", text, [])
