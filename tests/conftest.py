"""Fixtures: a real server, runtimes on it, and a check that tests leave nothing behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psutil
import pytest
import redis

from fairactor import Runtime
from tests.support import servers
from tests.support.meters import Reader, measuring
from tests.support.spans import Exporter, exporting
from tests.support.worker_processes import Fleet, fleet


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server", choices=servers.SERVERS, default="valkey", help="the server to test on")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes many seconds; starts before the others")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests start first, so that no worker waits for another at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_server_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAIRACTOR_URL", raising=False)


@pytest.fixture(scope="session")
def server_binary(request: pytest.FixtureRequest) -> str:
    return servers.binary(request.config.getoption("--server"))


@pytest.fixture(scope="session")
def session_server(server_binary: str) -> Iterator[str]:
    with servers.running(server_binary) as url:
        yield url


@pytest.fixture
def server(server_binary: str) -> Iterator[servers.Instance]:
    """Yields a separate server that a test may kill and start again. It loses all data when it is killed."""
    with servers.instance(server_binary) as made:
        yield made


@pytest.fixture
def url(session_server: str) -> Iterator[str]:
    """Yields the URL of an empty server. Checks afterwards that no lease, claim or connection is left."""
    with servers.client(session_server) as client:
        client.flushall()
        yield session_server
        left = [key for key in client.scan_iter() if _is_of_a_runtime(key)]
        assert not left, f"a runtime that has left leaves {left}"
        deadline = time.monotonic() + 5  # the server notices a killed process when it next checks its connection
        while (others := _others(client)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not others, f"connections are still open: {others}"


def _others(client: redis.Redis) -> list[Any]:
    return [other for other in client.client_list() if int(other["id"]) != client.client_id()]


def _is_of_a_runtime(key: bytes) -> bool:
    return any(
        f":{kind}" in key.decode(errors="replace")
        for kind in ("leases", "sessions", "fleet", "idle", "claims:", "cancels:")
    )


@pytest.fixture
def db(url: str) -> Iterator[redis.Redis]:
    """Yields a plain client of the server at ``url``."""
    with servers.client(url) as client:
        yield client


@pytest.fixture
def make_runtime(url: str) -> Callable[..., Runtime]:
    """Returns a function that makes runtimes on the server at ``url``, with short times."""

    def make(*actors: Any, **settings: Any) -> Runtime:
        return Runtime(url, actors=actors, **{"lease": 3.0, "grace": 2.0, "workers": 10} | settings)

    return make


@pytest.fixture
async def sender(make_runtime: Callable[..., Runtime]) -> AsyncIterator[Runtime]:
    """Yields a runtime that runs nothing."""
    async with make_runtime(workers=0) as runtime:
        yield runtime


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exporter]:
    """Yields the spans that an SDK receives, which is installed for one test."""
    with exporting(monkeypatch) as made:
        yield made


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Yields the metrics that an SDK receives, which is installed for one test."""
    with measuring(monkeypatch) as made:
        yield made


@pytest.fixture
def processes(url: str, nothing_left_behind: None) -> Iterator[Fleet]:
    """Yields a fleet of `tests.support.service` processes on the server at ``url``."""
    with fleet(url) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Checks that a test leaves no process or thread behind."""
    processes = set(psutil.Process(os.getpid()).children(recursive=True))
    threads = set(threading.enumerate())
    yield
    left = set(psutil.Process(os.getpid()).children(recursive=True)) - processes
    left = {process for process in left if process.is_running() and "valkey-server" not in process.name()}
    left = set(psutil.wait_procs(left, timeout=5)[1])  # a killed process may need a moment
    assert not left, f"processes are still running: {left}"
    others = {thread for thread in set(threading.enumerate()) - threads if not thread.daemon}
    for thread in others:
        thread.join(timeout=5)  # a stopping thread may need a moment
    running = {thread for thread in others if thread.is_alive()}
    assert not running, f"threads are still running: {running}"
