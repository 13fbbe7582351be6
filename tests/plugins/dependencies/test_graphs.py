"""Tests graphs of messages: how to write, send, follow, cancel and resend them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import redis
from fairactor_dependencies import (
    Dependencies,
    GraphError,
    at,
    chain,
    graph,
    group,
    parents,
    result_of,
    results,
)
from fairactor_xcom import XCom, xcom

from fairactor import Message, Runtime, TaskCanceled, TaskFailed, TaskState, actor, current_task
from fairactor.errors import ConfigurationError, MailboxFull, TaskNotFound
from fairactor.plugins import Operator
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

FINISHED, FAILED, CANCELED = TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED


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
async def d() -> str:
    return "d"


@actor
async def join(parts: list[Any]) -> str:
    return "+".join(map(str, parts))


@actor
async def fail() -> None:
    raise ValueError("no")


@actor
async def hand_on(value: Any) -> Any:
    return value


@pytest.fixture
def make(make_runtime: Make) -> Make:
    def make(*more: Any, **settings: Any) -> Runtime:
        return make_runtime(a, b, c, d, join, fail, hand_on, *more, **{"plugins": [Dependencies(), XCom()]} | settings)

    return make


def edges(graph: Any) -> set[str]:
    order, before = graph.plan.in_order()
    alone = {step.actor.name for step in order if not before[step]} - {
        first.actor.name for firsts in before.values() for first in firsts
    }
    return {first.actor.name + step.actor.name for step in order for first in before[step]} | alone


SHAPES: dict[str, tuple[Callable[[], Any], str]] = {
    "after": (lambda: a() >> b(), "ab"),
    "before": (lambda: a() << b(), "ba"),
    "before, twice": (lambda: a() << b() << c(), "cb ba"),
    "beside": (lambda: a() | b() | c(), "a b c"),
    "in and out": (lambda: a() >> (b() | c()) >> d(), "ab ac bd cd"),
    "precedence": (lambda: a() >> b() | c() >> d(), "ab cd"),
    "all to all": (lambda: (a() | b()) >> (c() | d()), "ac ad bc bd"),
    "nested": (lambda: a() >> (b() >> c() | d()), "ab bc ad"),
    "lists": (lambda: a() >> [b(), c()] >> d(), "ab ac bd cd"),
    "a list first": (lambda: [a(), b()] >> graph(c()), "ac bc"),
    "chain": (lambda: chain(a(), [b(), c()], d()), "ab ac bd cd"),
    "group": (lambda: group(a(), chain(b(), c())) >> d(), "bc ad cd"),
    "one": (lambda: graph(a()), "a"),
    "a message beside a graph": (lambda: a() | (b() >> c()), "a bc"),
    "a graph after a message": (lambda: a() << (b() >> c()), "bc ca"),
    "results": (lambda: graph(join([1]), hand_on(result_of(a()))), "join ahand_on"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_operators_say_what_comes_before_what(shape: str) -> None:
    made, expected = SHAPES[shape]
    assert edges(made()) == set(expected.split())


def test_a_message_that_is_named_twice_is_one_step() -> None:
    first, last = a(), d()
    diamond = (first >> b() >> last) | (first >> c() >> last)
    assert edges(diamond) == {"ab", "ac", "bd", "cd"}
    assert len(diamond) == 4


def test_what_is_no_step_cannot_be_combined() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        a() >> 5
    with pytest.raises(ConfigurationError, match=r"5 cannot be a step of a graph: give messages, such as f\(1\)"):
        chain(a(), 5)
    with pytest.raises(ConfigurationError, match=r">> between messages: 'fairactor_dependencies' and 'other' both add"):
        Operator(">>", plugin="other", apply=lambda left, right: left)


def test_a_picture() -> None:
    made = a().options(id='the "first"') >> (b() | c()) >> d()
    assert made.to_mermaid().splitlines() == [
        "flowchart LR",
        '    s0["the #quot;first#quot; (a)"]',
        '    s1["b"]',
        '    s2["c"]',
        '    s3["d"]',
        "    s0 --> s1",
        "    s0 --> s2",
        "    s1 --> s3",
        "    s2 --> s3",
    ]


async def test_a_graph_is_sent_whole_and_each_step_runs_after_those_before_it(make: Make) -> None:
    log: list[str] = []

    @actor
    async def step(name: str) -> str:
        log.append(name)
        return name

    async with make(step) as runtime:
        run = await runtime.send("t", step("a") >> (step("b") | step("c") >> step("d")) >> join(results()))
        assert await run.result(PATIENCE) == "b+d"
        assert log[0] == "a"
        assert log.index("c") < log.index("d")
        assert set((await run.states()).values()) == {FINISHED}
        assert list(run.handles) == ["step", "step.2", "step.3", "step.4", "join"]
        await check_invariants(runtime)


async def test_a_run_with_several_last_steps_has_their_results(make: Make) -> None:
    async with make() as runtime:
        run = await runtime.tenant("t").send(a() >> (b() | c()))
        assert await run.result(PATIENCE) == ["b", "c"]
        late = await runtime.send("t", graph(a().options(delay=60)))
        with pytest.raises(TimeoutError, match="has no result after 0 s; it goes on"):
            await late.result(0)
        with pytest.raises(TimeoutError, match="has not ended after 0 s; it goes on"):
            await late.wait(0)


async def test_ids_are_names_within_a_run(make: Make) -> None:
    async with make() as runtime:
        runs = [await runtime.send("t", a().options(id="x") >> b().options(id="y")) for _ in range(2)]
        assert [await run.result(PATIENCE) for run in runs] == ["b", "b"]
        assert runs[0].handles["x"].id != runs[1].handles["x"].id
        assert list(runs[0].handles) == ["x", "y"]


async def test_steps_may_be_of_other_tenants(make: Make) -> None:
    @actor
    async def whose() -> str:
        return current_task().tenant

    async with make(whose) as runtime:
        run = await runtime.send("t", at("u", whose()) >> at("v", chain(whose(), at("w", whose()))) >> join(results()))
        assert await run.result(PATIENCE) == "w"
        assert [handle.tenant for handle in run.handles.values()] == ["u", "v", "w", "t"]


async def test_steps_share_xcom_and_know_those_before(make: Make) -> None:
    @actor
    async def push(value: int) -> None:
        await xcom.push("n", value)

    @actor
    async def pull() -> list[Any]:
        return [await xcom.pull("n"), await xcom.pull("n", from_task=parents), len(parents())]

    async with make(push, pull) as runtime:
        run = await runtime.send("t", push(1) >> push(2) >> pull())
        assert await run.result(PATIENCE) == [2, [2], 1]


async def test_what_a_step_waits_for_may_be_outside_of_the_graph(make: Make) -> None:
    async with make() as runtime:
        before = await runtime.send("u", a())
        run = await runtime.send("t", b() >> join(results()).options(depends_on=[before]))
        assert await run.result(PATIENCE) == "a+b"


async def test_trigger_rules_hold_in_graphs(make: Make) -> None:
    async with make() as runtime:
        alarm = hand_on("alarm").options(trigger_rule="one_failed")
        run = await runtime.send("t", (a() >> fail() >> b()) | (chain((f := fail()), group(alarm, c()))))
        assert f in run._plan.steps
        assert await run.wait(PATIENCE) == {
            "a": FINISHED, "fail": FAILED, "b": CANCELED, "fail.2": FAILED, "hand_on": FINISHED, "c": CANCELED,
        }  # fmt: skip


async def test_a_run_is_canceled_whole(make: Make) -> None:
    started = anyio.Event()

    @actor
    async def stuck() -> None:
        started.set()
        await anyio.sleep_forever()

    async with make(stuck) as runtime:
        run = await runtime.send("t", a() >> stuck() >> b() >> c())
        await started.wait()
        await run.cancel()
        with pytest.raises(TaskCanceled):
            await run.result(PATIENCE)
        assert list((await run.wait(PATIENCE)).values()) == [FINISHED, CANCELED, CANCELED, CANCELED]
        assert ":::canceled" in await run.to_mermaid()
        await run.cancel()


async def test_a_retry_sends_again_what_has_not_finished(make: Make) -> None:
    broken, ran = True, itertools.count()

    @actor
    async def first() -> int:
        return next(ran)

    @actor
    async def mended(n: int) -> str:
        if broken:
            raise ValueError("no")
        return f"mended {n}"

    async with make(first, mended) as runtime:
        run = await runtime.send("t", chain(one := first(), mended(result_of(one)), join(results())))
        with pytest.raises(ConfigurationError, match=r"await run.wait\(\) or run.cancel\(\) first"):
            await (await runtime.send("t", graph(a().options(delay=60)))).retry()
        with pytest.raises(TaskCanceled, match="failed"):
            await run.result(PATIENCE)
        broken = False
        again = await run.retry()
        assert await again.result(PATIENCE) == "mended 0"
        assert again.handles["first"] is run.handles["first"]
        assert again.handles["mended"].id != run.handles["mended"].id
        assert await again.retry() is again, "there is nothing to do"


async def test_a_retry_of_what_is_not_known_any_more_is_refused(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        run = await runtime.send("t", a().options(result_ttl=0) >> fail())
        await until(lambda: not db.exists(f"{{fairactor/0}}:task:{run.handles['a'].id}"))
        with pytest.raises(TaskFailed):
            await run.result(PATIENCE)
        assert (await run.states())["a"] is None
        with pytest.raises(TaskNotFound, match="its record has expired"):
            await run.retry()


async def test_what_takes_several_calls_is_sent_whole_too(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        wide = [hand_on(n) for n in range(1_200)]
        run = await runtime.send("t", a() >> group(*wide) >> hand_on(results()))
        assert await run.result(PATIENCE) == list(range(1_200))
        run = await runtime.send("t", chain(*(hand_on(n) for n in range(1_200))))
        assert await run.result(PATIENCE) == 1_199
        await check_invariants(runtime)
        left = {key.decode().rpartition(":")[2] for key in db.scan_iter("*:plugin:*") if b":gate:" not in key}
        assert left == set()


async def test_what_cannot_be_sent_whole_is_not_sent(make: Make) -> None:
    async with make() as runtime:
        await runtime.tenant("full").configure(backlog=5)
        with pytest.raises(MailboxFull):
            await runtime.send("t", a() >> at("full", group(*(b() for _ in range(600)))) >> c())
        await runtime.drain(PATIENCE)
        stats = await runtime.stats()
        assert (stats.finished, stats.deferred) == (0, 0)
        await check_invariants(runtime)


ONE = a()
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a circle": (lambda: ONE >> b() >> ONE, r"has a cycle: (a → b → a|b → a → b)"),
    "a step before itself": (lambda: ONE >> ONE, "has a cycle: a → a"),
    "two of one id": (lambda: a().options(id="x") | b().options(id="x"), "two steps have the id 'x'"),
    "nothing": (chain, "the graph is empty"),
    "two tenants": (lambda: at("t", ONE) | at("u", ONE), "a cannot be a task of both 't' and 'u'"),
    "a key": (lambda: a().options(key="k") >> b(), "has key=, so another task may stand for it"),
    "results of nothing": (
        lambda: graph(join(results())) | (a() >> b()),
        r"join\(\): results\(\) stands for the result of a parent, and the message has none",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_cannot_be_is_refused_before_anything_is_sent(make: Make, wrong: str) -> None:
    made, said = WRONG[wrong]
    async with make(workers=0) as runtime:
        with pytest.raises(GraphError, match=said):
            await runtime.send("t", made())
        stats = await runtime.stats()
        assert (stats.queued, stats.deferred) == (0, 0)


async def test_options_are_those_of_messages(make: Make) -> None:
    async with make(workers=0) as runtime:
        with pytest.raises(ConfigurationError, match="priority: only messages take options: give them to each message"):
            await runtime.send("t", a() >> b(), priority="high")  # type: ignore[call-overload]
        with pytest.raises(ConfigurationError, match="priority: only messages take options"):
            await runtime.ask("t", a() >> b(), priority="high")  # type: ignore[call-overload]


async def test_many_in_one_send_come_in_an_order_in_which_they_can_wait(make: Make) -> None:
    async with make(workers=0) as runtime:
        messages: list[tuple[str, Message[Any]]] = [
            ("t", b().options(id="2", depends_on=["1"])),
            ("t", a().options(id="1")),
        ]
        with pytest.raises(GraphError, match="'2' comes before a message that it depends on"):
            await runtime.send_many(messages)
        assert len(await runtime.send_many(messages[::-1])) == 2


async def test_a_graph_that_is_too_large_for_one_call_runs_once_all_of_it_is_there(make: Make) -> None:
    text = "x" * 300_000
    async with make() as runtime:
        run = await runtime.send("t", group(*(hand_on(f"{n}{text}") for n in range(4))) >> b())
        assert [len(await handle.result(PATIENCE)) for handle in run.handles.values()][:4] == [300_001] * 4
        await runtime.drain(PATIENCE)
        await check_invariants(runtime)


async def test_what_has_failed_while_a_run_was_sent_is_named(make: Make) -> None:
    async with make() as runtime:
        failed = await runtime.send("u", fail())
        with pytest.raises(TaskFailed):
            await failed.result(PATIENCE)
        wide = group(*(a() for _ in range(600)))
        run = await runtime.send("t", wide >> b() | c().options(depends_on=[failed]))
        with pytest.raises(TaskCanceled, match=f"upstream task {failed.id} did not finish"):
            await run.handles["c"].result(PATIENCE)
