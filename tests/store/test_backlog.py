"""Backlogs: a mailbox accepts waiting tasks up to its limit, and each send is accepted as a whole or not at all."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
import redis

from fairactor import Runtime, TaskState, actor
from fairactor._model.keys import shard_of
from fairactor.errors import MailboxFull, TaskNotFound
from fairactor.testing import check_invariants
from tests.support import servers
from tests.support.polling import PATIENCE, until
from tests.support.shard.driver import item
from tests.support.shard.model_tasks import FULL
from tests.support.shard.selection import open_selection

pytestmark = pytest.mark.anyio
Make = Callable[..., Runtime]

BY_SHARD = {shard_of(f"u{n}", 4): f"u{n}" for n in range(40)}
"""One tenant in each of four shards."""


@actor
async def echo(value: int = 0) -> int:
    return value


def reserved(db: redis.Redis) -> list[bytes]:
    return list(db.scan_iter("*:reserved:*"))


async def queued(runtime: Runtime, tenant: str = "t") -> int:
    return (await runtime.tenant(tenant).stats()).queued


async def test_a_full_mailbox_takes_nothing_and_says_whose_it_is(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.tenant("t").configure(backlog=3)
        for _ in range(3):
            await runtime.send("t", echo())
        for send in (
            lambda: runtime.send("t", echo(), id="refused"),
            lambda: runtime.ask("t", echo(), id="refused"),
            lambda: runtime.tenant("t").send(echo(), id="refused"),
            lambda: runtime.send("t", echo(), id="refused", delay=5),
            lambda: runtime.send_many([("t", echo().options(id="refused"))]),
        ):
            with pytest.raises(MailboxFull, match=r"mailbox of 't' is full.*backlog") as caught:
                await send()
            assert caught.value.tenant == "t"
        with pytest.raises(TaskNotFound):
            await runtime.handle("refused").state()
        assert await queued(runtime) == 3
        await runtime.send("another", echo())
        await check_invariants(runtime)


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("many", [1, 505])
async def test_many_are_accepted_all_or_none(make_runtime: Make, db: redis.Redis, many: int, shards: int) -> None:
    tenants = [BY_SHARD[n] for n in range(4)]
    async with make_runtime(workers=0, shards=shards, lease=60) as runtime:
        await runtime.tenant(tenants[2]).configure(backlog=many)
        await runtime.tenant(tenants[3]).configure(backlog=10 * many)
        messages = [(tenant, echo(n)) for n in range(many) for tenant in tenants]
        with pytest.raises(MailboxFull) as caught:
            await runtime.send_many([*messages, (tenants[2], echo())])
        assert caught.value.tenant == tenants[2]
        assert (await runtime.stats()).known_tenants == 0
        assert reserved(db) == []
        assert len(await runtime.send_many(messages)) == 4 * many
        assert [await queued(runtime, tenant) for tenant in tenants] == [many] * 4
        with pytest.raises(MailboxFull):
            await runtime.send_many(messages)
        assert (await runtime.stats()).queued == 4 * many
        assert reserved(db) == []
        await check_invariants(runtime)


@pytest.mark.parametrize(("each", "shards"), [(300, 1), (600, 1), (600, 4)])
async def test_senders_that_compete_for_room_overrun_no_mailbox_and_lose_nothing(
    make_runtime: Make, db: redis.Redis, each: int, shards: int
) -> None:
    async with AsyncExitStack() as stack:
        senders = [await stack.enter_async_context(make_runtime(workers=0, shards=shards)) for _ in range(2)]
        await senders[0].tenant("t").configure(backlog=1000)
        messages = [("t", echo(n)) for n in range(each)] + [(BY_SHARD[n], echo()) for n in range(4)]
        sent = (sender.send_many(messages) for sender in senders * 2)
        outcomes = await asyncio.gather(*sent, return_exceptions=True)
        accepted = [outcome for outcome in outcomes if isinstance(outcome, list)]
        assert len(accepted) == 1000 // each
        assert all(isinstance(outcome, list | MailboxFull) for outcome in outcomes)
        assert await queued(senders[0]) == each * len(accepted)
        assert await queued(senders[0], BY_SHARD[1]) == len(accepted)
        assert reserved(db) == []
        for room in (1000 - each * len(accepted), 0):
            with pytest.raises(MailboxFull):
                await senders[1].send_many([("t", echo())] * (room + 1))
            await senders[1].send_many([("t", echo())] * room)
        await check_invariants(senders[0])


async def test_of_single_sends_that_share_a_call_only_those_to_the_full_mailbox_fail(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.tenant("t").configure(backlog=2)
        tenants = ["a", "t", "b", "t", "t", "c", "t", "d"]
        outcomes = await asyncio.gather(
            *(runtime.send(tenant, echo()) for tenant in tenants),
            runtime.send_many([("a", echo()), ("t", echo())]),
            runtime.send_many([("a", echo()), ("b", echo())]),
            return_exceptions=True,
        )
        assert [type(outcome).__name__ for outcome in outcomes] == (
            ["Handle"] * 4 + ["MailboxFull", "Handle"] + ["MailboxFull", "Handle"] + ["MailboxFull", "list"]
        )
        assert (await queued(runtime, "a"), await queued(runtime, "b"), await queued(runtime)) == (2, 2, 2)
        await check_invariants(runtime)


async def test_what_is_there_already_needs_no_room(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.tenant("t").configure(backlog=3)
        messages = [("t", echo(n).options(id=f"{n}", key=f"key {n}")) for n in range(3)]
        await runtime.send_many(messages)
        assert [handle.id for handle in await runtime.send_many(messages)] == ["0", "1", "2"]
        keyed = [("t", echo(n).options(key=f"key {n}")) for n in range(3)]
        assert [(handle.id, handle.duplicate) for handle in await runtime.send_many(keyed)] == [
            (f"{n}", True) for n in range(3)
        ]
        assert (await runtime.send("t", echo(), id="1")).id == "1"
        await runtime.handle("2").cancel()
        again = [("t", echo().options(id="new", key="of all")), ("t", echo().options(id="new"))]
        handles = await runtime.send_many([*again, *messages[:2], ("t", echo().options(key="of all"))])
        assert [handle.id for handle in handles] == ["new", "new", "0", "1", "new"], "one of them is new"
        assert await queued(runtime) == 3
        await check_invariants(runtime)


async def test_what_is_there_already_needs_no_room_in_several_batches(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.tenant("t").configure(backlog=600)
        messages = [("t", echo(n).options(id=f"{n}")) for n in range(600)]
        await runtime.send_many(messages)
        assert len(await runtime.send_many(messages)) == 600, "as after an error that leaves it open"


async def test_a_send_that_is_refused_leaves_its_keys_free(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.tenant("t").configure(backlog=2)
        first = await runtime.send("t", echo())
        with pytest.raises(MailboxFull):
            await runtime.send_many([("u", echo().options(key="k")), *[("t", echo().options(key=k)) for k in "abc"]])
        for tenant, key in [("u", "k"), ("t", "a")]:
            assert not (await runtime.send(tenant, echo(), key=key)).duplicate
        with pytest.raises(MailboxFull):
            await runtime.send("t", echo(), key="b")
        await first.cancel()
        assert not (await runtime.send("t", echo(), key="b")).duplicate
        assert (await runtime.send("t", echo(), key="b")).duplicate
        await check_invariants(runtime)


async def test_tasks_that_are_scheduled_count(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.tenant("t").configure(backlog=2)
        later = await runtime.send("t", echo(), delay=3600)
        await runtime.send("t", echo())
        with pytest.raises(MailboxFull):
            await runtime.send("t", echo())
        assert await later.cancel() is TaskState.SCHEDULED
        await runtime.send("t", echo())


async def test_there_is_room_again_when_tasks_start_are_canceled_or_purged(make_runtime: Make) -> None:
    go_on = anyio.Event()

    @actor
    async def hold() -> None:
        await go_on.wait()

    async with make_runtime(hold, workers=2) as runtime:
        tenant = runtime.tenant("t")
        await tenant.configure(backlog=2)
        await tenant.send(hold())
        await tenant.send(hold())
        await until(lambda: _started(runtime, 2))
        waiting = [await tenant.send(hold()) for _ in range(2)]
        with pytest.raises(MailboxFull):
            await tenant.send(hold())
        assert await waiting[0].cancel() is TaskState.QUEUED
        await tenant.send(hold())
        with pytest.raises(MailboxFull):
            await tenant.send(hold())
        assert await tenant.purge() == 2
        await runtime.send_many([("t", hold())] * 2)
        with pytest.raises(MailboxFull):
            await tenant.send(hold())
        go_on.set()
        await runtime.drain(timeout=PATIENCE)
        await runtime.send_many([("t", hold())] * 2)
        await check_invariants(runtime)


async def _started(runtime: Runtime, number: int) -> bool:
    return (await runtime.tenant("t").stats()).started == number


async def test_a_limit_that_is_lowered_or_lifted_holds_for_the_next_send(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        tenant = runtime.tenant("t")
        await runtime.policies.configure_defaults(backlog=2)
        await runtime.send_many([("t", echo())] * 2)
        with pytest.raises(MailboxFull):
            await tenant.send(echo())
        await tenant.configure(backlog=5)
        await runtime.send_many([("t", echo())] * 3)
        await tenant.configure(backlog=1)
        with pytest.raises(MailboxFull):
            await tenant.send(echo())
        assert await queued(runtime) == 5, "what is there stays"
        await tenant.configure(backlog=float("inf"))
        await runtime.send_many([("t", echo())] * 600)
        assert await queued(runtime) == 605


async def test_a_task_that_is_to_be_tried_again_is_not_refused(make_runtime: Make) -> None:
    went = []

    @actor(max_retries=2, backoff=0.001)
    async def fail_once() -> None:
        went.append(True)
        if len(went) == 1:
            await runtime.send("t", echo())  # takes the remaining room
            raise ValueError

    async with make_runtime(fail_once, echo, workers=1) as runtime:
        await runtime.tenant("t").configure(backlog=1)
        await runtime.ask("t", fail_once(), timeout=PATIENCE)
        await runtime.drain(timeout=PATIENCE)
        await check_invariants(runtime)


# Reservations


async def test_a_send_that_is_given_up_keeps_no_room(make_runtime: Make) -> None:
    async with make_runtime(workers=0) as runtime:
        await runtime.tenant("t").configure(backlog=600)
        messages = [("t", echo(n)) for n in range(600)]
        (shard,) = runtime._shards()
        reserve = shard.reserve

        async def reserve_and_hang(name: str, rooms: dict[str, int], *ids: Any) -> None:
            assert await reserve(name, rooms, *ids) is None
            if any(rooms.values()):
                scope.cancel()
                await anyio.sleep_forever()

        shard.reserve = reserve_and_hang  # type: ignore[method-assign, assignment]
        with anyio.CancelScope() as scope:
            await runtime.send_many(messages)
        shard.reserve = reserve  # type: ignore[method-assign]
        assert await queued(runtime) == 0
        assert len(await runtime.send_many(messages)) == 600


def test_a_reservation_keeps_room_until_it_is_used_given_back_or_expired(url: str) -> None:
    with open_selection(url) as shard:
        driver = shard.driver

        def reserve(name: str, many: int) -> str | None:
            return driver.run(driver.shard.reserve(name, {"free": many, "t": many}))

        shard.configure("t", backlog=5)
        assert reserve("one", 4) is None
        assert reserve("one", 4) is None, "it stands once"
        assert reserve("two", 2) == "t"
        assert driver.send(item("1"), item("2")) == ["1", FULL]
        receipt = driver.run(driver.shard.send([item("3"), item("4"), item("3")], "sender", 7, reservation="one"))
        assert not receipt.refused
        assert reserve("two", 2) == "t", "1, 3 and 4 wait, and one is to come, or was never needed"
        assert reserve("one", 0) is None
        assert reserve("two", 2) is None
        assert reserve("three", 1) == "t"
        assert 0 < driver.db.pttl("{test/0}:reserved:t") <= 60_010
        driver.db.hset("{test/0}:reserved:t", "two", struct.pack(">dd", 2, 1))
        assert reserve("three", 2) is None
        driver.db.delete("{test/0}:reserved:t")  # as if it had expired
        driver.batch = 7
        assert driver.send(item("5"), item("6", flag="+")) == ["5", "6"]
        assert driver.send(item("7")) == [FULL]
        driver.check()


def test_room_for_many_tenants_is_reserved_in_steps(url: str) -> None:
    with open_selection(url) as shard:
        driver = shard.driver
        rooms = dict.fromkeys(("first", *(f"free{n}" for n in range(900)), "last"), 3)

        def reserve() -> tuple[str | None, set[str]]:
            held: set[str] = set()
            return driver.run(driver.shard.reserve("one", rooms, {"last": ["x"]}, held)), held

        assert reserve() == (None, set())  # the server has the script now
        calls = servers.script_calls(driver.db)
        assert reserve() == (None, set())
        assert servers.script_calls(driver.db) == calls + 1, "without policies nobody has a limit"
        shard.configure("first", backlog=3)
        shard.configure("last", backlog=3)
        assert reserve() == (None, {"first", "last"})
        assert sorted(reserved(driver.db)) == [b"{test/0}:reserved:first", b"{test/0}:reserved:last"]
        driver.run(driver.shard.reserve("one", dict.fromkeys(rooms, 0)))
        assert reserved(driver.db) == []
        shard.send(last=1)
        assert reserve() == ("last", {"first"}), "the caller frees what the steps before have reserved"
