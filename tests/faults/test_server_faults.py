"""Tests a server that is killed, loses its data, returns to an earlier state, or cannot serve for a while."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest
import redis

from fairactor import Message, Runtime, TaskState, actor, current_task
from fairactor.errors import NamespaceMismatch, ServerError, ServerUnavailable, TaskNotFound
from fairactor.testing import check_invariants
from tests.support import servers
from tests.support.polling import PATIENCE, until
from tests.support.servers import LASTING, Instance

pytestmark = pytest.mark.anyio

SOON: Final = 5.0
"""Seconds within which work continues; usually one or two, with a margin for busy machines."""


class Work:
    """Provides actors that record their starts; some wait for the gate."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.gate = anyio.Event()

        @actor
        async def quick(n: int) -> int:
            self.begun[current_task().id] += 1
            return n

        @actor
        async def hold(n: int) -> int:
            self.begun[current_task().id] += 1
            await self.gate.wait()
            return n

        self.quick, self.hold = quick, hold

    def runtime(self, url: str, **settings: Any) -> Runtime:
        return Runtime(url, actors=[self.quick, self.hold], **{"lease": 5.0, "grace": 2.0, "workers": 8} | settings)


def sender(url: str, **settings: Any) -> Runtime:
    return Runtime(url, **{"workers": 0, "lease": 3.0, "connect_timeout": PATIENCE} | settings)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def lasting(server_binary: str) -> Iterator[Instance]:
    with servers.instance(server_binary, *LASTING) as made:
        yield made


async def restart(server: Instance) -> None:
    await anyio.to_thread.run_sync(server.start)


# Killed


async def test_a_killed_server_that_keeps_its_data_loses_nothing_and_handlers_run_on(
    lasting: Instance, work: Work
) -> None:
    async with sender(lasting.url) as runtime, work.runtime(lasting.url, workers=3):
        held = await runtime.send_many([(f"user:{n}", work.hold(n)) for n in range(3)])
        await until(lambda: len(work.begun) == 3)
        queued = await runtime.send_many([(f"user:{n % 5}", work.quick(n)) for n in range(40)])
        later = await runtime.send("user:1", work.quick(7), delay=0.5)
        lasting.kill()
        work.gate.set()
        async with anyio.create_task_group() as group:
            group.start_soon(runtime.send, "user:1", work.quick(8))
            await restart(lasting)
        with anyio.fail_after(SOON):
            assert [await handle.result() for handle in held] == [0, 1, 2]
            assert [await handle.result() for handle in queued] == list(range(40))
            assert await later.result() == 7
            await runtime.drain()
        assert set(work.begun.values()) == {1}
        stats = await runtime.stats()
        assert (stats.finished, stats.failed, stats.canceled) == (45, 0, 0)
        await check_invariants(runtime)


async def test_of_a_killed_server_that_forgets_all_the_namespace_is_opened_as_it_was(
    server: Instance, work: Work
) -> None:
    settings: dict[str, Any] = {"namespace": "other", "shards": 3, "aging": 5.0}
    async with sender(server.url, **settings) as runtime, work.runtime(server.url, **settings):
        lost = await runtime.send("user:1", work.hold(1))
        await until(lambda: work.begun)
        server.kill()
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(TaskNotFound):
                    await lost.result(timeout=PATIENCE)

            group.start_soon(wait)
            await restart(server)
            came_back = time.monotonic()
            sent = await runtime.send_many([(f"user:{n}", work.quick(n)) for n in range(20)])
            assert [await handle.result(timeout=PATIENCE) for handle in sent] == list(range(20))
            assert time.monotonic() - came_back < SOON
        await check_invariants(runtime)
        assert len((await runtime.stats()).runtimes) == 1
        async with sender(server.url, namespace="other", aging=5.0) as another:
            assert len(another._shards()) == 3
        with pytest.raises(NamespaceMismatch):
            await sender(server.url, namespace="other").__aenter__()


async def test_after_a_server_has_forgotten_all_who_only_sends_may_be_the_first(server: Instance, work: Work) -> None:
    async with sender(server.url, shards=2) as runtime:
        await runtime.send("user:1", work.quick(1))
        server.kill()
        await restart(server)
        with anyio.fail_after(SOON):
            handle = await runtime.send("user:1", work.quick(2))
            other = await runtime.send("user:2", work.quick(3), delay=60)
            assert await handle.state() is TaskState.QUEUED
            assert await other.state() is TaskState.SCHEDULED
        await check_invariants(runtime)


@pytest.mark.parametrize("call", ["stats", "configure", "cancel", "state", "dead_letters", "drain", "health"])
async def test_after_a_server_has_forgotten_all_any_call_may_be_the_first(
    server: Instance, work: Work, call: str
) -> None:
    async with sender(server.url) as runtime:
        handle = await runtime.send("user:1", work.quick(1))
        server.kill()
        await restart(server)
        calls: dict[str, Callable[[], Any]] = {
            "stats": runtime.stats,
            "configure": lambda: runtime.tenant("user:1").configure(concurrency=1),
            "cancel": handle.cancel,
            "state": handle.state,
            "dead_letters": runtime.dead_letters.count,
            "drain": runtime.drain,
            "health": runtime.health,
        }
        with anyio.fail_after(SOON):
            if call in {"cancel", "state"}:
                with pytest.raises(TaskNotFound):
                    await calls[call]()
            else:
                await calls[call]()
        await check_invariants(runtime)


async def test_a_server_that_goes_back_to_an_earlier_state_gets_its_claims_back(lasting: Instance, work: Work) -> None:
    folder = Path(lasting.socket).parent
    earlier = folder.with_name(folder.name + "-earlier")
    try:
        async with sender(lasting.url) as runtime, work.runtime(lasting.url, workers=4):
            held = await runtime.send_many([(f"user:{n}", work.hold(n)) for n in range(3)])
            await until(lambda: len(work.begun) == 3)
            lasting.kill()
            shutil.copytree(folder, earlier, ignore=shutil.ignore_patterns("*.sock"))
            await restart(lasting)
            for n in range(10):
                assert await runtime.ask("user:9", work.quick(n), timeout=PATIENCE) == n
            lasting.kill()
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(earlier, folder, dirs_exist_ok=True)
            await restart(lasting)
            came_back = time.monotonic()
            await until(lambda: all(work.begun[handle.id] == 2 for handle in held))
            assert time.monotonic() - came_back < SOON
            work.gate.set()
            assert [await handle.result(timeout=PATIENCE) for handle in held] == [0, 1, 2]
            await runtime.drain(timeout=PATIENCE)
            stats = await runtime.stats()
            assert (stats.finished, stats.failed, len(stats.runtimes)) == (3, 0, 1)
            await check_invariants(runtime)
    finally:
        shutil.rmtree(earlier, ignore_errors=True)


# Refusing to serve


@asynccontextmanager
async def _setting(server: Instance, **settings: str) -> AsyncIterator[None]:
    with servers.client(server.url) as db:
        before = {name: db.config_get(name)[name] for name in (name.replace("_", "-") for name in settings)}
        for name in before:
            db.config_set(name, settings[name.replace("-", "_")])
        yield
        for name, value in before.items():
            db.config_set(name, value)


@asynccontextmanager
async def _replica(server: Instance) -> AsyncIterator[None]:
    """Makes the server a replica of a server that does not exist."""
    with servers.client(server.url) as db:
        db.execute_command("REPLICAOF", "127.0.0.1", "1")
        yield
        db.execute_command("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def _busy(server: Instance) -> AsyncIterator[None]:
    """Blocks the server with another client's endless script."""
    with servers.client(server.url) as db, servers.client(server.url) as other:
        db.config_set("lua-time-limit", 20)

        def loop() -> None:
            with pytest.raises(redis.ResponseError):
                other.eval("while true do end", 0)

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, loop)
            await until(lambda: _refuses(db))
            try:
                yield
            finally:
                db.script_kill()


def _refuses(db: redis.Redis) -> bool:
    try:
        db.get("x")
    except (redis.ResponseError, redis.ConnectionError):
        return True
    return False


@asynccontextmanager
async def _no_disk(server: Instance) -> AsyncIterator[None]:
    """Prevents the server from writing its dump file: a folder has the name of the file."""
    dump = Path(server.socket).with_name("dump.rdb")
    dump.mkdir()
    async with _setting(server, save="3600 1000000"):
        with servers.client(server.url) as db:
            db.bgsave()
            await until(lambda: db.info("persistence")["rdb_last_bgsave_status"] == "err")
            yield
            dump.rmdir()
            db.bgsave()
            await until(lambda: db.info("persistence")["rdb_last_bgsave_status"] == "ok")


@asynccontextmanager
async def _loading(server: Instance) -> AsyncIterator[None]:
    """Restarts the server, which then loads its file for a while."""
    with servers.client(server.url) as db:
        db.config_set("rdbcompression", "no")  # while loading, it serves clients only every 2 MB
        db.eval("for i = 1, 240 do redis.call('SET', 'filler' .. i, string.rep('x', 262144)) end", 0)
        db.config_set("appendonly", "yes")
        await until(lambda: not db.info("persistence")["aof_rewrite_in_progress"])
        server.kill()
        server._command += ["--appendonly", "yes", "--key-load-delay", "5000"]
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, server.start)
            await until(lambda: _refuses(db))
            yield


TROUBLES: dict[str, Callable[[Instance], AbstractAsyncContextManager[None]]] = {
    "LOADING": _loading,
    "BUSY": _busy,
    "READONLY": _replica,
    "NOREPLICAS": lambda server: _setting(server, min_replicas_to_write="1"),
    "MISCONF": _no_disk,
}


def attempts(runtime: Runtime) -> list[str]:
    """Returns a list that records each attempted call of a runtime to its first shard."""
    calls = runtime._shards()[0]._runner
    once, made = calls._once, list[str]()

    async def noted(name: str, arguments: tuple[Any, ...]) -> Any:
        made.append(name)
        return await once(name, arguments)

    calls._once = noted  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_a_send_waits_while_the_server_cannot_serve_and_workers_go_on_afterwards(
    server: Instance, work: Work, trouble: str
) -> None:
    async with sender(server.url) as runtime, work.runtime(server.url, lease=15.0):
        first = await runtime.ask("user:1", work.quick(1), timeout=PATIENCE)
        held = await runtime.send("user:1", work.hold(2))
        await until(lambda: work.begun[held.id])
        made = attempts(runtime)
        handles: list[Any] = []
        async with anyio.create_task_group() as group:

            async def send() -> None:
                handles.append(await runtime.send("user:1", work.quick(3)))

            async with TROUBLES[trouble](server):
                group.start_soon(send)
                work.gate.set()
                await until(lambda: made.count("send") > 2)
                assert not handles, "it was not refused"
            ended = time.monotonic()
        assert await held.result(timeout=PATIENCE) == 2
        assert await handles[0].result(timeout=PATIENCE) == 3
        assert time.monotonic() - ended < SOON
        assert first == 1
        assert set(work.begun.values()) == {1}
        assert (await runtime.stats()).finished == 3
        await check_invariants(runtime)


@pytest.mark.parametrize("trouble", ["BUSY", "MISCONF"])
async def test_a_server_that_cannot_serve_for_long_takes_no_runtime_down(
    server: Instance, work: Work, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with sender(server.url, lease=0.3) as runtime, work.runtime(server.url, lease=0.3):
        await runtime.ask("user:1", work.quick(1), timeout=PATIENCE)
        async with TROUBLES[trouble](server):
            await anyio.sleep(2)  # a fixed time: many heartbeats, each refused
        with anyio.fail_after(SOON):
            assert await runtime.ask("user:1", work.quick(2)) == 2
    assert not [line for line in caplog.messages if "starting it again" in line]


REFUSALS: Final = TROUBLES | {"OOM": lambda server: _setting(server, maxmemory="1")}


@pytest.mark.parametrize("trouble", REFUSALS)
async def test_what_the_server_refused_was_not_accepted_and_may_be_sent_again(
    server: Instance, work: Work, trouble: str
) -> None:
    async with sender(server.url, connect_timeout=0.2, without_plugins=True) as runtime, sender(server.url) as patient:
        await runtime.send("user:1", work.quick(1), id="first")
        messages: list[tuple[str, Message[int]]] = [
            (f"user:{n}", work.quick(n).options(id=f"batch {n}")) for n in range(3)
        ]
        async with REFUSALS[trouble](server):
            async with anyio.create_task_group() as group:  # after a restart, the first calls meet dead connections
                for _ in range(24):
                    group.start_soon(runtime.health)
            began = time.monotonic()
            with pytest.raises(ServerError) as one:
                await runtime.send("user:1", work.quick(2), id="second")
            with pytest.raises(ServerError) as many:
                await runtime.send_many(messages)
            with pytest.raises(ServerError) as asked:
                await runtime.ask("user:1", work.quick(2), id="asked")
            assert time.monotonic() - began < SOON
        assert (one.value.maybe_accepted, one.value.ids) == (False, ("second",))
        assert (many.value.maybe_accepted, many.value.ids) == (False, ("batch 0", "batch 1", "batch 2"))
        assert (asked.value.maybe_accepted, asked.value.ids) == (False, ("asked",))
        assert isinstance(one.value, ServerUnavailable) is (trouble != "OOM")
        assert (await patient.stats()).pending == 1
        await patient.send("user:1", work.quick(2), id="second")
        await patient.send_many(messages)
        assert (await patient.stats()).pending == 5
        await check_invariants(patient)
