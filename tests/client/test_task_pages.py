"""Tests `Runtime.tasks`: pages of tasks in every state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
import redis

from fairactor import Runtime, TaskInfo, TaskState, actor
from fairactor.errors import ConfigurationError
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

HOSTILE = ("t\n\r\0", "\u202egro", "\"quoted\" \\u001f \\ 'x'", "☃" * 170, "*", " ")
FEW = 3


@actor
async def succeed(n: Any) -> Any:
    return n


@actor(name="fail")
async def fail(n: Any) -> None:
    raise ValueError(n)


@actor(queue="slow")
async def on_slow(n: Any) -> None: ...


@actor
async def block(n: Any) -> None:
    await anyio.sleep_forever()


async def read(runtime: Runtime, limit: int = FEW, **wanted: Any) -> list[TaskInfo]:
    """Returns all tasks that pass, page by page."""
    found: list[TaskInfo] = []
    after: str | None = None
    while True:
        page = await runtime.tasks(limit=limit, after=after, **wanted)
        assert len(page.tasks) <= limit
        assert page.looked_at >= len(page.tasks)
        found += page.tasks
        after = page.after
        if after is None:
            return found


async def ids(runtime: Runtime, limit: int = FEW, **wanted: Any) -> list[str]:
    found = [task.id for task in await read(runtime, limit, **wanted)]
    assert len(set(found)) == len(found), "a task came twice"
    return found


async def populate(runtime: Runtime, tenants: tuple[str, ...]) -> dict[TaskState, set[str]]:
    """Sends tasks that come into every state; returns their ids by state. The runtime has 2 workers."""
    sent: dict[TaskState, set[str]] = {state: set() for state in TaskState}
    for tenant in tenants:
        for n in range(4):
            sent[TaskState.FINISHED].add((await runtime.send(tenant, succeed(n))).id)
            sent[TaskState.FAILED].add((await runtime.send(tenant, fail(n))).id)
            sent[TaskState.SCHEDULED].add((await runtime.send(tenant, succeed(n).options(delay=500 + n))).id)
    await until(lambda: _ended(runtime, 8 * len(tenants)))
    blocked = [await runtime.send(tenants[-1], block(n)) for n in range(2)]
    sent[TaskState.STARTED] = {handle.id for handle in blocked}
    await until(lambda: _started(runtime, 2))
    for tenant in tenants:
        sent[TaskState.QUEUED] |= {(await runtime.send(tenant, succeed(n))).id for n in range(4)}
        sent[TaskState.QUEUED] |= {(await runtime.send(tenant, on_slow(n))).id for n in range(2)}
        waits = succeed(9).options(depends_on=[blocked[0]])
        sent[TaskState.DEFERRED] |= {(await runtime.send(tenant, waits)).id for _ in range(2)}
        canceled = [await runtime.send(tenant, succeed(n)) for n in range(2)]
        for handle in canceled:
            await handle.cancel()
        sent[TaskState.CANCELED] |= {handle.id for handle in canceled}
    waiting = sent[TaskState.QUEUED] | sent[TaskState.STARTED]
    for state in (TaskState.QUEUED, TaskState.STARTED):  # a runtime may have claimed some ahead
        sent[state] = {task for task in waiting if (await runtime.handle(task).info()).state is state}
    return sent


async def _ended(runtime: Runtime, number: int) -> bool:
    stats = await runtime.stats()
    return stats.finished + stats.failed == number


async def _started(runtime: Runtime, number: int) -> bool:
    return (await runtime.stats()).started == number


def actors(make_runtime: Make, **settings: Any) -> Runtime:
    return make_runtime(succeed, fail, block, on_slow, **{"workers": 2, "queues": ["default"], "grace": 0} | settings)


@pytest.mark.parametrize("shards", [1, 3])
async def test_tasks_of_every_state_come_once(make_runtime: Make, shards: int) -> None:
    tenants = ("a", "b", *HOSTILE)
    async with actors(make_runtime, shards=shards) as runtime:
        sent = await populate(runtime, tenants)
        for state in TaskState:
            found = await read(runtime, state=state)
            assert {task.id for task in found} == sent[state], state
            assert len(found) == len(sent[state])
            assert {task.state for task in found} <= {state}
            for tenant in ("a", HOSTILE[0]):
                own = await ids(runtime, tenant=tenant, state=state)
                assert set(own) == {task.id for task in found if task.tenant == tenant}, (state, tenant)
        everything = await ids(runtime, limit=7)
        assert set(everything) == set().union(*sent.values())
        assert set(await ids(runtime, state=["queued", TaskState.FAILED], tenant="b")) == {
            task.id for task in await read(runtime, tenant="b") if task.state in {TaskState.QUEUED, TaskState.FAILED}
        }
        await check_invariants(runtime)


async def test_a_task_on_a_page_is_described_in_full(make_runtime: Make) -> None:
    async with actors(make_runtime) as runtime:
        sent = await populate(runtime, ("a",))
        (due, *_) = await read(runtime, state="scheduled")
        assert due.due_at is not None
        assert due.due_at > datetime.now(UTC) + timedelta(seconds=400)
        (running, _) = await read(runtime, state="started")
        assert running.runtime is not None
        assert running.args in ([0], [1])
        letters = await read(runtime, state="failed")
        assert [task.args for task in letters] == [[3], [2], [1], [0]], "the last one comes first"
        assert letters[0].error is not None
        assert "ValueError" in letters[0].error.traceback
        finished = await read(runtime, state="finished")
        assert {task.id for task in finished} == sent[TaskState.FINISHED]
        times = [task.ended_at for task in finished]
        assert times == sorted(times, reverse=True)  # type: ignore[type-var]


async def test_filters_of_actor_queue_text_and_time(make_runtime: Make) -> None:
    async with actors(make_runtime, workers=0) as runtime:
        before = datetime.now(UTC)
        one = await runtime.send("a", succeed({"customer": "Ann", "note": 'x"y'}))
        two = await runtime.send("b", succeed("Ann"))
        slow = await runtime.send("b", on_slow(1), id="order-77")
        assert await ids(runtime, actor="succeed") == [one.id, two.id] or await ids(runtime, actor="succeed") == [
            two.id,
            one.id,
        ]
        assert await ids(runtime, queue="slow") == [slow.id]
        assert set(await ids(runtime, queue="default")) == {one.id, two.id}
        assert await ids(runtime, text='"customer":"Ann"') == [one.id]
        assert set(await ids(runtime, text="Ann")) == {one.id, two.id}
        assert await ids(runtime, text="ann") == []
        assert await ids(runtime, text="der-7") == [slow.id]
        assert len(await ids(runtime, since=before - timedelta(seconds=60))) == 3
        assert await ids(runtime, since=datetime.now(UTC) + timedelta(seconds=60)) == []


async def test_a_search_looks_at_so_many_tasks_and_says_so(make_runtime: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairactor._operate.tasks._LOOKED_AT", 50)
    monkeypatch.setattr("fairactor._operate.tasks._AT_ONCE", 20)
    async with make_runtime(workers=0) as runtime:
        await runtime.send_many([("a", succeed(n)) for n in range(150)])
        wanted = await runtime.send("a", succeed("needle"))
        page = await runtime.tasks(text="needle")
        assert (page.tasks, page.looked_at) == ((), 60)
        assert page.after is not None
        assert await ids(runtime, text="needle") == [wanted.id]


async def test_pages_go_on_where_tasks_have_left(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        due = datetime.now(UTC) + timedelta(hours=1)
        sent = [await runtime.send("a", succeed(n), eta=due) for n in range(20)]  # all are due at once
        page = await runtime.tasks(state="scheduled", limit=5)
        for task in page.tasks[2:]:
            await runtime.handle(task.id).cancel()
        rest: list[str] = []
        while page.after is not None:
            page = await runtime.tasks(state="scheduled", limit=5, after=page.after)
            rest += [task.id for task in page.tasks]
        assert len(rest) == len(set(rest)) == 15
        assert set(rest) < {handle.id for handle in sent}


async def test_only_the_last_ended_tasks_are_listed_and_none_if_that_is_off(
    make_runtime: Make, db: redis.Redis
) -> None:
    async with make_runtime(succeed, workers=1, ended_index=8) as runtime:
        handles = [await runtime.send("a", succeed(n)) for n in range(40)]
        await runtime.drain(timeout=PATIENCE)
        listed = await ids(runtime, tenant="a", state="finished")
        assert listed == [handle.id for handle in reversed(handles)][: len(listed)]
        assert 8 <= len(listed) <= 10
        await runtime.send("b", succeed(1).options(result_ttl=0))
        await runtime.drain(timeout=PATIENCE)
        assert await ids(runtime, tenant="b") == []
        await check_invariants(runtime)
    async with make_runtime(succeed, workers=1, ended_index=0) as runtime:
        await runtime.send("c", succeed(1))
        await runtime.drain(timeout=PATIENCE)
        assert await ids(runtime, tenant="c") == []
        assert len(await ids(runtime, tenant="a")) == len(listed)


async def test_a_record_that_is_damaged_or_lost_does_not_end_the_list(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(workers=0) as runtime:
        sent = [(await runtime.send("a", succeed(n))).id for n in range(6)]
        db.set(f"{{fairactor/0}}:task:{sent[1]}", b"\xff")
        db.delete(f"{{fairactor/0}}:task:{sent[2]}")
        body = db.get(f"{{fairactor/0}}:task:{sent[3]}")
        assert isinstance(body, bytes)
        db.set(f"{{fairactor/0}}:task:{sent[3]}", body[:-3])
        found = {task.id: task for task in await read(runtime, state="queued")}
        assert found.keys() == set(sent) - {sent[2]}
        for task in (sent[1], sent[3]):
            error = found[task].error
            assert error is not None
            assert "cannot be decoded" in error.message


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"state": "running"}, "did you mean 'started'"),
        ({"state": "cancelled"}, "did you mean 'canceled'"),
        ({"state": []}, "give a state"),
        ({"state": 5}, "give a state"),
        ({"state": [None]}, "The states are queued"),
        ({"tenant": ""}, "tenant"),
        ({"actor": 5}, "actor"),
        ({"queue": ""}, "queue"),
        ({"since": 5.0}, "since"),
        ({"since": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001 - the zone is missing on purpose
        ({"text": ""}, "text"),
        ({"text": "x" * 2000}, "text"),
        ({"limit": 0}, "limit"),
        ({"limit": 5000}, "limit"),
        ({"after": "nonsense"}, "after"),
        ({"after": "☃"}, "after"),
        ({"after": 5}, "after"),
    ],
)
async def test_what_cannot_be_meant_is_refused(make_runtime: Make, wanted: Any, message: str) -> None:
    async with make_runtime(workers=0) as runtime:
        with pytest.raises(ConfigurationError, match=message):
            await runtime.tasks(**wanted)


async def test_a_cursor_belongs_to_its_filters(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send_many([("a", succeed(n)) for n in range(4)])
        page = await runtime.tasks(limit=2)
        assert page.after is not None
        with pytest.raises(ConfigurationError, match="same filters"):
            await runtime.tasks(limit=2, after=page.after, tenant="a")
        assert len((await runtime.tasks(limit=3, after=page.after)).tasks) == 2


async def test_dead_letters_of_before_get_into_the_index(make_runtime: Make, db: redis.Redis) -> None:
    async with make_runtime(fail, workers=5) as runtime:
        await runtime.send_many([(tenant, fail(n)) for n in range(5) for tenant in "abc"])
        await runtime.drain(timeout=PATIENCE)
        db.hdel("{fairactor/0}", "letters")
        db.delete(*db.scan_iter("*:dead-of:*"), *db.scan_iter("*:dead-by:*"))
        assert len([letter async for letter in runtime.dead_letters.find(tenant="b")]) == 5
        assert len([letter async for letter in runtime.dead_letters.find(actor="fail")]) == 15
        assert db.zcard("{fairactor/0}:dead-of:b") == 5
        assert await runtime.dead_letters.redrive(tenant="a") == 5
        await runtime.drain(timeout=PATIENCE)
        assert await runtime.dead_letters.purge(tenant="c") == 5
        await check_invariants(runtime)
        assert len(await ids(runtime, state="failed")) == 10
        assert db.exists("{fairactor/0}:dead-of:c") == 0


async def test_pages_while_tasks_run(make_runtime: Make) -> None:
    async with make_runtime(succeed, fail, workers=10) as runtime, anyio.create_task_group() as group:
        group.start_soon(_send_some, runtime)
        for _ in range(20):
            await read(runtime, limit=50)
        group.cancel_scope.cancel()


async def _send_some(runtime: Runtime) -> None:
    while True:
        await runtime.send_many([(tenant, each(1)) for tenant in "abcdef" for each in (succeed, fail)])
