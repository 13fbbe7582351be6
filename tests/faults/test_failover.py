"""Tests failing servers and connections: failover, outages, lost replies, silent connections."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fairactor import TaskState
from fairactor._plugin_chain import PluginChain
from fairactor._store import loader as scripts
from fairactor.errors import ServerError, TaskNotFound
from fairactor.plugins import installed_plugins
from fairactor.testing import check_invariants
from tests.support import servers
from tests.support.polling import PATIENCE, until
from tests.support.proxy import Fault, Proxy, proxy
from tests.support.servers import Instance
from tests.support.shard.driver import ShardDriver, item, open_shard, outcome

from .test_durability import pair, replicates
from .test_server_faults import SOON, Work, sender

pytestmark = pytest.mark.anyio


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def both(server_binary: str) -> Iterator[tuple[Instance, Instance]]:
    with pair(server_binary) as made:
        yield made


# Failover


async def test_when_a_replica_takes_over_all_goes_on(both: tuple[Instance, Instance], work: Work) -> None:
    server, replica = both
    async with proxy(server.url) as before, sender(before.url) as runtime, work.runtime(before.url, workers=6):
        held = await runtime.send_many([(f"user:{n}", work.hold(n)) for n in range(3)])
        await until(lambda: len(work.begun) == 3)
        later = await runtime.send("user:1", work.quick(5), delay=0.5)
        with servers.client(server.url) as first:
            await until(lambda: replicates(first))
        server.kill()
        handles: list[Any] = []
        async with anyio.create_task_group() as group:

            async def send() -> None:
                handles.extend(await runtime.send_many([("user:1", work.quick(n)) for n in range(20)]))

            group.start_soon(send)
            work.gate.set()
            with servers.client(replica.url) as second:
                second.execute_command("REPLICAOF", "NO", "ONE")
            before.retarget(replica.socket)
        took_over = time.monotonic()
        assert [await handle.result(timeout=PATIENCE) for handle in held] == [0, 1, 2]
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == list(range(20))
        assert await later.result(timeout=PATIENCE) == 5
        assert time.monotonic() - took_over < SOON
        assert set(work.begun.values()) == {1}
        await runtime.drain(timeout=PATIENCE)
        assert (await runtime.stats()).finished == 24
        await check_invariants(runtime)


@pytest.mark.parametrize("follows", [True, False])
async def test_a_server_that_became_a_replica_behind_open_connections_is_turned_away_from(
    both: tuple[Instance, Instance], work: Work, follows: bool
) -> None:
    server, replica = both
    async with (
        proxy(server.url) as before,
        sender(before.url, connect_timeout=SOON) as runtime,
        work.runtime(before.url),
    ):
        held = await runtime.send("user:1", work.hold(1))
        await until(lambda: work.begun)
        with servers.client(server.url) as first, servers.client(replica.url) as second:
            await until(lambda: replicates(first))
            second.execute_command("REPLICAOF", "NO", "ONE")
            first.replicaof("127.0.0.1", second.config_get("port")["port"] if follows else 1)
            before.target = replica.socket  # for new connections; the old ones stay open
            moved = time.monotonic()
            work.gate.set()
            assert await runtime.ask("user:2", work.quick(2), timeout=3) == 2
            assert await held.result(timeout=3) == 1
            assert time.monotonic() - moved < SOON
            await check_invariants(runtime)
            assert second.get("{fairactor/0}:task:" + held.id)


# Lost replies


def strike(before: Proxy, script: str, fault: Fault, times: int = 1) -> None:
    """Applies a fault only to the next calls of a script that the server has already loaded."""
    plugins = PluginChain(installed_plugins()).lua
    loaded = [scripts.load(script, flags=flags, plugins=plugins) for flags in (True, False)]
    digests = [name.encode() for each in loaded for name in (each.sha, each.function) if name]
    whole = Proxy.strikes

    def strikes(which: Fault, request: bytes) -> bool:
        return any(digest in request for digest in digests) and whole(before, which, request)

    before.strikes = strikes  # type: ignore[method-assign]
    before.strike(fault, times)


@pytest.fixture
async def before(url: str) -> AsyncIterator[Proxy]:
    async with proxy(url) as made:
        yield made


@pytest.fixture(params=[Fault.LOSE_AND_CUT, Fault.LOSE_AND_HANG])
def lost(request: pytest.FixtureRequest) -> Fault:
    """Provides each way to lose a reply."""
    return Fault(request.param)


async def test_a_send_whose_replies_are_lost_is_accepted_once(url: str, before: Proxy, work: Work, lost: Fault) -> None:
    async with sender(before.url, lease=0.9) as runtime, work.runtime(url):
        await runtime.ask("user:1", work.quick(0), timeout=PATIENCE)
        strike(before, "send", lost, 2)
        with anyio.fail_after(SOON):
            assert await runtime.ask("user:1", work.quick(1), result_ttl=0) == 1
        assert before.struck[lost] == 2
        assert sorted(work.begun.values()) == [1, 1]
        assert (await runtime.stats()).finished == 2
        await check_invariants(runtime)


async def test_a_send_that_is_repeated_when_its_task_has_come_and_gone_is_accepted_once(
    url: str, before: Proxy, work: Work, lost: Fault
) -> None:
    async with sender(before.url, lease=0.9) as runtime, work.runtime(url), sender(url) as looking:
        await runtime.ask("user:1", work.quick(0), timeout=PATIENCE, result_ttl=0)
        strike(before, "send", lost)
        before.on_strike = lambda *_: before.refuse()  # the sender cannot retry before its task is gone
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: runtime.send("user:1", work.quick(1), result_ttl=0, id="a"))
            await until(lambda: work.begun["a"])
            await looking.drain(timeout=PATIENCE)
            with pytest.raises(TaskNotFound):
                await looking.handle("a").state()
            await before.accept()
        assert work.begun["a"] == 1
        assert (await looking.stats()).finished == 2
        await check_invariants(looking)


async def test_a_send_that_got_no_reply_in_time_may_have_been_accepted_and_says_so(
    url: str, before: Proxy, work: Work, lost: Fault
) -> None:
    async with sender(before.url, connect_timeout=0.3) as runtime, sender(url) as looking:
        await runtime.send("user:1", work.quick(0))
        strike(before, "send", lost)
        before.on_strike = lambda *_: before.refuse()
        with anyio.fail_after(SOON), pytest.raises(ServerError) as caught:
            await runtime.send("user:1", work.quick(1), id="a")
        assert (caught.value.maybe_accepted, caught.value.ids) == (True, ("a",))
        assert (await looking.stats()).pending == 2
        before.cut()
        with anyio.fail_after(SOON), pytest.raises(ServerError) as caught:
            await runtime.send("user:1", work.quick(2), id="b")
        assert caught.value.ids == ("b",)
        await before.accept()
        await runtime.send("user:1", work.quick(1), id="a")
        await runtime.send("user:1", work.quick(2), id="b")
        assert (await looking.stats()).pending == 3
        await check_invariants(looking)


async def test_a_send_is_tried_again_on_another_connection_where_one_hangs(before: Proxy, work: Work) -> None:
    async with sender(before.url, connect_timeout=1.0, lease=15.0) as runtime:
        await runtime.send("user:1", work.quick(0))
        strike(before, "send", Fault.LOSE_AND_HANG)
        await runtime.send("user:1", work.quick(1))


async def test_a_send_that_never_reached_the_server_was_not_accepted(url: str, before: Proxy, work: Work) -> None:
    async with sender(before.url, connect_timeout=0.3) as runtime, sender(url) as looking:
        await runtime.send("user:1", work.quick(0))
        before.refuse()
        before.cut()
        await runtime.health()  # notices that its connections are closed
        with pytest.raises(ServerError) as caught:
            await runtime.send_many([("user:1", work.quick(n).options(id=f"{n}")) for n in range(3)])
        assert (caught.value.maybe_accepted, caught.value.ids) == (False, ("0", "1", "2"))
        assert (await looking.stats()).pending == 1


async def test_turns_whose_replies_are_lost_claim_and_settle_once(
    url: str, before: Proxy, work: Work, lost: Fault
) -> None:
    async with sender(url) as runtime, work.runtime(before.url, lease=0.9, workers=2):
        await runtime.ask("user:1", work.quick(0), timeout=PATIENCE)
        strike(before, "turn", lost, 4)
        with anyio.fail_after(PATIENCE):
            sent = await runtime.send_many([(f"user:{n % 3}", work.quick(n)) for n in range(30)])
            assert [await handle.result() for handle in sent] == list(range(30))
            await until(lambda: before.struck[lost] == 4)
            await runtime.drain()
        assert set(work.begun.values()) == {1}
        assert (await runtime.stats()).finished == 31
        await check_invariants(runtime)


@pytest.mark.parametrize("ttl", [3600.0, 0.0])
async def test_a_cancellation_whose_reply_is_lost_cancels(before: Proxy, work: Work, lost: Fault, ttl: float) -> None:
    async with sender(before.url, lease=0.9, canceled_ttl=ttl) as runtime:
        await (await runtime.send("user:1", work.quick(0))).cancel()
        handle = await runtime.send("user:1", work.quick(1), delay=60)
        strike(before, "cancel", lost)
        with anyio.fail_after(SOON):
            assert await handle.cancel() in {TaskState.SCHEDULED, TaskState.CANCELED}
        assert (await runtime.stats()).canceled == 2


async def test_who_asks_for_an_outcome_gets_it_though_replies_are_lost(
    url: str, before: Proxy, work: Work, lost: Fault
) -> None:
    async with sender(before.url, lease=0.9) as runtime, work.runtime(url):
        done = await runtime.send("user:1", work.quick(1))
        assert await done.result(timeout=PATIENCE) == 1
        held = await runtime.send("user:1", work.hold(2))
        strike(before, "watch", lost, 2)
        with anyio.fail_after(SOON):
            assert await done.result() == 1
        work.gate.set()
        with anyio.fail_after(SOON):
            assert await held.result() == 2
        assert before.struck[lost] == 2


async def test_a_runtime_enters_and_leaves_though_replies_are_lost(
    url: str, before: Proxy, work: Work, lost: Fault
) -> None:
    async with sender(url) as looking:
        async with work.runtime(url):
            pass  # loads the scripts into the server
        strike(before, "join", lost)
        began = time.monotonic()
        async with work.runtime(before.url, lease=0.9, grace=0) as runtime:
            assert before.struck[lost] == 1
            (info,) = (await looking.stats()).runtimes
            handle = await looking.send("user:1", work.hold(1))
            await until(lambda: work.begun[handle.id])
            strike(before, "leave", lost)
            await runtime.stop(grace=0)
            assert before.struck[lost] == 2
            assert not (await looking.stats()).runtimes
        assert time.monotonic() - began < SOON
        assert info.workers == 8
        assert await handle.state() is TaskState.QUEUED
        await check_invariants(looking)


async def test_a_subscription_that_is_silent_is_noticed(url: str, before: Proxy, work: Work) -> None:
    async with sender(before.url, lease=0.9) as runtime, work.runtime(before.url, lease=0.9):
        await runtime.ask("user:1", work.quick(0), timeout=PATIENCE)
        whole = Proxy.strikes
        before.strikes = lambda which, request: b"SUBSCRIBE" in request and whole(before, which, request)  # type: ignore[method-assign]
        before.strike(Fault.LOSE_AND_HANG, 2)
        handles = await runtime.send_many([("user:1", work.quick(n)) for n in range(5)])
        with anyio.fail_after(SOON):
            assert [await handle.result() for handle in handles] == list(range(5))
            await until(lambda: before.struck[Fault.LOSE_AND_HANG])
            for n in range(20):
                assert await runtime.ask("user:1", work.quick(n)) == n


# Frozen


async def freeze(server: Instance, seconds: float, then: Callable[[], None] = lambda: None) -> None:
    """Freezes the server for so many seconds, while its clock goes on."""
    assert server._process is not None
    server._process.send_signal(signal.SIGSTOP)
    try:
        await anyio.sleep(seconds)  # a fixed time: the server must miss it
        then()
    finally:
        server._process.send_signal(signal.SIGCONT)


async def test_a_server_that_was_frozen_for_longer_than_the_leases_blames_nobody(
    server: Instance, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        sender(server.url) as runtime,
        work.runtime(server.url, lease=0.6, workers=2),
        work.runtime(server.url, lease=0.6, workers=2),
        work.runtime(server.url, lease=0.6, workers=2),
    ):
        handles = await runtime.send_many([(f"user:{n}", work.hold(n)) for n in range(6)])
        await until(lambda: len(work.begun) == 6)
        await freeze(server, 1.5, then=work.gate.set)
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == list(range(6))
        assert set(work.begun.values()) == {1}
        for handle in handles:
            info = await handle.info()
            assert (info.attempt, list(info.history)) == (1, [])
        assert len((await runtime.stats()).runtimes) == 3
        await check_invariants(runtime)
    assert "lease" not in caplog.text
    assert "refused" not in caplog.text


async def test_a_frozen_server_blames_nobody_also_if_something_is_sent_meanwhile(server: Instance, work: Work) -> None:
    async with (
        sender(server.url) as runtime,
        work.runtime(server.url, lease=0.6, workers=4),
        work.runtime(server.url, lease=0.6, workers=4),
        work.runtime(server.url, lease=0.6, workers=4),
    ):
        handles = await runtime.send_many([(f"user:{n}", work.hold(n)) for n in range(6)])
        await until(lambda: len(work.begun) == 6)
        async with anyio.create_task_group() as group:
            group.start_soon(freeze, server, 1.5)
            await anyio.lowlevel.checkpoint()
            for n in range(10):
                group.start_soon(runtime.send, "user:9", work.quick(n))
        await until(lambda: len(work.begun) == 16)
        work.gate.set()
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == list(range(6))
        assert set(work.begun.values()) == {1}
        assert [len((await handle.info()).history) for handle in handles] == [0] * 6
        await check_invariants(runtime)


FIRST: dict[str, Callable[[ShardDriver], Any]] = {
    "a turn": lambda driver: None,
    "a note of progress": lambda driver: driver.run(driver.shard.progress("a", "a", b"[1]")),
    "a send": lambda driver: driver.send(item("c")),
    "a cancellation": lambda driver: driver.run(driver.shard.cancel("later", ttl=0, body=b"")),
    "a policy": lambda driver: driver.run(driver.shard.configure("u", {"weight": 2.0})),
    "a farewell": lambda driver: driver.run(driver.shard.leave("c")),
    "a turn that was taken already": lambda driver: driver.turn("a", 1, 1),
}


@pytest.mark.parametrize("first", FIRST)
def test_whatever_comes_first_after_an_outage_nobody_is_blamed(url: str, first: str) -> None:
    with open_shard(url) as made:
        for runtime in "abc":
            made.run(made.shard.join(runtime, lease=0.05, info={}))
        made.send(item("a"), item("b"), item("later", due="+3600000"))
        for runtime in "ab":  # keeps the lease short; each runtime holds one task
            assert made.run(made.shard.turn(runtime, 1, lease=0.05, want=1))
        ended = max(score for _, score in made.db.zrange(made.keys.fixed("LEASES"), 0, -1, withscores=True))
        while (now := made.db.time())[0] * 1000 + now[1] / 1000 <= ended + 1:
            pass
        FIRST[first](made)
        turn = made.turn("a", 1 if "already" in first else 2, 0)
        assert turn is not None
        while made.maintain():
            pass
        assert made.turn("b", 2, 0, [outcome("b", 1)]), "its lease is lost, and it was the server that was away"
        assert made.check().records["b"].deliveries == 0
