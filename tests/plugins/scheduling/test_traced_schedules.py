"""Tests that a schedule makes no spans where nothing is sent, and that its runs link to where it was added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fairactor_scheduling import Schedules, Scheduling
from opentelemetry import baggage, context, trace

from fairactor import Runtime, actor
from tests.support.polling import PATIENCE, until
from tests.support.spans import Exporter, links, parent, span_id

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def report(n: int) -> Any:
    return baggage.get_baggage("user")


@pytest.mark.parametrize("tracing", ["link", "parent"])
async def test_runs_link_to_where_the_schedule_was_added(make_runtime: Make, exporter: Exporter, tracing: str) -> None:
    async with make_runtime(report, plugins=[Scheduling()], tracing=tracing) as runtime:
        schedules, tracer = Schedules(runtime), trace.get_tracer("test")
        with tracer.start_as_current_span("deploy") as deploy:
            token = context.attach(baggage.set_baggage("user", "u1"))
            await schedules.add(0.1, "t", report(1), id="s")
            context.detach(token)
        runs = await until(lambda: exporter.named("process report")[1:])
        assert {(parent(run), *links(run)) for run in runs} == {(None, span_id(deploy))}
        assert exporter.named("send report") == []
        handle = await schedules.run_now("t", "s")
        assert await handle.result(timeout=PATIENCE) is None, "the request that added it ended long ago"


async def test_the_span_is_no_part_of_the_definition(make_runtime: Make, exporter: Exporter) -> None:
    async with make_runtime(report, plugins=[Scheduling()], workers=0) as runtime:
        schedules, tracer = Schedules(runtime), trace.get_tracer("test")
        stored = []
        for _ in range(2):
            with tracer.start_as_current_span("deploy"):
                await schedules.add(3600, "t", report(1), id="s")
            stored.append(await read(runtime))
        assert stored[0] == stored[1], "adding it again changes nothing"
        with tracer.start_as_current_span("deploy"):
            await schedules.update("t", "s", message=report(1))
            await schedules.add(3600, "t", report(1), id="s")
        assert (await read(runtime))[1] == stored[0][1]
    assert exporter.names() == ["deploy"] * 3


async def read(runtime: Runtime) -> list[bytes]:
    """Returns the version and the digest of the schedule."""
    _, *fields = await runtime.host.call("fairactor_scheduling/get", "t", "1:ts", "version", "digest")
    return fields
