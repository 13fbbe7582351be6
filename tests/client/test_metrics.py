"""Tests the metrics of senders, scripts and whole namespaces."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fairactor import Runtime, actor
from fairactor._operate import gauges
from fairactor._util import meters
from fairactor.errors import MailboxFull, NotSerializable, ServerUnavailable
from tests.support import servers
from tests.support.meters import Reader
from tests.support.polling import PATIENCE, until
from tests.support.spans import Exporter

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

SENT = "messaging.client.sent.messages"
OPERATION = "messaging.client.operation.duration"
TEMPLATE = "messaging.destination.template"
NAME = "messaging.operation.name"


@actor
async def double(n: int) -> int:
    return 2 * n


@actor
async def other() -> None: ...


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gauges of namespaces are read often."""
    monkeypatch.setattr(gauges, "EVERY", 0.02)


async def test_sending(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(double, other, workers=0) as runtime:
        await runtime.send("user:1", double(1))
        await runtime.send_many([("user:1", double(1)), ("user:2", other()), ("user:3", double(3))])
        await runtime.send_many([("user:1", other()), ("user:2", other())])
        await runtime.send_many([])
    assert reader.values(SENT, NAME, TEMPLATE) == {("send", "double"): 3, ("send", "other"): 3}
    assert reader.values(OPERATION, NAME, TEMPLATE) == {
        ("send", "double"): 1,
        ("send", None): 1,
        ("send", "other"): 1,
    }


async def test_what_is_refused_before_it_is_sent_counts_as_an_operation(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(double, workers=0) as runtime:
        with pytest.raises(NotSerializable):
            await runtime.send("user:1", double(object()))  # type: ignore[arg-type]  # as the test says
    assert reader.values(SENT) == {}
    assert reader.values(OPERATION, "error.type") == {"fairactor.errors.NotSerializable": 1}


async def test_a_full_mailbox(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(double, workers=0) as runtime:
        await runtime.tenant("user:1").configure(backlog=1)
        await runtime.send("user:1", double(1))
        with pytest.raises(MailboxFull):
            await runtime.send_many([("user:1", double(1)), ("user:1", double(2))])
    assert reader.values(SENT, "error.type") == {None: 1, "fairactor.errors.MailboxFull": 2}


async def test_a_server_that_is_away(make_runtime: Make, server: servers.Instance, reader: Reader) -> None:
    async with Runtime(server.url, actors=[double], workers=0, connect_timeout=0.2) as runtime:
        await runtime.send("user:1", double(1))
        server.kill()
        with pytest.raises(ServerUnavailable):
            await runtime.send("user:1", double(2))
    error = "fairactor.errors.ServerUnavailable"
    assert reader.values(SENT, "error.type") == {None: 1, error: 1}
    assert reader.values("fairactor.script.duration", "fairactor.script", "error.type")["send", None] == 1


async def test_purging(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(double, workers=0) as runtime:
        await runtime.send("user:1", double(1))
        assert await runtime.tenant("user:1").purge() == 1
    assert reader.values(OPERATION, NAME) == {"send": 1, "purge": 1}


async def test_counts_outlive_their_runtimes(make_runtime: Make, reader: Reader) -> None:
    for _ in range(3):
        async with make_runtime(double, workers=0) as runtime, make_runtime(double, workers=0) as second:
            await runtime.send("user:1", double(1))
            await second.send("user:1", double(1))
    assert reader.values(SENT) == {(): 6}


@pytest.mark.usefixtures("often")
async def test_gauges_of_a_namespace(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(double, workers=0) as runtime:
        await runtime.send_many([("user:1", double(n)) for n in range(4)])
        await runtime.send("user:2", double(1), delay=timedelta(hours=1))
        await until(lambda: reader.values("fairactor.tasks", "fairactor.state").get("scheduled"))
        assert reader.values("fairactor.tasks", "fairactor.state", "fairactor.namespace") == {
            ("queued", "fairactor"): 4,
            ("started", "fairactor"): 0,
            ("scheduled", "fairactor"): 1,
            ("deferred", "fairactor"): 0,
        }
        assert reader.values("fairactor.runtimes") == {(): 0}
        assert reader.values("fairactor.health.problems") == {(): 1}  # nobody runs them
        assert reader.values("fairactor.tenants.waiting") == {(): 1}
        assert reader.values("fairactor.tenant.backlog") == {}
        async with make_runtime(double):
            await until(lambda: reader.values("fairactor.runtimes") == {(): 1})
            await until(lambda: reader.values("fairactor.tasks", "fairactor.state")["queued"] == 0)
    assert reader.values("fairactor.tasks") == {}


@pytest.mark.usefixtures("often")
async def test_gauges_of_queues(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(double, workers=0) as runtime:
        await runtime.send_many([("user:1", double(n)) for n in range(4)])
        await runtime.send("user:2", double(1), queue="slow")
        await until(lambda: reader.values("fairactor.queue.backlog", "fairactor.queue") == {"default": 4, "slow": 1})
        ages = reader.values("fairactor.queue.oldest_age", "fairactor.queue")
        await until(lambda: reader.values("fairactor.queue.oldest_age", "fairactor.queue")["slow"] > ages["slow"])
        async with make_runtime(double, queues=["slow"]):
            await until(lambda: reader.values("fairactor.queue.runtimes", "fairactor.queue").get("slow") == 1)
            await until(lambda: reader.values("fairactor.queue.backlog", "fairactor.queue").get("slow", 0) == 0)
            assert reader.values("fairactor.queue.backlog", "fairactor.queue")["default"] == 4


@pytest.mark.usefixtures("often")
async def test_gauges_of_the_tenants_with_the_most_tasks(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(double, workers=0, metrics_tenants=2) as runtime:
        await runtime.send_many([(f"user:{n}", double(n)) for n in range(4) for _ in range(n + 1)])
        backlogs = {"user:3": 4, "user:2": 3}
        await until(lambda: reader.values("fairactor.tenant.backlog", "fairactor.tenant") == backlogs)
        assert reader.values("fairactor.tenant.running", "fairactor.tenant") == {"user:3": 0, "user:2": 0}
        assert min(reader.values("fairactor.tenant.oldest_age", "fairactor.tenant").values()) > 0


@pytest.mark.usefixtures("often")
async def test_two_runtimes_report_a_namespace_once(make_runtime: Make, reader: Reader) -> None:
    async with make_runtime(double, workers=0) as runtime, make_runtime(double, workers=0):
        await runtime.send("user:1", double(1))
        await until(lambda: reader.values("fairactor.tasks", "fairactor.state").get("queued"))
        assert reader.values("fairactor.tasks", "fairactor.state")["queued"] == 1


@pytest.mark.usefixtures("often")
async def test_gauges_of_a_server_that_is_away_end(server: servers.Instance, reader: Reader) -> None:
    async with Runtime(server.url, actors=[double], workers=0, connect_timeout=0.2) as runtime:
        await runtime.send("user:1", double(1))
        await until(lambda: reader.values("fairactor.tasks", "fairactor.state").get("queued"))
        server.kill()
        await until(lambda: not reader.values("fairactor.tasks"))


@pytest.mark.usefixtures("often")
async def test_gauges_that_cannot_be_read_stop_nothing(
    make_runtime: Make, reader: Reader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[None] = []

    async def broken() -> Any:
        tried.append(None)
        raise ValueError("damaged")

    runtime = make_runtime(double)
    queues = runtime.queues
    monkeypatch.setattr(runtime, "queues", broken)
    async with runtime:
        await until(lambda: len(tried) > 10)
        assert await runtime.ask("user:1", double(4), timeout=PATIENCE) == 8
        assert reader.values("fairactor.runtimes") == {}
        assert [record.message for record in caplog.records] == ["the gauges cannot be read"]
        monkeypatch.setattr(runtime, "queues", queues)
        await until(lambda: reader.values("fairactor.runtimes") == {(): 1})


async def test_spans_and_metrics_together(make_runtime: Make, reader: Reader, exporter: Exporter) -> None:
    async with make_runtime(double) as runtime:
        assert await runtime.ask("user:1", double(4), timeout=PATIENCE) == 8
        await runtime.send_many([("user:1", double(1)), ("user:2", double(2))])
        await runtime.drain(timeout=PATIENCE)
        await runtime.tenant("user:1").purge()
    names = ["create double", "create double", "process double", "process double", "process double", "purge"]
    assert exporter.names() == [*names, "send double", "send double"]
    assert reader.values(OPERATION, NAME) == {"send": 2, "purge": 1}
    assert reader.values("messaging.process.duration") == {(): 3}


async def test_large_fleets_are_read_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gauges.pause(3) == gauges.EVERY
    assert gauges.pause(500) == 100.0


async def test_many_kinds_of_errors_become_one(reader: Reader) -> None:
    made = meters.Meters("localhost", 1, "many")
    for n in range(2 * meters.MOST_SERIES):
        made.failed("actor", f"Error{n}")
    made.close()
    found = reader.values("fairactor.task.failures", "error.type")
    assert len(found) <= meters.MOST_SERIES + 2
    assert sum(found.values()) == 2 * meters.MOST_SERIES
    assert found[meters.OTHER] > 900


async def test_how_late_scheduled_runs_are(make_runtime: Make, reader: Reader) -> None:
    from fairactor_scheduling import Schedules

    async with make_runtime(double) as runtime:
        began = time.monotonic()
        await Schedules(runtime).add(timedelta(seconds=0.1), "user:1", double(1), id="often")
        await until(lambda: reader.values("fairactor.schedule.lateness", "fairactor.namespace"))
        (point,) = reader.points("fairactor.schedule.lateness")
        assert point.count >= 1
        assert 0 <= point.sum <= (time.monotonic() - began) * point.count + PATIENCE
