"""Tests that a handle with a tenant finds only the tasks of that tenant, whatever ids users choose."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import anyio
import pytest
import redis
from fairactor_dependencies import UnknownParent, result_of

from fairactor import Handle, Runtime, TaskCanceled, TaskState, actor, current_task
from fairactor._model.keys import shard_of
from fairactor.errors import TaskExists, TaskNotFound
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

ACME: Final = "acme"
SAME, OTHER = (
    next(f"mallory{n}" for n in range(99) if (shard_of(f"mallory{n}", 3) == shard_of(ACME, 3)) is same)
    for same in (True, False)
)
"""A tenant of the same shard as acme, if there are three, and one of another."""

METHODS: Final[dict[str, Callable[[Handle[Any]], Awaitable[Any]]]] = {
    "info": lambda handle: handle.info(),
    "state": lambda handle: handle.state(),
    "result": lambda handle: handle.result(PATIENCE),
    "cancel": lambda handle: handle.cancel(),
    "redrive": lambda handle: handle.redrive(),
}
ID: Final = "order-1"


@actor
async def pay(card: str) -> str:
    return "paid with " + card


@actor
async def fail(card: str) -> str:
    raise ValueError(card)


@actor
async def hang(card: str) -> str:
    await anyio.sleep_forever()
    return card


async def refused(handle: Handle[Any]) -> set[str]:
    """Returns the messages with which the methods refuse a handle."""
    messages = set()
    for method in METHODS.values():
        with pytest.raises(TaskNotFound) as raised:
            await method(handle)
        assert raised.type is TaskNotFound
        messages.add(str(raised.value))
    return messages


@pytest.mark.parametrize("other", [SAME, OTHER])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("state", ["scheduled", "started", "finished", "failed", "canceled"])
async def test_the_task_of_another_tenant_does_not_exist(
    make_runtime: Make, state: str, shards: int, other: str
) -> None:
    message = {"finished": pay, "failed": fail, "started": hang}.get(state, pay)("4111")
    options: dict[str, Any] = {"delay": 60} if state in {"scheduled", "canceled"} else {}
    async with make_runtime(pay, fail, hang, shards=shards) as runtime:
        handle = await runtime.send(ACME, message, id=ID, **options)
        if state == "canceled":
            await handle.cancel()
        await until(partial(has_state, handle, TaskState(state)))
        before = await handle.info()
        found = await refused(runtime.handle(ID, tenant=other))
        unknown = await refused(runtime.handle("order-2", tenant=other))
        assert {message.replace(ID, "order-2") for message in found} == unknown, "an unknown id is refused likewise"
        assert await runtime.dead_letters.redrive(tenant=other) == await runtime.dead_letters.purge(tenant=other) == 0
        assert await runtime.handle(ID, tenant=ACME).info() == before == await runtime.handle(ID).info()
        await runtime.handle(ID).cancel()
        await check_invariants(runtime)


async def has_state(handle: Handle[Any], state: TaskState) -> bool:
    return await handle.state() is state


async def test_in_a_handler_it_does_not_exist_either(make_runtime: Make) -> None:
    @actor
    async def look(task_id: str) -> str:
        task = current_task()
        assert task.runtime is not None
        handle = task.runtime.handle(task_id, task.tenant)
        return "".join([str(type(await _raised(method(handle))).__name__)[:4] for method in METHODS.values()])

    async with make_runtime(pay, look) as runtime:
        await runtime.send(ACME, pay("4111"), id=ID, delay=60)
        assert await runtime.ask(SAME, look(ID), timeout=PATIENCE) == "Task" * len(METHODS)
        assert await runtime.ask(SAME, look(ID).options(id="looks"), timeout=PATIENCE) == "Task" * len(METHODS)
        assert await runtime.handle(ID).state() is TaskState.SCHEDULED


async def _raised(call: Awaitable[Any]) -> Exception:
    try:
        await call
    except Exception as error:  # noqa: BLE001 - returned
        return error
    raise AssertionError("it did not fail")


async def test_an_outcome_reaches_those_who_may_see_it_only(make_runtime: Make, db: redis.Redis) -> None:
    release = anyio.Event()

    @actor
    async def wait(card: str) -> str:
        await release.wait()
        return card

    async with make_runtime(wait) as runtime:
        mine = await runtime.send(ACME, wait("4111"), id=ID)
        waiting = asyncio.ensure_future(mine.result(PATIENCE))
        anybody = asyncio.ensure_future(runtime.handle(ID).result(PATIENCE))
        await until(lambda: db.hlen("{fairactor/0}:watchers"))
        spying = runtime._running().tracker.outcomes.expect(ID, runtime._shards()[0], SAME, ask=False)
        sent = runtime._running().tracker.outcomes.expect(ID, runtime._shards()[0], ACME, ask=False)
        release.set()
        assert await waiting == await anybody == "4111"
        assert (await sent)[0].tenant == ACME
        assert not spying.done(), "the reply to its send will say that another tenant has the id"
        runtime._running().tracker.outcomes.sent(ID, runtime._shards()[0], spying, ask=True)
        with pytest.raises(TaskNotFound):
            await spying


async def test_tasks_of_two_shards_may_have_one_id(make_runtime: Make) -> None:
    """Ids are checked within a shard only."""

    @actor
    async def wait(name: str) -> str:
        await anyio.sleep_forever()
        return name

    tenants = (ACME, OTHER)
    async with make_runtime(pay, wait, shards=3) as runtime:
        hanging = [await runtime.send(tenant, wait(tenant), id=ID) for tenant in tenants]
        for handle in hanging:
            await until(partial(has_state, handle, TaskState.STARTED))
        waiting = [asyncio.ensure_future(handle.result(PATIENCE)) for handle in hanging]
        assert await hanging[0].cancel() is TaskState.STARTED
        with pytest.raises(TaskCanceled, match="of tenant 'acme'"):
            await waiting[0]
        assert await hanging[1].state() is TaskState.STARTED, "the other task goes on"
        assert not waiting[1].done()
        await hanging[1].cancel()
        with pytest.raises(TaskCanceled, match=f"of tenant '{OTHER}'"):
            await waiting[1]
        pairs = [(tenant, pay(tenant).options(id="same", delay=0.1)) for tenant in tenants]
        found = await asyncio.gather(*(runtime.ask(*pair, timeout=PATIENCE) for pair in pairs))
        assert found == ["paid with " + tenant for tenant in tenants]
        for tenant in tenants:
            assert await runtime.handle("same", tenant).result(PATIENCE) == "paid with " + tenant
        await check_invariants(runtime)


async def test_an_id_that_is_taken_does_not_tell_by_whom(make_runtime: Make) -> None:
    async with make_runtime(pay) as runtime:
        await runtime.send(ACME, pay("4111"), id=ID, delay=60)
        for send in (runtime.send, runtime.ask):
            with pytest.raises(TaskExists) as raised:
                await send(SAME, pay("4112"), id=ID)
            assert ACME not in str(raised.value)
        assert (await runtime.handle(ID, ACME).info()).args == ["4111"]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("other", [SAME, OTHER])
async def test_a_handle_of_another_tenants_task_cannot_be_depended_on(
    make_runtime: Make, shards: int, other: str
) -> None:
    async with make_runtime(pay, shards=shards) as runtime:
        paid = await runtime.send(ACME, pay("4111"), id=ID)
        await paid.result(PATIENCE)
        stolen = runtime.handle(ID, tenant=other)
        with pytest.raises(UnknownParent, match=ID):
            await runtime.send(other, pay(result_of(stolen)), depends_on=[stolen])
        batch = [(ACME, pay("1").options(id="a")), (other, pay(result_of("a")).options(id="b", depends_on=["a"]))]
        assert await (await runtime.send_many(batch))[1].result(PATIENCE) == "paid with paid with 1"
        stolen = runtime.handle("c", tenant=other)
        with pytest.raises(UnknownParent, match="'c'"):
            await runtime.send_many(
                [(ACME, pay("1").options(id="c")), (other, pay(result_of(stolen)).options(depends_on=[stolen]))]
            )
        assert await runtime.ask(other, pay(result_of(paid)), depends_on=[paid], timeout=PATIENCE), (
            "a handle of its own"
        )
        await check_invariants(runtime)
