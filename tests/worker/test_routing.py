"""Every task runs where it can: runtimes with different actors, queues and versions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from fairactor import Runtime, Task, TaskFailed, TaskState, actor, current_task
from fairactor.testing import check_invariants
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

ran: list[tuple[str, str]] = []
"""(actor, name of the runtime) of each task that ran."""


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def note() -> None:
    task = current_task()
    assert isinstance(task.runtime, Runtime)
    ran.append((task.actor, task.runtime.name))


@actor
async def cpu(n: int) -> int:
    note()
    return n


@actor
async def gpu(n: int) -> int:
    note()
    return n


@actor(queue="gpu")
async def train(n: int) -> int:
    note()
    return n


@pytest.mark.parametrize("others", [0, 1, 3])
async def test_a_task_starts_at_once_where_its_actor_is(make_runtime: Make, others: int) -> None:
    """However many runtimes lack its actor. The leases are long, so nothing but the wake-up brings it."""
    async with make_runtime(workers=0) as sender, make_runtime(gpu, lease=600.0) as able:
        entered = [make_runtime(cpu, lease=600.0) for _ in range(others)]
        for each in entered:
            await each.__aenter__()
        try:
            for n in range(10):
                assert await sender.ask("acme", gpu(n), timeout=PATIENCE) == n
                if others:
                    assert await sender.ask("acme", cpu(n), timeout=PATIENCE) == n
            assert {name for actor_name, name in ran if actor_name == "gpu"} == {able.name}
            assert {name for actor_name, name in ran if actor_name == "cpu"} <= {each.name for each in entered}
            assert len(ran) == (20 if others else 10), "none was claimed by a runtime that cannot run it"
            await check_invariants(sender)
        finally:
            for each in entered:
                await each.__aexit__(None, None, None)


async def test_whoever_joins_and_leaves(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(cpu):
        handles = await sender.send_many([("acme", gpu(n)) for n in range(20)] + [("acme", cpu(n)) for n in range(20)])
        assert [await handle.result(timeout=PATIENCE) for handle in handles[20:]] == list(range(20))
        async with make_runtime(gpu):
            assert [await handle.result(timeout=PATIENCE) for handle in handles[:20]] == list(range(20))
            await check_invariants(sender)
        more = await sender.send_many([("acme", gpu(n)) for n in range(20)])
        assert await sender.ask("acme", cpu(1), timeout=PATIENCE) == 1
        async with make_runtime(gpu, cpu):
            assert [await handle.result(timeout=PATIENCE) for handle in more] == list(range(20))
        await check_invariants(sender)


async def test_a_runtime_serves_the_queues_that_it_names(make_runtime: Make) -> None:
    async with (
        make_runtime(workers=0) as sender,
        make_runtime(cpu, gpu, train, queues=["gpu"]) as pool,
        make_runtime(cpu, gpu, train, queues=["default", "slow"]) as rest,
    ):
        messages = [train(1), gpu(2).options(queue="gpu"), cpu(3), train(4).options(queue="slow"), cpu(5)]
        handles = await sender.send_many([("acme", message) for message in messages])
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == [1, 2, 3, 4, 5]
        assert sorted(ran) == sorted(
            [("train", pool.name), ("gpu", pool.name), ("cpu", rest.name), ("train", rest.name), ("cpu", rest.name)]
        )
        await check_invariants(sender)


async def test_without_queues_a_runtime_serves_all(make_runtime: Make) -> None:
    async with make_runtime(train, cpu) as runtime:
        assert await runtime.ask("acme", train(1), timeout=PATIENCE) == 1
        assert await runtime.ask("acme", cpu(1).options(queue="any name"), timeout=PATIENCE) == 1


async def test_a_queue_that_nobody_serves(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(cpu, queues=["slow"]):
        handle = await sender.send("acme", cpu(1).options(queue="fast"))
        await until(lambda: _names(sender, "serves the queue 'fast'"))
        assert (await handle.info()).state is TaskState.QUEUED
        async with make_runtime(cpu, queues=["fast"]):
            assert await handle.result(timeout=PATIENCE) == 1
        assert (await sender.health()).ok


async def test_nobody_serves_the_default_queue(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(cpu, queues=["gpu"], unknown_ttl=0.5):
        handle = await sender.send("acme", cpu(1))
        await until(lambda: _has_unserved(sender))
        with pytest.raises(TaskFailed) as caught:
            await handle.result(timeout=PATIENCE)
        assert caught.value.error == "fairactor.errors.UnknownActor"
        await handle.redrive()
        async with make_runtime(cpu, queues=["default"]):
            assert await handle.result(timeout=PATIENCE) == 1


async def test_nobody_serves_the_default_queue_any_more(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender, make_runtime(cpu, queues=["gpu"], unknown_ttl=0.5):
        async with make_runtime(cpu, workers=1, unknown_ttl=0.5) as leaves:
            await sender.tenant("acme").pause()
            handles = await sender.send_many(("acme", cpu(n)) for n in range(300))
            assert (await leaves.stats()).queued == 300
        await until(lambda: _has_unserved(sender))
        await sender.tenant("acme").resume()
        await until(lambda: _all_failed(sender, len(handles)))
        await check_invariants(sender)


async def _all_failed(runtime: Runtime, number: int) -> bool:
    return (await runtime.stats()).failed == number


async def _has_unserved(runtime: Runtime) -> bool:
    load = (await runtime.health()).load
    return load is not None and bool(load.unserved)


async def _names(runtime: Runtime, text: str) -> bool:
    return any(text in problem for problem in (await runtime.health()).problems)


async def test_runtimes_show_their_queues_and_versions(make_runtime: Make) -> None:
    @actor(version=2)
    async def second() -> None: ...

    async with make_runtime(cpu, second, queues=["a", "b"]) as runtime, make_runtime(cpu):
        found = {each.queues: each for each in (await runtime.stats()).runtimes}
        assert set(found) == {("a", "b"), None}
        assert found["a", "b"].versions == {"second": 2}
        assert not found[None].versions


async def test_priorities_backlogs_pauses_and_groups_hold_over_all_lanes(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as sender:
        acme = sender.tenant("acme")
        await acme.configure(concurrency=1)
        await acme.pause()
        last = await sender.send("acme", train(1))
        first = await sender.send("acme", cpu(2).options(priority="critical"))
        async with make_runtime(cpu, train):
            assert (await acme.stats()).queued == 2
            await acme.resume()
            assert [await each.result(timeout=PATIENCE) for each in (last, first)] == [1, 2]
        assert [name for name, _ in ran] == ["cpu", "train"]


async def test_work_for_several_pools_wakes_each(make_runtime: Make) -> None:
    """The leases are long, so only a wake-up brings the tasks: of a batch, due ones, and those of a paused tenant."""
    actors = (cpu, train)
    async with (
        make_runtime(workers=0) as sender,
        make_runtime(*actors, queues=["gpu"], lease=600.0),
        make_runtime(*actors, queues=["default"], lease=600.0),
    ):
        for delay in (None, 0.1):
            messages = [message(n).options(delay=delay) for n in range(2) for message in (train, cpu)]
            handles = await sender.send_many(("acme", message) for message in messages)
            assert await sender.results(handles, timeout=PATIENCE) == [0, 0, 1, 1]
        await sender.tenant("acme").pause()
        handles = await sender.send_many(("acme", message(3)) for message in (train, cpu))
        await sender.tenant("acme").resume()
        assert await sender.results(handles, timeout=PATIENCE) == [3, 3]


# Versions


def report(version: int | None, parameters: int) -> Any:
    """An actor of a release, with so many parameters."""

    async def one(kind: str) -> str:
        note()
        return f"{version}: {kind}"

    async def two(kind: str, year: int = 0) -> str:
        note()
        return f"{version}: {kind} {year}"

    async def none() -> str:
        note()
        return f"{version}: -"

    return actor(name="report", version=version)((none, one, two)[parameters])


async def test_an_older_handler_gets_no_newer_task(make_runtime: Make) -> None:
    new, old = report(2, 2), report(None, 1)
    async with make_runtime(workers=0) as web, make_runtime(old, lease=600.0):
        handle = await web.send("acme", new("sales", year=2))
        assert await web.ask("acme", old("sales"), timeout=PATIENCE) == "None: sales"
        assert (await handle.info()).state is TaskState.QUEUED
        async with make_runtime(new):
            assert await handle.result(timeout=PATIENCE) == "2: sales 2"
            await check_invariants(web)


async def test_a_newer_handler_takes_older_tasks(make_runtime: Make) -> None:
    new, old = report(2, 2), report(None, 1)
    async with make_runtime(workers=0) as web, make_runtime(new):
        assert await web.ask("acme", old("sales"), timeout=PATIENCE) == "2: sales 0"


async def test_a_task_that_a_newer_handler_refuses_goes_to_one_of_its_version(make_runtime: Make) -> None:
    new, old = report(2, 0), report(1, 1)
    async with make_runtime(workers=0) as web, make_runtime(new), make_runtime(old):
        handles = await web.send_many([("acme", old(f"kind {n}")) for n in range(20)])
        assert [await handle.result(timeout=PATIENCE) for handle in handles] == [f"1: kind {n}" for n in range(20)]
        assert (await web.stats()).failed == 0
        await check_invariants(web)


@pytest.mark.parametrize("version", [None, 2])
async def test_arguments_that_no_handler_takes_make_a_dead_letter(make_runtime: Make, version: int | None) -> None:
    async with make_runtime(workers=0) as web, make_runtime(report(version, 0)), make_runtime(cpu):
        handle = await web.send("acme", report(None, 1)("sales"))
        with pytest.raises(TaskFailed, match="report") as caught:
            await handle.result(timeout=PATIENCE)
        assert caught.value.error == "fairactor.errors.InvalidPayload"
        async with make_runtime(report(None, 1)):
            await handle.redrive()  # the other handler may get it again, and passes it on
            assert await handle.result(timeout=PATIENCE) == "None: sales"


async def test_a_task_is_passed_on_five_times_at_most(make_runtime: Make) -> None:
    @actor(name="report")
    async def other(year: int) -> str:
        return str(year)

    async with make_runtime(workers=0) as web, make_runtime(report(None, 0)):
        async with make_runtime(other):
            handle = await web.send("acme", report(None, 1)("sales"))
            for times in (5, 10):
                with pytest.raises(TaskFailed, match="report") as caught:
                    await handle.result(timeout=PATIENCE)
                assert caught.value.error == "fairactor.errors.InvalidPayload"
                info = await handle.info()
                assert [line.message for line in info.history] == ["its arguments do not fit the actor here"] * times
                assert info.attempt == 1
                if times == 5:
                    await handle.redrive()
        async with make_runtime(report(None, 1)):
            await handle.redrive()
            assert await handle.result(timeout=PATIENCE) == "None: sales", "it counts from the redrive"
        await check_invariants(web)


async def test_web_processes_are_deployed_before_workers(make_runtime: Make) -> None:
    """A new actor, and a new version of an old one, meet workers of the release before."""

    @actor(max_retries=5, backoff=1)
    async def brand_new(n: int) -> int:
        return n

    new, old = report(2, 2), report(None, 1)
    async with make_runtime(workers=0) as web, make_runtime(old, cpu) as before:
        handles: list[Any] = [await web.send("acme", brand_new(1)), await web.send("acme", new("sales", year=2))]
        await until(lambda: _names(web, "an actor 'brand_new'"))
        assert await _names(web, "an actor 'report' of version 2 or later")
        async with make_runtime(new, brand_new, cpu):
            assert [await handle.result(timeout=PATIENCE) for handle in handles] == [1, "2: sales 2"]
            assert await web.ask("acme", old("sales"), timeout=PATIENCE) in {"None: sales", "2: sales 0"}
            await before.stop(PATIENCE)
            assert await web.ask("acme", old("costs"), timeout=PATIENCE) == "2: costs 0"
            await check_invariants(web)


async def test_busy_pools_do_not_hold_up_others(make_runtime: Make) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    @actor(queue="gpu")
    async def hold() -> None:
        started.set()
        await release.wait()

    async with (
        make_runtime(workers=0) as sender,
        make_runtime(hold, queues=["gpu"], workers=1),
        make_runtime(cpu, queues=["default"], workers=1),
    ):
        held = await sender.send_many([("acme", hold()) for _ in range(5)])
        await started.wait()
        began = time.monotonic()
        for n in range(20):
            assert await sender.ask("acme", cpu(n), timeout=PATIENCE) == n
        assert time.monotonic() - began < PATIENCE
        health = await sender.health()
        assert health.ok
        assert health.load is not None
        assert not health.load.unserved
        release.set()
        for handle in held:
            await handle.result(timeout=PATIENCE)
        await check_invariants(sender)


class Deaths:
    """A plugin that notes for which actors tasks have become dead letters."""

    name = "deaths"

    def __init__(self) -> None:
        self.found: list[str] = []

    def dead(self, task: Task, error: BaseException) -> None:
        self.found.append(f"{task.actor}: {type(error).__name__}")


@pytest.mark.parametrize("others", [True, False])
async def test_observers_hear_only_of_tasks_that_no_process_takes(make_runtime: Make, others: bool) -> None:
    deaths = Deaths()
    old = report(1, 1)
    async with (
        make_runtime(workers=0) as web,
        make_runtime(report(2, 0), plugins=[deaths]),
        make_runtime(old if others else cpu),
    ):
        handles = await web.send_many([("acme", old(f"kind {n}")) for n in range(20)])
        for n, handle in enumerate(handles):
            if others:
                assert await handle.result(timeout=PATIENCE) == f"1: kind {n}"
            else:
                with pytest.raises(TaskFailed):
                    await handle.result(timeout=PATIENCE)
        await until(lambda: others or len(deaths.found) == 20)
    assert deaths.found == ([] if others else ["report: InvalidPayload"] * 20)
