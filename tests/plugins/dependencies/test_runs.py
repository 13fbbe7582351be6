"""Tests runs: what retry repeats, what skipped steps mean for the result, and graphs in `ask` and `send_many`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis
from fairactor_dependencies import Dependencies, chain, graph, result, result_of, results
from fairactor_xcom import XCom

from fairactor import Message, Runtime, TaskCanceled, TaskSkipped, TaskState, actor, current_task
from fairactor.errors import ConfigurationError
from fairactor.testing import check_invariants
from tests.support.dependencies.sample_actors import Gate
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
ran: Counter[str] = Counter()
broken: set[str] = set()


@actor
async def step(name: str, value: Any = None) -> Any:
    ran[name] += 1
    if name in broken:
        raise ValueError("no")
    return name if value is None else value


@actor
async def add(left: int, right: int) -> int:
    return left + right


@actor
async def one() -> int:
    ran["one"] += 1
    return 1


@actor
async def whose() -> str:
    return str(current_task().options["xcom_run"])


@pytest.fixture
def make(make_runtime: Make) -> Make:
    ran.clear()
    broken.clear()
    return lambda *more, **settings: make_runtime(
        step, add, one, whose, *more, **{"plugins": [Dependencies(), XCom()]} | settings
    )


def alert(name: str = "alert") -> Message[Any]:
    return step(name).options(trigger_rule="one_failed")


# Skipped


async def test_a_step_that_had_nothing_to_do_is_skipped_and_the_result_is_that_of_the_steps_that_ran(
    make: Make,
) -> None:
    async with make() as runtime:
        run = await runtime.send("t", step("load") >> alert())
        assert await run.result(PATIENCE) == "load"
        assert (await run.states())["step.2"] == TaskState.CANCELED
        with pytest.raises(TaskSkipped, match=r"was skipped \(trigger rule one_failed\): no upstream task failed"):
            await run.handles["step.2"].result(PATIENCE)
        assert "step#quot;]:::skipped" in await run.to_mermaid() or '"step"]:::skipped' in await run.to_mermaid()
        report = step("report", result()).options(trigger_rule="all_done")
        run = await runtime.send("t", step("load", 7) >> [alert(), report])
        assert await run.result(PATIENCE) == 7, "the only last step that ran"
        run = await runtime.send("t", step("load") >> [alert(), step("b"), step("c")])
        assert await run.result(PATIENCE) == ["b", "c"]
        run = await runtime.send("t", step("load") >> alert() >> step("after the alert") >> step("and after that"))
        assert await run.result(PATIENCE) == "load", "what stands behind a skipped step is skipped"
        assert not ran["alert"] + ran["and after that"]
        await check_invariants(runtime)


async def test_failed_and_canceled_steps_are_not_skipped(make: Make) -> None:
    broken.add("load")
    async with make() as runtime:
        run = await runtime.send("t", step("load") >> step("next"))
        with pytest.raises(TaskCanceled, match="failed") as caught:
            await run.result(PATIENCE)
        assert not isinstance(caught.value, TaskSkipped)
        run = await runtime.send("t", graph(step("late").options(delay=60)) >> alert())
        await run.handles["step"].cancel()
        with pytest.raises(TaskCanceled) as caught:
            await run.result(PATIENCE)
        assert not isinstance(caught.value, TaskSkipped), "the run was canceled"
        run = await runtime.send("t", [step("ok"), alert()] >> step("any").options(trigger_rule="none_failed"))
        assert await run.result(PATIENCE) == "any"


async def test_skipped_is_told_apart_across_shards_and_after_the_end(make: Make) -> None:
    async with make(shards=4) as runtime:
        for tenant in "abcdef":
            skipped = await runtime.send("t", alert(), depends_on=[await runtime.send("t", one())])
            early = await runtime.send(tenant, step("x"), depends_on=[skipped])
            with pytest.raises(TaskSkipped):
                await skipped.result(PATIENCE)
            late = await runtime.send(tenant, step("x"), depends_on=[skipped])
            for handle in (early, late):
                with pytest.raises(TaskSkipped, match="an upstream task was skipped"):
                    await handle.result(PATIENCE)


# Retry


async def test_what_stands_behind_a_repeated_step_decides_anew(make: Make) -> None:
    broken.add("load")
    report = step("report", result()).options(trigger_rule="all_done")
    async with make() as runtime:
        run: Any = await runtime.send("t", step("before") >> step("load", 7) >> [alert(), report, step("beside")])
        await run.wait(PATIENCE)
        assert (ran["alert"], ran["report"]) == (1, 1)
        run = await run.retry()
        await run.wait(PATIENCE)
        assert (ran["alert"], ran["report"], ran["before"]) == (2, 2, 1)
        broken.clear()
        run = await run.retry()
        assert await run.result(PATIENCE) == [7, "beside"]
        assert (ran["alert"], ran["report"], ran["before"]) == (2, 3, 1)
        assert await run.retry() is run, "skipped steps have done what they had to do"


async def test_a_canceled_run_is_finished_by_a_retry(make: Make, db: redis.Redis) -> None:
    gate = Gate()
    async with make(gate.wait) as runtime:
        run: Any = await runtime.send("t", step("a") >> [gate.wait(2), alert()] >> step("b"))
        await run.handles["step"].result(PATIENCE)
        await run.cancel()
        await run.wait(PATIENCE)
        gate.opened.set()
        run = await run.retry()
        await run.wait(PATIENCE)
        assert ran["a"] == 1
        assert run.attempt == 2


async def test_thousands_of_steps_are_canceled_and_sent_again(make: Make) -> None:
    async with make() as runtime:
        await runtime.tenant("t").pause()
        run: Any = await runtime.send("t", chain(step("a"), [step("b", n) for n in range(1_200)], step("c", results())))
        await run.cancel()
        assert set((await run.wait(PATIENCE)).values()) == {TaskState.CANCELED}
        await runtime.tenant("t").resume()
        assert await (await run.retry()).result(PATIENCE) == list(range(1_200))


# Sending


async def test_a_message_that_takes_results_is_sent_with_those_that_give_them(make: Make) -> None:
    async with make() as runtime:
        shared = one()
        handle = await runtime.send("t", add(result_of(shared), result_of(add(result_of(shared), 5))))
        assert await handle.result(PATIENCE) == 7
        assert ran["one"] == 1
        assert await runtime.ask("t", add(right=result_of(one()), left=2), timeout=PATIENCE) == 3
        assert await runtime.tenant("t").ask(add(1, result_of(one() >> add(result(), 3)))) == 5
        plain, shared = step("plain"), one()
        handles = await runtime.send_many(
            [("t", plain), ("t", plain), ("u", shared), ("t", add(1, result_of(shared))), ("t", plain)]
        )
        assert [await each.result(PATIENCE) for each in handles] == ["plain", "plain", 1, 2, "plain"]
        assert len({each.id for each in handles}) == 5
        assert handles[2].tenant == "u"
        assert (ran["plain"], ran["one"]) == (3, 4)


async def test_graphs_can_be_asked_and_sent_with_others(make: Make) -> None:
    async with make() as runtime:
        assert await runtime.ask("t", one() >> add(result(), 2), timeout=PATIENCE) == 3
        assert await runtime.tenant("t").ask(one() | step("b"), timeout=PATIENCE) == [1, "b"]
        run, handle, other = await runtime.send_many(
            [("t", one() >> add(result(), 2)), ("u", step("x")), ("t", whose() >> whose())]
        )
        assert (await run.result(PATIENCE), await handle.result(PATIENCE)) == (3, "x")
        assert await other.result(PATIENCE) == other.id != run.id
        with pytest.raises(ConfigurationError, match="only messages take options"):
            await runtime.ask("t", one() >> one(), delay=5)  # type: ignore[call-overload]
        with pytest.raises(TimeoutError, match="it goes on"):
            await runtime.ask("t", graph(one().options(delay=60)), timeout=0)


async def test_result_needs_one_step_before(make: Make) -> None:
    async with make() as runtime:
        named = one()
        run = await runtime.send("t", step("a", 3) >> add(result(), result_of(named)))
        assert await run.result(PATIENCE) == 4, "the step that the message names is another one"
        with pytest.raises(ConfigurationError, match=r"there are 2: take results\(\), which is a list, or result_of"):
            await runtime.send("t", [one(), one()] >> step("x", result()))
        with pytest.raises(ConfigurationError, match=r"result\(\) stands for the result of a parent"):
            await runtime.send("t", step("x", result()))


# Records that expire


async def test_a_task_that_was_accepted_runs_although_the_record_of_its_parent_is_gone(
    make: Make, db: redis.Redis
) -> None:
    async with make(shards=2, result_ttl=0) as runtime:
        near, far = (next(name for name in "abcdef" if runtime.host.shard_of(name) == shard) for shard in (0, 1))
        for child in (near, far):
            for _ in range(10):
                await runtime.tenant(near).pause()  # else the parent may be gone before the child is sent
                parent = await runtime.send(near, step("p", 5))
                handle = await runtime.send(child, add(result_of(parent), 1), depends_on=[parent], result_ttl=60)
                await runtime.tenant(near).resume()
                assert await handle.result(PATIENCE) == 6
