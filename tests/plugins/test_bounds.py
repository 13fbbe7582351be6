"""Tests that the scripts of the plugins do a bounded number of steps, and move a bounded number of bytes, in a call."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import redis
from fairactor_dependencies import Dependencies, _batch, _send, at, group, results
from fairactor_scheduling import Schedules, Scheduling
from fairactor_xcom import Values, XCom, xcom

from fairactor import Runtime, TaskFailed, actor
from fairactor._model.wire import Settlement, turn_mark
from fairactor._plugin_chain import PluginChain
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until
from tests.support.scheduling.schedules import list_schedules, note, rewind, schedule_key
from tests.support.shard.driver import ShardDriver, item

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

DEPENDENCIES = "fairactor_dependencies"
MEGABYTE = 1 << 20
MOST_COMMANDS = 2_500
"""Redis commands in one script."""


class Watched(ShardDriver):
    """A shard with all plugins that counts what each call costs."""

    def __init__(self, url: str) -> None:
        super().__init__(url, plugins=PluginChain([Dependencies(), Scheduling(), XCom()]).lua)
        self.open()
        self.join("r")

    def cost(self, call: Callable[[], Any]) -> tuple[Any, int]:
        """Returns a call's reply, and how many commands the server carried out for it."""
        self.db.config_resetstat()
        reply = call()
        stats = self.db.info("commandstats")
        return reply, sum(entry["calls"] for entry in stats.values())

    def plugin(self, script: str, *arguments: Any) -> Any:
        return self.run(self.shard.call(script, *arguments))

    def send_waiting(self, task_id: str, *parents: str, wants: bool = False) -> None:
        """Sends a task that waits for others, and takes the result of the first one."""
        token = f"{task_id:>024}"
        waits = {"parents": parents, "keep": 3_600_000, **({"token": token, "wants": [1]} if wants else {})}
        extra = msgspec.msgpack.encode({DEPENDENCIES: {"dependencies": waits}})
        self.send(item(task_id, extra=extra, body=b'["a",["%s:1"]]' % token.encode()))

    def end(self, task_id: str, turn: int, result: bytes = b"1") -> Callable[[], Any]:
        """Returns a turn that reports that a task of the turn before has finished."""
        header = struct.pack(">cBBHdH", b"F", 0, 3, 1, 1.0, 1) + b"t"
        record = header + b'{"result":' + result + b',"started_at":1.0,"ended_at":2.0}\n{}'
        done = Settlement(task_id, turn_mark(turn - 1), "F", 3_600_000, record)
        return lambda: self.turn("r", turn, 0, [done])

    def queued(self) -> int:
        return int(self.db.zcard(self.keys.queue("t")))

    def released_by_each(self, first: Callable[[], Any]) -> Iterator[int]:
        """Yields how many tasks each call releases until nothing is left."""
        call: Callable[[], Any] = first
        while True:
            before = self.queued()
            reply, commands = self.cost(call)
            assert commands < MOST_COMMANDS
            yield self.queued() - before
            if call is not first and reply[0] != 0:
                return
            call = lambda: self.plugin(f"{DEPENDENCIES}/take", 100, 5_000, 0)  # noqa: E731 - short


@pytest.fixture
def watched(url: str) -> Iterator[Watched]:
    made = Watched(url)
    try:
        yield made
        made.check()
    finally:
        made.close()


def test_an_end_releases_thousands_in_several_scripts_and_in_order(watched: Watched) -> None:
    watched.send(item("p"))
    for n in range(700):
        watched.send_waiting(f"c{n:04}", "p")
    assert watched.claim("r", 1, 1) == ["p"]
    released = [*watched.released_by_each(watched.end("p", 2))]
    assert (sum(released), max(released) <= 130) == (700, True)
    assert watched.claim("r", 3, 700) == [f"c{n:04}" for n in range(700)]


def test_results_that_are_copied_count_by_their_bytes(watched: Watched) -> None:
    watched.send(item("p"))
    for n in range(40):
        watched.send_waiting(f"c{n}", "p", wants=True)
    assert watched.claim("r", 1, 1) == ["p"]
    released = [*watched.released_by_each(watched.end("p", 2, b'"%s"' % (b"x" * 300_000)))]
    assert (sum(released), max(released) <= 4) == (40, True)
    assert all(int(watched.db.strlen(watched.keys.task(f"c{n}"))) > 300_000 for n in range(40))


def test_messages_between_shards_travel_in_parts_of_a_megabyte(watched: Watched) -> None:
    watched.send(item("p"))
    watched.send_waiting("c", "p", wants=True)
    watched.claim("r", 1, 1)
    watched.end("p", 2, b'"%s"' % (b"x" * 300_000))()
    asking = [struct.pack(">HccBIH", 0, b"s", b" ", 1, 1, 3) + b"%03d" % n + b"\0\1p\0\0011t" for n in range(30)]
    asked = 0
    while asked < len(asking):
        handled = watched.plugin(f"{DEPENDENCIES}/arrive", *asking[asked:])
        assert 0 < handled <= 5
        asked += handled
    while watched.db.zcard(f"{watched.keys.meta}:plugin:{DEPENDENCIES}:outbox"):
        rest, _, *messages = watched.plugin(f"{DEPENDENCIES}/take", 100, 5_000, 0)
        assert rest == 0 or len(messages) < 4
        assert 0 < sum(map(len, messages)) < MEGABYTE + 300_100
        assert watched.plugin(f"{DEPENDENCIES}/ack", *messages) == len(messages)


def test_results_are_read_in_parts_of_a_megabyte(watched: Watched) -> None:
    watched.send_waiting("c", "nobody")
    got = f"{watched.keys.meta}:plugin:{DEPENDENCIES}:got:token"
    watched.db.hset(got, mapping={str(n): b'"%s"' % (b"x" * 400_000) for n in range(1, 8)})
    assert len(watched.plugin(f"{DEPENDENCIES}/results", "token", 1, 7)) == 3
    watched.db.hset(got, mapping={str(n): b"1" for n in range(1, 3_001)})
    assert len(watched.plugin(f"{DEPENDENCIES}/results", "token", 1, 3_000)) == 1_000
    watched.db.delete(got)


@actor
async def give(value: Any) -> Any:
    return value


@actor
async def total(numbers: list[int]) -> int:
    return sum(numbers)


async def _counted(runtime: Runtime, state: str, many: int) -> bool:
    """Returns whether a tenant has that many tasks in a state."""
    return bool(getattr(await runtime.tenant("t").stats(), state) == many)


@pytest.mark.parametrize("shards", [1, 3])
async def test_many_parents_are_sent_in_parts(
    make_runtime: Make, db: redis.Redis, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    for module in (_batch, _send):
        monkeypatch.setattr(module, "PARENTS_AT_ONCE", 7)
    async with make_runtime(give, total, shards=shards, plugins=[Dependencies()]) as runtime:
        wide = [at(f"t{n % 5}", give(n)) for n in range(30)]
        run = await runtime.send("t", give(1) >> group(*wide) >> [total(results()), total(results())])
        assert await run.result(PATIENCE) == [435, 435]
        ended = [await runtime.send(f"t{n % 5}", give(n)) for n in range(20)]
        assert [await each.result(PATIENCE) for each in ended] == [*range(20)]
        both = [total(results()).options(depends_on=ended), total(results()).options(depends_on=ended[1:])]
        handles = await runtime.send_many([("t", both[0]), ("u", both[1])])
        assert [await each.result(PATIENCE) for each in handles] == [190, 190]
        await check_invariants(runtime)
        await until(lambda: not [*db.scan_iter("*:plugin:*:outbox")])
    left = {key.decode() for key in db.scan_iter("*:plugin:*")}
    assert not {key for key in left if ":fill:" in key or ":of:" in key or ":got:" in key}


async def test_a_task_with_many_parents_ends_with_a_run_that_is_not_sent_whole(
    make_runtime: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_batch, _send):
        monkeypatch.setattr(module, "PARENTS_AT_ONCE", 7)
    async with make_runtime(give, total, plugins=[Dependencies()]) as runtime:
        call = type(runtime.host).call

        async def fails(self: Any, script: str, *arguments: Any) -> Any:
            if script.endswith("/fill"):
                raise KeyboardInterrupt
            return await call(self, script, *arguments)

        monkeypatch.setattr(type(runtime.host), "call", fails)
        with pytest.raises(KeyboardInterrupt):
            await runtime.send("t", group(*[give(n) for n in range(30)]) >> total(results()))
        await until(lambda: _counted(runtime, "canceled", 31))
        await check_invariants(runtime)


async def test_a_scheduled_graph_has_no_gate_however_many_steps(make_runtime: Make, db: redis.Redis) -> None:
    plugins = [Scheduling(), Dependencies()]
    async with make_runtime(give, total, plugins=plugins) as runtime:
        graph = group(*[give(n) for n in range(300)]) >> [total(results()), total(results())]
        await Schedules(runtime).add("0 0 1 1 *", "t", graph, id="s")
        handle = await Schedules(runtime).run_now("t", "s")
        assert not [*db.scan_iter("*:gate*")]
        assert await handle.result(PATIENCE) == 44_850


async def test_large_scheduled_messages_are_sent_some_at_a_time(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(note, plugins=[Scheduling()], workers=0) as runtime:
        schedules = Schedules(runtime)
        for n in range(12):
            await schedules.add(
                3600.0, "t", note("x" * 200_000), id=f"s{n}", catch_up="all", budget=3, metadata={"m": "y" * 10_000}
            )
        for n in range(12):
            await rewind(db, runtime, "t", f"s{n}", dt.timedelta(hours=3))
        await until(lambda: all(db.hget(schedule_key("t", f"s{n}"), "runs") == b"2" for n in range(12)))
        await until(lambda: _counted(runtime, "queued", 24))
        assert len(await list_schedules(schedules)) == 12
        await check_invariants(runtime)


async def test_schedules_are_listed_in_pages(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(note, plugins=[Scheduling()], workers=0) as runtime:
        schedules = Schedules(runtime)
        for n in range(110):
            await schedules.add("0 0 1 1 *", "t", note(n), id=f"s{n:03}", metadata={"m": "y" * 16_000})
        db.config_resetstat()
        assert [each.id for each in await list_schedules(schedules, "t")] == [f"s{n:03}" for n in range(110)]
        assert db.info("commandstats")["cmdstat_zrangebylex"]["calls"] == 3  # 66, 44, none


@actor
async def push(names: list[str], size: int) -> None:
    for name in names:
        await xcom.push(name, "x" * size, ttl=0)


async def test_many_values_are_listed_read_and_deleted_in_parts(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(push, plugins=[XCom()]) as runtime:
        names = [f"k{n:04}" for n in range(900)]
        for task in ("a", "b"):
            await runtime.ask("t", push(names, 1), xcom_run="r", id=task, timeout=PATIENCE)
        values = Values(runtime, "t", "r")
        listed = await values.list()
        assert sorted((each.task, each.key) for each in listed) == [(task, name) for task in "ab" for name in names]
        assert await values.delete("k0000") == 2
        assert await values.delete("k0001", from_task="b") == 1
        assert await values.delete("k0001", from_task="b") == 0
        assert await values.clear() == 1_797
        assert (await values.list(), await values.clear()) == ([], 0)
        assert {key.split(b":")[3] for key in db.scan_iter("*:plugin:fairactor_xcom:*")} == {b"run"}
        for n in range(30):
            await runtime.ask("t", push(["big"], 60_000), xcom_run="r", id=f"big{n}", timeout=PATIENCE)
        db.config_resetstat()
        assert await values.pull("big", from_task=[f"big{n}" for n in range(30)]) == ["x" * 60_000] * 30
        assert db.info("commandstats")["cmdstat_hget"]["calls"] < 40
        with pytest.raises(TaskFailed, match="1001 values"):
            await runtime.ask("t", push([f"k{n}" for n in range(1_001)], 1), timeout=PATIENCE)
        await check_invariants(runtime)


async def test_the_last_value_is_found_behind_thousands_that_have_expired(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(push, plugins=[XCom()]) as runtime:
        await runtime.ask("t", push(["k"], 3), xcom_run="r", timeout=PATIENCE)
        index = "{fairactor/0}:plugin:fairactor_xcom:index:1:tr"
        over = [struct.pack(">H", 1) + b"k" + struct.pack(">dd", 9e15 + n, 1) + b"gone" for n in range(2_500)]
        db.zadd(index, dict.fromkeys(over, 0))
        assert await Values(runtime, "t", "r").pull("k") == "xxx"
        assert await Values(runtime, "t", "r").pull("none", default=None) is None
