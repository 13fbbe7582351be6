"""Tests results of tasks as arguments of their dependents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fairactor_dependencies import Dependencies, result_of, results

from fairactor import Runtime, TaskFailed, actor
from fairactor.testing import check_invariants
from tests.support import servers
from tests.support.dependencies.sample_actors import Gate, ended_parent, fail, give, order, ship, total
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@pytest.fixture
def gate(anyio_backend: str) -> Gate:
    return Gate()


@pytest.fixture
def make(make_runtime: Make, gate: Gate) -> Make:
    def make(*more: Any, **settings: Any) -> Runtime:
        actors = [give, order, ship, total, fail, gate.wait, *more]
        return make_runtime(*actors, **{"plugins": [Dependencies()]} | settings)

    return make


async def test_results_come_as_the_annotations_of_the_arguments_say(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        one = await runtime.send("t", order(5))
        shipped = await runtime.send("u", ship(result_of(one), note="!"), depends_on=[one])
        assert await shipped.result(PATIENCE) == "5!"
        assert await (await runtime.send("t", ship(order=result_of(one)), depends_on=[one])).result(PATIENCE) == "5"
        three = [await runtime.send("t", gate.wait(n)) for n in (1, 2, 4)]
        sums = await runtime.send("t", total(results()), depends_on=three)
        gate.opened.set()
        assert await sums.result(PATIENCE) == 7


async def test_what_has_not_finished_gives_none(make: Make) -> None:
    async with make() as runtime:
        failed, finished = await ended_parent(runtime, "failed"), await ended_parent(runtime, "finished")
        both = [failed, finished]
        handle = await runtime.send("t", total(results()), depends_on=both, trigger_rule="all_done")
        assert await handle.result(PATIENCE) == 1
        handle = await runtime.send("t", give(result_of(failed)), depends_on=both, trigger_rule="all_done")
        assert await handle.result(PATIENCE) is None


async def test_a_result_is_there_though_its_record_is_not_kept(make: Make, gate: Gate) -> None:
    async with make() as runtime:
        brief = await runtime.send("t", gate.wait("x" * 5_000), result_ttl=0)
        other = await runtime.send("t", gate.wait(2), result_ttl=0)
        child = await runtime.send("t", give(result_of(brief)), depends_on=[brief, other])
        gate.opened.set()
        assert await child.result(PATIENCE) == "x" * 5_000


TRICKY: list[Any] = [
    None, 0, "", [], {}, 'a"b\\', '","started_at":1.0,"ended_at":2.0}', {"result": '"result":', "actor": 1}, "%s%1",
    "\x00", "Ünïcode ✓", [[1, [2, {"x": "\n"}]]], -1.5e300, 2**60,
]  # fmt: skip


@pytest.mark.parametrize("value", TRICKY, ids=repr)
@pytest.mark.parametrize("before", [True, False], ids=["ended before", "ended after"])
async def test_any_result_comes_through_whole(make: Make, gate: Gate, value: Any, before: bool) -> None:
    async with make() as runtime:
        parent = await runtime.send("t", gate.wait(value))
        if before:
            gate.opened.set()
            await parent.result(PATIENCE)
        child = await runtime.send("t", give(result_of(parent)), depends_on=[parent])
        of_all = await runtime.send("t", give(results()), depends_on=[parent])
        gate.opened.set()
        assert await child.result(PATIENCE) == value
        assert await of_all.result(PATIENCE) == [value]


@pytest.mark.parametrize("before", [True, False], ids=["ended before", "ended after"])
async def test_many_large_results_are_not_copied_into_the_record(
    make: Make, gate: Gate, url: str, before: bool
) -> None:
    attempts = 0

    @actor
    async def lengths(
        one: str, two: str, three: str, four: int | None, all_of_them: list[str | int]
    ) -> list[int | None]:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ValueError("as told")
        return [len(one), len(two), len(three), four, len(all_of_them)]

    async with make(lengths) as runtime:
        if before:
            gate.opened.set()
        parents = [await runtime.send("t", gate.wait(value * 450_000)) for value in "abc"]
        parents.append(await runtime.send("t", gate.wait(7)))
        if before:
            assert [len(await parent.result(PATIENCE)) for parent in parents[:3]] == [450_000] * 3
            await parents[3].result(PATIENCE)
        child = await runtime.send("t", lengths(*map(result_of, parents), results()), depends_on=parents)
        gate.opened.set()
        with pytest.raises(TaskFailed, match="as told"):
            await child.result(PATIENCE)
        with servers.client(url) as db:
            (key,) = db.scan_iter(match=f"*:task:{child.id}")
            assert 900_000 < db.strlen(key) < 1_000_000, "two of the results, and references to the others"
        await child.redrive()
        assert await child.result(PATIENCE) == [450_000, 450_000, 450_000, 7, 4]
        await check_invariants(runtime)
    with servers.client(url) as db:
        assert all(db.ttl(key) > 0 for key in db.scan_iter(match="*:got:*")), "kept for the dead letter"
