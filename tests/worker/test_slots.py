"""Tests that slots for coroutines, threads and processes are counted apart, and that nothing waits for another kind."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import attrs
import pytest

from fairactor import Handle, Runtime, TaskState, actor
from fairactor._actors.actor import Actor
from fairactor._actors.registry import Handler
from fairactor._worker.slots import kinds_of
from fairactor.errors import ConfigurationError
from fairactor.settings import RuntimeSettings, Settings
from fairactor.testing import check_invariants
from tests.support import process_actors
from tests.support.polling import PATIENCE, until

pytestmark = pytest.mark.anyio

Make = Callable[..., Runtime]


@attrs.define
class Threads:
    """Plain handlers that wait for the test."""

    gate: threading.Event = attrs.Factory(threading.Event)
    now: int = 0
    most: int = 0
    lock: threading.Lock = attrs.Factory(threading.Lock)

    @actor
    def hold(self, n: int) -> int:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.gate.wait(PATIENCE)
        with self.lock:
            self.now -= 1
        return n


@actor
async def echo(n: int) -> int:
    return n


@actor
async def rest() -> None:
    await anyio.sleep_forever()


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads()
    yield made
    made.gate.set()


async def count(handles: list[Handle[Any]]) -> Counter[TaskState]:
    return Counter([await handle.state() for handle in handles])


async def have(started: int, queued: int, handles: list[Handle[Any]]) -> bool:
    return await count(handles) == Counter({TaskState.STARTED: started, TaskState.QUEUED: queued})


async def results(handles: list[Handle[Any]]) -> list[Any]:
    return [await handle.result(timeout=PATIENCE) for handle in handles]


async def test_busy_threads_hold_up_no_coroutine(make_runtime: Make, threads: Threads) -> None:
    async with make_runtime(threads, echo, workers=2, threads=3, lease=60) as runtime:
        handles = await runtime.send_many(("a", Threads.hold(n)) for n in range(8))
        await until(lambda: have(3, 5, handles))
        for tenant in "abab":
            assert await runtime.ask(tenant, echo(1), timeout=PATIENCE) == 1
        assert await have(3, 5, handles), "nothing is claimed that cannot start"
        await check_invariants(runtime)
        threads.gate.set()
        assert await results(handles) == list(range(8))
    assert threads.most == 3


async def test_busy_coroutines_hold_up_no_thread_and_no_process(make_runtime: Make, threads: Threads) -> None:
    threads.gate.set()
    async with make_runtime(threads, rest, process_actors, workers=1, threads=1, processes=1, lease=60) as runtime:
        sleeping = await runtime.send_many([("a", rest())] * 3)
        await until(lambda: have(1, 2, sleeping))
        for tenant in "ab":
            assert await runtime.ask(tenant, Threads.hold(1), timeout=PATIENCE) == 1
            assert await runtime.ask(tenant, process_actors.pid(), timeout=PATIENCE) > 0
        assert await count(sleeping) == {TaskState.STARTED: 1, TaskState.QUEUED: 2}
        for handle in sleeping:
            await handle.cancel()


async def test_a_thread_that_gets_free_is_filled_at_once(make_runtime: Make, threads: Threads) -> None:
    async with make_runtime(threads, echo, threads=2, lease=60) as runtime:
        handles = await runtime.send_many((f"user:{n}", Threads.hold(n)) for n in range(6))
        await until(lambda: have(2, 4, handles))
        threads.gate.set()
        assert await results(handles) == list(range(6))  # a heartbeat comes after 20 s
    assert threads.most == 2


@pytest.mark.parametrize(
    ("actors", "settings", "expected"),
    [
        ([echo, Threads.hold, process_actors.pid], {"threads": 2}, {"workers": 9, "threads": 2, "processes": 4}),
        ([echo, Threads.hold, process_actors.pid], {}, {"workers": 9, "processes": 4}),
        ([echo, Threads.hold], {}, {"workers": 9}),
        ([Threads.hold], {"threads": 2}, {"threads": 2}),
        ([process_actors.pid], {"threads": 2}, {"processes": 4}),
        ([echo], {"threads": 2}, {"workers": 9}),
    ],
)
def test_only_kinds_with_actors_have_slots(
    actors: list[Actor[..., Any]], settings: RuntimeSettings, expected: dict[str, int]
) -> None:
    handlers = {each.name: Handler(each, each.bind()) for each in actors}
    kinds = kinds_of(handlers, Settings(workers=9, processes=4, **settings))  # type: ignore[misc]  # a part
    assert {kind.name: kind.size for kind in kinds} == expected
    assert sorted(name for kind in kinds for name in kind.actors) == sorted(handlers)


async def test_without_a_number_threads_take_workers(make_runtime: Make, threads: Threads) -> None:
    async with make_runtime(threads, echo, workers=3) as runtime:
        handles = await runtime.send_many((f"user:{n}", Threads.hold(n)) for n in range(6))
        await until(lambda: have(3, 3, handles))
        behind = await runtime.send("other", echo(1))
        assert await behind.state() is TaskState.QUEUED
        assert (await runtime.stats()).runtimes[0].slots == {"workers": 3}
        threads.gate.set()
        await results([*handles, behind])


async def test_a_runtime_with_a_free_thread_takes_what_another_passes_over(make_runtime: Make) -> None:
    one, two = Threads(), Threads()
    try:
        async with make_runtime(one, echo, threads=1, lease=60) as busy:
            handles = await busy.send_many((f"user:{n}", Threads.hold(n)) for n in range(3))
            await until(lambda: have(1, 2, handles))
            async with make_runtime(two, echo, threads=1, lease=60):
                await until(lambda: have(2, 1, handles))
                async with make_runtime(Threads(one.gate), workers=4, lease=60):  # it counts threads as workers
                    await until(lambda: have(3, 0, handles))
                    handles += [await busy.send("more", Threads.hold(n)) for n in range(3)]
                    await until(lambda: have(6, 0, handles))
                    one.gate.set()
                    two.gate.set()
                    await results(handles)
            await check_invariants(busy)
    finally:
        one.gate.set()
        two.gate.set()


async def test_several_shards_share_the_threads(make_runtime: Make, threads: Threads) -> None:
    async with make_runtime(threads, echo, threads=2, shards=3, lease=60) as runtime:
        handles = await runtime.send_many((f"user:{n}", Threads.hold(n)) for n in range(12))
        await until(lambda: threads.now == 2)
        assert await runtime.ask("other", echo(1), timeout=PATIENCE) == 1
        threads.gate.set()
        assert await results(handles) == list(range(12))
        await check_invariants(runtime)
    assert threads.most == 2


async def test_what_a_leaving_runtime_could_not_start_stays_queued(make_runtime: Make, threads: Threads) -> None:
    async with make_runtime(workers=0) as sender:
        async with make_runtime(threads, echo, threads=1, grace=PATIENCE) as leaving:
            handles = await leaving.send_many((f"user:{n}", Threads.hold(n)) for n in range(3))
            await until(lambda: have(1, 2, handles))
            threads.gate.set()
        assert (await sender.stats()).started == 0
        async with make_runtime(threads, echo, threads=1):
            assert await sender.handle(handles[2].id, "user:2").result(timeout=PATIENCE) == 2
        await check_invariants(sender)


async def test_health_names_the_kind_that_is_full(make_runtime: Make, threads: Threads) -> None:
    async with make_runtime(threads, echo, workers=5, threads=2, lease=0.3) as runtime:
        handles = await runtime.send_many((f"user:{n}", Threads.hold(n)) for n in range(4))

        async def reported() -> bool:
            pulse = (await runtime.stats()).runtimes[0].pulse
            return pulse is not None and pulse.kinds["threads"].busy == 2 and pulse.kinds["workers"].busy == 0

        await until(reported)
        load = (await runtime.health()).load
        assert load
        assert (load.workers, load.started) == (7, 2)
        assert [(kind, size) for info in load.full for kind, size, _ in info.full()] == [("threads", 2)]
        late = attrs.evolve(load, oldest_wait=1000.0)
        (problem,) = late.problems()
        assert "all 2 threads of" in problem
        assert not list(attrs.evolve(load, oldest_wait=100.0).problems())
        threads.gate.set()
        await results(handles)


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "3", 10**9])
async def test_settings_are_checked(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="threads="):
        Runtime(threads=wrong)
