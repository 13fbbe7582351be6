"""Tests the spans of steps that scripts end: those after a failure, and those with nothing to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fairactor_dependencies import chain

from fairactor import Message, Runtime, TaskCanceled, TaskFailed, actor
from tests.support.polling import PATIENCE, until
from tests.support.spans import Exporter, error, facts, links, span_id

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def fail() -> None:
    raise ValueError("no")


@actor
async def later(name: str) -> str:
    return name


@actor
async def alert() -> None:
    raise AssertionError("it is not to run")


async def used(make_runtime: Make) -> Runtime:
    """Returns a runtime whose namespace has used the plugin, so the scripts know that somebody traces."""
    runtime = make_runtime(fail, later, alert)
    async with runtime:
        await (await runtime.send("t", later("a") >> later("b"))).result(PATIENCE)
    return make_runtime(fail, later, alert)


@pytest.mark.parametrize("kept", [3600.0, 0.0])
async def test_each_step_after_a_failure_has_a_span(make_runtime: Make, exporter: Exporter, kept: float) -> None:
    async with await used(make_runtime) as runtime:
        exporter.clear()
        never: list[Message[Any]] = [later(str(n)).options(result_ttl=kept) for n in range(3)]
        run = await runtime.send("t", chain(fail(), *never))
        with pytest.raises((TaskFailed, TaskCanceled)):
            await run.result(PATIENCE)
        spans = await until(lambda: len(found := exporter.named("process later")) == 3 and found)
    assert {error(span) for span in spans} == {"UpstreamFailed"}
    assert {facts(span)["messaging.message.id"] for span in spans} == {handle.id for handle in run.handles.values()} - {
        run.handles["fail"].id
    }
    sent = {span_id(span) for span in exporter.named("create later")}
    assert {link for span in spans for link in links(span)} == sent


async def test_a_step_with_nothing_to_do_has_a_span_without_an_error(make_runtime: Make, exporter: Exporter) -> None:
    async with await used(make_runtime) as runtime:
        exporter.clear()
        run = await runtime.send("t", later("a") >> alert().options(trigger_rule="one_failed"))
        assert await run.result(PATIENCE) == "a"
        (span,) = await until(lambda: exporter.named("process alert"))
    assert span.status.is_ok or span.status.is_unset
    assert "error.type" not in facts(span)
    assert facts(span)["messaging.fairactor.message.skipped"] is True
