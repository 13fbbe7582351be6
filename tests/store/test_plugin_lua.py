"""Lua of plugins: where it is inserted, what it can use, its atomicity with the scripts, and who needs it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from textwrap import dedent
from typing import Any, Final

import anyio
import pytest
import redis

from fairactor import Retry, Runtime, TaskFailed, TaskState, actor, current_task
from fairactor._store import loader as scripts
from fairactor._store.plugin_lua import PluginLua
from fairactor.errors import ConfigurationError, MissingPlugin
from fairactor.plugins import Option
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until
from tests.support.shard.driver import ADMIT

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

Option("tally", plugin="tally", script=True)
Option("held", plugin="tally", script=True)


class Tally:
    """Counts messages sent with ``tally=``, and all tasks that end, with their attachments."""

    name = "tally"
    lua: Final = {
        "sent": """
local WORD = 'sent '
if data.held then hold() end
later[#later + 1] = function() call('HINCRBY', OWN .. name, WORD .. (data.tally or ''), 1) end
""",
        "ended": """
later[#later + 1] = function() call('HINCRBY', OWN .. name, state .. ' ' .. (data and data.n or ''), 1) end
""",
    }
    scripts: Final = {
        "read": """
-- @include lib/intact.lua
return call('HGETALL', OWN .. ARGV[1])
""",
        "admit": ADMIT,
        "broken": "return redis.error_reply('BROKEN by ' .. ARGV[1])",
    }


@actor
async def run(fail: bool = False) -> None:
    task = current_task()
    task.attach("tally", {"n": task.attempt})
    if fail:
        raise Retry(delay=0)


async def tally(runtime: Runtime, tenant: str = "t") -> dict[str, int]:
    flat = iter(await runtime.host.call("tally/read", tenant, tenant))
    return {key.decode(): int(number) for key, number in zip(flat, flat, strict=True)}


def test_a_text_stands_at_its_place_with_its_constants_and_keys() -> None:
    plugins = PluginLua(
        (
            ("sent", "a", "local MOST = 5\ncall('SET', OWN .. id, MOST) -- OWN\n"),
            ("ended", "a", "later[1] = call"),
            ("sent", "b", "hold()"),
        )
    )
    text = scripts.load("send", flags=True, plugins=plugins).text
    assert dedent(text.partition("    local holder, kept\n")[2].partition("    return holder, kept")[0]) == (
        "do\n"
        "local data = extra['a']\n"
        "if data then\n"
        "depend_on('a')\n"
        "local mine = shared['a'] or share('a')\n"
        "local function hold(keep) holder, kept = 'a', keep or '' end\n"
        "\n"
        "call('SET', (meta .. ':plugin:a:') .. id, 5) -- OWN\n"
        "\n"
        "end\n"
        "end\n"
        "do\n"
        "local data = extra['b']\n"
        "if data then\n"
        "depend_on('b')\n"
        "local mine = shared['b'] or share('b')\n"
        "local function hold(keep) holder, kept = 'b', keep or '' end\n"
        "hold()\n"
        "end\n"
        "end\n"
    )
    assert "later[1] = call" in scripts.load("turn", flags=True, plugins=plugins).text
    assert "later[1] = call" not in scripts.load("configure", flags=True, plugins=plugins).text
    assert "  -- @hook" not in scripts.load("turn", flags=True).text


async def test_it_sees_what_is_sent_with_its_options_and_what_ends_with_what_was_left(make_runtime: Make) -> None:
    async with make_runtime(run, plugins=[Tally()]) as runtime:
        await runtime.ask("t", run(), timeout=PATIENCE)
        assert await tally(runtime) == {"F 1": 1}
        handles = await runtime.send_many([("t", run().options(tally=word)) for word in "xyx"])
        for handle in handles:
            await handle.result(timeout=PATIENCE)
        assert await tally(runtime) == {"F 1": 4, "sent x": 2, "sent y": 1}


async def test_what_a_failed_attempt_has_left_is_gone(make_runtime: Make) -> None:
    @actor
    async def second() -> None:
        task = current_task()
        if task.attempt == 1:
            task.attach("tally", {"n": 7})
            raise Retry(delay=0)

    async with make_runtime(run, second, plugins=[Tally()]) as runtime:
        await runtime.ask("t", second().options(max_retries=1), timeout=PATIENCE)
        with pytest.raises(TaskFailed):
            await runtime.ask("t", run(fail=True), timeout=PATIENCE)
        assert await tally(runtime) == {"F ": 1, "X ": 1}


async def test_what_is_left_comes_as_text_where_lua_has_no_form_for_it_and_else_the_attempt_fails(
    make_runtime: Make,
) -> None:
    @actor
    async def leave(kind: str) -> None:
        kinds = {"bytes": b"\xff", "time": dt.datetime(2026, 1, 1, tzinfo=dt.UTC), "none": None, "what": object()}
        current_task().attach("tally", {"n": {"deep": [kinds[kind]]}["deep"][0], 1: 2})

    async with make_runtime(leave, plugins=[Tally()]) as runtime:
        for kind in ("bytes", "time", "none"):
            await runtime.ask("t", leave(kind), timeout=PATIENCE)
        with pytest.raises(TaskFailed, match="TypeError: Encoding objects of type object"):
            await runtime.ask("t", leave("what"), timeout=PATIENCE)
        assert await tally(runtime) == {"F /w==": 1, "F 2026-01-01T00:00:00Z": 1, "F ": 1, "X ": 1}


async def test_it_sees_every_way_in_which_a_task_ends(make_runtime: Make) -> None:
    begun = anyio.Event()

    @actor
    async def hang() -> None:
        begun.set()
        await anyio.sleep_forever()

    async with make_runtime(run, hang, plugins=[Tally()]) as runtime:
        await (await runtime.send("t", run().options(delay=60))).cancel()
        assert await tally(runtime) == {"C ": 1}
        handle = await runtime.send("t", hang())
        await begun.wait()
        await handle.cancel()
        await until(lambda: is_settled(handle))
        assert await tally(runtime) == {"C ": 2}
        await runtime.tenant("t").pause()
        await runtime.send_many([("t", run())] * 3)
        await runtime.send_many([("t", run().options(delay=60))] * 2)
        await runtime.send_many([("t", run().options(held=True))] * 4 + [("other", run().options(held=True))])
        assert await runtime.tenant("t").purge() == 9
        assert await tally(runtime) == {"C ": 11, "sent ": 4}
        assert (await runtime.stats()).deferred == 1
        await check_invariants(runtime)


async def is_settled(handle: Any) -> bool:
    return await handle.state() not in (TaskState.QUEUED, TaskState.STARTED)


async def test_one_that_it_holds_back_is_deferred_and_can_be_canceled(make_runtime: Make) -> None:
    async with make_runtime(run, plugins=[Tally()]) as runtime:
        handle = await runtime.send("t", run(), held=True)
        assert await handle.state() is TaskState.DEFERRED
        assert (await runtime.tenant("t").stats()).deferred == 1
        assert await handle.cancel() is TaskState.DEFERRED
        assert (await runtime.tenant("t").stats()).deferred == 0
        assert await tally(runtime) == {"sent ": 1, "C ": 1}


async def test_one_that_is_admitted_runs_or_waits_until_it_is_due(make_runtime: Make) -> None:
    async with make_runtime(run, plugins=[Tally()]) as runtime:
        handles = [await runtime.send("t", run().options(held=True, id=task)) for task in "ab"]
        later = await runtime.send("t", run().options(held=True, id="c", delay=60))
        assert (await runtime.tenant("t").stats()).deferred == 3
        await check_invariants(runtime)
        assert await runtime.host.call("tally/admit", "t", "a", "b", "a", "c", "nobody") == 3
        for handle in handles:
            await handle.result(timeout=PATIENCE)
        assert await later.state() is TaskState.SCHEDULED
        assert await runtime.host.call("tally/admit", "t", "a", "c") == 0
        await check_invariants(runtime)


async def test_one_that_the_end_of_another_admits_runs_after_it(make_runtime: Make) -> None:
    class Chain(Tally):
        name = "chain"
        lua: Final = {
            "sent": "hold()\nlater[#later + 1] = function() call('SET', OWN .. data.waits, id) end",
            "ended": "local next_one = call('GET', OWN .. id)\nif next_one then admit(next_one) end",
        }

    Option("waits", plugin="chain", script=True)
    order: list[str] = []

    @actor
    async def link() -> None:
        order.append(current_task().id)

    async with make_runtime(link, plugins=[Chain()]) as runtime:
        await runtime.tenant("t1").configure(concurrency=1)
        links = [("t" + str(n % 2), link().options(id=str(n), waits=str(n - 1))) for n in range(1, 20)]
        handles = await runtime.send_many(links)
        await runtime.send("t", link(), id="0")
        await handles[-1].result(timeout=PATIENCE)
        assert order == [str(n) for n in range(20)]
        await check_invariants(runtime)


async def test_mending_leaves_what_is_held_back_where_it_is(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(run, plugins=[Tally()]) as runtime:
        handle = await runtime.send("t", run(), held=True)
        db.hdel("{fairactor/0}:counts", "t")
        db.hset("{fairactor/0}:held", "nobody", "tally")
        await runtime.repair()
        assert await handle.state() is TaskState.DEFERRED
        await check_invariants(runtime)
        await handle.cancel()
        await check_invariants(runtime)


# Who needs the plugin


async def test_who_has_it_not_is_refused_once_it_was_used(make_runtime: Make) -> None:
    async with make_runtime(run, plugins=[Tally()]) as runtime, make_runtime(workers=0, without_plugins=True) as other:
        async with make_runtime(workers=0, without_plugins=True) as another:
            await another.send("t", run())
        await runtime.ask("t", run().options(tally="x"), timeout=PATIENCE)
        with pytest.raises(
            MissingPlugin, match="depends on the plugin 'tally', which this Runtime does not have"
        ) as caught:
            await other.send("t", run())
        assert caught.value.plugin == "tally"
    with pytest.raises(MissingPlugin, match="'tally'"):
        await make_runtime(workers=0, without_plugins=True).__aenter__()
    async with make_runtime(workers=0, plugins=[Tally()]) as again:
        await again.send("t", run())


async def test_a_runtime_that_lacks_what_was_used_meanwhile_stops_with_its_name(
    make_runtime: Make, db: redis.Redis
) -> None:
    entered = anyio.Event()

    async def serve() -> None:
        async with make_runtime(run, without_plugins=True):
            entered.set()
            await anyio.sleep_forever()

    async with make_runtime(workers=0, plugins=[Tally()]) as runtime:
        serving = asyncio.ensure_future(serve())
        await entered.wait()
        await runtime.send("t", run(), tally="x")
        with pytest.raises(MissingPlugin, match="'tally'"):
            await serving
    db.flushall()  # its lease would only end with time


# Scripts


async def test_a_script_of_a_plugin_runs_on_the_shard_of_a_tenant_or_on_one_by_its_number(make_runtime: Make) -> None:
    async with make_runtime(workers=0, plugins=[Tally()], shards=3) as runtime:
        assert runtime.host.shard_count == 3
        tenants = [f"t{n}" for n in range(20)]
        await runtime.send_many([(tenant, run().options(tally="x")) for tenant in tenants])
        assert [await tally(runtime, tenant) for tenant in tenants] == [{"sent x": 1}] * 20
        found = [bool(await runtime.host.call("tally/read", number, "t0")) for number in range(3)]
        assert sorted(found) == [False, False, True]


async def test_what_cannot_be_called_is_refused_by_name(make_runtime: Make) -> None:
    async with make_runtime(workers=0, plugins=[Tally()]) as runtime:
        with pytest.raises(ConfigurationError, match=r"no script 'tally/rad'; .* are: .*tally/read, tally/admit"):
            await runtime.host.call("tally/rad", "t")
        with pytest.raises(Exception, match="BROKEN by t"):
            await runtime.host.call("tally/broken", "t", "t")


@pytest.mark.parametrize(
    ("name", "lua", "why"),
    [
        ("a", {"nowhere": ""}, "there is no Lua hook 'nowhere'; the hooks are sent, ended"),
        ("a b", {"ended": ""}, "plugin 'a b' has Lua, so its name must be 1 to 64 letters"),
        ("a'", {"ended": ""}, "has Lua, so its name must be"),
    ],
)
def test_lua_that_cannot_be_composed_is_refused_at_once(name: str, lua: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Runtime("redis://nowhere", plugins=[type("P", (), {"name": name, "lua": lua})()])
