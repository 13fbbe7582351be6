"""A user with exactly the documented rights can do everything. If one is missing, one error says which."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from fairactor_scheduling import Schedules
from fairactor_xcom import xcom

from fairactor import Retry, Runtime, actor, current_task
from fairactor._server.rights import ALONE, IN_SCRIPTS, missing_right
from fairactor.errors import ServerError, TaskFailed
from tests.support import servers
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
LEAST = ("~{fairactor/*}*", "&{fairactor/*}*", *(f"+{name}" for name in (*ALONE, *IN_SCRIPTS)))
# Words in capitals in the scripts that are options of commands, not commands.
WORDS = {
    "BYLEX",
    "CH",
    "COUNT",
    "GT",
    "INCR",
    "LIMIT",
    "LT",
    "MATCH",
    "RANK",
    "NUMSUB",
    "NX",
    "PX",
    "REV",
    "WITHSCORES",
    "WITHVALUES",
    "XX",
}


@pytest.fixture(scope="module")
def acl_server(server_binary: str) -> Iterator[str]:
    with servers.running(server_binary) as url:
        yield url


@pytest.fixture
def db(acl_server: str) -> Iterator[redis.Redis]:
    with servers.client(acl_server) as client:
        client.flushall()
        client.script_flush()
        yield client


def user_with(db: redis.Redis, rules: Sequence[str], name: str = "least") -> str:
    """Makes a user with exactly these rules; returns its login as options of a URL."""
    db.execute_command("ACL", "SETUSER", name, "reset", "on", ">pw", "resetchannels", *rules)
    return f"?username={name}&password=pw"


@actor
async def double(n: int) -> int:
    return 2 * n


@actor(max_retries=1, backoff=0)
async def fail(*, for_good: bool) -> None:
    if for_good:
        raise ValueError("for good")
    if current_task().attempt == 1:
        raise Retry("once", delay=0)
    await current_task().progress(0.5, "half")


@actor
async def share(value: int) -> int:
    await xcom.push("shared", value)
    return int(await xcom.pull("shared"))


async def do_everything(url: str) -> None:
    settings: dict[str, Any] = {"lease": 2.0, "grace": 1.0}
    async with Runtime(url, actors=[double, fail, share], **settings) as runtime, Runtime(url, workers=0) as web:
        await tasks(runtime, web)
        await limits(runtime)
        await plugins(runtime, web)
        assert (await web.health()).stats is not None
        await runtime.assign(["a"], steal=True)
        await runtime.repair()
        await runtime.ask("a", double(1), timeout=PATIENCE)


async def tasks(runtime: Runtime, web: Runtime) -> None:
    assert await web.ask("a", double(2), timeout=PATIENCE) == 4
    handles = await web.send_many([("b", double(n)) for n in range(600)])
    assert [await handle.result(PATIENCE) for handle in handles[:3]] == [0, 2, 4]
    await web.ask("a", fail(for_good=False), timeout=PATIENCE)
    with pytest.raises(TaskFailed):
        await web.ask("a", fail(for_good=True), timeout=PATIENCE)
    letters = [letter async for letter in web.dead_letters.find()]
    await web.dead_letters.redrive(tenant=letters[0].tenant)
    await runtime.drain(PATIENCE)
    await web.dead_letters.purge()
    later = await web.send("a", double(1), delay=60)
    await later.info()
    await later.cancel()
    first = await web.send("a", double(1), delay=0.05, key="k")
    assert (await web.send("a", double(1), key="k")).id == first.id
    await first.result(PATIENCE)


async def limits(runtime: Runtime) -> None:
    tenant = runtime.tenant("limited")
    await tenant.configure(concurrency=1, rate="1000/s", backlog=50, group="customers", weight=2)
    await runtime.policies.configure_defaults(weight=1)
    await tenant.pause()
    await runtime.send_many([("limited", double(n)) for n in range(5)])
    await tenant.resume()
    await runtime.drain(PATIENCE)
    await tenant.stats()
    await tenant.pause()
    await runtime.send_many([("limited", double(n)) for n in range(5)])
    assert await tenant.purge() == 5


async def plugins(runtime: Runtime, web: Runtime) -> None:
    run = await web.send("a", double(1) >> [double(2), double(3)] >> share(4))
    assert await run.result(PATIENCE) == 4
    schedules = Schedules(web)
    await schedules.add(0.2, "a", double(1), id="often")
    await until(lambda: _has_run(runtime))
    await schedules.remove("a", "often")


async def _has_run(runtime: Runtime) -> bool:
    return bool((await Schedules(runtime).get("a", "often")).runs)


@pytest.mark.long
async def test_the_documented_rights_suffice_for_everything(acl_server: str, db: redis.Redis) -> None:
    url = acl_server + user_with(db, (*LEAST, "+info"))
    db.execute_command("ACL", "LOG", "RESET")
    await do_everything(url)
    refused: list[dict[bytes, Any]] = db.execute_command("ACL", "LOG")
    allowed_to_fail = {b"client|setinfo", b"client|maint_notifications", b"client"}  # redis-py goes on without them
    allowed_to_fail |= {b"fcall", b"function|load"}  # scripts serve without them
    assert [entry for entry in refused if entry[b"object"] not in allowed_to_fail] == []


def test_the_rights_are_the_commands_of_the_scripts() -> None:
    found = set[str]()
    for script in [*(ROOT / "fairactor" / "lua").rglob("*.lua"), *(ROOT / "plugins").rglob("*.lua")]:
        code = "\n".join(line.partition("--")[0] for line in script.read_text().splitlines())
        found |= set(re.findall(r"'([A-Z]{2,})'", code))
    found.discard("INFO")  # the repair goes on without it
    assert {name.partition("|")[0] for name in IN_SCRIPTS} == {name.lower() for name in found - WORDS}


def test_the_docs_have_the_rights() -> None:
    page = (ROOT / "docs" / "servers.md").read_text()
    match = re.search(r"^ACL SETUSER fairactor on >PASSWORD resetchannels(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert match is not None
    assert set(match[1].replace("\\", " ").split()) == {*LEAST, "+info"}


@pytest.mark.parametrize("right", ["+hset", "+zadd", "+publish", "+pubsub|numsub", "+evalsha", "+subscribe", "+ping"])
async def test_a_missing_command_is_named(acl_server: str, db: redis.Redis, right: str) -> None:
    if (int(db.info()["redis_version"][0])) < 7:  # Redis 6.2 cannot tell beforehand
        pytest.skip("Redis 6.2 names some commands only")
    login = user_with(db, [rule for rule in LEAST if rule != right])
    command = right[1:].upper().replace("|", " ")
    words = rf"the user 'least' has no permission to run {re.escape(command)}\..*ACL SETUSER least {re.escape(right)}$"
    with pytest.raises(ServerError, match=words):
        await do_everything(acl_server + login)
    assert not db.keys(), "nothing was written"


async def test_all_missing_commands_are_named_at_once(acl_server: str, db: redis.Redis) -> None:
    if (int(db.info()["redis_version"][0])) < 7:  # as above
        pytest.skip("Redis 6.2 names some commands only")
    login = user_with(db, [rule for rule in LEAST if rule not in {"+get", "+set"}])
    with pytest.raises(ServerError, match=r"no permission to run GET, run SET\. .*ACL SETUSER least \+get \+set$"):
        await do_everything(acl_server + login)


async def test_the_first_command_is_named(acl_server: str, db: redis.Redis) -> None:
    login = user_with(db, [rule for rule in LEAST if rule != "+eval"])
    words = r"the user 'least' has no permission to run EVAL\..*ACL SETUSER least \+eval"
    with pytest.raises(ServerError, match=words):
        await do_everything(acl_server + login)


@pytest.mark.parametrize("pattern", [[], ["~other:*"], ["~{fairactor/*}"]])
async def test_missing_keys_are_named(acl_server: str, db: redis.Redis, pattern: list[str]) -> None:
    login = user_with(db, [*(rule for rule in LEAST if not rule.startswith("~")), *pattern])
    words = r"'least' has no permission to use the keys \{fairactor/\*\}\*\..*ACL SETUSER least ~\{fairactor/\*\}\*"
    with pytest.raises(ServerError, match=words):
        await do_everything(acl_server + login)


@pytest.mark.parametrize("pattern", [[], ["&other:*"]])
async def test_missing_channels_are_named(acl_server: str, db: redis.Redis, pattern: list[str]) -> None:
    login = user_with(db, [*(rule for rule in LEAST if not rule.startswith("&")), *pattern])
    words = r"'least' has no permission to use the channels \{fairactor/\*\}\*\..*ACL SETUSER least &\{fairactor/\*\}\*"
    with pytest.raises(ServerError, match=words):
        await do_everything(acl_server + login)


async def test_rights_that_are_taken_away_and_given_back(
    acl_server: str, db: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    login = user_with(db, LEAST)
    async with Runtime(acl_server + login, actors=[double], lease=1.0) as runtime:
        db.execute_command("ACL", "SETUSER", "least", "-zadd", "-hset")
        with pytest.raises(ServerError, match=r"the user 'least' has no permission to run"):
            await runtime.send("a", double(1))
        db.execute_command("ACL", "SETUSER", "least", "+zadd", "+hset")
        assert await runtime.ask("a", double(1), timeout=PATIENCE) == 2
    assert "keeps failing" not in caplog.text


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("NOPERM this user has no permissions to run the 'hset' command or its subcommand", "+hset"),
        ("this user has no permissions to run the 'info' command", "+info"),
        ("User u has no permissions to run the 'pubsub|numsub' command", "+pubsub|numsub"),
        (
            "ACL failure in script: User u has no permissions to run the 'set' command script: on @user_script:1.",
            "+set",
        ),
        (
            "Error running script: @user_script: 1: The user executing the script can't run this command or subcommand",
            "+",
        ),
        ("this user has no permissions to access one of the keys used as arguments", "~"),
        ("The user executing the script can't access at least one of the keys mentioned in the command arguments", "~"),
        ("No permissions to access a key", "~"),
        ("this user has no permissions to access one of the channels used as arguments", "&"),
        ("ACL failure in script: No permissions to access a channel script: on @user_script:1.", "&"),
        ("The user executing the script can't publish to the channel mentioned in the command", "&"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", None),
    ],
)
def test_what_servers_say(text: str, right: str | None) -> None:
    assert missing_right(redis.ResponseError(text)) == right
