"""Tests graphs with empty groups: these run nothing, have no results, and keep the order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fairactor_dependencies import Dependencies, GraphError, chain, each, graph, group, result, results

from fairactor import Message, Runtime, TaskFailed, actor
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor
async def a() -> str:
    return "a"


@actor
async def b() -> str:
    return "b"


@actor
async def c() -> str:
    return "c"


@actor
async def fail() -> None:
    raise ValueError("no")


@actor
async def show(parts: list[Any]) -> str:
    return str(parts)


NOTHING: list[Message[str]] = []
SHAPES: dict[str, tuple[Callable[[], Any], str]] = {
    "in the middle": (lambda: a() >> NOTHING >> b(), "ab"),
    "twice": (lambda: a() >> NOTHING >> group() >> b(), "ab"),
    "first": (lambda: NOTHING >> a() >> b(), "ab"),
    "last": (lambda: a() >> b() >> NOTHING, "ab"),
    "both sides": (lambda: NOTHING >> a() >> NOTHING, "a"),
    "beside": (lambda: a() >> [NOTHING, b()] >> c(), "ab bc"),
    "beside, as a graph": (lambda: a() >> (group() | b()) >> c(), "ab bc"),
    "nested": (lambda: a() >> [[[]], NOTHING] >> b(), "ab"),
    "at the end of a branch": (lambda: [a() >> NOTHING, b()] >> graph(c()), "ac bc"),
    "at the start of a branch": (lambda: a() >> graph(chain(NOTHING, b())) >> c(), "ab bc"),
    "before": (lambda: b() << NOTHING << a(), "ab"),
    "a chain of nothing": (lambda: a() >> chain() >> b(), "ab"),
    "a list before a message": (lambda: [a(), b()] >> c(), "ac bc"),
    "a list after a message": (lambda: [a(), b()] << c(), "ca cb"),
    "a list beside a message": (lambda: ([a(), b()] | c()) >> show([]), "ashow bshow cshow"),
}


def edges(made: Any) -> set[str]:
    order, before = made.plan.in_order()
    found = {first.actor.name + step.actor.name for step in order for first in before[step]}
    return found or {step.actor.name for step in order}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_stands_after_an_empty_group_waits_for_what_stands_before(shape: str) -> None:
    made, expected = SHAPES[shape]
    assert edges(made()) == set(expected.split())


def test_a_graph_that_grows_in_a_loop_is_the_same_as_one_made_at_once() -> None:
    steps = [a() for _ in range(3_000)]
    behind = graph(steps[0])
    beside = graph(steps[0])
    before = graph(steps[0])
    for step in steps[1:]:
        behind, beside, before = behind >> step, beside | step, step >> before
    assert edges(behind) == edges(before) == {"aa"}
    assert [len(made) for made in (behind, beside, before)] == [3_000] * 3
    one = a() >> b()
    first, second = one >> c(), one >> fail()
    assert (edges(one), edges(first), edges(second)) == ({"ab"}, {"ab", "bc"}, {"ab", "bfail"})


async def test_the_run_waits_and_an_empty_group_has_no_results(make_runtime: Make) -> None:
    async with make_runtime(a, b, c, fail, show, plugins=[Dependencies()]) as runtime:
        run = await runtime.send("t", a() >> NOTHING >> show(results()))
        assert await run.result(PATIENCE) == "[]"
        run = await runtime.send("t", [a() >> NOTHING, b()] >> show(results()))
        assert await run.result(PATIENCE) == "['b']"
        run = await runtime.send("t", [a(), b()] >> group())
        assert await run.result(PATIENCE) == []
        assert {state.value for state in (await run.states()).values() if state} == {"finished"}
        with pytest.raises(TaskFailed):
            await runtime.ask("t", fail() >> NOTHING, timeout=PATIENCE)
        assert await runtime.ask("t", NOTHING >> each(show, [[1], [2]]) >> show(result()), timeout=PATIENCE) == (
            "['[1]', '[2]']"
        )
        with pytest.raises(GraphError, match="the graph is empty"):
            await runtime.send("t", group(NOTHING, chain()))
        with pytest.raises(
            GraphError, match=r"result\(\) stands for the result of the one step before, and there are 0"
        ):
            await runtime.send("t", a() >> NOTHING >> show(result()))
