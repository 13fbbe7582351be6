"""Rules are checked by one runtime of a fleet, and people are told once."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import attrs
import pytest
import redis
from fairactor_alerts import Alert, Alerts, Rule, Webhook
from fairactor_scheduling import Schedules

from fairactor import Runtime, actor
from tests.support.polling import until

pytestmark = pytest.mark.anyio
LETTERS = Rule(kind="dead_letters", above=3, clear=2)
OFTEN = 0.02


@actor
async def fails() -> None:
    raise ValueError("no")


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """Keeps what is logged of tasks that fail, and of alerts, out of the tests."""
    loggers = [logging.getLogger(name) for name in ("fairactor", "fairactor_alerts")]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    yield
    for each in loggers:
        each.setLevel(logging.NOTSET)


async def fail(runtime: Runtime, times: int, tenant: str = "acme") -> None:
    await runtime.send_many([(tenant, fails())] * times)
    await runtime.drain()


def watching(make: Callable[..., Runtime], told: list[Alert], **rules: Rule) -> Runtime:
    return make(fails, plugins=[Alerts(rules, notify=[told.append], every=OFTEN)])


async def test_an_alert_is_told_once_for_a_fleet_and_once_when_it_is_over(make_runtime: Callable[..., Runtime]) -> None:
    told: list[Alert] = []
    async with AsyncExitStack() as stack:
        fleet = [await stack.enter_async_context(watching(make_runtime, told, letters=LETTERS)) for _ in range(3)]
        await fail(fleet[0], 2)
        assert not (await fleet[0].health()).problems
        await fail(fleet[0], 3)
        await until(lambda: bool(told))
        assert [(each.rule, each.state, each.value, each.text) for each in told] == [
            ("letters", "firing", 5.0, "the number of dead letters is 5")
        ]
        async with make_runtime(workers=0) as without_rules:
            assert "alert letters: the number of dead letters is 5" in (await without_rules.health()).problems
        await fleet[0].dead_letters.purge()
        await until(lambda: len(told) > 1)
        assert [each.state for each in told] == ["firing", "resolved"]
        assert told[0].since == told[1].since
        assert (await fleet[2].health()).ok
        await fail(fleet[0], 4)
        await until(lambda: len(told) > 2)
        assert told[2].since > told[1].since


async def test_another_runtime_goes_on_when_the_one_that_checks_leaves(make_runtime: Callable[..., Runtime]) -> None:
    told: list[Alert] = []
    async with watching(make_runtime, told, letters=LETTERS) as first:
        async with watching(make_runtime, told, letters=LETTERS):
            await first.stop(0)
        await fail(first, 0)
    async with watching(make_runtime, told, letters=LETTERS) as other:
        await fail(other, 4)
        await until(lambda: bool(told))


async def test_it_is_told_only_if_it_lasts_and_ends_only_when_it_is_clear(make_runtime: Callable[..., Runtime]) -> None:
    told: list[Alert] = []
    rules = {"soon": LETTERS, "lasting": attrs.evolve(LETTERS, seconds=3600)}
    async with watching(make_runtime, told, **rules) as runtime:
        await fail(runtime, 2)
        await fail(runtime, 2, "other")
        await until(lambda: bool(told))
        await runtime.dead_letters.purge(tenant="other")  # two are left, which is not below `clear`
        await Checks(runtime).twice()
        assert [(each.rule, each.state) for each in told] == [("soon", "firing")]
        await runtime.dead_letters.purge()
        await until(lambda: len(told) > 1)
        assert [(each.rule, each.state) for each in told] == [("soon", "firing"), ("soon", "resolved")]


class Checks:
    """Waits until the rules were checked again."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def twice(self) -> None:
        seen: list[int] = []
        plugin = self._runtime.host.plugins["fairactor_alerts"]
        rule: Any = next(iter(plugin._rules.values()))
        original = type(rule).values

        def values(self: Rule, facts: Any) -> Any:
            seen.append(1)
            return original(self, facts)

        type(rule).values = values
        try:
            await until(lambda: len(seen) >= 4)
        finally:
            type(rule).values = original


async def test_who_raises_is_told_again(make_runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairactor_alerts._plugin._TELLING", OFTEN)
    told: list[Alert] = []

    async def broken(alert: Alert) -> None:
        told.append(alert)
        if len(told) < 3:
            raise OSError("no network")

    async with make_runtime(fails, plugins=[Alerts({"letters": LETTERS}, notify=[broken], every=OFTEN)]) as runtime:
        await fail(runtime, 4)
        await until(lambda: len(told) == 3)
        await Checks(runtime).twice()
        assert len(told) == 3


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        got: list[Any] = self.server.got  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        got.append((self.headers.get("Authorization"), body))
        self.send_response(503 if len(got) == 1 else 204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    """Yields an HTTP server that refuses the first request."""
    with HTTPServer(("127.0.0.1", 0), _Receiver) as server:
        server.got = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_a_webhook_is_a_task_that_is_tried_again(
    make_runtime: Callable[..., Runtime], receiver: HTTPServer, monkeypatch: pytest.MonkeyPatch, db: redis.Redis
) -> None:
    monkeypatch.setattr("fairactor_alerts._webhook._FIRST_PAUSE", 0.01)
    url = f"http://127.0.0.1:{receiver.server_port}/secret"
    alerts = Alerts({"letters": LETTERS}, notify=[Webhook(url=url, headers={"Authorization": "x"})], every=OFTEN)
    async with make_runtime(fails, plugins=[alerts]) as runtime:
        await fail(runtime, 4)
        got: list[Any] = receiver.got  # type: ignore[attr-defined]
        await until(lambda: len(got) == 2)
        assert got[0] == got[1]
        assert got[1][0] == "x"
        assert got[1][1]["text"] == "the number of dead letters is 4"
        assert got[1][1]["state"] == "firing"
        stored = b"".join(db.get(key) or b"" for key in db.scan_iter("*:task:*"))  # type: ignore[misc]
        assert b"secret" not in stored


async def test_each_kind_finds_what_is_wrong(make_runtime: Callable[..., Runtime], db: redis.Redis) -> None:
    told: list[Alert] = []
    rules = {
        "lacks": Rule(kind="no_worker", above=0.01),
        "waits": Rule(kind="oldest_wait", above=0.01, seconds=0, queue="gpu"),
        "memory": Rule(kind="server_memory", above=1e-6, seconds=0),
        "failures": Rule(kind="failure_rate"),
    }
    limit: Any = db.config_get("maxmemory")
    db.config_set("maxmemory", "1gb")
    try:
        alerts = Alerts(rules, notify=[told.append], every=OFTEN)
        async with make_runtime(fails, plugins=[alerts], queues=["default"]) as runtime:
            await fail(runtime, 20)
            await runtime.send("acme", fails().options(queue="gpu"))
            await until(lambda: {each.rule for each in told} == rules.keys())
            assert {each.subject for each in told if each.rule == "waits"} == {"gpu"}
            assert {each.subject for each in told if each.rule == "memory"} == {"shard 0"}
            assert {each.subject for each in told if each.rule == "lacks"} == {"fails in gpu"}
    finally:
        db.config_set("maxmemory", limit["maxmemory"])


async def test_a_schedule_that_nobody_sends_is_late(
    make_runtime: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(_: Any) -> float:
        return 60.0

    monkeypatch.setattr("fairactor_scheduling._plugin._Poller._send_due", nothing)
    told: list[Alert] = []
    async with watching(make_runtime, told, late=Rule(kind="schedule_late", above=0.01)) as runtime:
        await Schedules(runtime).add(timedelta(seconds=0.1), "acme", fails(), id="often")
        await until(lambda: bool(told))
        assert told[0].subject == "acme/often"


async def test_hostile_names_are_subjects(make_runtime: Callable[..., Runtime]) -> None:
    told: list[Alert] = []
    name = "\x1f\n\u202e" + "q" * 500
    async with watching(make_runtime, told, old=Rule(kind="unfair", above=0.1, seconds=0)):
        values = Rule.values
        try:
            Rule.values = lambda self, facts: iter([(name, 1.0)])  # type: ignore[method-assign,assignment,misc]
            await until(lambda: bool(told))
        finally:
            Rule.values = values  # type: ignore[method-assign]
        assert told[0].subject == name[:300]
        await until(lambda: len(told) == 2)
