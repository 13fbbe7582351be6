"""Connecting to the server: which servers are refused, how soon, and with which message."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import anyio
import pytest
import redis

from fairactor import FairactorError, Message, Runtime, actor
from fairactor.errors import ConfigurationError, NamespaceMismatch, ServerError, ServerUnavailable
from tests.support import servers
from tests.support.cluster import free_ports
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def double(n: int) -> int:
    return 2 * n


async def enter(url: str | None, **settings: object) -> None:
    async with Runtime(url, actors=[double], **settings):
        raise AssertionError("it was entered")


@pytest.mark.parametrize(
    "url", ["http://localhost", "localhost:6379", "amqp://u:secret@host", "", "://", "unix:/tmp/s", "redis:/host"]
)
async def test_an_unknown_scheme_is_refused_with_those_that_there_are(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"redis://.*rediss://.*unix://") as caught:
        await enter(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://host:port", "its host or its port cannot be read"),
        ("redis://host:99999999", "its host or its port cannot be read"),
        ("redis://host?nothing=1", "for redis://host, has an option 'nothing', which is unknown"),
        ("redis://host/db", "only the number of a database may follow the host"),
        ("unix://", "give the path of a socket"),
    ],
)
async def test_a_url_that_cannot_work_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"url=.*{words}"):
        await enter(url, connect_timeout=1)


@pytest.mark.parametrize("url", [5, b"redis://localhost"])
async def test_a_url_that_is_no_text_is_refused(url: object) -> None:
    with pytest.raises(ConfigurationError, match="url="):
        await enter(url)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["unix", "valkey+unix"])
async def test_the_schemes_of_a_socket(url: str, scheme: str) -> None:
    async with Runtime(url.replace("unix", scheme), actors=[double]) as runtime:
        assert await runtime.ask("user:1", double(2), timeout=PATIENCE) == 4


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
async def test_the_schemes_of_a_port(server_binary: str, scheme: str) -> None:
    port = free_ports(1)[0]
    with servers.running(server_binary, "--port", str(port)):
        async with Runtime(f"{scheme}://127.0.0.1:{port}/3", actors=[double]) as runtime:
            assert await runtime.ask("user:1", double(2), timeout=PATIENCE) == 4


async def test_the_url_of_the_environment_is_taken_where_none_is_given(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRACTOR_URL", url)
    async with Runtime(actors=[double]) as runtime:
        assert await runtime.ask("user:1", double(2), timeout=PATIENCE) == 4
    monkeypatch.setenv("FAIRACTOR_URL", "nowhere")
    with pytest.raises(ConfigurationError, match=r"FAIRACTOR_URL cannot be used: give a URL that starts with redis://"):
        await enter(None)


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:{port}", "unix:///no/such/socket", "redis://u:secret@127.0.0.1:{port}"]
)
async def test_a_server_that_is_away_is_tried_for_as_long_as_was_said(url: str) -> None:
    url = url.format(port=free_ports(1)[0])
    began = time.monotonic()
    with pytest.raises(ServerUnavailable, match=r"no answer from .*tried for 0\.4 s \(connect_timeout=\)") as caught:
        await enter(url, connect_timeout=0.4)
    assert 0.4 <= time.monotonic() - began < 5
    assert isinstance(caught.value, ConnectionError)
    assert "secret" not in str(caught.value)


async def test_several_hosts_are_for_a_cluster(server_binary: str) -> None:
    port = free_ports(1)[0]
    words = r"names several hosts, but .* is not a node of a cluster"
    with servers.running(server_binary, "--port", str(port)), pytest.raises(ConfigurationError, match=words):
        await enter(f"redis://127.0.0.1:{port},127.0.0.1:1")


async def test_a_server_that_accepts_but_never_answers_is_given_up_too() -> None:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        began = time.monotonic()
        with pytest.raises(ServerUnavailable, match=r"tried for 0\.4 s"):
            await enter(f"redis://127.0.0.1:{door.getsockname()[1]}", connect_timeout=0.4)
        assert time.monotonic() - began < 5


async def test_a_server_that_comes_up_meanwhile_is_found(server_binary: str) -> None:
    port = free_ports(1)[0]

    async def start_late() -> None:
        await anyio.sleep(0.3)
        with servers.running(server_binary, "--port", str(port)):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(start_late)
        async with Runtime(f"redis://127.0.0.1:{port}", actors=[double], connect_timeout=PATIENCE) as runtime:
            assert await runtime.ask("user:1", double(2), timeout=PATIENCE) == 4
        group.cancel_scope.cancel()


async def test_a_login_that_is_refused(server_binary: str) -> None:
    with servers.running(server_binary, "--requirepass", "right") as url:
        for login in ("?password=wrong", "?username=someone&password=wrong", ""):
            began = time.monotonic()
            with pytest.raises(ServerError, match=r"refused.*check the URL's user and password") as caught:
                await enter(url + login)
            assert not isinstance(caught.value, ServerUnavailable)
            assert "wrong" not in str(caught.value)
            assert time.monotonic() - began < 2, "to try again is of no use"
        async with Runtime(f"{url}?password=right", actors=[double]) as runtime:
            assert await runtime.ask("user:1", double(2), timeout=PATIENCE) == 4


async def test_a_password_is_in_no_message_and_no_repr(server_binary: str) -> None:
    port = free_ports(1)[0]
    with servers.running(server_binary, "--port", str(port), "--requirepass", "topsecret") as url:
        with pytest.raises(ServerError) as caught:
            await enter(f"redis://:topsecretnot@127.0.0.1:{port}")
        assert "topsecret" not in str(caught.value)
        async with Runtime(f"redis://:topsecret@127.0.0.1:{port}", aging=5) as runtime:
            assert "topsecret" not in repr(runtime)
            assert "topsecret" not in repr(runtime.settings)
        with pytest.raises(NamespaceMismatch) as mismatch:
            await enter(f"redis://:topsecret@127.0.0.1:{port}")
        assert "topsecret" not in str(mismatch.value)
        with pytest.raises(NamespaceMismatch) as mismatch:
            await enter(f"{url}?password=topsecret")
        assert "topsecret" not in str(mismatch.value)


async def test_a_user_without_permissions_is_told(server_binary: str) -> None:
    with servers.running(server_binary) as url:
        with servers.client(url) as db:
            db.acl_setuser("reader", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], commands=["+info"])
        with pytest.raises(ServerError, match="permission"):
            await enter(f"{url}?username=reader&password=pw")


async def test_a_namespace_keeps_its_shards_and_aging(make_runtime: Make) -> None:
    async with make_runtime(shards=4, aging=60):
        pass
    with pytest.raises(NamespaceMismatch, match="created with shards=4, not 2; leave shards= out"):
        async with make_runtime(shards=2):
            raise AssertionError
    with pytest.raises(NamespaceMismatch, match="created with aging=60, not 30"):
        async with make_runtime(aging=30):
            raise AssertionError
    async with make_runtime(double), make_runtime(double, namespace="another", shards=2, aging=30):
        pass


async def test_a_namespace_of_another_data_model_is_refused(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime():
        pass
    db.hset("{fairactor/0}", "version", 99)
    with pytest.raises(NamespaceMismatch, match="has data model 99, written by a later fairactor"):
        async with make_runtime():
            raise AssertionError


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-random"])
async def test_a_server_that_may_evict_tasks_is_refused(server_binary: str, policy: str) -> None:
    words = f"may evict tasks.*{policy}.*noeviction.*separate server"
    with (
        servers.running(server_binary, "--maxmemory", "100mb", "--maxmemory-policy", policy) as url,
        pytest.raises(ServerError, match=words),
    ):
        await enter(url)


@pytest.mark.parametrize("options", [("--maxmemory", "100mb"), ("--maxmemory-policy", "allkeys-lru"), ()])
async def test_a_server_that_evicts_nothing_is_taken(server_binary: str, options: tuple[str, ...]) -> None:
    with servers.running(server_binary, *options) as url:
        async with Runtime(url, actors=[double]) as runtime:
            assert await runtime.ask("user:1", double(2), timeout=PATIENCE) == 4


async def test_a_server_that_may_drop_results_is_taken_with_a_warning(
    server_binary: str, caplog: pytest.LogCaptureFixture
) -> None:
    with servers.running(server_binary, "--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru") as url:
        async with Runtime(url, actors=[double]):
            assert "volatile-lru the server may drop results" in caplog.text


async def send_until_it_is_full(runtime: Runtime, message: Message[None]) -> None:
    for _ in range(1000):
        await runtime.send("user:1", message)


async def test_a_full_server_refuses_sends_and_says_what_to_do(server_binary: str) -> None:
    @actor
    async def keep(text: str) -> None: ...

    with servers.running(server_binary) as url:
        async with Runtime(url, workers=0) as runtime:
            with servers.client(url) as db:
                db.config_set("maxmemory", db.info("memory")["used_memory"] + 3_000_000)
            with pytest.raises(ServerError, match=r"is full.*nothing was stored.*Let workers drain it"):
                await send_until_it_is_full(runtime, keep("x" * 100_000))
            stats = await runtime.stats()
            assert stats.pending > 0
            async with Runtime(url, actors=[keep], result_ttl=0) as worker:
                await worker.drain(timeout=PATIENCE)
            await runtime.send("user:1", keep("it has room again"))


async def test_a_send_to_a_server_that_went_away_ends_in_time(server_binary: str) -> None:
    with servers.running(server_binary) as url:
        async with Runtime(url, workers=0, connect_timeout=0.5) as runtime:
            await runtime.send("user:1", double(1))
            with servers.client(url) as db, suppress(redis.ConnectionError):
                db.shutdown(nosave=True)
            began = time.monotonic()
            with pytest.raises(ServerUnavailable, match="no answer from"):
                await runtime.send("user:1", double(1))
            assert time.monotonic() - began < 3
            health = await runtime.health()
            assert not health.ok
            assert "no answer from" in health.problems[0]


async def test_a_server_that_is_started_again_is_served_on(server_binary: str) -> None:
    port = free_ports(1)[0]
    with servers.running(server_binary, "--port", str(port)):
        runtime = Runtime(f"redis://127.0.0.1:{port}", actors=[double], lease=1, connect_timeout=PATIENCE)
        await runtime.__aenter__()
        assert await runtime.ask("user:1", double(2), timeout=PATIENCE) == 4
    try:
        asked = asyncio.ensure_future(runtime.ask("user:1", double(3), timeout=PATIENCE))
        with servers.running(server_binary, "--port", str(port)):  # it has lost all data, including the lease
            assert await asked == 6
            assert await runtime.ask("user:1", double(4), timeout=PATIENCE) == 8
            await runtime.__aexit__(None, None, None)
    finally:
        asked.cancel()


def test_all_that_is_raised_on_purpose_has_one_base() -> None:
    for error in (ConfigurationError, NamespaceMismatch, ServerError, ServerUnavailable):
        assert issubclass(error, FairactorError)
