"""Tests the proxy: each fault has the promised effect on the client and on the server."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.support import servers
from tests.support.polling import until
from tests.support.proxy import Fault, Proxy, proxy

pytestmark = pytest.mark.anyio
BROKEN = (redis.ConnectionError, redis.TimeoutError)


@pytest.fixture
async def before(url: str) -> AsyncIterator[Proxy]:
    async with proxy(url) as made:
        yield made


@pytest.fixture
async def through(before: Proxy) -> AsyncIterator[redis.asyncio.Redis]:
    """Connects a client through the proxy; the client never retries by itself."""
    async with client_of(before) as client:
        await client.ping()
        yield client


@pytest.fixture
def other(server_binary: str) -> Iterator[str]:
    with servers.running(server_binary) as url:
        yield url


def client_of(before: Proxy) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(before.url, retry=Retry(NoBackoff(), 0), socket_timeout=0.3)


async def test_it_carries_commands_of_any_size(through: redis.asyncio.Redis, db: redis.Redis) -> None:
    value = random.Random(1).randbytes(1 << 20)
    await through.set("large", value)
    assert db.get("large") == value
    assert await through.get("large") == value


async def test_it_carries_messages(through: redis.asyncio.Redis, db: redis.Redis, before: Proxy) -> None:
    async with through.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe("news")
        await until(lambda: db.publish("news", "good"))
        message = await until(lambda: channel.get_message(timeout=0.1))
        assert message["data"] == b"good"
        before.cut()
        with pytest.raises(BROKEN):
            await channel.get_message(timeout=1)


@pytest.mark.parametrize("fault", [Fault.LOSE_AND_CUT, Fault.LOSE_AND_HANG, Fault.CUT_REPLY])
async def test_a_reply_is_lost_and_the_command_is_not(
    through: redis.asyncio.Redis, db: redis.Redis, before: Proxy, fault: Fault
) -> None:
    for n in range(1, 6):
        before.strike(fault)
        with pytest.raises(redis.TimeoutError if fault is Fault.LOSE_AND_HANG else redis.ConnectionError):
            await through.incr("n")
        assert db.get("n") == b"%d" % n
        await through.ping()
    assert before.struck == {fault: 5}


async def test_a_request_that_is_cut_is_not_run(through: redis.asyncio.Redis, db: redis.Redis, before: Proxy) -> None:
    for _ in range(5):
        before.strike(Fault.CUT_REQUEST)
        with pytest.raises(redis.ConnectionError):
            await through.incr("n")
        await through.ping()
    assert db.get("n") is None


async def test_a_hanging_connection_takes_commands_to_nowhere(
    through: redis.asyncio.Redis, db: redis.Redis, before: Proxy
) -> None:
    async with through.client() as single:
        before.strike(Fault.LOSE_AND_HANG)
        connection = single.connection
        assert connection is not None
        await connection.send_command("INCR", "n")
        await until(lambda: db.get("n") == b"1")
        await connection.send_command("INCR", "n")
        with pytest.raises(redis.TimeoutError):
            await connection.read_response()
        assert db.get("n") == b"1"
        await connection.connect()
        await connection.send_command("INCR", "n")
        assert await connection.read_response() == 2


async def test_a_fault_may_come_by_chance(through: redis.asyncio.Redis, before: Proxy) -> None:
    before.chance(Fault.CUT_REPLY, 0.3)
    told = set()

    async def both() -> bool:
        try:
            told.add(await through.ping())
        except BROKEN:
            told.add(False)
        return len(told) == 2

    await until(both)
    before.chance(Fault.CUT_REPLY, 0)
    assert await through.ping()


async def test_frozen_it_is_silent_and_thawed_it_goes_on(
    through: redis.asyncio.Redis, db: redis.Redis, before: Proxy
) -> None:
    before.freeze()
    with pytest.raises(redis.TimeoutError):
        await through.incr("n")
    with pytest.raises(BROKEN):
        await through.incr("n")  # over a new connection, which the proxy accepts
    assert db.get("n") is None
    before.thaw()
    await through.incr("n")


async def test_away_it_refuses_and_back_it_accepts(through: redis.asyncio.Redis, before: Proxy) -> None:
    before.refuse()
    assert await through.ping(), "what is open stays"
    before.cut()
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            await through.ping()
    await before.accept()
    assert await through.ping()


async def test_replies_are_late(through: redis.asyncio.Redis, before: Proxy) -> None:
    before.delay = 0.05
    began = anyio.current_time()
    await through.ping()
    assert anyio.current_time() - began >= 0.05


async def test_it_can_lead_elsewhere(through: redis.asyncio.Redis, db: redis.Redis, before: Proxy, other: str) -> None:
    before.retarget(other.removeprefix("unix://"))
    with pytest.raises(redis.ConnectionError):
        await through.incr("n")
    await through.incr("n")
    assert db.get("n") is None
    with servers.client(other) as there:
        assert there.get("n") == b"1"


async def test_calm_ends_all_faults(through: redis.asyncio.Redis, before: Proxy) -> None:
    before.delay = 60
    before.refuse()
    before.freeze()
    for fault in Fault:
        before.strike(fault, 1000)
        before.chance(fault, 1)
    await before.calm()
    before.cut(hanging=True)
    for _ in range(10):
        assert await through.ping()


async def test_a_server_starts_again_with_all_that_it_acknowledged(server_binary: str) -> None:
    with servers.instance(server_binary, *servers.LASTING) as server:
        for n in range(3):
            with servers.client(server.url) as client:
                assert client.incr("n") == n + 1
            server.kill()
            server.start()
