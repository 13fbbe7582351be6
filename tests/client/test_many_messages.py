"""Sends with many messages: the event loop and other sends get their turns, and what fails is said truly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fairactor import Message, Runtime, actor
from fairactor._model.wire import USUAL_BATCH, Item
from fairactor._store.shard import Shard
from fairactor._util.slices import AT_ONCE
from fairactor.errors import ServerError, TaskExists
from fairactor.testing import check_invariants
from tests.support import servers
from tests.support.polling import until
from tests.support.servers import Instance

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]
BATCHES = 40


@actor
async def echo(value: int) -> int:
    return value


def messages(number: int = BATCHES * USUAL_BATCH, tenants: int = 7) -> list[tuple[str, Message[int]]]:
    return [(f"t{n % tenants}", echo(n)) for n in range(number)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids of the tasks of each call."""
    made: list[list[str]] = []
    send = Shard.send

    async def record(self: Shard, items: Sequence[Item], *arguments: Any, **options: Any) -> Any:
        made.append([item.id for item in items])
        return await send(self, items, *arguments, **options)

    monkeypatch.setattr(Shard, "send", record)
    return made


async def test_the_event_loop_gets_a_turn_after_each_slice(make_runtime: Make) -> None:
    turns = 0
    drawn: dict[int, int] = {}  # turn -> the messages that were taken since the one before

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    def made() -> Iterator[tuple[str, Message[int]]]:
        for each in messages():
            drawn[turns] = drawn.get(turns, 0) + 1
            yield each

    async with make_runtime(workers=0) as runtime, anyio.create_task_group() as group:
        group.start_soon(count)
        await runtime.send_many(made())
        group.cancel_scope.cancel()
    assert max(drawn.values()) <= AT_ONCE
    assert turns > BATCHES  # encoding and posting give turns, too


async def test_other_sends_go_between_the_batches(make_runtime: Make, calls: list[list[str]]) -> None:
    async with make_runtime(workers=0) as runtime, anyio.create_task_group() as group:
        group.start_soon(runtime.send_many, messages())
        await until(lambda: bool(calls))
        before = len(calls)
        await runtime.send("other", echo(0), id="one")
        number = next(n for n, ids in enumerate(calls) if "one" in ids)
    assert number <= before + 3  # two that were posted, and one whose call had just begun
    assert len(calls) == BATCHES + 1


@pytest.mark.parametrize("shards", [1, 3])
async def test_the_tasks_of_a_tenant_stay_in_order_whatever_their_number(make_runtime: Make, shards: int) -> None:
    ran: dict[str, list[int]] = {}

    @actor
    async def note(tenant: str, value: int) -> None:
        ran.setdefault(tenant, []).append(value)

    names = [f"t{n % 5}" for n in range(5 * USUAL_BATCH)]
    async with make_runtime(note, workers=1, shards=shards) as runtime:
        handles = await runtime.send_many([(name, note(name, n)) for n, name in enumerate(names)])
        assert [handle.tenant for handle in handles] == names
        await runtime.drain(timeout=30)
    assert all(values == sorted(values) for values in ran.values())
    assert sum(map(len, ran.values())) == len(names)


async def test_an_id_that_is_taken_stops_none_of_the_other_batches(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.send("first", echo(0), id="taken")
        some = messages()
        some[USUAL_BATCH] = ("second", echo(0).options(id="taken"))
        with pytest.raises(TaskExists):
            await runtime.send_many(some)
        stats = await runtime.stats()
        assert stats.queued >= (BATCHES - 1) * USUAL_BATCH
        await check_invariants(runtime)


async def test_what_the_server_refuses_is_not_followed_by_the_rest(server: Instance, calls: list[list[str]]) -> None:
    async with Runtime(server.url, workers=0, connect_timeout=0.2) as runtime:
        with servers.client(server.url) as admin:
            sending = asyncio.create_task(runtime.send_many(messages()))
            await until(lambda: len(calls) > 1)
            before = len(calls)
            admin.config_set("maxmemory", "1")
            with pytest.raises(ServerError) as refused:
                await sending
            admin.config_set("maxmemory", "0")
        assert refused.value.maybe_accepted  # those before
        assert len(refused.value.ids) == BATCHES * USUAL_BATCH
        assert len(calls) <= before + 2
    async with Runtime(server.url, workers=0) as patient:
        await patient.send_many(messages())
        await check_invariants(patient)


async def test_a_send_that_is_canceled_stops_between_two_batches(make_runtime: Make, calls: list[list[str]]) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.tenant("t0").configure(backlog=100_000)
        sending = asyncio.create_task(runtime.send_many(messages()))
        await until(lambda: len(calls) > 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await runtime.send("other", echo(0))
        assert len(calls) <= BATCHES / 2
        assert (await runtime.stats()).queued == sum(map(len, calls))
        await check_invariants(runtime)
