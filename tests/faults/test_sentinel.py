"""Tests a primary that sentinels watch: after a failover everything follows to the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairactor import Runtime, actor
from fairactor.errors import ServerError, ServerUnavailable
from tests.support.polling import PATIENCE, until
from tests.support.sentinels import SENTINEL_PASSWORD, Watched

from .test_server_faults import Work, sender

pytestmark = pytest.mark.anyio


@actor
async def double(n: int) -> int:
    return 2 * n


async def test_calls_subscriptions_and_leases_follow_the_primary(server_binary: str, tmp_path: Path) -> None:
    work = Work()
    with Watched(server_binary, tmp_path) as watched:
        primary, replica = watched.servers
        async with work.runtime(watched.url, lease=2.0) as runtime, sender(watched.url + "&db=0") as outside:
            held = await outside.send("user:1", work.hold(1))
            await until(lambda: work.begun)
            watched.sentinels[0].kill()  # the URL names it first
            await until(lambda: primary.db.wait(1, 100))
            primary.kill()
            assert await outside.ask("user:2", work.quick(2), timeout=PATIENCE) == 2
            work.gate.set()
            assert await held.result(PATIENCE) == 1
            await until(lambda: _is_well(runtime))
            (lease,) = replica.db.zrange("{fairactor/0}:leases", 0, -1)
            assert runtime._engine is not None
            shards = runtime._engine.shards
            client = shards.server.blocking_client()  # type: ignore[misc]
            try:
                assert shards[0].renew(client, lease.decode(), lease=2.0)
            finally:
                client.close()


async def _is_well(runtime: Runtime) -> bool:
    return (await runtime.health()).ok


async def test_a_wrong_name_or_password_is_said(server_binary: str, tmp_path: Path) -> None:
    with Watched(server_binary, tmp_path) as watched:
        with pytest.raises(ServerUnavailable, match="knows no primary of the name 'other'"):
            async with Runtime(watched.url.replace("mymaster", "other"), connect_timeout=0.5):
                raise AssertionError
        secret = SENTINEL_PASSWORD.replace(" ", "%20")
        with pytest.raises(ServerError, match="refused the login") as caught:
            async with Runtime(watched.url.replace(secret, "wrong-one")):
                raise AssertionError
        assert "wrong-one" not in str(caught.value)
