"""Tests messages with ``replace=True`` beside tasks that wait for others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fairactor_dependencies import Dependencies

from fairactor import Runtime, TaskCanceled, TaskFailed, TaskState, actor
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]


@actor(max_retries=0)
async def parent(*, fails: bool) -> None:
    if fails:
        raise ValueError("no")


@actor(key="same")
async def refresh(version: int) -> int:
    return version


@pytest.fixture
def make(make_runtime: Make) -> Make:
    return lambda **settings: make_runtime(parent, refresh, plugins=[Dependencies()], **settings)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_change_follows_a_task_that_waits_for_others_however_that_ends(make: Make, fails: bool) -> None:
    async with make(workers=0) as sender:
        first = await sender.send("t", parent(fails=fails))
        waits = await sender.send("t", refresh(1), depends_on=[first])
        after = await sender.send("t", refresh(2), replace=True)
        assert (after.duplicate, await after.state()) == (False, TaskState.DEFERRED)
        assert (await sender.send("t", refresh(3), replace=True)).id == after.id
        await check_invariants(sender)
        async with make():
            assert await after.result(timeout=PATIENCE) == 3
        assert await waits.state() is (TaskState.CANCELED if fails else TaskState.FINISHED)
        await check_invariants(sender)


async def test_what_follows_is_let_go_if_the_first_ends_as_soon_as_it_is_sent(make: Make) -> None:
    async with make() as runtime:
        first = await runtime.send("t", parent(fails=True))
        with pytest.raises(TaskFailed):
            await first.result(timeout=PATIENCE)
        waits, after, last = await runtime.send_many(
            [
                ("t", refresh(1).options(depends_on=[first])),
                ("t", refresh(2).options(replace=True)),
                ("t", refresh(3).options(replace=True)),
            ]
        )
        assert last.id == after.id
        with pytest.raises(TaskCanceled):
            await waits.result(timeout=PATIENCE)
        assert await after.result(timeout=PATIENCE) == 3
        await check_invariants(runtime)


async def test_a_batch_in_several_calls_may_hold_such_messages(make: Make) -> None:
    async with make() as runtime:
        head = parent(fails=False).options(id="head")
        children = [("t", refresh(n).options(key=f"{n}", depends_on=["head"])) for n in range(300)]
        changes = [("t", refresh(1000 + n).options(key=f"{n % 2}", replace=True)) for n in range(4)]
        handles = await runtime.send_many([("t", head), *children, *changes])
        assert await handles[-1].result(timeout=PATIENCE) == 1003
        assert handles[-3].id == handles[-1].id
        assert await handles[1].result(timeout=PATIENCE) == 0
        await check_invariants(runtime)
