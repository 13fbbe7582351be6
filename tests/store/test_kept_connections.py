"""The connections that carry the calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis import exceptions as broken
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from fairactor._server.calls import was_never_sent
from fairactor._server.kept_connections import KeptConnections
from tests.support import servers
from tests.support.polling import until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def lines_to(url: str, number: int = 2) -> AsyncIterator[tuple[KeptConnections, BlockingConnectionPool]]:
    pool = BlockingConnectionPool.from_url(
        url, retry=Retry(NoBackoff(), 0), socket_timeout=5, max_connections=number, timeout=None
    )
    try:
        yield KeptConnections(pool, number), pool
    finally:
        await pool.disconnect()


async def test_calls_one_after_the_other_share_a_connection_and_more_than_there_are_wait(url: str) -> None:
    async with lines_to(url) as (lines, _):
        first = await lines.execute_command("CLIENT", "ID")
        assert await lines.execute_command("CLIENT", "ID") == first
        ids = await asyncio.gather(*(lines.execute_command("CLIENT", "ID") for _ in range(9)))
        assert len(set(ids)) == 2
        assert first in ids
        assert lines.busy == 0


async def test_what_the_server_refuses_is_raised_and_the_connection_kept(url: str) -> None:
    async with lines_to(url) as (lines, _):
        first = await lines.execute_command("CLIENT", "ID")
        with pytest.raises(broken.NoScriptError):
            await lines.execute_command("EVALSHA", "0" * 40, 0)
        assert await lines.execute_command("CLIENT", "ID") == first


async def test_what_the_server_says_unasked_is_no_reply(url: str) -> None:
    async with lines_to(f"{url}{'&' if '?' in url else '?'}protocol=3", 1) as (lines, _), lines_to(url) as (others, _):
        await lines.execute_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "pushed:")
        await others.execute_command("SET", "pushed:key", "1")
        assert await lines.execute_command("ECHO", "mine") == b"mine"
        assert await lines.execute_command("ECHO", "next") == b"next"


async def test_who_is_canceled_leaves_no_reply_behind_for_the_next(url: str) -> None:
    async with lines_to(url, 1) as (lines, _):
        await lines.execute_command("PING")
        waiting = asyncio.ensure_future(lines.execute_command("BLPOP", "nothing", 0))
        after = asyncio.ensure_future(lines.execute_command("ECHO", "mine"))
        await until(lambda: lines.busy == 1)
        waiting.cancel()
        assert await after == b"mine"
        assert waiting.cancelled()


async def test_one_that_the_server_has_closed_is_made_anew_before_anything_is_sent(server_binary: str) -> None:
    with servers.instance(server_binary) as server:
        async with lines_to(server.url) as (lines, pool):
            await lines.execute_command("PING")
            (connection,) = pool._in_use_connections
            server.kill()
            await until(connection._reader.at_eof)
            with pytest.raises((broken.ConnectionError, OSError)) as caught:
                await lines.execute_command("PING")
            assert was_never_sent(caught.value)
            assert lines.busy == 0
            server.start()
            assert await lines.execute_command("PING") == b"PONG"


async def test_those_that_hang_up_come_again_when_they_are_needed(url: str) -> None:
    async with lines_to(url) as (lines, _):
        first = await lines.execute_command("CLIENT", "ID")
        await lines.close_free()
        assert await lines.execute_command("CLIENT", "ID") != first
