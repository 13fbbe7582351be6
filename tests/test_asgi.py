"""Tests the answers to probes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, MutableMapping
from typing import Any

import anyio
import pytest

from fairactor import Runtime, actor
from fairactor.asgi import HealthApp, health_app
from fairactor.errors import ConfigurationError
from tests.support import servers

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


async def request(app: HealthApp, path: str, method: str = "GET", **scope: Any) -> tuple[int, dict[str, str], bytes]:
    """Sends a request; returns the status, the headers and the body."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "path": path, "method": method, **scope}, receive, send)
    start, body = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, body["body"]


async def probe(app: HealthApp, path: str) -> tuple[int, Any]:
    status, _, body = await request(app, path)
    return status, json.loads(body)


def counting(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Returns a list that gets an item whenever the server is asked."""
    asked: list[None] = []
    stats = runtime.stats

    async def count() -> Any:
        asked.append(None)
        return await stats()

    monkeypatch.setattr(runtime, "stats", count)
    return asked


async def test_a_runtime_that_runs(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        app = health_app(runtime)
        assert await probe(app, "/healthz") == (200, {"status": "ok"})
        status, body = await probe(app, "/readyz")
        assert (status, body["ready"]) == (200, True)
        assert 0 < body["seconds"] < 2


async def test_before_it_is_entered_and_after_it_was_left(make_runtime: Make) -> None:
    runtime = make_runtime(double)
    app = health_app(runtime)
    away = (503, {"ready": False, "problem": "the runtime is not running"})
    assert await probe(app, "/readyz") == away
    assert await probe(app, "/healthz") == (200, {"status": "ok"})
    async with runtime:
        assert (await probe(app, "/readyz"))[0] == 200
    assert await probe(app, "/readyz") == away
    assert await probe(app, "/healthz") == (200, {"status": "ok"})


async def test_many_probes_ask_the_server_once(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make_runtime(double) as runtime:
        asked = counting(runtime, monkeypatch)
        app = health_app(runtime, max_age=60)
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(probe, app, "/readyz")
        assert len(asked) == 1
        again = health_app(runtime, max_age=0)
        await probe(again, "/readyz")
        await probe(again, "/readyz")
        assert len(asked) == 3


async def test_a_probe_that_is_canceled_leaves_it_to_the_next(make_runtime: Make) -> None:
    async with make_runtime(double) as runtime:
        app = health_app(runtime)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await probe(app, "/readyz")
        assert (await probe(app, "/readyz"))[0] == 200


async def test_a_server_that_is_away(server: servers.Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Runtime(server.url, actors=[double], workers=0, connect_timeout=0.1) as runtime:
        asked = counting(runtime, monkeypatch)
        app = health_app(runtime, max_age=60)
        server.kill()
        status, body = await probe(app, "/readyz")
        assert status == 503
        assert body == {"ready": False, "problem": "the server cannot be used (ServerUnavailable); see the log"}
        assert (await probe(app, "/readyz"))[0] == 503
        assert len(asked) == 1  # that it is away holds for a while, too
        assert (await probe(app, "/healthz"))[0] == 200


async def test_a_server_that_is_frozen(server: servers.Instance) -> None:
    async with Runtime(server.url, actors=[double], workers=0) as runtime:
        app = health_app(runtime, timeout=0.2)
        assert server._process is not None
        server._process.send_signal(signal.SIGSTOP)
        try:
            status, body = await probe(app, "/readyz")
            assert (status, body["problem"]) == (503, "the server has not answered for 0.2 s")
            assert (await probe(app, "/healthz"))[0] == 200
        finally:
            server._process.send_signal(signal.SIGCONT)


async def test_head_other_methods_and_other_paths(make_runtime: Make) -> None:
    app = health_app(make_runtime(double))
    status, headers, body = await request(app, "/healthz", "HEAD")
    assert (status, body) == (200, b"")
    assert headers["content-length"] == str(len(b'{"status": "ok"}'))
    assert headers["content-type"] == "application/json"
    status, headers, _ = await request(app, "/readyz", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    for path in ("/", "", "/metrics", "/healthz/x", "/\n\u202e"):
        assert (await request(app, path))[0] == 404


async def test_it_can_be_mounted_below_a_path(make_runtime: Make) -> None:
    app = health_app(make_runtime(double))
    assert (await request(app, "/probes/healthz", root_path="/probes"))[0] == 200  # as Starlette has it
    assert (await request(app, "/healthz", root_path="/probes"))[0] == 200  # as others do


async def test_lifespan(make_runtime: Make) -> None:
    app = health_app(make_runtime(double))
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(ValueError, match="websocket"):
        await app({"type": "websocket"}, receive, send)


@pytest.mark.parametrize("times", [{"timeout": 0}, {"timeout": "1"}, {"max_age": -1}])
def test_bad_times(make_runtime: Make, times: Any) -> None:
    with pytest.raises(ConfigurationError):
        health_app(make_runtime(double), **times)
