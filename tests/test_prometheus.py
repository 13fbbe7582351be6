"""Tests the endpoint for Prometheus."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import anyio.to_thread
import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import _internal as api
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from fairactor import Runtime, actor
from fairactor.errors import ConfigurationError
from fairactor.prometheus import serve, start
from tests.support.meters import Reader
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

PROGRAM = """
import asyncio, sys, urllib.request
from fairactor import Runtime, actor
from fairactor.prometheus import serve, start

@actor
async def double(n: int) -> int:
    return 2 * n

async def main() -> None:
    async with serve(0, "127.0.0.1") as server, Runtime(sys.argv[1], actors=[double]) as runtime:
        assert await runtime.ask("acme", double(4), timeout=30) == 8
        second = start(0, "127.0.0.1")
        for port in (server.port, second.port):
            url = f"http://127.0.0.1:{port}/metrics"
            print((await asyncio.to_thread(urllib.request.urlopen, url)).read().decode())
        second.stop()

asyncio.run(main())
"""


@actor
async def double(n: int) -> int:
    return 2 * n


@pytest.fixture(autouse=True)
def registry_as_before() -> Iterator[None]:
    before = set(REGISTRY._collector_to_names)
    yield
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)


async def scrape(port: int) -> str:
    url = f"http://127.0.0.1:{port}/metrics"
    return str(await anyio.to_thread.run_sync(lambda: urllib.request.urlopen(url, timeout=PATIENCE).read().decode()))


def test_without_a_provider_it_sets_one(url: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = [line for line in done.stdout.splitlines() if line.startswith("messaging_process_duration_seconds_count{")]
    assert len(found) == 2  # one in each answer
    assert 'messaging_destination_template="double"' in found[0]
    assert "process_resident_memory_bytes" in done.stdout


async def test_to_a_provider_that_is_set_it_adds_a_reader_once(make_runtime: Make, reader: Reader) -> None:
    async with serve(0, "127.0.0.1"), serve(0, "127.0.0.1") as server, make_runtime(double) as runtime:
        assert await runtime.ask("user:1", double(4), timeout=PATIENCE) == 8
        families = {family.name: family for family in text_string_to_metric_families(await scrape(server.port))}
    (count,) = [
        sample
        for sample in families["messaging_process_duration_seconds"].samples
        if sample.name == "messaging_process_duration_seconds_count"
    ]
    assert count.value == 1
    assert reader.values("messaging.process.duration") == {(): 1}


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made = MeterProvider(metric_readers=[PrometheusMetricReader()], shutdown_on_exit=False)
    monkeypatch.setattr(api, "_METER_PROVIDER", made)
    yield made
    made.shutdown()


async def test_a_provider_with_such_a_reader_gets_no_second_one(make_runtime: Make, provider: MeterProvider) -> None:
    async with serve(0, "127.0.0.1") as server, make_runtime(double) as runtime:
        assert await runtime.ask("user:1", double(4), timeout=PATIENCE) == 8
        text = await scrape(server.port)
    assert text.count("# TYPE messaging_process_duration_seconds histogram") == 1


@pytest.mark.usefixtures("reader")
async def test_a_port_that_is_taken() -> None:
    async with serve(0, "127.0.0.1") as server:
        with pytest.raises(ConfigurationError, match=f"port {server.port} of 127.0.0.1 cannot be used"):
            start(server.port, "127.0.0.1")
    start(server.port, "127.0.0.1").stop()


@pytest.mark.parametrize("port", [-1, 65_536, "80", None, True])
def test_bad_ports(port: Any) -> None:
    with pytest.raises(ConfigurationError, match="port"):
        start(port)


@pytest.mark.usefixtures("reader")
def test_bad_hosts() -> None:
    with pytest.raises(ConfigurationError, match="host"):
        start(0, 7)  # type: ignore[arg-type]  # as the test says
    with pytest.raises(ConfigurationError, match="cannot be used"):
        start(0, "no such host.invalid")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'fairactor\[prometheus\]'"):
        start(0)
