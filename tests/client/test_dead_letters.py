"""Tests dead letters: the records of tasks that failed for good, and finding, redriving and purging them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
import redis

from fairactor import Priority, Runtime, TaskFailed, TaskInfo, TaskState, actor
from fairactor._model.keys import shard_of
from fairactor.errors import ConfigurationError, RuntimeNotRunning, TaskNotFound
from fairactor.testing import check_invariants
from tests.support import service
from tests.support.polling import PATIENCE, until
from tests.support.worker_processes import Fleet

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

DEAD = "{fairactor/0}:dead"
HOSTILE = ("{fairactor/0}:dead", "a\nb\r\n\0", "\"quoted\" \\ 'single'", "☃" * 170, "*", "[1,2]", "%s{}", " ")


class NoSuchOrder(Exception): ...


@actor
async def fail(n: int, *, kind: str = "value") -> None:
    raise {"value": ValueError, "order": NoSuchOrder}[kind](f"number {n}")


@actor(name="other")
async def fail_too(n: int, *, kind: str = "value") -> None:
    await fail(n, kind=kind)


@actor(name="fail")
async def succeed(n: int, *, kind: str = "value") -> int:
    return n


def key(task_id: str) -> str:
    return f"{{fairactor/0}}:task:{task_id}"


async def letters(runtime: Runtime, **wanted: Any) -> list[TaskInfo]:
    return [letter async for letter in runtime.dead_letters.find(**wanted)]


async def ids(runtime: Runtime, **wanted: Any) -> list[str]:
    return [letter.id for letter in await letters(runtime, **wanted)]


async def bury(make_runtime: Make, *messages: tuple[str, Any], **settings: Any) -> list[str]:
    """Sends messages whose tasks fail, and runs them in order; returns the ids."""
    async with make_runtime(fail, fail_too, **{"workers": 1} | settings) as runtime:
        handles = await runtime.send_many(messages)
        await runtime.drain(timeout=PATIENCE)
    return [handle.id for handle in handles]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairactor._client.dead_letters.PAGE", 3)


# Tasks that become dead letters


async def test_a_task_out_of_retries_is_kept_with_all_that_is_known(make_runtime: Make) -> None:
    async with make_runtime(fail) as runtime:
        message = fail(5, kind="order").options(max_retries=2, backoff=0, priority="high")
        handle = await runtime.send("user:1", message)
        with pytest.raises(TaskFailed):
            await handle.result(timeout=PATIENCE)
        (letter,) = await letters(runtime)
        assert letter == await handle.info()
        assert (letter.id, letter.tenant, letter.actor, letter.state) == (
            handle.id, "user:1", "fail", TaskState.FAILED,
        )  # fmt: skip
        assert (letter.priority, letter.attempt) == (Priority.HIGH, 3)
        assert (letter.args, letter.kwargs) == ([5], {"kind": "order"})
        assert letter.error is not None
        assert (letter.error.type, letter.error.message) == (f"{__name__}.NoSuchOrder", "number 5")
        assert 'raise {"value": ValueError' in letter.error.traceback
        assert [(attempt.attempt, attempt.message) for attempt in letter.history] == [
            (n, "number 5") for n in (1, 2, 3)
        ]
        assert letter.started_at is not None
        assert letter.ended_at is not None
        assert letter.enqueued_at <= letter.started_at <= letter.ended_at
        await check_invariants(runtime)


@pytest.mark.parametrize("kind", ["undecodable", "arguments", "unknown"])
async def test_poison_is_kept_and_can_be_sent_again_when_its_cause_is_gone(
    make_runtime: Make, db: redis.Redis, kind: str
) -> None:
    @actor(name="fail", max_retries=5)
    async def fail_as_it_was(n: str, kind: str, old: int) -> None: ...

    @actor(name="gone", max_retries=5)
    async def gone(n: int) -> None: ...

    message: Any = {"undecodable": fail(1), "arguments": fail_as_it_was("x", kind="y", old=3), "unknown": gone(1)}[kind]
    error = "UnknownActor" if kind == "unknown" else "InvalidPayload"
    mended = {"arguments": fail_as_it_was, "unknown": gone, "undecodable": succeed}[kind]
    async with make_runtime(workers=0) as sender:
        handle = await sender.send("user:1", message)
        if kind == "undecodable":
            good = db.get(key(handle.id))
            assert isinstance(good, bytes)
            db.set(key(handle.id), good[: good.index(b"user:1") + 6] + b'["fail",[1],{\n{}\n"')
        async with make_runtime(fail, unknown_ttl=0):
            with pytest.raises(TaskFailed):
                await handle.result(timeout=PATIENCE)
        (letter,) = await letters(sender)
        assert letter.error is not None
        assert letter.error.type == f"fairactor.errors.{error}"
        assert (f"fairactor.errors.{error}" in letter.error.traceback) is (kind != "unknown"), "it ran nowhere"
        assert (letter.id, letter.tenant, letter.attempt, letter.state) == (handle.id, "user:1", 1, TaskState.FAILED)
        unreadable: tuple[Any, Any] = ((), {})
        read = {"arguments": (["x"], {"kind": "y", "old": 3}), "unknown": ([1], {})}.get(kind, unreadable)
        assert (letter.args, letter.kwargs) == read
        assert letter.actor == {"arguments": "fail", "unknown": "gone"}.get(kind, "")
        assert await sender.dead_letters.redrive() == 1
        async with make_runtime(mended):
            if kind == "undecodable":
                with pytest.raises(TaskFailed, match="cannot be decoded"):
                    await handle.result(timeout=PATIENCE)
            else:
                assert await handle.result(timeout=PATIENCE) is None
        assert await sender.dead_letters.count() == (1 if kind == "undecodable" else 0)
        await check_invariants(sender)


async def test_a_task_whose_runtimes_died_is_kept_with_their_names(make_runtime: Make, processes: Fleet) -> None:
    @actor
    async def die(times: int) -> int:
        return times

    async with make_runtime(workers=0) as sender:
        await processes.start(2, lease=0.4, max_deliveries=2, workers=1)
        names = {runtime.name for runtime in (await sender.stats()).runtimes}
        handle = await sender.send("user:1", service.die(times=9))
        assert [await process.ended() for process in processes.processes] == [7, 7]
        async with make_runtime(fail, max_deliveries=2):
            with pytest.raises(TaskFailed, match="2 runtimes died while they ran it"):
                await handle.result(timeout=PATIENCE)
        (letter,) = await letters(sender, error="WorkerDied", actor="die")
        assert (letter.args, letter.kwargs, letter.attempt) == ([], {"times": 9}, 1)
        assert {attempt.runtime for attempt in letter.history} == names
        assert [(attempt.attempt, attempt.error) for attempt in letter.history] == [(1, "WorkerDied")] * 2
        await check_invariants(sender)
        await handle.redrive()
        async with make_runtime(die, max_deliveries=1):
            assert await handle.result(timeout=PATIENCE) == 9
        assert len((await handle.info()).history) == 2


# Finding, redriving and purging, with filters


@pytest.fixture
async def graveyard(make_runtime: Make, small_pages: None) -> list[tuple[str, str, str, str]]:
    """Makes dead letters of ten tenants in three shards; returns (id, tenant, actor, error) in the order of failure."""
    errors = {"value": "ValueError", "order": f"{__name__}.NoSuchOrder"}
    of_each = list(itertools.product([f"user:{n}" for n in range(10)], (fail, fail_too), errors))
    made = [(tenant, of.name, errors[kind]) for tenant, of, kind in of_each]
    messages = [(tenant, of(n, kind=kind)) for n, (tenant, of, kind) in enumerate(of_each)]
    sent = await bury(make_runtime, *messages, shards=3, workers=100)
    assert {shard_of(tenant, 3) for tenant, _, _ in made} == {0, 1, 2}
    return [(task_id, *rest) for task_id, rest in zip(sent, made, strict=True)]


FILTERS: Any = [
    {},
    {"tenant": "user:3"},
    {"actor": "other"},
    {"error": "ValueError"},
    {"tenant": "user:4", "actor": "fail"},
    {"actor": "other", "error": f"{__name__}.NoSuchOrder"},
    {"tenant": "user:5", "actor": "fail", "error": "ValueError"},
    {"tenant": "user:"},
    {"error": "NoSuchOrder"},
]


@pytest.mark.parametrize("what", ["find", "redrive", "purge"])
@pytest.mark.parametrize("wanted", FILTERS, ids=str)
async def test_filters_take_what_fits_all_of_them(
    make_runtime: Make, graveyard: list[tuple[str, str, str, str]], what: str, wanted: dict[str, str]
) -> None:
    fits = [
        task for task, *rest in graveyard
        if wanted.items() <= dict(zip(("tenant", "actor", "error"), rest, strict=True)).items()
    ]  # fmt: skip
    assert len(fits) in {40, 20, 10, 4, 2, 1, 0}
    async with make_runtime(workers=0) as runtime:
        assert sorted(await ids(runtime, **wanted)) == sorted(fits)
        if what != "find":
            assert await getattr(runtime.dead_letters, what)(**wanted) == len(fits)
            assert await ids(runtime, **wanted) == []
        left = 40 if what == "find" else 40 - len(fits)
        assert await runtime.dead_letters.count() == left == len(await ids(runtime))
        stats = await runtime.stats()
        redriven = len(fits) if what == "redrive" else 0
        assert (stats.dead_letters, stats.failed, stats.queued) == (left, 40 - redriven, redriven)
        await check_invariants(runtime)


async def test_they_are_found_in_the_order_in_which_they_failed(
    make_runtime: Make, graveyard: list[tuple[str, str, str, str]]
) -> None:
    async with make_runtime(workers=0) as runtime:
        found = await letters(runtime)
        by_shard = [shard_of(letter.tenant, 3) for letter in found]
        assert by_shard == sorted(by_shard)
        for tenant in {tenant for _, tenant, *_ in graveyard}:
            failed = [task for task, of, *_ in graveyard if of == tenant]
            assert [letter.id for letter in found if letter.tenant == tenant] == failed
            assert await ids(runtime, tenant=tenant) == failed


async def test_more_than_a_page_of_them(make_runtime: Make) -> None:
    sent = await bury(make_runtime, *[("user:1", fail(n)) for n in range(450)])
    async with make_runtime(workers=0) as runtime:
        assert await ids(runtime) == sent
        assert await runtime.dead_letters.redrive() == 450
        (queued,) = [await runtime.tenant("user:1").stats()]
        assert (queued.queued, queued.failed, await runtime.dead_letters.count()) == (450, 0, 0)
    async with make_runtime(fail, workers=50) as runtime:
        await runtime.drain(timeout=PATIENCE)
        assert await runtime.dead_letters.purge() == 450
        assert not await ids(runtime)
        await check_invariants(runtime)


async def test_none_is_skipped_or_met_twice_while_others_come_and_go(make_runtime: Make, small_pages: None) -> None:
    @actor(name="fail")
    async def never_end(n: int, *, kind: str = "value") -> None:
        await anyio.sleep_forever()

    sent = await bury(make_runtime, *[(f"user:{n:02}", fail(n)) for n in range(40)])
    met: list[str] = []
    gone: set[str] = set()
    async with make_runtime(workers=0) as sender, make_runtime(fail_too, never_end, workers=50, grace=0) as worker:
        async for letter in sender.dead_letters.find(actor="fail"):
            met.append(letter.id)
            at = sent.index(letter.id)
            redriven = {at - 1, at, at + 5} & set(range(0, 40, 3))  # some before and some after the current position
            purged = {at - 2, at + 2} & set(range(1, 40, 3))
            for other in redriven:
                await sender.dead_letters.redrive(tenant=f"user:{other:02}")
            for other in purged:
                await sender.dead_letters.purge(tenant=f"user:{other:02}")
            gone |= {sent[other] for other in redriven | purged}
            with pytest.raises(TaskFailed):
                await worker.ask("user:2", fail_too(at), timeout=PATIENCE)
        assert met == [task for task in sent if task in met], "in order, and none twice"
        assert set(sent) - gone <= set(met)
        assert len(met) < 40, "some were gone before they could be met"
        await check_invariants(sender)


async def test_what_fails_anew_meanwhile_is_sent_again_once(make_runtime: Make, small_pages: None) -> None:
    sent = await bury(make_runtime, *[("user:1", fail(n)) for n in range(20)])
    async with make_runtime(fail) as runtime:
        assert await runtime.dead_letters.redrive() == 20
        await runtime.drain(timeout=PATIENCE)
        assert [len(letter.history) for letter in await letters(runtime)] == [2] * 20
        assert sorted(await ids(runtime)) == sorted(sent)


async def test_to_send_each_again_as_it_is_found_comes_to_an_end(make_runtime: Make, small_pages: None) -> None:
    await bury(make_runtime, *[("user:1", fail(n)) for n in range(10)])
    met = 0
    async with make_runtime(fail) as runtime:
        async for letter in runtime.dead_letters.find():
            met += 1
            assert met <= 10
            await runtime.handle(letter.id).redrive()
            with pytest.raises(TaskFailed):
                await runtime.handle(letter.id).result(timeout=PATIENCE)


async def test_more_than_a_page_in_one_place_are_found(make_runtime: Make, db: redis.Redis, small_pages: None) -> None:
    sent = await bury(make_runtime, *[("user:1", fail(n)) for n in range(10)])
    async with make_runtime(workers=0) as runtime:
        place: Any = db.zscore(DEAD, sent[0])
        db.zadd(DEAD, dict.fromkeys(sent, place))
        read, pages = runtime._shards()[0].list_dead_letters, 0

        async def read_page(*args: Any, **rest: Any) -> Any:
            nonlocal pages
            pages += 1
            assert pages <= 10
            return await read(*args, **rest)

        runtime._shards()[0].list_dead_letters = read_page  # type: ignore[method-assign]
        assert sorted(await ids(runtime)) == sorted(sent)


# Retention


async def test_they_go_when_their_time_is_over(make_runtime: Make, db: redis.Redis) -> None:
    (gone,) = await bury(make_runtime, ("user:1", fail(1)), failed_ttl=0.3)
    async with make_runtime(workers=0) as sender:
        await until(lambda: not db.exists(key(gone)))
        assert not await ids(sender)
        assert await sender.dead_letters.count() == (await sender.stats()).dead_letters == 0
        assert await sender.dead_letters.redrive() == await sender.dead_letters.purge() == 0
        with pytest.raises(TaskNotFound):
            await sender.handle(gone).redrive()
        await check_invariants(sender)
        async with make_runtime(fail, lease=0.6):  # runs maintenance
            await until(lambda: not db.exists(DEAD))


async def test_without_a_time_none_is_kept(make_runtime: Make, db: redis.Redis) -> None:
    await bury(make_runtime, *[("user:1", fail(n)) for n in range(5)], failed_ttl=0)
    async with make_runtime(workers=0) as sender:
        assert await sender.dead_letters.count() == 0
        assert (await sender.stats()).failed == 5
        assert not [*db.scan_iter("*:task:*"), *db.scan_iter("*:dead")]
        await check_invariants(sender)


# Invalid filters and odd names


@pytest.mark.parametrize("bad", [5, b"x", ValueError, ["user:1"], True])
@pytest.mark.parametrize("name", ["tenant", "actor", "error"])
async def test_a_filter_that_is_no_text_is_refused_by_name(make_runtime: Make, name: str, bad: Any) -> None:
    sent = await bury(make_runtime, ("user:1", fail(1)))
    async with make_runtime(workers=0) as sender:
        for use in (partial(ids, sender), sender.dead_letters.redrive, sender.dead_letters.purge):
            with pytest.raises(ConfigurationError, match=f"{name}=.*give a string"):
                await use(**{name: bad})
            with pytest.raises(TypeError):
                await use(tenants="user:1")
        assert await ids(sender) == sent
        dead_letters = sender.dead_letters
    for use in (dead_letters.count, dead_letters.redrive, dead_letters.purge):
        with pytest.raises(RuntimeNotRunning):
            await use()


async def test_odd_names_are_taken_as_they_are(make_runtime: Make, small_pages: None) -> None:
    odd = [*HOSTILE, "user:1"]
    await bury(make_runtime, *[(name, fail(n).options(id=f"{name}!")) for n, name in enumerate(odd)], shards=2)
    async with make_runtime(workers=0) as sender:
        assert sorted(await ids(sender)) == sorted(f"{name}!" for name in odd)
        for name in odd:
            assert await ids(sender, tenant=name) == [f"{name}!"]
            await sender.handle(f"{name}!", name).redrive()
        assert await sender.dead_letters.count() == 0
        await check_invariants(sender)
    async with make_runtime(fail) as runtime:
        await runtime.drain(timeout=PATIENCE)
        for name in odd:
            assert await runtime.dead_letters.redrive(tenant=name) == 1
        await runtime.drain(timeout=PATIENCE)
        for name in odd:
            assert await runtime.dead_letters.purge(tenant=name) == 1
        assert (await runtime.stats()).dead_letters == 0
