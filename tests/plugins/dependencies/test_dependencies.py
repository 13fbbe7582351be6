"""Tests dependencies: when dependent tasks run, when they cannot run, and which results they receive."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import redis
from fairactor_dependencies import Dependencies, UnknownParent, parents, result_of, results
from fairactor_xcom import XCom, xcom

from fairactor import Handle, Retry, Runtime, TaskCanceled, TaskState, actor, current_task
from fairactor.errors import ConfigurationError, InvalidPayload, MissingPlugin, NotSerializable
from fairactor.testing import check_invariants
from tests.support.dependencies.sample_actors import (
    Gate,
    ended,
    ended_parent,
    fail,
    give,
    order,
    ran_after,
    ship,
    total,
)
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

FINISHED, FAILED, CANCELED, DEFERRED = TaskState.FINISHED, TaskState.FAILED, TaskState.CANCELED, TaskState.DEFERRED


@pytest.fixture
def gate(anyio_backend: str) -> Gate:
    return Gate()


@pytest.fixture
def make(make_runtime: Make, gate: Gate) -> Make:
    def make(*more: Any, **settings: Any) -> Runtime:
        actors = [give, order, ship, total, fail, ran_after, gate.wait, *more]
        return make_runtime(*actors, **{"plugins": [Dependencies(), XCom()]} | settings)

    return make


async def why(handle: Handle[Any]) -> str:
    with pytest.raises(TaskCanceled) as raised:
        await handle.result(PATIENCE)
    return str(raised.value)


async def test_a_task_runs_after_those_that_it_waits_for(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        first, second = await runtime.send("t", gate.wait()), await runtime.send("other", gate.wait())
        child = await runtime.send("t", ran_after(), depends_on=[first, second.id])
        assert await child.state() == DEFERRED
        gate.opened.set()
        assert await child.result(PATIENCE) == [first.id, second.id]
        await check_invariants(runtime)


@pytest.mark.parametrize("how", ["finished", "failed", "canceled"])
async def test_parents_that_have_ended_count_at_once(make: Make, how: str) -> None:
    async with make() as runtime:
        parent = await ended_parent(runtime, how)
        child = await runtime.send("t", give(2), depends_on=[parent])
        anyway = await runtime.send("t", give(3), depends_on=[parent], trigger_rule="all_done")
        if how == "finished":
            assert await child.result(PATIENCE) == 2
        else:
            said = "failed" if how == "failed" else "was canceled"
            assert f"cannot run (trigger rule all_success): upstream task {parent.id} {said}" in await why(child)
        assert await anyway.result(PATIENCE) == 3


async def test_what_can_never_run_is_canceled_in_the_send_itself(make: Make) -> None:
    async with make() as runtime, make(workers=0) as sender:
        parent = await ended_parent(runtime, "failed")
        await runtime.stop(0)
        child = await sender.send("t", give(2), depends_on=[parent])
        assert await child.state() == CANCELED
        with pytest.raises(TaskCanceled, match=parent.id):
            await sender.ask("t", give(2), depends_on=[parent], timeout=PATIENCE)
        assert await (await sender.send("t", give(2), key="k", depends_on=[parent])).state() == CANCELED
        assert not (await sender.send("t", give(2), key="k")).duplicate, "its key is free again"
        await check_invariants(sender)


RULES = {
    "all_success": {"F": True, "X": False, "C": False, "FF": True, "FX": False, "FC": False},
    "all_done": {"F": True, "X": True, "C": True, "FX": True, "XC": True},
    "one_success": {"F": True, "X": False, "FX": True, "XF": True, "XC": False, "CC": False},
    "one_failed": {"F": False, "X": True, "C": False, "FX": True, "FC": False},
    "none_failed": {"F": True, "X": False, "C": True, "FC": True, "CX": False},
}


@pytest.mark.parametrize(("rule", "ends"), [(rule, ends) for rule, of in RULES.items() for ends in of])
@pytest.mark.parametrize("before", [True, False], ids=["ended before", "ended after"])
async def test_a_trigger_rule_says_whether_it_runs(make: Make, gate: Gate, rule: str, ends: str, before: bool) -> None:
    async with make() as runtime:
        messages = {"F": gate.wait(), "X": gate.wait("fail"), "C": give(0).options(delay=60)}
        tasks = [await runtime.send(f"t{n}", messages[end]) for n, end in enumerate(ends)]

        async def end() -> None:
            gate.opened.set()
            for task in tasks:
                if await task.state() == TaskState.SCHEDULED:
                    await task.cancel()
                await ended(task)

        if before:
            await end()
        child = await runtime.send("t", give(1), depends_on=tasks, trigger_rule=rule)
        await end()
        assert await ended(child) == (FINISHED if RULES[rule][ends] else CANCELED)
        await check_invariants(runtime)


async def test_one_success_and_one_failed_do_not_wait_for_the_others(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        slow = await runtime.send("t", gate.wait())
        for how, rule in (("finished", "one_success"), ("failed", "one_failed")):
            parent = await ended_parent(runtime, how)
            assert await (await runtime.send("t", give(1), depends_on=[slow, parent], trigger_rule=rule)).result(
                PATIENCE
            )
        gate.opened.set()


async def test_cancellations_go_down_and_name_what_has_caused_them(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        root = await runtime.send("t", gate.wait("fail"), id="root")
        child = await runtime.send("u", give(1), id="child", depends_on=[root])
        grandchild = await runtime.send("v", give(1), id="grandchild", depends_on=[child])
        alarm = await runtime.send("t", give("alarm"), depends_on=[grandchild], trigger_rule="one_failed")
        spared = await runtime.send("t", give(1), depends_on=[grandchild], trigger_rule="none_failed")
        gate.opened.set()
        assert "upstream task root failed" in await why(child)
        assert "upstream task child was canceled because task root failed" in await why(grandchild)
        assert await alarm.result(PATIENCE) == "alarm", "what is canceled since another failed counts as failed"
        assert await ended(spared) == CANCELED
        late = await runtime.send("t", give("late"), depends_on=[grandchild], trigger_rule="one_failed")
        assert await late.result(PATIENCE) == "late", "also when it has ended before"


async def test_one_that_is_canceled_while_it_waits_takes_with_it_what_waits_for_it(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        root = await runtime.send("t", gate.wait())
        child = await runtime.send("t", give(1), depends_on=[root])
        grandchild = await runtime.send("t", give(1), depends_on=[child])
        purged = await runtime.send("purged", give(1), depends_on=[root])
        of_purged = await runtime.send("t", give(1), depends_on=[purged])
        assert await child.cancel() == DEFERRED
        assert await grandchild.state() == CANCELED
        assert await runtime.tenant("purged").purge() == 1
        assert f"upstream task {purged.id} was canceled" in await why(of_purged)
        gate.opened.set()
        await root.result(PATIENCE)
        assert await child.state() == CANCELED
        await check_invariants(runtime)


async def test_a_parent_that_is_tried_again_or_sent_again_counts_by_how_it_ends(make: Make) -> None:
    attempts = itertools.count(1)

    @actor
    async def flaky() -> int:
        if next(attempts) < 3:
            raise Retry(delay=0)
        return 7

    broken = True

    @actor
    async def mended() -> int:
        if broken:
            raise ValueError("no")
        return 8

    async with make(flaky, mended) as runtime:
        parent = await runtime.send("t", flaky(), max_retries=5)
        assert await (await runtime.send("t", give(result_of(parent)), depends_on=[parent])).result(PATIENCE) == 7
        dead = await runtime.send("t", mended())
        assert await ended(dead) == FAILED
        broken = False
        await dead.redrive()
        child = await runtime.send("t", give(result_of(dead)), depends_on=[dead])
        assert await child.result(PATIENCE) == 8


HOSTILE = ["a:b", "{x}", '"quoted"', "*", "a b", "%d%(x)", "\x00nul", "Ünïcode ✓", "t", "g", "x" * 400]


@pytest.mark.parametrize("name", HOSTILE)
async def test_ids_and_tenants_may_be_any_text(make: Make, gate: Gate, name: str) -> None:
    async with make() as runtime:
        parent = await runtime.send(name, gate.wait(1), id=name)
        child = await runtime.send(name, give(result_of(parent)), id=name + "child", depends_on=[parent])
        canceled = await runtime.send(name, give(1), id=name + "late", delay=3600)
        doomed = await runtime.send(name, give(1), depends_on=[canceled])
        gate.opened.set()
        assert await child.result(PATIENCE) == 1
        await canceled.cancel()
        assert f"upstream task {name}late was canceled" in await why(doomed)


async def test_it_waits_for_its_time_too(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        parent = await ended_parent(runtime, "finished")
        child = await runtime.send("t", give(1), delay=3600, depends_on=[parent])
        assert await child.state() == TaskState.SCHEDULED
        await child.cancel()
        waiting = await runtime.send("t", gate.wait())
        late = await runtime.send("t", give(1), expires=0.001, depends_on=[waiting])
        await anyio.sleep(0.01)  # until the task expires
        gate.opened.set()
        assert await ended(late) == CANCELED


async def test_xcom_finds_what_those_before_have_left(make: Make) -> None:
    @actor
    async def push(value: int) -> None:
        await xcom.push("value", value)

    @actor
    async def pull() -> Any:
        return [await xcom.pull("value", from_task=parents), await xcom.pull("value", from_task=parents())]

    async with make(push, pull) as runtime:
        before = [await runtime.send("t", push(n)) for n in (1, 2)]
        assert await runtime.ask("t", pull(), depends_on=before, timeout=PATIENCE) == [[1, 2], [1, 2]]


async def test_several_of_a_send_may_wait_for_each_other(make: Make) -> None:
    async with make() as runtime:
        handles = await runtime.send_many(
            [
                ("t", give(1).options(id="one")),
                ("u", total(results()).options(id="two", depends_on=["one"])),
                ("t", give(result_of("two")).options(depends_on=["one", "two"])),
            ]
        )
        assert await handles[2].result(PATIENCE) == 1
        await check_invariants(runtime)


async def test_a_parent_that_is_not_there_is_refused_and_nothing_is_sent(make: Make, db: redis.Redis) -> None:
    async with make() as runtime:
        with pytest.raises(UnknownParent, match="there is no task 'no one' to depend on: it was never sent, or"):
            await runtime.send("t", give(1), depends_on=["no one"])
        with pytest.raises(UnknownParent):
            await runtime.send_many([("t", give(1)), ("t", give(1).options(depends_on=["no one"]))])
        gone = await runtime.send("t", give(1), result_ttl=0)
        await until(lambda: not db.exists(f"{{fairactor/0}}:task:{gone.id}"))
        with pytest.raises(UnknownParent):
            await runtime.send("t", give(1), depends_on=[gone])
        assert (await runtime.stats()).deferred == 0


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a text": (lambda: give(1).options(depends_on="x"), ConfigurationError, "give a list of handles or ids"),
    "no id": (lambda: give(1).options(depends_on=[5]), ConfigurationError, "depends_on= got 5: give handles or ids"),
    "no rule": (
        lambda: give(1).options(trigger_rule="all"),
        ConfigurationError,
        "give one of 'all_success', 'all_done'",
    ),
    "not before": (
        lambda: give(result_of("x")),
        ConfigurationError,
        "name it in depends_on=, or send both in one graph",
    ),
    "inside": (lambda: give([result_of("x")]).options(depends_on=["p"]), NotSerializable, "not inside another one"),
    "of another": (
        lambda: give(result_of("x")).options(depends_on=["p"]),
        ConfigurationError,
        "is not the result of a parent",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_cannot_be_is_refused_and_nothing_is_sent(make: Make, wrong: str) -> None:
    made, error, said = WRONG[wrong]
    async with make(workers=0) as runtime:
        await runtime.send("t", give(1), id="p")
        with pytest.raises(error, match=said):
            await runtime.send("t", made())
        assert (await runtime.stats()).queued == 1


async def test_what_comes_later_is_not_there_where_a_message_is_awaited_in_place() -> None:
    with pytest.raises(InvalidPayload, match=r"give\(\): result_of\('x'\) is not known here"):
        await give(result_of("x"))


async def test_a_runtime_without_the_plugin_is_refused_once_it_was_used(make: Make, make_runtime: Make) -> None:
    async with make() as runtime:
        with pytest.raises(
            ConfigurationError, match="to the plugin 'fairactor_dependencies', which this Runtime does not use"
        ):
            async with make_runtime(workers=0, without_plugins=True) as other:
                await other.send("t", give(1), depends_on=["x"])
        parent = await ended_parent(runtime, "finished")
        await runtime.ask("t", give(1), depends_on=[parent], timeout=PATIENCE)
    with pytest.raises(MissingPlugin, match="fairactor_dependencies"):
        async with make_runtime(without_plugins=True):
            pass


async def test_nothing_is_left_when_all_has_ended(make: Make, gate: Gate, db: redis.Redis) -> None:
    async with make(result_ttl=0, canceled_ttl=0, failed_ttl=0.001) as runtime:
        before = [await runtime.send("t", gate.wait(n)) for n in (1, 2, "fail")]
        await runtime.send("t", total(results()), depends_on=before)
        await runtime.send("t", total(results()), depends_on=before[:2])
        handle = await runtime.send("t", total(results()), depends_on=before, trigger_rule="all_done")
        gate.opened.set()
        assert await handle.result(PATIENCE) == 3
        await runtime.drain(PATIENCE)
        left = {
            key.decode()
            for key in db.scan_iter("{fairactor/0}:plugin:fairactor_dependencies:*")
            if not db.pttl(key) > 0
        }
        assert left == set()


async def test_tasks_know_their_options(make: Make) -> None:
    @actor
    async def options() -> Any:
        return dict(current_task().options)

    async with make(options) as runtime:
        parent = await ended_parent(runtime, "finished")
        found = await runtime.ask("t", options(), depends_on=[parent], trigger_rule="all_done", timeout=PATIENCE)
        assert found == {"depends_on": [parent.id], "trigger_rule": "all_done"}
